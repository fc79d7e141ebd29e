"""Everything in one flat namespace: ``from brainstorm.all import *``.

The helpers of `brainstorm.utils` are not among it, but the exceptions are.
"""

from brainstorm import *  # noqa: F403
from brainstorm import utils as _utils
from brainstorm.describable import *  # noqa: F403
from brainstorm.handlers import *  # noqa: F403
from brainstorm.hooks import *  # noqa: F403
from brainstorm.layers import *  # noqa: F403
from brainstorm.randomness import *  # noqa: F403
from brainstorm.scorers import *  # noqa: F403
from brainstorm.tools import *  # noqa: F403
from brainstorm.training import *  # noqa: F403

# L1Decay and L2Decay are layers too; as in `brainstorm` itself the modifiers win.
from brainstorm.value_modifiers import *  # type: ignore[assignment]  # noqa: F403

globals().update({n: getattr(_utils, n) for n in _utils.__all__ if n.endswith("Error")})
