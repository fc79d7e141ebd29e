"""Orders in which blocks stand together, against all orders that there are."""

import itertools
import random

import pytest

from brainstorm.structure.ordering import order_with_blocks


def stand_together(order, blocks):
    places = {item: place for place, item in enumerate(order)}
    for block in blocks:
        found = [places[item] for item in block]
        if found and max(found) - min(found) != len(found) - 1:
            return False
    return True


def first_by_brute_force(items, blocks):
    """Permutations come in the order of their first items, then their second ones."""
    orders = itertools.permutations(items)
    return next((list(o) for o in orders if stand_together(o, blocks)), None)


@pytest.mark.parametrize(("size", "cases"), [(3, 60), (5, 400), (7, 150)])
def test_the_first_order_of_all_is_found(size, cases):
    rnd = random.Random(size)
    found = 0
    for _ in range(cases):
        items = list("abcdefg"[:size])
        rnd.shuffle(items)
        blocks = [
            {*rnd.sample(items, rnd.randint(0, size))} for _ in range(rnd.randint(0, 6))
        ]
        expected = first_by_brute_force(items, blocks)
        assert order_with_blocks(items, blocks) == expected
        found += expected is not None
    assert 0.2 * cases < found < cases


@pytest.mark.parametrize("size", [6, 7])
def test_blocks_that_some_order_allows_are_never_refused(size):
    rnd = random.Random(size)
    for _ in range(150):
        hidden = list("abcdefg"[:size])
        rnd.shuffle(hidden)
        cuts = [sorted(rnd.sample(range(size + 1), 2)) for _ in range(5)]
        blocks = [{*hidden[start:stop]} for start, stop in cuts]
        items = sorted(hidden)
        assert order_with_blocks(items, blocks) == first_by_brute_force(items, blocks)


def test_nothing_to_order():
    assert order_with_blocks([], []) == []
    assert order_with_blocks(["a"], [{"a"}]) == ["a"]


SIZE = 1500
ITEMS = [f"{i:04}" for i in range(SIZE)]
MANY = {
    "all": [ITEMS],
    "pairs": list(itertools.pairwise(ITEMS)),
    "nested": [ITEMS[i : SIZE - i] for i in range(0, SIZE // 2, 2)],
    "growing": [ITEMS[:i] for i in range(2, SIZE, 2)],
}


@pytest.mark.parametrize("kind", MANY)
def test_many_blocks_in_any_order(kind):
    for seed in range(2):
        rnd = random.Random(seed)
        blocks = rnd.sample(MANY[kind], len(MANY[kind]))
        assert order_with_blocks(ITEMS, blocks) == ITEMS
        order = order_with_blocks(rnd.sample(ITEMS, SIZE), blocks)
        assert sorted(order) == ITEMS
        assert stand_together(order, blocks)


def test_many_blocks_that_contradict_each_other():
    ring = [*itertools.pairwise(ITEMS), (ITEMS[0], ITEMS[-1])]
    assert order_with_blocks(ITEMS, ring) is None
