import pytest

from brainstorm.structure.view_references import merge_references, resolve_references
from brainstorm.utils import NetworkValidationError

PARAMETERS = {"FC_1": ["W", "bias"], "FC_2": ["W", "bias"], "Rnn": ["W", "R"], "X": []}


def values(references):
    resolved = resolve_references(PARAMETERS, references)
    return {
        f"{layer}.{name}": choice.value
        for layer, names in resolved.items()
        for name, choice in names.items()
        if choice.value is not None
    }


def fallbacks(references):
    resolved = resolve_references(PARAMETERS, references)
    return {
        f"{layer}.{name}": choice.fallback
        for layer, names in resolved.items()
        for name, choice in names.items()
        if choice.fallback is not None
    }


def test_default_counts_where_nothing_else_matches():
    assert values({"default": 1, "FC_1": 2, "Rnn": {"R": 3}}) == {
        "FC_1.W": 2,
        "FC_1.bias": 2,
        "FC_2.W": 1,
        "FC_2.bias": 1,
        "Rnn.W": 1,
        "Rnn.R": 3,
    }


def test_inner_defaults_come_first():
    assert values({"default": 1, "FC_1": {"W": 2, "default": 3}, "FC_2": {"W": 4}}) == {
        "FC_1.W": 2,
        "FC_1.bias": 3,
        "FC_2.W": 4,
        "FC_2.bias": 1,
        "Rnn.W": 1,
        "Rnn.R": 1,
    }


@pytest.mark.parametrize("pattern", ["FC*", "*C_*", "F*_*", "FC_*"])
def test_wildcards_in_layer_names(pattern):
    assert set(values({pattern: 1})) == {"FC_1.W", "FC_1.bias", "FC_2.W", "FC_2.bias"}


def test_wildcards_in_parameter_names():
    assert values({"*": {"b*": 0}}) == {
        "FC_1.bias": 0,
        "FC_2.bias": 0,
    }


def test_only_the_star_is_special():
    with pytest.raises(NetworkValidationError, match=r"'FC_\?'"):
        values({"FC_?": 1})
    with pytest.raises(NetworkValidationError, match=r"pattern 'FC\.1'"):
        values({"FC.1": 1})


def test_two_patterns_for_one_layer_are_fine_if_parameters_differ():
    assert values({"FC*": {"W": 1}, "*_1": {"bias": 2}}) == {
        "FC_1.W": 1,
        "FC_2.W": 1,
        "FC_1.bias": 2,
    }


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({"FC*": 1, "FC_1": 2}, "several patterns match FC_1.W: 'FC*', 'FC_1'"),
        ({"FC_1": {"W": 1, "*": 2}}, "several patterns match FC_1.W: 'FC_1.W'"),
        ({"FC*": {"default": 1}, "*_1": {"default": 2}}, "several patterns match FC_1"),
        ({"Nope": 1}, "pattern 'Nope' matches no parameter; there are: 'FC_1.W'"),
        ({"FC_1": {"V": 1}}, "pattern 'FC_1.V' matches no parameter"),
        ({"X*": 1, "FC_1": {"V": 2}}, "pattern 'FC_1.V' matches no parameter"),
        ({"FC*": 1, "FC_1": 1}, "several patterns match FC_1.W: 'FC*', 'FC_1'"),
        ({"Rnn": {"bias": 1}, "default": 2}, "pattern 'Rnn.bias' matches no"),
    ],
)
def test_ambiguous_and_useless_patterns_are_named(references, message):
    with pytest.raises(NetworkValidationError, match=message.replace("*", r"\*")):
        values(references)


@pytest.mark.parametrize("value", [1, {"W": 1}, {"*": 1, "b": 2}, {"default": 1}])
@pytest.mark.parametrize("pattern", ["X", "X*", "*X"])
def test_patterns_may_match_a_layer_without_parameters(pattern, value):
    assert set(values({pattern: value, "default": 3}).values()) == {3}


def test_several_values_are_collected_in_their_order():
    references = {
        "FC*": {"W": 1, "default": 2},
        "*": {"*": 3},
        "*_1": {"W": 1, "default": 4},
        "default": 5,
    }
    resolved = resolve_references(PARAMETERS, references, several=True)
    assert resolved["FC_1"]["W"].value == [1, 3, 1]
    assert resolved["FC_2"]["bias"].value == [3]
    del references["*"]
    resolved = resolve_references(PARAMETERS, references, several=True)
    assert resolved["FC_1"]["bias"].value == [2, 4]
    assert resolved["FC_2"]["bias"].value == [2]
    assert resolved["Rnn"]["R"].value == [5]


def test_fallbacks_are_collected_and_inner_ones_come_first():
    references = {"default": 1, "fallback": 2, "FC_1": {"W": 3, "fallback": 4}}
    found = fallbacks(references)
    assert found["FC_1.W"] == found["FC_1.bias"] == 4
    assert found["FC_2.W"] == found["Rnn.R"] == 2


def test_ways_to_write_references():
    assert merge_references(3, {}) == {"default": 3}
    assert merge_references({"a": 1, "b": 2}, {"b": 3}) == {"a": 1, "b": 3}
    assert merge_references(None, {"default": 1}) == {"default": 1}
