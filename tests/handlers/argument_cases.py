"""Arguments for every operation, made from what it is declared to expect."""

import inspect

import numpy as np

from brainstorm.handlers.base_handler import OPERATIONS, Handler
from brainstorm.handlers.operations.contract import fresh_flag
from brainstorm.handlers.operations.spiking import Neuron
from tests.handlers.handler_cases import in_records

SIZES = {
    **{"M": 3, "N": 4, "I": 5, "C": 6, "A": 2, "B": 3, "T": 4, "V": 7},
    **{"F": 2, "H": 6, "W": 5, "K": 3, "L": 2, "P": 6, "Q": 6, "D": 6},
    **{"*S": (3, 2, 5), "*L": (2, 3), "*R": ()},
}
GATES = {"lstm": 4, "gru": 3}
SHAPES = {
    "dot_mm": {"P": 3, "Q": 5, "R": 5, "S": 4},
    "sum_t": {"*S": (5, 3), "*R": (1, 3)},
    "broadcast_t": {"*S": (2, 1, 3), "*R": (2, 4, 3)},
}
SHAPES["nvar"] = {"L": 3, "Q": 1 + 3 + 6 + 15}
for _name in ("dot_add_mm", "batch_dot_mm", "batch_dot_add_mm"):
    SHAPES[_name] = SHAPES["dot_mm"]
SHAPES |= {name: {"T": 3, "B": 2, "I": 2, "N": 3} for name in GATES}
SCALARS = {
    **{"s": 0.3, "val": 0.4, "a_min": -0.2, "a_max": 0.4, "axis": 0},
    **{"mean": 0.1, "std": 0.2, "probability": 0.6, "drop_prob": 0.3},
    **{"learning_rate": 0.1, "momentum": 0.9, "limit": 0.5, "decay": 0.9},
    **{"epsilon": 1e-3, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1},
    **{"update_nr": 3, "activation": "tanh", "padding": 1, "stride": (1, 1)},
    **{"window": (3, 2), "threshold": 0.2, "surrogate": "erf", "parameters": (1.5,)},
    "neuron": Neuron(0.2, 0.1, 1.5, -0.3, False, False, 2, "sigmoid", (2.0,)),
    **{"orders": (2, 4), "constant": True, "heads": 2, "causal": True},
    **{"dilation": (1, 1), "groups": 1},
}
INDICES = {"targets", "indices"}
# Arguments that have to be positive.
POSITIVE = {"sigma", "sigma_b", "variance", "mean_square", "mean_square_step"}
POSITIVE |= {"sum_of_squares"}


