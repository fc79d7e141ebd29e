"""Name of version 0.5 for :mod:`brainstorm.layers.l1_decay_layer`."""

from brainstorm.layers.l1_decay_layer import L1Decay, L1DecayLayerImpl

__all__ = ["L1Decay", "L1DecayLayerImpl"]
