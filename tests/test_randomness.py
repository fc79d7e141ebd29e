import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import brainstorm as bs
from brainstorm.describable import create_from_description, get_description
from brainstorm.randomness import RandomState, Seedable, global_rnd
from brainstorm.utils import ValidationError


def test_stream_is_numpys():
    np.testing.assert_array_equal(
        RandomState(7).randn(5), np.random.RandomState(7).randn(5)
    )


def test_stream_is_frozen():
    # MT19937's first outputs for seed 5489, from its authors' reference code.
    rnd = RandomState(5489)
    words = rnd.randint(0, 2**32, size=3, dtype=np.uint32)
    assert words.tolist() == [3499211612, 581869302, 3890346734]


def test_get_set_reset():
    rnd = RandomState(1)
    assert rnd.get_seed() == 1
    first = rnd.rand(3)
    rnd.reset()
    np.testing.assert_array_equal(rnd.rand(3), first)
    rnd.set_seed(2)
    assert rnd.get_seed() == 2
    np.testing.assert_array_equal(rnd.rand(3), np.random.RandomState(2).rand(3))
    rnd.seed(1)
    assert rnd.get_seed() == 1
    np.testing.assert_array_equal(rnd.rand(3), first)


def test_reset_drops_the_second_value_of_a_pair():
    rnd = RandomState(1)
    first = rnd.randn()
    rnd.reset()
    assert rnd.randn() == first


def test_without_seed_the_seed_is_drawn_and_can_be_reused():
    rnd = RandomState()
    other = RandomState(rnd.get_seed())
    assert rnd.rand() == other.rand()
    seeds = {RandomState().get_seed() for _ in range(5)}
    assert len(seeds) > 1
    rnd.set_seed(None)
    assert 0 <= rnd.get_seed() < 10**9


def test_seeds_that_are_not_given_are_drawn_from_global_rnd():
    global_rnd.set_seed(12)
    drawn = [RandomState().get_seed(), RandomState(None).get_seed()]
    rnd = RandomState(1)
    rnd.set_seed(None)
    drawn.append(rnd.get_seed())
    expected = np.random.RandomState(12)
    assert drawn == [expected.randint(0, 10**9) for _ in range(3)]


def test_global_rnd_itself_takes_seeds_from_the_system():
    seeds = set()
    for _ in range(5):
        global_rnd.set_seed(12)
        global_rnd.set_seed(None)
        seeds.add(global_rnd.get_seed())
    assert len(seeds) > 1


def test_generation_grows_with_every_seeding_alone():
    rnd = RandomState(1)
    seen = [rnd.generation]
    for change in (lambda: rnd.set_seed(1), rnd.reset, lambda: rnd.seed(3)):
        change()
        seen.append(rnd.generation)
    assert sorted(set(seen)) == seen
    rnd.rand()
    rnd.generate_seed()
    rnd.create_random_state()
    rnd.set_state(rnd.get_state())
    assert rnd.generation == seen[-1]


def test_generate_seed_draws_below_a_billion():
    expected = np.random.RandomState(4).randint(0, 10**9)
    seed = RandomState(4).generate_seed()
    assert seed == expected
    assert type(seed) is int


def test_create_random_state():
    parent = RandomState(4)
    child = parent.create_random_state()
    assert type(child) is RandomState
    assert child.get_seed() == RandomState(4).generate_seed()
    assert parent.create_random_state(seed=11).get_seed() == 11
    assert parent.create_random_state().get_seed() != child.get_seed()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_copies_continue_independently(duplicate):
    rnd = RandomState(5)
    rnd.reset()
    rnd.randn(3)
    twin = duplicate(rnd)
    assert type(twin) is RandomState
    assert (twin.get_seed(), twin.generation) == (5, rnd.generation)
    expected = rnd.randn(4)
    np.testing.assert_array_equal(twin.randn(4), expected)
    twin.reset()
    assert twin.generation == rnd.generation + 1


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "a", [1, 2]])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValidationError, match="seed"):
        RandomState(seed)
    rnd = RandomState(3)
    with pytest.raises(ValidationError, match="seed"):
        rnd.set_seed(seed)
    assert rnd.get_seed() == 3


def test_numpy_integers_are_seeds():
    assert RandomState(np.int64(3)).rand() == RandomState(3).rand()


def test_global_rnd_is_reproducible_across_processes():
    code = (
        "from brainstorm.randomness import global_rnd as g; g.set_seed(42);"
        "print(g.create_random_state().randint(10**9, size=3).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    state = np.random.RandomState(np.random.RandomState(42).randint(10**9))
    assert outputs == {f"{state.randint(10**9, size=3).tolist()}\n"}


def test_global_rnd_is_a_random_state():
    assert type(global_rnd) is RandomState


# -- Seedable ----------------------------------------------------------------


class Thrower(Seedable):
    def __init__(self, sides, seed=None):
        super().__init__(seed)
        self.sides = sides

    def throw(self):
        return self.rnd.randint(self.sides, size=20).tolist()


class Forgetful(Seedable):
    def __init__(self):
        self.sides = 6


def test_seeds_come_from_the_global_state():
    global_rnd.set_seed(3)
    first, second = Thrower(6).throw(), Thrower(6).throw()
    assert first != second
    global_rnd.set_seed(3)
    assert Thrower(6).throw() == first
    assert Thrower(6, seed=5).throw() == Thrower(6, 5).throw()
    assert Thrower(6, seed=5).rnd.get_seed() == 5


def test_random_states_are_not_described():
    thrower = Thrower(6)
    assert get_description(thrower) == {"@type": "Thrower", "sides": 6}
    again = create_from_description(get_description(thrower))
    assert len(again.throw()) == 20
    assert again.rnd is again.rnd


def test_the_random_state_is_there_without_the_init_of_the_base():
    forgetful = Forgetful()
    assert forgetful.rnd is forgetful.rnd
    forgetful.rnd = RandomState(7)
    assert forgetful.rnd.get_seed() == 7
    assert get_description(forgetful) == {"@type": "Forgetful", "sides": 6}


@pytest.mark.parametrize(
    "kind",
    [
        bs.initializers.Initializer,
        bs.data_iterators.DataIterator,
        bs.value_modifiers.ValueModifier,
        bs.value_modifiers.GradientModifier,
        bs.Network,
    ],
)
def test_what_draws_random_numbers_is_seedable(kind):
    assert issubclass(kind, Seedable)
    if kind is bs.Network:
        return

    class Own(kind):
        def __init__(self):
            arguments = [{}, 1] if kind is bs.data_iterators.DataIterator else []
            super().__init__(*arguments)

    global_rnd.set_seed(1)
    first = Own().rnd.randint(10**9)
    assert Own().rnd.randint(10**9) != first
    global_rnd.set_seed(1)
    assert Own().rnd.randint(10**9) == first
