"""An echo state network beside those of ReservoirPy and BrainPy.

``python -m benchmarks.reservoirs``: 500 units run over 10,000 steps of a series, and a
readout is fitted by ridge regression; and our closed loops. Libraries that are not
installed are left out. Each has a process of its own, and all take turns.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.turns import OURS, Step, main

UNITS, STEPS, LEAK, RADIUS, RIDGE, WARMUP = 500, 10_000, 0.3, 1.25, 1e-6, 100
LOOP_STEPS = 1000


def series() -> np.ndarray:
    """Mackey-Glass (T + 1, 1)."""
    import brainstorm as bs

    return bs.tools.mackey_glass(STEPS + 1)[:, 0]


def network(handler: str):
    import brainstorm as bs
    from brainstorm import layers

    inp = layers.Input({"default": ("T", "B", 1)})
    units = layers.Reservoir(UNITS, leak=LEAK, spectral_radius=RADIUS)
    readout = layers.FullyConnected(1, "linear", name="Readout")
    net = bs.Network.from_layer(inp >> units >> readout)
    net.set_handler(getattr(bs.handlers, handler)())
    net.initialize({"Readout": 0.0}, seed=1)
    return net


def brainstorm(handler: str) -> Step:
    """What fits a network, and returns its error."""
    from brainstorm.training import fit_ridge

    net, x = network(handler), series()[:, np.newaxis]
    return lambda: fit_ridge(net, x[:-1], x[1:], ridge=RIDGE, warmup=WARMUP)


def closed_loop(handler: str) -> Step:
    """What runs a closed loop, and returns its last value."""
    net, start = network(handler), series()[:50, np.newaxis]
    return lambda: net.generate(LOOP_STEPS, start).item(-1)


def reservoirpy() -> Step:
    """What fits a network of ReservoirPy."""
    from reservoirpy.nodes import Reservoir, Ridge

    model = Reservoir(UNITS, lr=LEAK, sr=RADIUS, seed=1) >> Ridge(ridge=RIDGE)
    x = series()
    return lambda: model.fit(x[:-1], x[1:], warmup=WARMUP) is None


def brainpy() -> Step:
    """What fits a network of BrainPy, in float32."""
    import brainpy as bp
    import brainpy.math as bm

    class Model(bp.DynamicalSystem):
        def __init__(self):
            super().__init__(mode=bm.batching_mode)
            self.r = bp.dyn.Reservoir(
                1, UNITS, leaky_rate=LEAK, spectral_radius=RADIUS, mode=bm.batching_mode
            )
            self.o = bp.dnn.Dense(UNITS, 1, mode=bm.training_mode)

        def update(self, x):
            return self.o(self.r(x))

    model = Model()
    model.reset(1)
    trainer = bp.RidgeTrainer(model, alpha=RIDGE, progress_bar=False)
    x, y = (bm.asarray(part[np.newaxis]) for part in (series()[:-1], series()[1:]))
    return lambda: trainer.fit([x, y]) is None


TABLES = {
    "ms for run and fit": {
        **{name: partial(brainstorm, name) for name in sorted(OURS)},
        "ReservoirPy": reservoirpy,
        "BrainPy, jitted": brainpy,
    },
    "us for a closed loop's step": {
        name: partial(closed_loop, name) for name in sorted(OURS)
    },
}

if __name__ == "__main__":
    main("benchmarks.reservoirs", TABLES, steps=1)
