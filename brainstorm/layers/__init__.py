"""The layers that come with brainstorm.

Each is a function here, for wiring, and a class ``...LayerImpl`` that does the
work.
"""

from brainstorm.layers.add_layer import Add
from brainstorm.layers.base_layer import Layer as Layer
from brainstorm.layers.batch_normalization_layer import BatchNorm
from brainstorm.layers.bidirectional_layer import Bidirectional
from brainstorm.layers.binomial_cross_entropy_layer import BinomialCrossEntropy
from brainstorm.layers.clockwork_layer import Clockwork
from brainstorm.layers.clockwork_lstm_layer import ClockworkLstm
from brainstorm.layers.concat_layer import Concat
from brainstorm.layers.convolution_layer_2d import Convolution2D
from brainstorm.layers.ctc_layer import Ctc
from brainstorm.layers.delay_layer import Delay
from brainstorm.layers.deltas_scaling_layer import DeltasScaling
from brainstorm.layers.dropout_layer import Dropout
from brainstorm.layers.elementwise_layer import Elementwise
from brainstorm.layers.embedding_layer import Embedding
from brainstorm.layers.fully_connected_layer import FullyConnected
from brainstorm.layers.global_pooling_layer import GlobalPooling
from brainstorm.layers.gru_layer import Gru
from brainstorm.layers.highway_layer import Highway
from brainstorm.layers.input_layer import Input
from brainstorm.layers.l1_decay import L1Decay
from brainstorm.layers.l2_decay import L2Decay
from brainstorm.layers.layer_norm_layer import LayerNorm
from brainstorm.layers.leaky_layer import Leaky
from brainstorm.layers.lif_layer import Lif
from brainstorm.layers.loss_layer import Loss
from brainstorm.layers.lstm_layer import Lstm
from brainstorm.layers.mask_layer import Mask
from brainstorm.layers.merge_layer import Merge
from brainstorm.layers.noop_layer import NoOp
from brainstorm.layers.nvar_layer import Nvar
from brainstorm.layers.pooling_layer_2d import Pooling2D
from brainstorm.layers.recurrent_layer import Recurrent
from brainstorm.layers.recurrent_lif_layer import RecurrentLif
from brainstorm.layers.reservoir_layer import Reservoir
from brainstorm.layers.reshape_layer import Reshape
from brainstorm.layers.sigmoid_ce_layer import SigmoidCE
from brainstorm.layers.softmax_ce_layer import SoftmaxCE
from brainstorm.layers.squared_difference_layer import SquaredDifference
from brainstorm.layers.squared_error_layer import SquaredError
from brainstorm.layers.time_pooling_layer import TimePooling
from brainstorm.utils import hinting

__all__ = [
    "Add",
    "BatchNorm",
    "Bidirectional",
    "BinomialCrossEntropy",
    "Clockwork",
    "ClockworkLstm",
    "Concat",
    "Convolution2D",
    "Ctc",
    "Delay",
    "DeltasScaling",
    "Dropout",
    "Elementwise",
    "Embedding",
    "FullyConnected",
    "GlobalPooling",
    "Gru",
    "Highway",
    "Input",
    "L1Decay",
    "L2Decay",
    "LayerNorm",
    "Leaky",
    "Lif",
    "Loss",
    "Lstm",
    "Mask",
    "Merge",
    "NoOp",
    "Nvar",
    "Pooling2D",
    "Recurrent",
    "RecurrentLif",
    "Reservoir",
    "Reshape",
    "SigmoidCE",
    "SoftmaxCE",
    "SquaredDifference",
    "SquaredError",
    "TimePooling",
]

__getattr__ = hinting(__name__, __all__)
