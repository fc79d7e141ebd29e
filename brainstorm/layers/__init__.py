"""The layers that come with brainstorm.

Each is a function here, for wiring, and a class ``...LayerImpl`` that does the
work.
"""

from brainstorm.layers.dropout_layer import Dropout
from brainstorm.layers.elementwise_layer import Elementwise
from brainstorm.layers.fully_connected_layer import FullyConnected
from brainstorm.layers.input_layer import Input
from brainstorm.layers.loss_layer import Loss
from brainstorm.layers.mask_layer import Mask
from brainstorm.layers.noop_layer import NoOp
from brainstorm.layers.sigmoid_ce_layer import SigmoidCE
from brainstorm.layers.softmax_ce_layer import SoftmaxCE
from brainstorm.layers.squared_error_layer import SquaredError

__all__ = [
    "Dropout",
    "Elementwise",
    "FullyConnected",
    "Input",
    "Loss",
    "Mask",
    "NoOp",
    "SigmoidCE",
    "SoftmaxCE",
    "SquaredError",
]
