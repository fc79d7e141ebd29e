import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainstorm as bs
from brainstorm.describable import (
    Describable,
    check_names,
    check_types,
    create_from_description,
    get_description,
)
from brainstorm.utils import ValidationError


class Point(Describable):
    def __init__(self, x, y=0):
        self.x = x
        self.y = y


class Counter(Describable):
    __undescribed__ = {"count": 0}
    __default_values__ = {"step": 1, "weights": [1.0, 2.0]}

    def __init__(self, step=5, weights=None):
        self.step = step
        self.weights = weights
        self.count = 99


class NamedCounter(Counter):
    __undescribed__ = {"cache"}
    __default_values__ = {"name": "counter"}

    def __init__(self, name="x", step=5, weights=None):
        super().__init__(step, weights)
        self.name = name
        self.cache = object()


class Bounded(Describable):
    """One of the library's classes, whose ``__init__`` checks what is in files."""

    __module__ = "brainstorm.of_a_test"

    def __init__(self, limit):
        if limit < 0:
            raise ValidationError("limit has to be positive")
        self.limit = float(limit)
        self.used = 0.0


def through_json(obj):
    return create_from_description(json.loads(json.dumps(get_description(obj))))


class Pair(Describable):
    __module__ = "brainstorm.of_a_test"

    def __init__(self, x, y=0):
        self.x = x
        self.y = y


class Dial(Describable):
    """One of the library's classes, which declares its defaults where it takes them."""

    __module__ = "brainstorm.of_a_test"
    __omit_defaults__ = True
    __default_values__ = {"seen": 0, "high": 7}

    def __init__(self, low, high=5, *, marks=(), seen=3):
        self.low = low
        self.high = high
        self.marks = list(marks)
        self.seen = seen


class Logged(Describable):
    __undescribed__ = {"log"}

    def __init__(self, log=None):
        self.log = log


# -- basic types -------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text().filter(lambda k: k != "@type"), inner)
    ),
    max_leaves=8,
)


@given(plain)
@settings(max_examples=50)
def test_plain_values_are_their_own_descriptions(value):
    assert get_description(value) == value
    assert through_json(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.25), 0.25),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("rel"), "rel"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array(2.5), 2.5),
        ((1, (2, 3)), [1, [2, 3]]),
    ],
)
def test_numpy_values_and_tuples_become_plain(value, expected):
    described = get_description(value)
    assert described == expected
    assert isinstance(described, type(expected))
    assert json.loads(json.dumps(described)) == expected


def test_infinity_passes_through_json():
    assert through_json(-math.inf) == -math.inf


def test_description_is_independent_of_the_object():
    values = {"a": [1, 2]}
    described = get_description(values)
    values["a"].append(3)
    assert described == {"a": [1, 2]}


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1, 2}, 1j, object(), print, np.array([1j]), np.array(["a"]), Point],
)
def test_other_types_are_refused_by_name(value):
    with pytest.raises(
        ValidationError, match=rf"Point\.x\[1\].*{type(value).__name__}"
    ):
        get_description(Point([0, value]))


def test_keys_have_to_be_strings():
    with pytest.raises(ValidationError, match=r"Point\.x.*not 3"):
        get_description(Point({3: 1}))


def test_endless_nesting_is_refused_both_ways():
    endless = []
    endless.append(endless)
    with pytest.raises(ValidationError, match="deeply"):
        get_description(endless)
    with pytest.raises(ValidationError, match="deeply"):
        create_from_description(endless)


# -- objects -----------------------------------------------------------------


def test_members_are_described_under_the_class_name():
    assert get_description(Point(1, "b")) == {"@type": "Point", "x": 1, "y": "b"}


def test_private_members_are_not_described():
    point = Point(1)
    point._cache = object()
    point.__name__ = "p"
    assert get_description(point) == {"@type": "Point", "x": 1, "y": 0}


def test_objects_nest():
    made = through_json(Point({"inner": [Point(1, 2)]}))
    inner = made.x["inner"][0]
    assert type(inner) is Point
    assert (inner.x, inner.y) == (1, 2)


def test_default_values_are_left_out_and_restored():
    assert get_description(Counter(1, (1, 2))) == {"@type": "Counter"}
    made = through_json(Counter(1, np.array([1.0, 2.0])))
    assert made.step == 1
    assert made.weights == [1.0, 2.0]
    made.weights.append(3.0)
    assert through_json(Counter(1, (1, 2))).weights == [1.0, 2.0]
    assert get_description(Counter(2, [])) == {
        "@type": "Counter",
        "step": 2,
        "weights": [],
    }


def test_undescribed_dict_gives_initial_values():
    counter = Counter()
    assert "count" not in get_description(counter)
    assert through_json(counter).count == 0


