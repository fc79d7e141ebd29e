"""Random networks, with data and something to do, made from a seed.

Nothing in them is random while they run, and nothing that they compute leaps where a
value changes by a rounding error.
"""

import json
from typing import NamedTuple

import numpy as np

from brainstorm import layers, training
from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.operations.activations import ACTIVATIONS
from brainstorm.initializers import Gaussian
from brainstorm.structure.network import Network
from brainstorm.utils import NetworkValidationError

WITH_KINKS = ("rel", "leaky_rel", "hard_swish", "hard_sigmoid", "relu6")
SMOOTH = [a for a in ACTIVATIONS if a not in WITH_KINKS]


class Step(NamedTuple):
    """One thing to do with a network."""

    what: str  # 'train', 'backward' or 'evaluate'
    time_size: int
    batch_size: int
    carry: bool  # whether to go on from the state of the step before, if it fits
    thread: bool  # whether to do it in a thread of its own
    twice: bool  # whether to run forward twice
    seed: int  # of the data


class Case:
    """A network that can be made on any handler, and what to do with it.

    Attributes:
        seed (int): All else follows from it.
        architecture (dict): Of the network.
        steps (list[Step]): What to do.
    """

    def __init__(self, seed):
        self.seed = seed
        self.rnd = np.random.RandomState(seed)
        while True:  # some wirings allow no order of outputs
            try:
                self.architecture = _Wiring(self.rnd).architecture()
                break
            except NetworkValidationError as error:
                if "no order" not in str(error):
                    raise
        self.architecture = _with_feedback(seed, self.architecture)
        self.shapes = self.architecture["Input"]["out_shapes"]
        self.stepper, self.arguments = _pick(self.rnd, STEPPERS)
        # Sizes come back: what was kept for one has to be right again.
        self.sizes = [(int(s), int(_pick(self.rnd, [1, 2, 3, 9]))) for s in (1, 3, 5)]
        self.steps = [self._step() for _ in range(8)]

    def _step(self):
        rnd = self.rnd
        what = _pick(rnd, ["train", "train", "backward", "evaluate"])
        carry, thread, twice = (bool(c) for c in rnd.rand(3) < (0.5, 0.2, 0.2))
        seed = int(rnd.randint(10**6))
        return Step(what, *_pick(rnd, self.sizes), carry, thread, twice, seed)

    def network(self, handler):
        """The network with its initial parameters."""
        net = Network.from_architecture(json.loads(json.dumps(self.architecture)))
        net.set_handler(NumpyHandler(np.float64))
        net.initialize(Gaussian(0.4), seed=self.seed)
        rnd = np.random.RandomState(self.seed)
        for name in net.layers:
            if "parameters" not in net.buffer[name]:
                continue
            for parameter, values in net.buffer[name].parameters.items():
                if parameter.endswith("timing"):
                    values[...] = rnd.randint(1, 4, values.shape)
                if parameter == "sigma":
                    values[...] = 1.0
        net.set_handler(handler)
        return net

    def make_stepper(self):
        return getattr(training, self.stepper)(**self.arguments)

    def data(self, step):
        """Values for the inputs of the network."""
        rnd = np.random.RandomState(step.seed)
        data = {}
        for name, (_, _, *features) in self.shapes.items():
            shape = (step.time_size, step.batch_size, *features)
            if name == "mask":
                data[name] = (rnd.rand(*shape) < 0.8).astype(float)
            elif name == "targets":
                data[name] = rnd.randint(3, size=shape).astype(float)
            else:
                data[name] = rnd.randn(*shape)
        return data

    def __str__(self):
        lines = [f"Case({self.seed})", json.dumps(self.architecture), f"{self.stepper}"]
        return "\n".join([*lines, *map(str, self.steps)])


# A large epsilon: else gradients of zero but for rounding move parameters at random.
STEPPERS = [
    ("SgdStepper", {"learning_rate": 0.05}),
    ("MomentumStepper", {"learning_rate": 0.1, "momentum": 0.7}),
    ("NesterovStepper", {"learning_rate": 0.1, "momentum": 0.7}),
    ("AdamStepper", {"learning_rate": 0.01, "epsilon": 0.1}),
    ("AdamWStepper", {"learning_rate": 0.01, "epsilon": 0.1}),
    ("RmsPropStepper", {"learning_rate": 0.01, "epsilon": 0.1}),
    ("AdaGradStepper", {"learning_rate": 0.01, "epsilon": 0.1}),
    ("AdaDeltaStepper", {"learning_rate": 0.1, "epsilon": 0.1}),
]


