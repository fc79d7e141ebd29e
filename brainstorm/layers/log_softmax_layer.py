"""The logarithm of softmax."""

from brainstorm.layers.softmax_layer import SoftmaxRows
from brainstorm.structure.construction import ConstructionWrapper


def LogSoftmax(name: str | None = None) -> ConstructionWrapper:
    """A layer for logarithms of probabilities, exact also where these are tiny."""
    return ConstructionWrapper.create(LogSoftmaxLayerImpl, name=name)


class LogSoftmaxLayerImpl(SoftmaxRows):
    """Computes ``y = x - log(sum(exp(x)))`` over the last dimension.

    ======== ======== ============== ==========================
    buffer   name     shape          content
    ======== ======== ============== ==========================
    inputs   default  (T, B, ..., C) x
    outputs  default  as x           y, at most 0
    ======== ======== ============== ==========================
    """

    repeats = True
    operation = "log_softmax"
