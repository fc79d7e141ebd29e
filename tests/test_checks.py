import math

import numpy as np
import pytest

from brainstorm.checks import (
    check_integer,
    check_network,
    check_number,
    checked_array,
    checked_integer,
    checked_number,
    checked_positive,
    is_finite,
)
from brainstorm.utils import ValidationError


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3)])
def test_checked_number_gives_floats(value):
    number = checked_number(value, "x", minimum=3)
    assert number == 3.0
    assert type(number) is float


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, [1], 1j, 10**400])
def test_checked_number_refuses(value):
    with pytest.raises(ValidationError, match=r"^the width has to be a finite.*>= 0"):
        checked_number(value, "the width", minimum=0)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_checked_integer_gives_ints(value):
    number = checked_integer(value, "x", minimum=3)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [0, 1.0, math.nan, "1", None, [1], True, np.ones(2)])
def test_checked_integer_refuses(value):
    with pytest.raises(ValidationError, match=r"^the width .* number of at least 1, g"):
        checked_integer(value, "the width", minimum=1)


def test_is_finite():
    assert all(map(is_finite, [0, -1.5, np.float32(2), 10**300]))
    assert not any(map(is_finite, [math.nan, -math.inf, 10**400, None, "1", 1j]))


def test_checked_array_gives_float64_copies():
    source = np.arange(3.0)
    array = checked_array(source, "x")
    array[0] = 7
    assert source[0] == 0
    assert checked_array([[1], [True]], "x").dtype == np.float64
    assert checked_array(2, "x").shape == ()


@pytest.mark.parametrize("values", ["a", None, [[1], [1, 2]], [1j], [object()], {}])
def test_checked_array_refuses(values):
    with pytest.raises(ValidationError, match=r"^the mask "):
        checked_array(values, "the mask")


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.int64(0)])
def test_good_numbers(value):
    assert check_number("", "x", value, low=0, below=1) == value


@pytest.mark.parametrize("value", [-1, 1, np.nan, np.inf, "0", None, True, [0]])
def test_bad_numbers(value):
    with pytest.raises(ValidationError, match=r"str: x .* in \[0, 1\)"):
        check_number("", "x", value, low=0, below=1)


def test_integers_of_owners():
    assert check_integer("", "x", np.int64(2), low=2) == 2
    for value in (1, 2.0, "2", None, math.nan):
        with pytest.raises(ValidationError, match="str: x has to be an integer of at"):
            check_integer("", "x", value, low=2)


def test_positive_numbers():
    assert checked_positive(np.float32(0.5), "the limit") == 0.5
    with pytest.raises(ValidationError, match=r"^the limit has to be above 0$"):
        checked_positive(0, "the limit")
    with pytest.raises(ValidationError, match=r"^the limit .* finite number >= 0"):
        checked_positive(-1, "the limit")


def test_what_is_no_network():
    with pytest.raises(ValidationError, match="net: expected a Network, got dict"):
        check_network({})