class Case:
    """Values for one call of an operation.

    Args:
        name: The operation.
        fresh: Whether destinations are to be overwritten, where there is a choice.
        without_optional: Whether optional arrays are left out.
        empty: A letter of the declared shapes, which is to be zero.

    Attributes:
        arrays: For each array argument, in the order of the signature, its values.
        others: All other arguments.
    """

    def __init__(self, name, fresh=False, without_optional=False, empty=None):
        self.name = name
        self.spec = OPERATIONS[name]
        self.fresh = fresh
        self.rnd = np.random.RandomState(1)
        declared = {**self.spec.read, **self.spec.write, **self.spec.add}
        self.sizes = self._sizes(empty)
        self.arrays, self.others, self.carried = {}, {}, set()
        signature = inspect.signature(getattr(Handler, name))
        for argument in list(signature.parameters)[1:]:
            names = [n for n in declared if n.partition(".")[0] == argument]
            for array in names:
                shape = self.shape(declared[array])
                optional = {argument, array} & self.spec.optional
                if declared[array].startswith("U") or array == "c":
                    self.carried.add(array)
                if array == "cells.Hb" and optional:
                    self.others[array] = None  # there is only for leaks
                elif optional and without_optional:
                    self.others[min(optional, key=len)] = None
                else:
                    self.arrays[array] = self.values(array, shape)
            if names:
                pass
            elif argument.startswith("fresh"):
                self.others[argument] = fresh
            elif argument in SCALARS:
                self.others[argument] = SCALARS[argument]
                if name == "broadcast_t":
                    self.others[argument] = 1
            elif argument == "arr":
                self.others[argument] = self.rnd.randn(*self.sizes["*S"])
        # Derivatives may use one of these alone.
        for argument in ("x", "y"):
            if argument in signature.parameters and argument not in self.arrays:
                self.others[argument] = None
        if without_optional and "activation" in self.others:
            self.others["activation"] = "linear"
        if name == "batch_norm_backward":
            self.arrays["x_hat"] = self.arrays["centered"] / self.arrays["sigma_b"]

    def _sizes(self, empty):
        sizes = SIZES | next(
            (s for start, s in SHAPES.items() if self.name.startswith(start)), {}
        )
        if empty is not None:
            size = sizes[empty]
            sizes[empty] = 0 if isinstance(size, int) else (0, *size[1:])
            self._follow(sizes, empty)
        sizes["U"] = sizes["T"] + 1
        if self.name.endswith("_outputs"):
            sizes["S"] = min(sizes["U"], 2)
        sizes["G"] = sizes["N"] * next(
            (n for start, n in GATES.items() if self.name.startswith(start)), 1
        )
        return sizes

    def _follow(self, sizes, empty):
        """Let other sizes of the operation be what an empty one makes of them."""
        if "dot_" in self.name:
            other = {"Q": "R", "R": "Q"}.get(empty)
            if other:
                sizes[other] = 0
        elif self.name.startswith("conv2d") and empty in ("C", "D"):
            sizes["C"] = sizes["D"] = 0
        elif self.name == "broadcast_t":
            sizes["*S"], sizes["*R"] = (0, 1, 3), (0, 4, 3)

    def shape(self, declared):
        dims = ()
        for part in declared.split("|")[0].split(","):
            if "+" in part:
                size = sum(self.sizes[p] for p in part.split("+"))
            else:
                size = int(part) if part.isdigit() else self.sizes[part]
            if "dot_" in self.name and part in ("M", "N"):
                size = self.sizes["P" if part == "M" else "S"]
            dims += size if isinstance(size, tuple) else (size,)
        return dims

    def values(self, argument, shape):
        rnd, argument = self.rnd, argument.rpartition(".")[2]
        is_index = argument in INDICES or self.name in ("binarize_v", "index_m_by_v")
        if is_index and argument not in ("m", "out"):
            if self.name.startswith("sigmoid"):
                return rnd.rand(*shape)
            if self.name.startswith("ctc"):
                labels = np.zeros(shape)
                labels[:1] = 1
                return labels
            choices = {"indices": "V"}.get(argument)
            count = self.sizes[choices or ("C" if argument == "targets" else "N")]
            return rnd.randint(0, max(count, 1), shape).astype(float)
        if argument == "lengths":
            return np.full(shape, max(self.sizes["T"] - 1, 0)) * 1.0
        if argument == "timing":
            return rnd.randint(1, 3, shape).astype(float)
        if argument in ("step", "left"):
            return np.full(shape, 2.0)
        if argument in ("mask", "cond", "known"):
            return rnd.randint(0, 2, shape).astype(float)
        if argument == "argmax":
            return rnd.randint(0, 6, shape).astype(float)
        values = rnd.uniform(0.25, 1, shape)
        if argument not in POSITIVE and self.name not in ("log_t", "sqrt_t"):
            values *= np.sign(rnd.randn(*shape))
        return values

    def is_overwritten(self, argument):
        """Whether what a destination held does not matter."""
        fresh = self.others.get(fresh_flag(argument), False)
        # Arrays with a carried state are read there.
        return (argument in self.spec.write or fresh) and argument not in self.carried

    def run(self, handler, arrays):
        """Call the operation with handler arrays, and return what it returns."""
        arguments = in_records(self.name, {**arrays, **self.others})
        return getattr(handler, self.name)(**arguments)
