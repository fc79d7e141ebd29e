"""Works done by JAX: a step of training is one jitted function, update included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jax_layers import Chain
from benchmarks.work import Run, Work

State = dict[str, Any]


def make_runs(
    work: Work, kind: str, variant: str, precision: str = "f32"
) -> dict[str, Run]:
    """What trains and what evaluates: gets a number of steps, returns their losses."""
    model, time = Chain(work.jax_model()), work.shape[0]
    data = work.data[0] if time == 1 else work.data
    targets = work.targets.reshape(-1)
    begin, update = OPTIMIZERS[work.optimizer]

    def loss_of(p, x, t, key):
        logits = model(p, x, key).reshape(len(t), -1)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), t[:, None], axis=1)
        return -chosen.mean() * time

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, x: jax.Array, t: jax.Array):
        key, count = state["key"], state["count"] + 1
        own = jax.random.fold_in(key, count)
        loss, gradients = jax.value_and_grad(loss_of)(state["learned"], x, t, own)
        learned, moments = update(
            work.learning_rate, count, state["learned"], state["moments"], gradients
        )
        for layer in work.limited:
            W = learned[layer]["W"]
            norms = jnp.linalg.norm(W, axis=0)
            learned[layer]["W"] = W / jnp.maximum(norms, 1)
        return {
            "learned": learned,
            "moments": moments,
            "key": key,
            "count": count,
        }, loss

    evaluate_once = jax.jit(lambda p, x, t: loss_of(p, x, t, None))
    learned = jax.tree.map(jnp.array, model.prepare(work.weights))
    state: State = {
        "learned": learned,
        "moments": begin(learned),
        "key": jax.random.key(1),
        "count": jnp.zeros((), jnp.int32),
    }

    def train(steps: int) -> list[float]:
        nonlocal state
        losses = []
        for _ in range(steps):
            state, loss = step(state, data, targets)
            losses.append(float(loss))
        jax.block_until_ready(state)
        return losses

    def evaluate(steps: int) -> list[float]:
        return [
            float(evaluate_once(state["learned"], data, targets)) for _ in range(steps)
        ]

    return {"evaluation": evaluate, "training": train}


def _zeros(learned: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, learned)


def _momentum(rate, count, learned, velocity, gradients):
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradients)
    return jax.tree.map(lambda p, v: p - rate * v, learned, velocity), velocity


def _adam(rate, count, learned, moments, gradients):
    m, v = moments
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
    m_scale, v_scale = 1 - 0.9**count, 1 - 0.999**count
    learned = jax.tree.map(
        lambda p, m, v: p - rate * (m / m_scale) / (jnp.sqrt(v / v_scale) + 1e-8),
        *(learned, m, v),
    )
    return learned, (m, v)


OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "momentum": (_zeros, _momentum),
    "adam": (lambda learned: (_zeros(learned), _zeros(learned)), _adam),
}


def make_product(kind: str, size: int) -> dict[str, Run]:
    """What multiplies two square matrices, and returns one of the numbers."""
    a, b = (jnp.ones((size, size)) for _ in range(2))
    multiply = jax.jit(jnp.matmul)

    def run(steps: int) -> list[float]:
        for _ in range(steps):
            out = multiply(a, b).block_until_ready()
        return np.asarray(out[0, :1]).tolist()

    return {"product": run}
