"""Training steps of a spiking network beside snnTorch and BrainPy.

``python -m benchmarks.spiking``: ten inputs, 100 neurons with synapses, two outputs
that leak; 100 steps of 64 samples; the cross-entropy of the largest outputs over time,
and Adam. Libraries that are not installed are left out. Each has a process of its own,
and all take turns.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 100, 64, 10, 100, 2
TAU, TAU_OUT, RATE = 10.0, 5.0, 2e-3
Step = Callable[[], float]


def data() -> tuple[np.ndarray, np.ndarray]:
    rnd = np.random.RandomState(0)
    spikes = rnd.random_sample((STEPS, BATCH, INPUTS)) < 0.05
    return spikes.astype(np.float32), rnd.randint(CLASSES, size=BATCH)


def brainstorm(handler: str) -> Step:
    """What makes a training step, and returns the loss."""
    import brainstorm as bs
    from brainstorm import layers

    inp = layers.Input({"default": ("T", "B", INPUTS), "targets": ("B", 1)})
    hidden = inp >> layers.FullyConnected(HIDDEN, "linear", name="In")
    spikes = hidden >> layers.Leaky(TAU) >> layers.Lif(TAU)
    out = spikes >> layers.FullyConnected(CLASSES, "linear", name="Out")
    out = out >> layers.Leaky(TAU) >> layers.Leaky(TAU_OUT, gain="integrate")
    out = out >> layers.TimePooling("max") >> layers.SoftmaxCE(name="Output")
    inp - "targets" >> "targets" - out
    net = bs.Network.from_layer(out - "loss" >> layers.Loss())
    net.set_handler(getattr(bs.handlers, handler)())
    net.initialize({"*": {"W": bs.Gaussian(0.7), "bias": 0.0}}, seed=1)
    stepper = bs.training.AdamStepper(RATE)
    stepper.start(net)
    x, y = data()
    batch = {"default": x, "targets": y.reshape(1, -1, 1).astype(np.float32)}

    def step() -> float:
        net.provide_external_data(batch)
        stepper.run()
        return net.get_loss_values()["total_loss"]

    return step


def snntorch() -> Step:
    import torch
    from snntorch import Synaptic, surrogate

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    decay, slope = math.exp(-1 / TAU), surrogate.fast_sigmoid(100)
    first, second = torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    neurons = Synaptic(alpha=decay, beta=decay, spike_grad=slope)
    readout = Synaptic(alpha=decay, beta=math.exp(-1 / TAU_OUT), reset_mechanism="none")
    parameters = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    x, y = map(torch.tensor, data())

    def step() -> float:
        optimizer.zero_grad()
        current, potential = neurons.init_synaptic()
        current_out, potential_out = readout.init_synaptic()
        outputs = []
        for now in x:
            spikes, current, potential = neurons(first(now), current, potential)
            arguments = second(spikes), current_out, potential_out
            _, current_out, potential_out = readout(*arguments)
            outputs.append(potential_out)
        largest, _ = torch.stack(outputs).max(0)
        loss = torch.nn.functional.cross_entropy(largest, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def brainpy() -> Step:
    import brainpy as bp
    import brainpy.math as bm

    bm.set(dt=1.0)

    class Net(bp.DynSysGroup):
        def __init__(self):
            super().__init__()
            first, second = (
                bp.dnn.Dense(*size, W_initializer=bp.init.Normal(scale=0.7))
                for size in ((INPUTS, HIDDEN), (HIDDEN, CLASSES))
            )
            self.to_neurons = bp.Sequential(first, bp.dyn.Expon(HIDDEN, tau=TAU))
            self.neurons = bp.dyn.Lif(
                HIDDEN, tau=TAU, V_reset=0.0, V_rest=0.0, V_th=1.0
            )
            self.to_out = bp.Sequential(second, bp.dyn.Expon(CLASSES, tau=TAU))
            self.out = bp.dyn.Integrator(CLASSES, tau=TAU_OUT)

        def update(self, x):
            return x >> self.to_neurons >> self.neurons >> self.to_out >> self.out

    with bm.training_environment():
        net = Net()
    x, y = map(bm.asarray, data())
    trained = net.train_vars().unique()

    def loss():
        net.reset(BATCH)
        run = lambda t: net.step_run(t, x[t])  # noqa: E731
        outputs = bm.for_loop(run, np.arange(STEPS))
        return bp.losses.cross_entropy_loss(bm.max(outputs, axis=0), y)

    gradient = bm.grad(loss, grad_vars=trained, return_value=True)
    optimizer = bp.optim.Adam(lr=RATE, train_vars=trained)

    @bm.jit
    def update():
        gradients, value = gradient()
        optimizer.update(gradients)
        return value

    return lambda: float(update())


CONTESTANTS: dict[str, Callable[[], Step]] = {
    "NumpyHandler": lambda: brainstorm("NumpyHandler"),
    "OneDnnHandler": lambda: brainstorm("OneDnnHandler"),
    "snnTorch": snntorch,
    "BrainPy, jitted": brainpy,
}


def work(name: str) -> None:
    """Make as many steps as each line says, and answer how long one takes."""
    step = CONTESTANTS[name]()
    for _ in range(3):
        loss = step()
    print(loss, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(statistics.median(times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spiking")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--rounds", type=int, default=10, help="default: 10")
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    processes, times = {}, {}
    for name in CONTESTANTS:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.spiking", "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if process.stdout.readline():
            processes[name], times[name] = process, []
        else:
            print(f"left out: {name}")
    for _ in range(args.rounds):
        for name, process in processes.items():
            process.stdin.write("10\n")
            process.stdin.flush()
            times[name].append(float(process.stdout.readline()))
    print(f"{'ms per training step':24}" + "".join(f"{n:>18}" for n in times))
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = {"median": median, "min": {n: min(values) for n, values in times.items()}}
    for title, row in rows.items():
        print(f"{title:24}" + "".join(f"{1e3 * row[n]:18.3g}" for n in times))
    for peer in set(times) - {"NumpyHandler", "OneDnnHandler"}:
        ratios = (median[name] / median[peer] for name in times)
        print(f"{'median / ' + peer:24}" + "".join(f"{r:18.3g}" for r in ratios))
    for process in processes.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