def test_declarations_merge_along_the_class_hierarchy():
    counter = NamedCounter(name="counter", step=1, weights=[1, 2])
    assert get_description(counter) == {"@type": "NamedCounter"}
    made = through_json(counter)
    assert (made.name, made.step, made.count) == ("counter", 1, 0)


def test_subclass_declarations_override():
    class Sub(Counter):
        __undescribed__ = {"count": 7}
        __default_values__ = {"step": 3}

    assert get_description(Sub(3, [1, 2])) == {"@type": "Sub"}
    made = through_json(Sub(3, [1, 2]))
    assert (made.step, made.count) == (3, 7)


def test_defaults_of_arguments_are_omitted():
    assert get_description(Dial(1, 7, seen=0)) == {"@type": "Dial", "low": 1}
    assert get_description(Dial(1)) == {
        "@type": "Dial",
        "low": 1,
        "high": 5,
        "seen": 3,
    }
    made = through_json(Dial(1, 7, seen=0))
    assert vars(made) == {"low": 1, "high": 7, "marks": [], "seen": 0}


def test_subclasses_of_the_library_omit_their_own_defaults_too():
    class Narrow(Dial):
        __module__ = "brainstorm.of_a_test"

        def __init__(self, low, high=2, marks=("a",), width=1.5):
            super().__init__(low, high, marks=marks, seen=0)
            self.width = width

    assert get_description(Narrow(1)) == {"@type": "Narrow", "low": 1}
    assert vars(through_json(Narrow(1))) == vars(Narrow(1))


def test_classes_of_users_describe_what_they_do_not_list():
    class OfAUser(Dial):
        def __init__(self, low, high=5, steps=2):
            super().__init__(low, high)
            self.steps = steps

    described = get_description(OfAUser(1, 7))
    assert described == {"@type": "OfAUser", "low": 1, "seen": 3, "steps": 2}
    assert vars(through_json(OfAUser(1))) == vars(OfAUser(1))

    class Listing(OfAUser):
        __default_values__ = {"steps": 2, "seen": 3}

    assert get_description(Listing(1, 7)) == {"@type": "Listing", "low": 1}


def test_members_that_are_no_arguments_are_set():
    bounded = Bounded(3)
    bounded.used = 1.5
    assert through_json(bounded).used == 1.5


def test_overridden_methods_are_used():
    class Celsius(Describable):
        def __init__(self, degrees):
            self.kelvin = degrees + 273

        def __describe__(self):
            return {"@type": "Celsius", "degrees": self.kelvin - 273}

        def __init_from_description__(self, description):
            self.__init__(description["degrees"])

    class Custom(Describable):
        @classmethod
        def __new_from_description__(cls, description):
            made = cls()
            made.text = description["text"]
            return made

        def __init_from_description__(self, description):
            self.seen = description

    assert through_json(Celsius(20)).kelvin == 293
    description = {"@type": "Custom", "text": "a"}
    made = create_from_description(description)
    assert (made.text, made.seen) == ("a", description)


# -- classes of the user's own -----------------------------------------------


def test_objects_of_own_classes_are_made_without_init():
    calls = []

    class Sized(Describable):
        __undescribed__ = {"unset"}

    class Scaled(Sized):
        __undescribed__ = {"scratch": [0]}

        def __init__(self, size, factor=2):
            calls.append(size)
            self.area = size * size * factor
            self.scratch = self.unset = None

        def __init_from_description__(self, description):
            calls.append((sorted(vars(self)), description))

    scaled = Scaled(3)
    assert get_description(scaled) == {"@type": "Scaled", "area": 18}
    made = through_json(scaled)
    assert type(made) is Scaled
    assert vars(made) == {"area": 18, "scratch": [0]}
    assert calls == [3, (["area", "scratch"], {"@type": "Scaled", "area": 18})]


def test_the_part_of_the_library_is_initialized_and_checked():
    class Tight(Bounded):
        def __init__(self):
            super().__init__(3)
            self.reason = ["none"]

    tight = Tight()
    tight.used = 2.0
    made = through_json(tight)
    assert vars(made) == {"limit": 3.0, "used": 2.0, "reason": ["none"]}
    description = {"@type": "Tight", "limit": -1, "reason": None}
    with pytest.raises(ValidationError, match="^limit has to be positive$"):
        create_from_description(description)
    del description["limit"]  # of one that did not call super().__init__()
    assert vars(create_from_description(description)) == {"reason": None}


