"""Several ranks do what one process with whole batches does; see `on_ranks`.

Each case returns the largest differences from such a process, relative ones.
"""

import numpy as np

from brainstorm import Network, global_rnd, layers, scorers
from brainstorm.data_iterators import Minibatches, Subsequences, Undivided
from brainstorm.handlers import NumpyHandler
from brainstorm.hooks import Hook, StopAfterEpoch
from brainstorm.initializers import Gaussian
from brainstorm.training import (
    AdaDeltaStepper,
    AdaGradStepper,
    AdamStepper,
    AdamWStepper,
    ForwardStepper,
    GradientAccumulation,
    LionStepper,
    LmsStepper,
    MomentumStepper,
    MuonStepper,
    NesterovStepper,
    RlsStepper,
    RmsPropStepper,
    SgdStepper,
    Trainer,
)
from brainstorm.value_modifiers import (
    ClipGlobalNorm,
    ClipValues,
    ConstrainL2Norm,
    L1Decay,
    L2Decay,
)

T, B, FEATURES, CLASSES = 4, 10, 4, 3

STEPPERS = {
    "sgd": lambda: SgdStepper(0.1),
    "momentum": lambda: MomentumStepper(0.1, 0.9),
    "nesterov": lambda: NesterovStepper(0.1, 0.9),
    "adam": lambda: AdamStepper(0.01),
    "adam_w": lambda: AdamWStepper(0.01),
    "rms_prop": lambda: RmsPropStepper(0.01),
    "ada_delta": AdaDeltaStepper,
    "ada_grad": lambda: AdaGradStepper(0.05),
    "lion": lambda: LionStepper(0.001),
    "muon": lambda: MuonStepper(0.01),
    "accumulation": lambda: GradientAccumulation(SgdStepper(0.1), 2),
}


def data(mask=False):
    rnd = np.random.RandomState(0)
    items = {
        "default": rnd.randn(T, B, FEATURES),
        "targets": rnd.randint(0, CLASSES, (T, B, 1)).astype(float),
    }
    if mask:
        lengths = rnd.randint(1, T + 1, B)
        lengths[:2] = 1  # batches are cut to different lengths
        items["mask"] = (np.arange(T)[:, None] < lengths).astype(float)[..., None]
    return items


def network(norm=None, mask=False, recurrent=True):
    shapes = {"default": ("T", "B", FEATURES), "targets": ("T", "B", 1)}
    if mask:
        shapes["mask"] = ("T", "B", 1)
    inp = layers.Input(shapes)
    last = inp >> layers.FullyConnected(6, name="First")
    if norm is not None:
        last = last >> layers.BatchNorm(sync=norm, name="Norm")
    if recurrent:
        last = last >> layers.Lstm(5, name="Lstm")
    out = layers.SoftmaxCE(name="Out")
    last >> layers.FullyConnected(CLASSES, "linear", name="Last") >> out
    inp - "targets" >> "targets" - out
    loss = out - "loss"
    if mask:
        masked = layers.Mask()
        inp - "mask" >> "mask" - masked
        loss = loss >> masked
    loss >> layers.Loss()
    return finished(out)


def finished(layer):
    net = Network.from_layer(layer)
    net.set_handler(NumpyHandler(np.float64))
    net.initialize(Gaussian(0.5), seed=1)
    return net


class Losses(Hook):
    """Logs the losses that hooks see."""

    def __init__(self):
        super().__init__(name="losses", timescale="update")

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        return net.get_loss_values()["total_loss"] if update_nr else None


def trained(comm, net, iterator, stepper, epochs=2, **kwargs):
    trainer = Trainer(stepper, verbose=False, comm=comm, bucket_size=200, **kwargs)
    trainer.train_scorers = [scorers.Accuracy()]
    trainer.add_hook(Losses())
    trainer.add_hook(StopAfterEpoch(epochs))
    trainer.train(net, iterator)
    return trainer


def compare(comm, make_net, make_iterator, make_stepper, **kwargs):
    """Differences of parameters, losses of the updates, and logs of the epochs."""
    results = []
    for communicator in (None, comm):
        global_rnd.set_seed(3 if communicator is None else 3 + comm.rank)
        net = make_net()
        stepper = make_stepper()
        if communicator is None or comm.rank == 0:
            iterator = make_iterator(3)
        else:
            net.initialize(Gaussian(0.5), seed=comm.rank)
            iterator = make_iterator(comm.rank + 3)
        trainer = trained(communicator, net, iterator, stepper, **kwargs)
        slots = stepper.get_state() if hasattr(stepper, "get_state") else {}
        rolling = trainer.logs["rolling_training"]
        results.append(
            [
                net.get("parameters"),
                trainer.logs["losses"],
                rolling["total_loss"],
                rolling["Accuracy"],
                *slots.values(),
            ]
        )
    return [difference(a, b) for a, b in zip(*results, strict=True)]


