"""Well-known data sets, made when they are first used.

``datasets.load('MNIST')`` downloads MNIST, writes it to an HDF5 file in the layout that
data iterators take, and opens that; the next time it is there. `Digits` and
`PythonText` need no download. The files are kept in `data_folder`.

>>> from brainstorm import Minibatches, datasets
>>> data = datasets.load('MNIST')                           # doctest: +SKIP
>>> batches = Minibatches(100, **data['training'])          # doctest: +SKIP
"""

from brainstorm.datasets.catalogue import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())
