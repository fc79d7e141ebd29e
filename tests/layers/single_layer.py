"""Runs one layer on given values, for comparing it with a formula."""

import numpy as np

from brainstorm import layers
from brainstorm.handlers import NumpyHandler
from brainstorm.structure.network import Network


class SingleLayer:
    """A network of one layer, in float64.

    ``run.y`` is the output named default, ``run['internals.mask']`` any buffer.
    """

    def __init__(self, layer, inputs, parameters=None, handler=None):
        self.inputs = {n: np.asarray(v, float) for n, v in inputs.items()}
        shapes = {n: ("T", "B", *v.shape[2:]) for n, v in self.inputs.items()}
        inp = layers.Input(shapes)
        for name in self.inputs:
            inp - name >> name - layer
        self.name = layer.name
        self.net = Network.from_layer(layer)
        self.net.set_handler(handler or NumpyHandler(np.float64))
        for name, value in (parameters or {}).items():
            self.set(f"parameters.{name}", value)

    def set(self, path, value):
        buffer = self.net.buffer[self.name][path]
        value = np.broadcast_to(np.asarray(value, float), buffer.shape)
        self.net.handler.set_from_numpy(buffer, value)

    def forward(self, training_pass=True):
        self.net.provide_external_data(self.inputs)
        self.net.forward_pass(training_pass)
        return self

    def backward(self, **deltas):
        """Run the backward pass of the layer with these output deltas."""
        self.net.backward_pass()  # clears
        for path in ("input_deltas", "gradients"):
            for name, _ in self.net.buffer[self.name][path].items():
                self.set(f"{path}.{name}", 0.0)
        for name, value in deltas.items():
            self.set(f"output_deltas.{name}", value)
        layer = self.net.layers[self.name]
        layer.fresh = frozenset()
        layer.backward_pass(self.net.buffer[self.name])
        return self

    def __getitem__(self, path):
        return self.net.get(f"{self.name}.{path}")

    @property
    def y(self):
        return self["outputs.default"]


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)
