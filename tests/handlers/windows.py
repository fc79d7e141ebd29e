"""The windows that convolution and pooling see of images."""

import numpy as np
from hypothesis import strategies as st

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
strides = st.tuples(st.integers(1, 4), st.integers(1, 4))


def windows(x, window, stride, padding):
    """Each output's place, and the slices of the padded images that it sees."""
    height, width = (x.shape[1 + i] + 2 * padding - window[i] for i in (0, 1))
    for i, top in enumerate(range(0, height + 1, stride[0])):
        for j, left in enumerate(range(0, width + 1, stride[1])):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            yield (slice(None), i, j), (slice(None), rows, columns)


def output_size(x, window, stride, padding):
    return tuple(
        (x.shape[1 + i] + 2 * padding - window[i]) // stride[i] + 1 for i in (0, 1)
    )


def pad(x, padding, value=0.0):
    p = (padding, padding)
    return np.pad(x, ((0, 0), p, p, (0, 0)), constant_values=value)


def unpad(x, padding):
    return x[:, padding : x.shape[1] - padding, padding : x.shape[2] - padding]
