import math

import pytest

from brainstorm.describable import create_from_description, get_description
from brainstorm.training.schedules import (
    Cosine,
    DecreaseAfterEpoch,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Warmup,
)
from brainstorm.utils import ValidationError


def by_epoch(schedule, epochs, interval=1):
    return [schedule(e, 7 * e, "epoch", interval, None, None, {}) for e in epochs]


def by_update(schedule, updates, interval=1):
    return [schedule(1, u, "update", interval, None, None, {}) for u in updates]


def test_linear_ends_exactly_at_the_final_value():
    values = by_epoch(Linear(0.1, 0.7, 3), range(6))
    assert values == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.7, 0.7])
    assert values[0] == 0.1
    assert values[3] == 0.7


def test_linear_counts_calls():
    assert by_epoch(Linear(4, 0, 4), [0, 3, 6, 9], interval=3) == [4, 3, 2, 1]
    assert by_update(Linear(4, 0, 4), [0, 10, 20], interval=10) == [4, 3, 2]


def test_exponential():
    values = by_epoch(Exponential(3.0, 0.9), range(5))
    assert values == pytest.approx([3.0 * 0.9**k for k in range(5)])
    assert by_update(Exponential(1, 2), [0, 5, 10], interval=5) == [1, 2, 4]


def test_exponential_is_clipped():
    assert by_epoch(Exponential(1, 0.5, minimum=0.3), range(4)) == [1, 0.5, 0.3, 0.3]
    assert by_epoch(Exponential(1, 2, maximum=3), range(4)) == [1, 2, 3, 3]
    assert by_epoch(Exponential(9, 2, maximum=3), [0]) == [3]


@pytest.mark.parametrize(
    ("initial", "factor", "count", "expected"),
    [(1, 10, 5000, math.inf), (-1, 10, 5000, -math.inf), (1, -10, 5001, -math.inf)],
)
def test_exponential_beyond_all_numbers(initial, factor, count, expected):
    assert by_epoch(Exponential(initial, factor), [count]) == [expected]
    assert abs(by_epoch(Exponential(1, 10, maximum=7), [5000])[0]) == 7


def test_cosine():
    values = by_epoch(Cosine(0.7, 0.1, 6), range(9))
    turns = [math.cos(math.pi * min(k, 6) / 6) for k in range(9)]
    assert values == pytest.approx([0.4 + 0.3 * c for c in turns])
    assert values[0] == 0.7
    assert values[6:] == [0.1, 0.1, 0.1]
    assert by_update(Cosine(4, 0, 2), [0, 10, 20], interval=10) == [4, 2, 0]


def test_one_cycle():
    values = by_update(OneCycle(0.5, 10, 0.4, 0.1, 0.2), range(13))
    rising = [0.3 - 0.2 * math.cos(math.pi * k / 4) for k in range(4)]
    falling = [0.35 + 0.15 * math.cos(math.pi * k / 6) for k in range(6)]
    assert values == pytest.approx([*rising, *falling, 0.2, 0.2, 0.2])
    assert values[4] == max(values) == 0.5


def test_one_cycle_by_default():
    values = by_epoch(OneCycle(100, 10, rise=0), range(11))
    assert values[0] == 100
    assert values[10] == pytest.approx(100 / 25 / 10_000)
    assert by_epoch(OneCycle(100, 10), [0]) == [pytest.approx(4)]


def test_warmup():
    assert by_epoch(Warmup(8, 3), range(5)) == [2, 4, 6, 8, 8]
    rates = Warmup(Exponential(16, 0.5), 1)
    assert by_update(rates, [0, 5, 10], interval=5) == [8, 8, 4]
    assert by_epoch(Warmup(lambda epoch_nr, *rest: epoch_nr, 1), range(3)) == [0, 1, 2]
    again = create_from_description(get_description(rates))
    assert by_epoch(again, range(4)) == by_epoch(rates, range(4))


