"""Training steps of a spiking network beside snnTorch and BrainPy.

``python -m benchmarks.spiking``: ten inputs, 100 neurons with synapses, two outputs
that leak; 100 steps of 64 samples; the cross-entropy of the largest outputs over time,
and Adam. Libraries that are not installed are left out. Each has a process of its own,
and all take turns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np

from benchmarks.turns import Step, main

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 100, 64, 10, 100, 2
TAU, TAU_OUT, RATE = 10.0, 5.0, 2e-3


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


if __name__ == "__main__":
    main("benchmarks.spiking", {"ms per training step": CONTESTANTS}, steps=10)
