"""Random numbers of operations: which they are, and what they do not depend on."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest

from brainstorm.handlers import DebugHandler, NumpyHandler
from brainstorm.handlers.numpy.draws import BLOCK
from brainstorm.handlers.onednn_handler import OneDnnHandler
from brainstorm.utils import HandlerError
from tests.handlers.handler_cases import onednn_handler


def philox(counter, key):
    """Philox 4x64-10 with Python's integers, after the paper's pseudocode."""
    left_0, right_0, left_1, right_1 = counter
    k0, k1 = key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2E7470EE14C6C93 * left_0, 2**64)
        high_1, low_1 = divmod(0xCA5A826395121157 * left_1, 2**64)
        left_0, right_0 = high_1 ^ right_0 ^ k0, low_1
        left_1, right_1 = high_0 ^ right_1 ^ k1, low_0
        k0 = (k0 + 0x9E3779B97F4A7C15) % 2**64
        k1 = (k1 + 0xBB67AE8584CAA73B) % 2**64
    return left_0, right_0, left_1, right_1


def words(seed, call, block, count):
    """The first words of a block."""
    groups = range(1, -(-count // 4) + 1)
    drawn = [w for g in groups for w in philox([g, block, call, 0], [seed, 0])]
    return np.array(drawn[:count], np.uint64)


def handler_at(seed, call, dtype=np.float32):
    handler = NumpyHandler(dtype, seed=1)
    state = handler.get_random_state()
    handler.set_random_state({**state, "generator": {"seed": seed, "call": call}})
    return handler


def mask_of(handler, shape, probability=0.3):
    mask = handler.zeros(shape)
    handler.generate_probability_mask(mask, probability)
    return mask


def normal_of(handler, shape):
    out = handler.zeros(shape)
    handler.fill_gaussian(0.0, 1.0, out)
    return out


def test_philox_is_the_published_generator():
    # Known answers that come with the authors' library Random123.
    zeros = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC)
    zeros += (0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    assert philox([0] * 4, [0] * 2) == zeros
    ones = (0x87B092C3013FE90B, 0x438C3C67BE8D0224)
    ones += (0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)
    assert philox([2**64 - 1] * 4, [2**64 - 1] * 2) == ones


@pytest.mark.parametrize("call", [0, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_masks_are_those_of_philox(call, probability):
    n = 2001
    drawn = words(2**32 - 1, call, 0, n)
    first = drawn[: -(-n // 8)].view(np.uint8)[:n]
    limit = min(int(probability * 256), 255)
    expected = first < limit
    undecided = np.flatnonzero(first == limit)
    assert len(undecided)
    more = drawn[-(-n // 8) :][: len(undecided)]
    expected[undecided] = (more >> 11) / 2**53 < probability * 256 - limit
    mask = mask_of(handler_at(2**32 - 1, call), (3, n // 3), probability)
    np.testing.assert_array_equal(mask.ravel(), expected)


def test_each_block_has_a_sequence_of_its_own():
    mask = mask_of(handler_at(7, 3), (2 * BLOCK + 80,), 0.5)
    for block in range(3):
        first = words(7, 3, block, 10).view(np.uint8) < 128
        np.testing.assert_array_equal(mask[block * BLOCK :][:80], first)
    later = mask_of(handler_at(7, 4), (80,), 0.5)
    np.testing.assert_array_equal(later, words(7, 4, 0, 10).view(np.uint8) < 128)


@pytest.mark.parametrize("probability", [1e-4, 2.0**-9, 0.2, 0.9, 1 - 1e-4])
def test_probabilities_are_exact(probability):
    n = 2_000_000
    chosen = mask_of(NumpyHandler(seed=3), (n,), probability)
    deviation = (n * probability * (1 - probability)) ** 0.5
    assert abs(np.count_nonzero(chosen) - n * probability) < 4 * deviation
    # Elements of a word, of neighbouring words, and of neighbouring blocks.
    for distance in (1, 8, BLOCK):
        both = np.count_nonzero(chosen[distance:] * chosen[:-distance])
        share = probability**2
        deviation = (n * share * (1 - share)) ** 0.5
        assert abs(both - (n - distance) * share) < 5 * max(deviation, 2)


HANDLERS = {
    "float16": lambda: NumpyHandler(np.float16, seed=5),
    "float64": lambda: NumpyHandler(np.float64, seed=5),
    "longdouble": lambda: NumpyHandler(np.longdouble, seed=5),
    "debug": lambda: DebugHandler(NumpyHandler(seed=5)),
    "onednn, one thread": lambda: OneDnnHandler(seed=5, threads=1),
    "onednn, two threads": lambda: OneDnnHandler(seed=5, threads=2),
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_masks_are_the_same_on_all_handlers(kind):
    shape = (3, BLOCK // 2 + 77)
    handler = onednn_handler(HANDLERS[kind]) if "onednn" in kind else HANDLERS[kind]()
    plain = NumpyHandler(np.float32, seed=5)
    for _ in range(2):
        np.testing.assert_array_equal(mask_of(handler, shape), mask_of(plain, shape))
        outputs = []
        for each in (handler, plain):
            outputs.append(each.zeros(shape))
            each.dropout_forward(each.ones(shape), each.zeros(shape), outputs[-1], 0.5)
        np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("draw", [mask_of, normal_of])
def test_what_is_drawn_does_not_depend_on_the_layout(draw):
    shape = (3, 100, 200)
    expected = draw(NumpyHandler(seed=2), shape)
    wide = np.zeros((3, 101, 300), np.float32)
    views = [wide[:, 1:, 10:210], wide.T[:200, :100].T, np.asfortranarray(expected)]
    for view in views:
        handler = NumpyHandler(seed=2)
        handler.zeros = lambda shape, view=view: view
        np.testing.assert_array_equal(draw(handler, shape), expected)
        assert draw(handler, shape)[0, 0, 0] != expected[0, 0, 0] or draw is mask_of


def test_no_two_threads_draw_the_same():
    handler, drawn = NumpyHandler(seed=4), []

    def work():
        for _ in range(40):
            drawn.append(normal_of(handler, (3,)).tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = NumpyHandler(seed=4)
    assert sorted(drawn) == sorted(normal_of(again, (3,)).tobytes() for _ in range(160))


# -- states of the generator before ------------------------------------------


def old_state(handler, seed):
    generator = np.random.SFC64(seed)
    state = {**generator.state, "state": generator.state["state"]["state"].tolist()}
    state["state"] = {"state": state["state"]}
    return {**handler.get_random_state(), "generator": state}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_trainings_go_on_with_the_generator_that_they_began_with(dtype):
    handler, n = NumpyHandler(dtype, seed=1), 2 * BLOCK + 7
    handler.set_random_state(old_state(handler, 5))
    numbers = np.random.Generator(np.random.SFC64(5))

    def check(handler):
        uniform = numbers.random(n, dtype)
        np.testing.assert_array_equal(mask_of(handler, (n,)), uniform < 0.3)
        normal = numbers.standard_normal((3, 5), dtype)
        np.testing.assert_array_equal(normal_of(handler, (3, 5)), normal)

    check(handler)
    check(pickle.loads(pickle.dumps(handler)))
    handler.set_random_state(json.loads(json.dumps(handler.get_random_state())))
    numbers = np.random.Generator(np.random.SFC64(5))
    handler.set_random_state(old_state(handler, 5))
    check(copy.deepcopy(handler))
    handler.rnd.set_seed(8)
    np.testing.assert_array_equal(
        mask_of(handler, (n,)), mask_of(NumpyHandler(dtype, seed=8), (n,))
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.update(bit_generator="PCG64"),
        lambda state: state.update(state={"state": [1]}),
        lambda state: state.update(state={"state": [1, 2, 3, -1]}),
        lambda state: state.update(state=3),
        lambda state: state.pop("state"),
        lambda state: state.pop("bit_generator"),
        lambda state: state.pop("has_uint32"),
    ],
)
def test_damaged_states_of_it_change_nothing(damage):
    handler = NumpyHandler(seed=1)
    state = old_state(handler, 5)
    damage(state["generator"])
    with pytest.raises(HandlerError, match="random state"):
        handler.set_random_state(state)
    expected = mask_of(NumpyHandler(seed=1), (100,))
    np.testing.assert_array_equal(mask_of(handler, (100,)), expected)