def test_members_of_the_library_that_it_did_not_initialize():
    class Scores(bs.hooks.MonitorScores):
        """Has no iter_name, which `MonitorScores` needs."""

        def __init__(self):
            self.scorers = [1]
            self.timescale = "update"

    made = through_json(Scores())
    assert (made.scorers, made.timescale) == ([1], "update")
    assert not hasattr(made, "iter_name")


def test_arguments_that_the_library_does_not_keep_are_kept():
    class Draws(bs.randomness.Seedable):
        def __init__(self, seed):
            super().__init__(seed)
            self.seed = seed

    made = through_json(Draws(5))
    assert (made.seed, made.rnd.get_seed()) == (5, 5)


def test_classes_of_tests_inside_the_package_are_not_the_librarys():
    class Inside(Describable):
        __module__ = "brainstorm.tests.test_something"

        def __init__(self, x):
            self.y = x

    assert through_json(Inside(3)).y == 3


def test_hooks_and_modifiers_of_ones_own_come_back_usable():
    class Every(bs.hooks.Hook):
        def __init__(self, limit):
            super().__init__(interval=limit)
            self.largest = limit * 2

    class Scale(bs.ValueModifier):
        def __init__(self, percent):
            super().__init__()
            self.factor = percent / 100

    made = through_json(Every(5))
    assert (made.interval, made.largest, made.timescale) == (5, 10, "epoch")
    assert (made.run_verbosity, made.__name__) == (False, "Every")
    made = through_json(Scale(50))
    assert made.factor == 0.5
    assert 0 <= made.rnd.random_sample() < 1


def test_trainers_are_made_anew_from_their_descriptions():
    trainer = bs.Trainer(bs.training.MomentumStepper(0.2, momentum=0.5), verbose=False)
    description = {
        "@type": "Trainer",
        "stepper": get_description(trainer.stepper),
        "verbose": False,
    }
    assert get_description(trainer) == description
    trainer.add_hook(bs.hooks.StopAfterEpoch(3, name="end"))
    trainer.train_scorers = [bs.scorers.Accuracy()]
    trainer.logs["x"], trainer.current_epoch_nr = [1], 5
    made = through_json(trainer)
    assert get_description(made) == get_description(trainer)
    assert made.hooks["end"].max_epochs == 3
    assert (made.logs, made.results, made.current_epoch_nr) == ({}, {}, 0)
    made.logs["y"] = [2]
    assert through_json(trainer).logs == {}
    with pytest.raises(ValidationError, match="unexpected members 'logs'"):
        create_from_description({**description, "logs": {}})


class Guarded(bs.ValueModifier):
    factor = 2.0

    def __call__(self, handler, view):
        handler.mult_st(self.factor, view, view)

    @property
    def double(self):
        return 2 * self.factor


def test_members_may_replace_constants_of_ones_own_class():
    guarded = Guarded()
    guarded.factor = 3.0
    assert through_json(guarded).factor == 3.0


@pytest.mark.parametrize(
    "name",
    [
        *("__call__", "__class__", "__dict__", "__init__", "__x", "_handler", "a.b"),
        *("double", "start", "rnd", "whole_network", "_registry", "register", "x y"),
    ],
)
def test_files_can_not_set_what_is_no_member(name):
    with pytest.raises(ValidationError, match=f"unexpected members {name!r}"):
        create_from_description({"@type": "Guarded", name: 1})


@pytest.mark.parametrize("name", ["start", "whole_network", "double"])
def test_what_could_not_be_made_again_is_not_described(name):
    guarded = Guarded()
    vars(guarded)[name] = 1
    with pytest.raises(ValidationError, match=f"Guarded: its members {name!r} have"):
        get_description(guarded)


# -- what a name means -------------------------------------------------------


def definitions(*names):
    """New classes, by the names that they have."""
    return [type(name, (Describable,), {"__module__": "mine"}) for name in names]


def test_latest_definition_of_a_name_counts():
    first, second = definitions("Twice", "Twice")
    for cls in (first, second):
        description = get_description([{"a": cls()}])
        assert description == [{"a": {"@type": "Twice"}}]
        # In memory a description keeps to its class. A file knows the name only.
        for same in (description, copy.deepcopy(description)):
            assert type(create_from_description(same)[0]["a"]) is cls
        in_json = json.loads(json.dumps(description))
        assert type(create_from_description(in_json)[0]["a"]) is second
    check_names(get_description(second()))
    first.register()
    assert type(create_from_description({"@type": "Twice"})) is first


def test_saving_says_that_a_name_means_another_class():
    first, second = definitions("Thrice", "Thrice")
    description = get_description([{"a": first()}])
    message = r"'Thrice' means mine\.Thrice, not .* call Thrice\.register\(\)"
    with pytest.warns(UserWarning, match=message):
        check_names(description)
    with pytest.warns(UserWarning, match=message):
        data = pickle.dumps(description)
    assert type(create_from_description(pickle.loads(data))[0]["a"]) is second