def test_multi_step():
    schedule = MultiStep(1.0, [3, 5], [0.5, 0.1])
    assert by_epoch(schedule, range(7)) == [1, 1, 1, 0.5, 0.5, 0.1, 0.1]
    assert by_update(schedule, [0, 2, 4, 6], interval=2) == [1, 1, 0.5, 0.1]


def test_multi_step_without_steps_is_constant():
    assert by_epoch(MultiStep(1.0, [], []), range(3)) == [1, 1, 1]


def test_decrease_after_epoch():
    # At the end of epoch k the value of epoch k + 1 is set.
    values = by_epoch(DecreaseAfterEpoch(0.8, T=4), [0, 2, 3, 4, 7, 15])
    assert values == pytest.approx([0.8, 0.8, 0.8, 0.64, 0.4, 0.2])


@pytest.mark.parametrize("value", [None, "0.1", math.nan, [0.1]])
def test_warmup_needs_numbers_to_follow(value):
    warmup = Warmup(lambda *_: value, 3)
    with pytest.raises(ValidationError, match="^Warmup: what schedule returns has to"):
        by_epoch(warmup, [1])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Linear("1", 0, 3), "initial_value has to be a finite number"),
        (lambda: Linear(1, math.nan, 3), "final_value .* not nan"),
        (lambda: Linear(1, 0, 0), "num_changes has to be a finite number in .1"),
        (lambda: Exponential(1, None), "factor .* not None"),
        (lambda: Exponential(1, 1, 3, 2), "minimum has to be at most maximum"),
        (lambda: MultiStep(1, [1, 2], [0.5]), "as many steps as values, not 2 and 1"),
        (lambda: MultiStep(1, [2, 2], [0.5, 0.1]), "ascending order"),
        (lambda: MultiStep(1, [-1], [0.5]), "each of steps .* not -1"),
        (lambda: Cosine("1", 0, 3), "Cosine: initial_value has to be a finite"),
        (lambda: Cosine(1, math.inf, 3), "Cosine: final_value .* not inf"),
        (lambda: Cosine(1, 0, 0.5), r"Cosine: num_changes .* \[1, inf\), not 0.5"),
        (lambda: OneCycle(None, 3), "OneCycle: peak_value .* not None"),
        (lambda: OneCycle(1, -1), "OneCycle: num_changes .* not -1"),
        (lambda: OneCycle(1, 3, rise=1), r"OneCycle: rise .* \[0, 1\), not 1"),
        (lambda: OneCycle(1, 3, initial_value="a"), "initial_value .* not 'a'"),
        (lambda: OneCycle(1, 3, final_value=10**400), "final_value .* not 1000"),
        (lambda: Warmup(math.nan, 3), "Warmup: schedule, if it .* not nan"),
        (lambda: Warmup([0.1], 3), "Warmup: schedule, if it .* not .0.1"),
        (lambda: Warmup(0.1, 0), "Warmup: num_changes .* not 0"),
        (lambda: DecreaseAfterEpoch(1, 0), "T has to be above 0"),
        (lambda: DecreaseAfterEpoch(True, 1), "initial_value .* not True"),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ValidationError, match=text):
        make()


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(1.0, 0.5, 3),
        Exponential(1.0, 0.5),
        Exponential(1.0, 0.5, minimum=0.2, maximum=4.0),
        MultiStep(1.0, (2, 4), (0.5, 0.2)),
        DecreaseAfterEpoch(1.0, 3),
        Cosine(1.0, 0.5, 3),
        OneCycle(1.0, 4),
        OneCycle(1.0, 4, 0.5, 0.1, 0.2),
        Warmup(0.5, 3),
    ],
)
def test_description(schedule):
    description = get_description(schedule)
    again = create_from_description(description)
    assert get_description(again) == description
    assert by_epoch(again, range(6)) == by_epoch(schedule, range(6))
