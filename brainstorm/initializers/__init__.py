"""Initial values of parameters.

An initializer is called with a shape and returns a float64 array of that
shape. Where weights are concerned the first dimension counts the units of the
layer, and all others their inputs.

:meth:`Network.initialize <brainstorm.structure.network.Network.initialize>`
takes an initializer, a number, an array or a function ``shape -> array``.
"""

from brainstorm.initializers.base import *  # noqa: F403
from brainstorm.initializers.independent import *  # noqa: F403
from brainstorm.initializers.matrices import *  # noqa: F403
from brainstorm.utils import offer

offer(vars())
