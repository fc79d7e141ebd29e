"""Name of version 0.5 for :mod:`brainstorm.layers.l2_decay_layer`."""

from brainstorm.layers.l2_decay_layer import L2Decay, L2DecayLayerImpl

__all__ = ["L2Decay", "L2DecayLayerImpl"]
