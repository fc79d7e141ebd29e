"""Batch normalisation over a batch of which several processes have parts.

As the operations of the same names of handlers, but that what is a mean over the rows
becomes one over the rows of all parts.
"""


def whole_batch_norm_forward(
    h, exchange, x, gamma, beta, mu, sigma, sigma_b, centered, x_hat, y, decay, epsilon
):
    """See `NormalisationOperations.batch_norm_forward`."""
    rows, per_row = (1, x.shape[1]), 1.0 / x.shape[0]
    gamma, beta = gamma.reshape(rows), beta.reshape(rows)
    mu, sigma, sigma_b = mu.reshape(rows), sigma.reshape(rows), sigma_b.reshape(rows)
    mean = h.scratch(rows, 2)
    h.sum_t(x, 0, mean)
    h.mult_st(-per_row, mean, mean)
    h.do(exchange.average, mean)
    h.add_mv(x, mean, centered)
    h.mult_tt(centered, centered, x_hat)
    h.sum_t(x_hat, 0, sigma_b)
    h.mult_st(per_row, sigma_b, sigma_b)
    h.do(exchange.average, sigma_b)
    h.add_st(epsilon, sigma_b, sigma_b)
    h.sqrt_t(sigma_b, sigma_b)
    for running, now in ((mu, mean), (sigma, sigma_b)):
        h.mult_st(decay, running, running)
        h.mult_add_st(1.0 - decay, now, running)
    h.divide_mv(centered, sigma_b, x_hat)
    h.mult_mv(x_hat, gamma, y)
    h.add_mv(y, beta, y)


def whole_batch_norm_backward(
    h,
    exchange,
    gamma,
    sigma_b,
    centered,
    x_hat,
    dy,
    dx,
    dgamma,
    dbeta,
    fresh_dx=False,
    fresh_gradients=False,
):
    """See `NormalisationOperations.batch_norm_backward`."""
    rows, per_row = (1, dy.shape[1]), 1.0 / dy.shape[0]
    sums = h.scratch((2, dy.shape[1]), 2)
    work, factor = h.scratch(dy.shape, 3), h.scratch(rows, 4)
    h.mult_tt(dy, x_hat, work)
    h.sum_t(work, 0, sums[0:1])
    h.sum_t(dy, 0, sums[1:2])
    for i, gradient in enumerate((dgamma, dbeta)):
        gradient = gradient.reshape(rows)
        if fresh_gradients:
            h.copy_to(sums[i : i + 1], gradient)
        else:
            h.add_tt(sums[i : i + 1], gradient, gradient)
    h.mult_st(-per_row, sums, sums)
    # Also where no deltas are wanted: the other processes do so, too.
    h.do(exchange.average_deltas, sums)
    if dx is None:
        return
    h.mult_mv(x_hat, sums[0:1], work)
    h.add_mv(work, sums[1:2], work)
    h.add_tt(work, dy, work)
    h.divide_tt(gamma.reshape(rows), sigma_b.reshape(rows), factor)
    multiply = h.mult_mv if fresh_dx else h.mult_add_mv
    multiply(work, factor, dx)