def difference(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-9))


def minibatches(batch_size=4, **kwargs):
    def make(seed):
        iterator = Minibatches(batch_size, **kwargs)
        iterator.rnd.set_seed(seed)
        return iterator

    return make


def steppers(comm):
    batches = minibatches(**data())
    runs = [compare(comm, network, batches, make) for make in STEPPERS.values()]
    return np.max([run[:4] for run in runs], axis=0).tolist()


def modifiers(comm):
    def make():
        net = network()
        net.set_gradient_modifiers(
            {
                "First": {"W": [L2Decay(0.1), ClipValues(-0.05, 0.05)]},
                "Last": {"W": L1Decay(0.1)},
                "default": ClipGlobalNorm(0.1),
            }
        )
        net.set_weight_modifiers({"First": {"W": ConstrainL2Norm(0.5)}})
        return net

    return compare(comm, make, minibatches(**data()), STEPPERS["momentum"])


def frozen(comm):
    def make():
        net = network()
        net.set_trainable({"Lstm": {"Wz": False, "bf": False}})
        return net

    return compare(comm, make, minibatches(**data()), STEPPERS["adam"])


def masks_and_lengths(comm):
    batches = minibatches(**data(mask=True))
    return compare(comm, lambda: network(mask=True), batches, STEPPERS["adam"])


def last_batch_of_one(comm):
    batches = minibatches(9, **data())
    return compare(comm, network, batches, STEPPERS["sgd"])


def norm_of_whole_batches(comm):
    batches = minibatches(**data())
    return compare(comm, lambda: network(norm=True), batches, STEPPERS["sgd"])


def carried_context(comm):
    def make(seed):
        return Subsequences(minibatches(5, **data())(seed), 3)

    return compare(comm, network, make, STEPPERS["sgd"], carry_context=True)


def forward_only(comm):
    make = minibatches(**data())
    return compare(comm, network, make, lambda: ForwardStepper(True))


def readout_steppers(comm):
    rnd = np.random.RandomState(0)
    items = {"default": rnd.randn(T, B, 3), "targets": rnd.randn(T, B, 2)}

    def make():
        inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 2)})
        hidden = inp >> layers.Recurrent(6)
        out = layers.SquaredError(name="Out")
        hidden >> layers.FullyConnected(2, "linear", name="Last") >> out
        inp - "targets" >> "targets" - out
        out - "loss" >> layers.Loss()
        return finished(out)

    differences = []
    for stepper in (lambda: LmsStepper(learning_rate=0.01), RlsStepper):
        results = []
        for communicator in (None, comm):
            net, used = make(), stepper()
            trainer = Trainer(used, verbose=False, comm=communicator)
            trainer.add_hook(StopAfterEpoch(2))
            trainer.train(net, Minibatches(4, shuffle=False, **items))
            results.append(net.get("parameters"))
        differences.append(difference(*results))
    return differences


def averaged_running_values(comm):
    """Each rank normalizes its part; the running values are averages."""
    net, items = network(norm=False), data()
    start = net.get("Norm.parameters.mu"), net.get("Norm.parameters.sigma")
    trained(comm, net, Undivided(**items), SgdStepper(0.0), epochs=1)
    W, bias = (net.get(f"First.parameters.{name}") for name in ("W", "bias"))
    h = np.maximum(items["default"] @ W.T + bias, 0)
    each = [(B + comm.size - 1 - r) // comm.size for r in range(comm.size)]
    parts = np.split(h, np.cumsum(each)[:-1], axis=1)
    weights = np.array(each)[:, None] / B
    means = np.array([part.mean(axis=(0, 1)) for part in parts])
    stds = np.array([np.sqrt(part.var(axis=(0, 1)) + 1e-5) for part in parts])
    mu = 0.9 * start[0] - 0.1 * (weights * means).sum(axis=0)
    sigma = 0.9 * start[1] + 0.1 * (weights * stds).sum(axis=0)
    return [
        difference(mu, net.get("Norm.parameters.mu")),
        difference(sigma, net.get("Norm.parameters.sigma")),
    ]
