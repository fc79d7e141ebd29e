"""Data iterators: how the data is cut into batches, and how it is augmented.

A data iterator is called with a handler and yields one dict per batch that maps
the name of each data item to an array of shape ``(T, B, ...)``: T time steps of B
sequences. It can be iterated over any number of times. `Undivided`, `Online` and
`Minibatches` hold the data; the others wrap another iterator and change some of
its items:

>>> import numpy as np
>>> images = np.zeros((1, 50, 28, 28, 1), dtype=np.float32)
>>> batches = Pad(Minibatches(20, shuffle=False, default=images), {'default': 2})
>>> batches.length, batches.data_shapes
(3, {'default': (1, 50, 32, 32, 1)})
>>> [batch['default'].shape[1] for batch in batches()]
[20, 20, 10]

The data are NumPy arrays, of which the batches are views, or h5py datasets, which
are read batch by batch. Arrays that are yielded are not to be written to. Data and
arguments that do not fit raise an IteratorValidationError, which says what would.
"""

from brainstorm.data_iterators.base import DataIterator as DataIterator
from brainstorm.data_iterators.changing import *  # noqa: F403
from brainstorm.data_iterators.encoding import *  # noqa: F403
from brainstorm.data_iterators.holding import *  # noqa: F403
from brainstorm.data_iterators.prefetching import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())
