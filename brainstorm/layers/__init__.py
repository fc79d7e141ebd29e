"""The layers that come with brainstorm.

Each is a function here, for wiring, and a class ``...LayerImpl`` that does the
work.
"""

from brainstorm.layers.absolute_error_layer import AbsoluteError as AbsoluteError
from brainstorm.layers.add_layer import Add as Add
from brainstorm.layers.attention_layer import Attention as Attention
from brainstorm.layers.base_layer import Layer as Layer
from brainstorm.layers.batch_normalization_layer import BatchNorm as BatchNorm
from brainstorm.layers.bidirectional_layer import Bidirectional as Bidirectional
from brainstorm.layers.binomial_cross_entropy_layer import (
    BinomialCrossEntropy as BinomialCrossEntropy,
)
from brainstorm.layers.clockwork_layer import Clockwork as Clockwork
from brainstorm.layers.clockwork_lstm_layer import ClockworkLstm as ClockworkLstm
from brainstorm.layers.concat_layer import Concat as Concat
from brainstorm.layers.convolution_layer_1d import Convolution1D as Convolution1D
from brainstorm.layers.convolution_layer_2d import Convolution2D as Convolution2D
from brainstorm.layers.convolution_transpose_layer_2d import (
    ConvolutionTranspose2D as ConvolutionTranspose2D,
)
from brainstorm.layers.ctc_layer import Ctc as Ctc
from brainstorm.layers.delay_layer import Delay as Delay
from brainstorm.layers.deltas_scaling_layer import DeltasScaling as DeltasScaling
from brainstorm.layers.dropout_layer import Dropout as Dropout
from brainstorm.layers.elementwise_layer import Elementwise as Elementwise
from brainstorm.layers.embedding_layer import Embedding as Embedding
from brainstorm.layers.fully_connected_layer import FullyConnected as FullyConnected
from brainstorm.layers.global_pooling_layer import GlobalPooling as GlobalPooling
from brainstorm.layers.gru_layer import Gru as Gru
from brainstorm.layers.highway_layer import Highway as Highway
from brainstorm.layers.huber_layer import Huber as Huber
from brainstorm.layers.input_layer import Input as Input
from brainstorm.layers.l1_decay import L1Decay as L1Decay
from brainstorm.layers.l2_decay import L2Decay as L2Decay
from brainstorm.layers.layer_norm_layer import LayerNorm as LayerNorm
from brainstorm.layers.leaky_layer import Leaky as Leaky
from brainstorm.layers.lif_layer import Lif as Lif
from brainstorm.layers.log_softmax_layer import LogSoftmax as LogSoftmax
from brainstorm.layers.loss_layer import Loss as Loss
from brainstorm.layers.lstm_layer import Lstm as Lstm
from brainstorm.layers.mask_layer import Mask as Mask
from brainstorm.layers.merge_layer import Merge as Merge
from brainstorm.layers.multiply_layer import Multiply as Multiply
from brainstorm.layers.noop_layer import NoOp as NoOp
from brainstorm.layers.nvar_layer import Nvar as Nvar
from brainstorm.layers.pooling_layer_2d import Pooling2D as Pooling2D
from brainstorm.layers.positional_encoding_layer import (
    PositionalEncoding as PositionalEncoding,
)
from brainstorm.layers.recurrent_layer import Recurrent as Recurrent
from brainstorm.layers.recurrent_lif_layer import RecurrentLif as RecurrentLif
from brainstorm.layers.reservoir_layer import Reservoir as Reservoir
from brainstorm.layers.reshape_layer import Reshape as Reshape
from brainstorm.layers.sigmoid_ce_layer import SigmoidCE as SigmoidCE
from brainstorm.layers.slice_layer import Slice as Slice
from brainstorm.layers.softmax_ce_layer import SoftmaxCE as SoftmaxCE
from brainstorm.layers.softmax_layer import Softmax as Softmax
from brainstorm.layers.squared_difference_layer import (
    SquaredDifference as SquaredDifference,
)
from brainstorm.layers.squared_error_layer import SquaredError as SquaredError
from brainstorm.layers.time_pooling_layer import TimePooling as TimePooling
from brainstorm.layers.upsample_layer_2d import Upsample2D as Upsample2D
from brainstorm.utils import offer

offer(vars(), but=["Layer"])