def _pick(rnd, choices):
    return choices[rnd.randint(len(choices))]


def _with_feedback(seed, architecture):
    """An architecture with feedback, where it is allowed; not always."""
    rnd = np.random.RandomState(seed)
    names = [name for name in architecture if name != "Input"]
    for _ in range(rnd.randint(12)):
        changed = json.loads(json.dumps(architecture))
        feedback = changed[_pick(rnd, names)].setdefault("@feedback_connections", {})
        feedback.setdefault("default", []).append(f"{_pick(rnd, names)}.default")
        try:
            Network.from_architecture(changed)
            architecture = changed
        except NetworkValidationError:
            continue
    return architecture


class _Wiring:
    """Wires a network layer by layer.

    Attributes:
        nodes (list): Layers that others can be put on, with their feature shapes.
        leaves (list): Those that nothing has been put on.
        made (list): Layers with parameters: type, arguments, shape of input, layer.
    """

    def __init__(self, rnd):
        self.rnd = rnd
        shape = _pick(rnd, [(3,), (5,), (2, 3), (4, 5, 2)])
        shapes = {"default": shape, "targets": (1,), "mask": (1,)}
        self.masked = rnd.rand() < 0.4
        if not self.masked:
            del shapes["mask"]
        self.input = layers.Input({n: ("T", "B", *s) for n, s in shapes.items()})
        self.nodes, self.leaves, self.made = [(self.input, shape)], [], []

    def architecture(self):
        for _ in range(self.rnd.randint(2, 7)):
            choices = [self.put_layer, self.put_layer, self.put_pair, self.put_shared]
            _pick(self.rnd, choices)()
        self.put_losses()
        return Network.from_layer(self.input).architecture

    def node(self):
        """Rather a late one than an early one."""
        index = max(self.rnd.randint(len(self.nodes), size=2))
        return self.nodes[index]

    def add(self, layer, shape, *below):
        self.leaves = [leaf for leaf in self.leaves if leaf[0] not in below]
        self.nodes.append((layer, shape))
        self.leaves.append((layer, shape))

    def put_layer(self):
        below, shape = self.node()
        name, kwargs, out = _pick(self.rnd, self.kinds(shape))
        layer = self.make(name, kwargs)
        below >> layer
        if name in WITH_PARAMETERS:
            self.made.append((name, kwargs, shape, layer, out))
        if name == "Mask" or (name == "Bidirectional" and self.masked):
            self.input - "mask" >> "mask" - layer
        self.add(layer, out, below)

    def put_shared(self):
        """A layer with the parameters of another one, or with some of them."""
        if not self.made:
            return self.put_layer()
        name, kwargs, shape, owner, out = _pick(self.rnd, self.made)
        fitting = [node for node in self.nodes if node[1] == shape]
        below, _ = _pick(self.rnd, fitting)
        layer = self.make(name, kwargs)
        if name in ("FullyConnected", "Recurrent") and self.rnd.rand() < 0.3:
            layer.share(owner, "W")
        else:
            layer.share(owner)
        below >> layer
        if name == "Bidirectional" and self.masked:
            self.input - "mask" >> "mask" - layer
        return self.add(layer, out, below)

    def put_pair(self):
        """Join two outputs."""
        (first, shape), (second, other) = self.node(), self.node()
        same = [node for node in self.nodes if node[1] == shape]
        name = _pick(self.rnd, ["Add", "Concat", "SquaredDifference", "Highway", ""])
        if name == "Highway":
            layer = layers.Highway()
            for place in ("H", "T", "x"):
                _pick(self.rnd, same)[0] >> place - layer
            return self.add(layer, shape, first)
        if name in ("Add", "SquaredDifference"):
            layer = getattr(layers, name)()
            second, other = _pick(self.rnd, same)
        elif name == "Concat" and shape[:-1] == other[:-1]:
            layer = layers.Concat()
        elif first.layer is not second.layer:
            # Two outputs into one input lie side by side.
            layer = layers.FullyConnected(3, self.activation())
            first >> layer
            second >> layer
            return self.add(layer, (3,), first, second)
        else:
            return self.put_layer()
        first >> "inputs_1" - layer
        second >> "inputs_2" - layer
        last = shape[-1] + other[-1] if name == "Concat" else shape[-1]
        return self.add(layer, (*shape[:-1], last), first, second)

    def put_losses(self):
        parts = []
        for k, (leaf, _) in enumerate(self.leaves):
            part = layers.FullyConnected(3, "linear", name=f"part{k}")
            leaf >> part
            parts.append(part)
        top = parts[0]
        if len(parts) > 1:
            top = layers.Add()
            for k, part in enumerate(parts, 1):
                part >> f"inputs_{k}" - top
        error = layers.SoftmaxCE(name="Output")
        top >> error
        self.input - "targets" >> "targets" - error
        loss = layers.Loss(float(self.rnd.uniform(0.5, 2)))
        if self.masked:
            mask = layers.Mask()
            error - "loss" >> mask
            self.input - "mask" >> "mask" - mask
            mask >> loss
        else:
            error - "loss" >> loss
        if self.rnd.rand() < 0.3:
            decay = layers.L2Decay()
            self.node()[0] >> decay
            decay - "loss" >> layers.Loss(0.1, name="decay")

    # -- kinds of layers --------------------------------------------------------

    def activation(self):
        return _pick(self.rnd, SMOOTH)

    def make(self, name, kwargs):
        if name == "Bidirectional":
            kind, arguments = kwargs
            return layers.Bidirectional(getattr(layers, kind)(**arguments))
        return getattr(layers, name)(**kwargs)

    def kinds(self, shape):
        """Type, arguments and feature shape of the output of all that fits."""
        size, act = int(_pick(self.rnd, [2, 4, 7])), {"activation": self.activation()}
        rnn = self.recurrent(size)
        found = [
            ("FullyConnected", {"size": size, **act}, (size,)),
            ("FullyConnected", {"size": size, "bias": False}, (size,)),
            *((name, kwargs, (size,)) for name, kwargs in rnn),
            ("Bidirectional", _pick(self.rnd, rnn), (2 * size,)),
            ("Elementwise", act, shape),
            ("NoOp", {}, shape),
            ("Delay", {"steps": 2}, shape),
            ("Nvar", {"delay": 2, "stride": 2}, (2 * int(np.prod(shape)),)),
            ("DeltasScaling", {"factor": -0.5}, shape),
            ("BatchNorm", {"decay": 0.9, "epsilon": 0.1}, shape),
            ("LayerNorm", {"epsilon": 0.1}, shape),
        ]
        found += [
            ("Delay", {"steps": int(_pick(self.rnd, [1, 2, 4]))}, shape),
            ("Leaky", {"tau": 3.0, **_pick(self.rnd, LEAKS)}, shape),
        ]
        n = 2 * int(np.prod(shape))
        if n <= 4:
            nvar = {"delay": 2, "order": 2, "stride": int(_pick(self.rnd, [1, 2]))}
            found.append(("Nvar", nvar, (n + n * (n + 1) // 2,)))
        if self.masked:
            found.append(("Mask", {}, shape))
        if len(shape) == 3 and min(shape[:2]) >= 2:
            h, w, c = shape
            window = {"kernel_size": (2, 2)}
            found += 3 * [
                (
                    "Convolution2D",
                    {"num_filters": 3, **window, **act},
                    (h - 1, w - 1, 3),
                ),
                ("Pooling2D", {"type": "max", **window}, (h - 1, w - 1, c)),
                ("Pooling2D", {"type": "avg", **window}, (h - 1, w - 1, c)),
                ("GlobalPooling", {"type": "avg"}, (c,)),
            ]
        return found

    def recurrent(self, size):
        options = {
            "size": size,
            "bias": self.rnd.rand() < 0.7,
            "initial_state": _pick(self.rnd, ["zeros", "zeros", "learned"]),
        }
        if self.rnd.rand() < 0.5:
            options["activation"] = self.activation()
        peepholes = {"peepholes": self.rnd.rand() < 0.5}
        return [
            ("Lstm", {**options, **peepholes}),
            ("Lstm", {"size": size}),
            ("Gru", options),
            ("Recurrent", options),
            ("Clockwork", options),
            ("ClockworkLstm", options),
        ]


LEAKS = [{"gain": "integrate"}, {"gain": "input", "learn_tau": True}]

WITH_PARAMETERS = {
    *("FullyConnected", "Convolution2D", "Lstm", "Gru", "Recurrent", "Clockwork"),
    *("ClockworkLstm", "Bidirectional", "BatchNorm", "LayerNorm"),
}