def test_networks_and_checkpoints_say_so_when_they_are_saved(tmp_path):
    def own():
        class Softly(bs.ValueModifier):
            def __call__(self, handler, view):
                pass

        class SoftStepper(bs.training.SgdStepper):
            pass

        return Softly, SoftStepper

    Softly, SoftStepper = own()
    own()
    net = bs.tools.create_net_from_spec("classification", 2, 2, "F2")
    data = bs.Undivided(default=np.zeros((1, 2, 2)), targets=np.zeros((1, 2, 1)))
    trainer = bs.Trainer(SoftStepper(), verbose=False)
    trainer.add_hook(bs.hooks.StopAfterEpoch(0))
    trainer.train(net, data)
    with pytest.warns(UserWarning, match="'SoftStepper' means"):
        trainer.save(tmp_path / "training.hdf5")
    net.set_weight_modifiers(Softly())
    assert type(copy.deepcopy(net).weight_modifiers["FullyConnected"]["W"][0]) is Softly
    with pytest.warns(UserWarning, match="'Softly' means"):
        net.save_as_hdf5(tmp_path / "net.hdf5")


@pytest.mark.parametrize(
    "name", ["ClipValues", "SgdStepper", "StopOnNan", "Minibatches", "Gaussian"]
)
def test_names_of_the_library_keep_their_meaning(name):
    registry = Describable._registry
    original = registry[name]
    (mine,) = definitions(name)
    assert registry[name] is original
    with pytest.warns(UserWarning, match=f"means brainstorm.*{name}, not mine.{name}"):
        check_names(get_description(mine()))
    try:
        mine.register()
        assert type(create_from_description({"@type": name})) is mine
    finally:
        original.register()


def test_the_library_keeps_arguments_in_members():
    class Forgetful(Describable):
        __module__ = "brainstorm.of_a_test"

        def __init__(self, size, scale=1):
            self.area = size * size

    with pytest.raises(ValidationError, match=r"Forgetful.*'size'"):
        get_description(Forgetful(2))


# -- descriptions that do not fit --------------------------------------------


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"@type": "Nonesuch"}, r"'Nonesuch'.*'Point'"),
        ({"@type": None}, r"unknown @type None"),
        ({"@type": ["Point"]}, r"unknown @type"),
        ({"@type": "Describable"}, r"unknown @type 'Describable'"),
        ({"@type": "os.system"}, r"unknown @type"),
        ({"@type": "Pair", "y": 1}, r"Pair lacks 'x'; it has: 'y'"),
        ({"@type": "Pair", "x": 1, "z": 2}, r"unexpected.*'z'.*'x', 'y'"),
        ({"@type": "Pair", "x": 1, "_y": 2}, r"unexpected.*'_y'"),
        ({"@type": "Point", "x": 1, "@y": 2}, r"unexpected.*'@y'"),
        ({"@type": "Point", "x": 1, "__class__": 2}, r"unexpected.*'__class__'"),
        ({"@type": "Point", "x": 1, "__describe__": 2}, r"unexpected"),
        ({"@type": "Point", "x": 1, "_cache": 2}, r"unexpected.*'_cache'"),
        ({"@type": "Counter", "count": 2}, r"unexpected.*'count'"),
        ({"@type": "NamedCounter", "cache": 2}, r"unexpected.*'cache'"),
        ({"@type": "Logged", "log": 2}, r"unexpected.*'log'"),
        ({"@type": "Bounded", "limit": -1}, r"^limit has to be positive$"),
        ({"@type": "Bounded", "limit": "a"}, r"can not make a Bounded"),
        ({"@type": "Bounded", "limit": {}}, r"can not make a Bounded"),
        ({"@type": "Point", "x": [{"@type": "No"}]}, r"Point\.x\[0\].*'No'"),
        (b"bytes", r"got bytes"),
        ({"a": {1, 2}}, r"got set"),
    ],
)
def test_bad_descriptions_are_refused(description, message):
    with pytest.raises(ValidationError, match=message):
        create_from_description(description)


def test_types_can_be_checked_before_anything_is_made():
    description = {"a": [{"@type": "Point", "x": {"@type": "Bounded", "limit": 1}}]}
    check_types(description, lambda cls: True)
    check_types(description, lambda cls: cls in (Point, Bounded))
    with pytest.raises(ValidationError, match="a Bounded is out of place here"):
        check_types(description, lambda cls: cls is Point)
    for name in ("NoSuchClass", ["Point"], None):
        with pytest.raises(ValidationError, match="unknown @type"):
            check_types([{"@type": name}], lambda cls: True)
