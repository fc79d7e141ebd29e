"""An echo state network beside others: ``python -m benchmarks.reservoirs``.

500 units run over 10,000 steps of Mackey-Glass, and a readout is fitted by ridge
regression. Whoever is installed takes part, in turns: ReservoirPy, BrainPy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

import brainstorm as bs

UNITS, STEPS, LEAK, RADIUS, RIDGE, WARMUP = 500, 10_000, 0.3, 1.25, 1e-6, 100
ROUNDS, LOOP_STEPS = 9, 2000

Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Gets inputs and targets (T, features), returns predictions of these after a fit."""


def brainstorm(handler: bs.handlers.Handler) -> Fit:
    net = reservoir(handler)

    def fit(x: np.ndarray, y: np.ndarray) -> None:
        x, y = x[:, np.newaxis], y[:, np.newaxis]
        bs.training.fit_ridge(net, x, y, ridge=RIDGE, warmup=WARMUP)

    return fit


def reservoir(handler: bs.handlers.Handler) -> bs.Network:
    inp = bs.layers.Input({"default": ("T", "B", 1)})
    units = bs.layers.Reservoir(UNITS, leak=LEAK, spectral_radius=RADIUS)
    readout = bs.layers.FullyConnected(1, "linear", name="Readout")
    net = bs.Network.from_layer(inp >> units >> readout)
    net.set_handler(handler)
    net.initialize({"Readout": 0.0}, seed=1)
    return net


def reservoirpy() -> Fit:
    from reservoirpy.nodes import Reservoir, Ridge

    model = Reservoir(UNITS, lr=LEAK, sr=RADIUS, seed=1) >> Ridge(ridge=RIDGE)
    return lambda x, y: model.fit(x, y, warmup=WARMUP)


def brainpy() -> Fit:
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

    def fit(x: np.ndarray, y: np.ndarray) -> None:
        trainer.fit([bm.asarray(x[np.newaxis]), bm.asarray(y[np.newaxis])])

    return fit


CONTESTANTS: dict[str, Callable[[], Fit]] = {
    "default handler": lambda: brainstorm(bs.handlers.default_handler),
    "NumpyHandler": lambda: brainstorm(bs.handlers.NumpyHandler()),
    "ReservoirPy": reservoirpy,
    "BrainPy": brainpy,
}


def main() -> None:
    series = bs.tools.mackey_glass(STEPS + 1)[:, 0]
    fits, times = {}, {}
    for name, make in CONTESTANTS.items():
        try:
            fits[name] = make()
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        fits[name](series[:-1], series[1:])
        times[name] = []
    for number in range(ROUNDS):
        # Another one begins each time: threads of some go on for a while.
        order = [*fits][number % len(fits) :] + [*fits][: number % len(fits)]
        for name in order if number % 2 else reversed(order):
            fit = fits[name]
            began = time.perf_counter()
            fit(series[:-1], series[1:])
            times[name].append(time.perf_counter() - began)
    print(f"{UNITS} units, {STEPS} steps and a fit: seconds")
    for name, taken in times.items():
        median = statistics.median(taken)
        ratios = [
            f", {median / statistics.median(times[other]):.2f} of {other}"
            for other in ("ReservoirPy", "BrainPy")
            if other in times and other != name
        ]
        print(f"{name:16}{median:8.3f} ({min(taken):.3f} to {max(taken):.3f})", *ratios)
    print("closed loop: microseconds for each step")
    for name in ("default handler", "NumpyHandler"):
        made = bs.handlers
        handler = made.default_handler if name[0] == "d" else made.NumpyHandler()
        net, start = reservoir(handler), series[:50, np.newaxis]
        taken = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            net.generate(LOOP_STEPS, start)
            taken.append((time.perf_counter() - began) / LOOP_STEPS * 1e6)
        print(f"{name:16}{statistics.median(taken):8.1f} (least {min(taken):.1f})")


if __name__ == "__main__":
    main()
