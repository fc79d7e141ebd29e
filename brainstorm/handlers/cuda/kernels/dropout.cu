// (x, mask, y)
ELEMENTWISE(dropout_forward, b = uniform(scalars, index) < s ? t : 0.0f; c = a * b)
