import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainstorm.data_iterators import (
    AddGaussianNoise,
    AddSaltNPepper,
    DataIterator,
    Flip,
    Minibatches,
    MultiHot,
    OneHot,
    Online,
    Pad,
    Prefetch,
    RandomCrop,
    Subsequences,
    Undivided,
)
from brainstorm.describable import create_from_description, get_description
from brainstorm.randomness import global_rnd
from brainstorm.utils import BrainstormError, IteratorValidationError, ValidationError


def numbered(T, B, *features, dtype=np.float64):
    """Every value of the array is different."""
    shape = (T, B, *features)
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def sequence_numbers(nr_sequences):
    return np.arange(nr_sequences, dtype=np.float64).reshape(1, -1, 1)


def orders(iterator, epochs=1):
    """Which sequences the batches of each epoch hold."""
    return [
        [batch["default"][0, :, 0].astype(int).tolist() for batch in iterator(None)]
        for _ in range(epochs)
    ]


def mask_of(lengths, T):
    return (np.arange(T)[:, None] < np.asarray(lengths)[None, :])[:, :, None]


def random_images(T=2, B=5, H=6, W=7, C=3, dtype=np.float32):
    return np.random.RandomState(0).uniform(1, 2, (T, B, H, W, C)).astype(dtype)


def only_batch(iterator):
    (batch,) = iterator(None)
    return batch


@pytest.fixture
def hdf5(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as f:
        yield f


# -- data ----------------------------------------------------------------------

HOLDERS = [Undivided, Online, Minibatches]


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["at least one data item", "none"]),
        ({"default": [[[1.0]]]}, ["'default'", "NumPy array", "[[[1.0]]]"]),
        ({"default": np.zeros((4, 3))}, ["'default'", "3 dimensions", "(4, 3)"]),
        ({"default": np.float64(2)}, ["'default'", "NumPy array"]),
        ({"default": np.zeros((1, 0, 2))}, ["'default'", "none", "(1, 0, 2)"]),
        ({"default": np.zeros((0, 3, 2))}, ["'default'", "none", "(0, 3, 2)"]),
        ({"default": np.full((1, 2, 3), None)}, ["'default'", "dtype object"]),
        ({"default": np.full((1, 2, 3), "x")}, ["'default'", "dtype <U1"]),
        ({"default": np.full((1, 2, 3), 1j)}, ["'default'", "dtype complex128"]),
        (
            {"default": np.zeros((1, 4, 2)), "targets": np.zeros((1, 5, 1))},
            ["'targets'", "'default'", "4", "5"],
        ),
    ],
)
def test_bad_data_is_refused_by_name(holder, data, words):
    with pytest.raises(IteratorValidationError) as error:
        holder(**data)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, ">f4"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_data_keeps_its_dtype(holder, dtype):
    data = np.ones((2, 3, 4), dtype=dtype)
    dtypes = {batch["default"].dtype for batch in holder(default=data)(None)}
    assert dtypes == {data.dtype}


@pytest.mark.parametrize(
    ("holder", "length"),
    [
        (lambda **d: Undivided(**d), 1),
        (lambda **d: Online(**d), 7),
        (lambda **d: Minibatches(**d), 7),
        (lambda **d: Minibatches(3, **d), 3),
        (lambda **d: Minibatches(7, **d), 1),
        (lambda **d: Minibatches(100, **d), 1),
    ],
)
def test_length_and_shapes_are_those_of_the_data(holder, length):
    data = {"default": numbered(5, 7, 2), "static": numbered(1, 7, 3, 4)}
    iterator = holder(**data)
    assert isinstance(iterator, DataIterator)
    assert iterator.length == length == len(list(iterator(None)))
    assert iterator.data_shapes == {"default": (5, 7, 2), "static": (1, 7, 3, 4)}
    assert set(next(iterator(None))) == {"default", "static"}


def test_undivided_yields_all_at_once():
    data = numbered(3, 4, 2)
    iterator = Undivided(default=data)
    for _ in range(2):
        batch = only_batch(iterator)
        np.testing.assert_array_equal(batch["default"], data)
        assert np.shares_memory(batch["default"], data)


def test_the_batches_of_an_array_are_views():
    data = numbered(3, 4, 2)
    batches = list(Minibatches(2, default=data, mask=np.ones((3, 4, 1)))(None))
    assert len(batches) == 2
    assert all(np.shares_memory(batch["default"], data) for batch in batches)


@given(
    nr_sequences=st.integers(1, 30),
    batch_size=st.integers(1, 35),
    shuffle=st.booleans(),
)
def test_every_sequence_comes_once_in_contiguous_slices(
    nr_sequences, batch_size, shuffle
):
    iterator = Minibatches(batch_size, shuffle, default=sequence_numbers(nr_sequences))
    slices = [
        list(range(start, min(start + batch_size, nr_sequences)))
        for start in range(0, nr_sequences, batch_size)
    ]
    (order,) = orders(iterator)
    assert (sorted(order) if shuffle else order) == slices


def test_items_stay_together():
    iterator = Minibatches(3, default=numbered(2, 10, 4), targets=numbered(2, 10, 4))
    batches = list(iterator(None))
    assert len(batches) == 4
    for batch in batches:
        np.testing.assert_array_equal(batch["default"], batch["targets"])


# -- order ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [Online, lambda **d: Minibatches(2, **d)])
def test_order_changes_between_epochs_and_comes_from_the_global_seed(make):
    def run(seed):
        global_rnd.set_seed(seed)
        return orders(make(default=sequence_numbers(20)), epochs=3)

    first, second, third = run(1)
    assert first != second != third
    assert run(1) == [first, second, third]
    assert run(2) != [first, second, third]


@pytest.mark.parametrize("shuffle", [False, np.False_])
def test_without_shuffling_the_order_is_that_of_the_data(shuffle):
    iterator = Online(shuffle, default=sequence_numbers(5))
    assert orders(iterator, epochs=2) == [[[0], [1], [2], [3], [4]]] * 2


def test_the_order_of_an_epoch_follows_from_the_state_at_its_start():
    iterator = Minibatches(2, default=sequence_numbers(20))
    list(iterator(None))
    state = iterator.rnd.get_state()
    expected = orders(iterator, epochs=2)
    iterator.rnd.set_state(state)
    batches = iterator(None)
    next(batches)
    in_the_epoch = iterator.rnd.get_state()[2]
    list(batches)
    assert iterator.rnd.get_state()[2] == in_the_epoch
    assert orders(iterator) == expected[1:]


def test_iterations_can_overlap():
    iterator = Minibatches(2, default=sequence_numbers(6))
    pairs = list(zip(iterator(None), iterator(None), strict=True))
    assert len(pairs) == 3
    for side in zip(*pairs, strict=True):
        seen = np.concatenate([batch["default"].ravel() for batch in side])
        assert sorted(seen) == list(range(6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, ["batch_size", ">= 1", "0"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5"]),
        ({"batch_size": np.zeros((1, 50, 2))}, ["batch_size", "ndarray"]),
        ({"shuffle": np.zeros((1, 50, 2))}, ["shuffle", "ndarray"]),
        ({"shuffle": "no"}, ["shuffle", "True or False", "'no'"]),
        (
            {"cut_according_to": "length"},
            ["cut_according_to", "'length'", "'default', 'mask'"],
        ),
        ({"cut_according_to": [1, 2]}, ["cut_according_to", "3 sequences", "[1, 2]"]),
        ({"cut_according_to": [1.0, 2, 3]}, ["cut_according_to", "integers"]),
        ({"cut_according_to": True}, ["cut_according_to", "True"]),
        ({"cut_according_to": [1, 5, 2]}, ["cut_according_to", "0 to 4", "5"]),
        ({"cut_according_to": [1, -1, 2]}, ["cut_according_to", "0 to 4", "-1"]),
    ],
)
def test_bad_arguments_of_minibatches(arguments, words):
    with pytest.raises(IteratorValidationError) as error:
        Minibatches(**arguments, default=numbered(4, 3, 2), mask=np.ones((4, 3, 1)))
    for word in words:
        assert word in str(error.value)


# -- cutting -------------------------------------------------------------------

LENGTHS = [3, 1, 5, 2, 0]


def cut_batches(batch_size=2, T=6, **kwargs):
    data = {
        "default": numbered(T, 5, 2),
        "static": numbered(1, 5, 3),
        "half": numbered(3, 5, 1),
        "mask": mask_of(LENGTHS, T),
    }
    batches = Minibatches(batch_size, False, **{**data, **kwargs})(None)
    return data, list(batches)


def steps(batches, name="default"):
    return [batch[name].shape[0] for batch in batches]


def test_batches_are_cut_to_the_longest_sequence_by_mask():
    data, batches = cut_batches()
    assert steps(batches) == steps(batches, "mask") == [3, 5, 1]
    for batch, start, longest in zip(batches, (0, 2, 4), (3, 5, 1), strict=True):
        for name in ("default", "mask"):
            expected = data[name][:longest, start : start + 2]
            np.testing.assert_array_equal(batch[name], expected)


def test_items_with_other_numbers_of_time_steps_are_not_cut():
    _, batches = cut_batches()
    assert steps(batches, "static") == [1, 1, 1]
    assert steps(batches, "half") == [3, 3, 3]


def test_a_gap_in_the_mask_does_not_end_a_sequence():
    mask = np.array([1, 0, 0, 1, 0, 0]).reshape(6, 1, 1).repeat(5, axis=1)
    _, batches = cut_batches(mask=mask)
    assert steps(batches) == [4, 4, 4]


def test_a_mask_with_many_features():
    mask = np.zeros((6, 5, 2, 3))
    mask[3, 1, 1, 2] = 0.1
    _, batches = cut_batches(mask=mask)
    assert steps(batches) == [4, 1, 1]


def test_cut_by_another_item():
    other = mask_of([6, 1, 1, 4, 2], 6)
    _, batches = cut_batches(other=other, cut_according_to="other")
    assert steps(batches) == steps(batches, "mask") == [6, 4, 2]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_cut_by_lengths(kind):
    _, batches = cut_batches(cut_according_to=kind([6, 1, 1, 4, 0]))
    assert steps(batches) == steps(batches, "mask") == [6, 4, 1]
    assert steps(batches, "half") == [3, 3, 3]


@pytest.mark.parametrize("nothing", [None, False])
def test_no_cutting_on_demand(nothing):
    _, batches = cut_batches(cut_according_to=nothing)
    assert steps(batches) == [6, 6, 6]


def test_no_cutting_without_mask():
    batches = Minibatches(2, default=numbered(6, 5, 2))(None)
    assert steps(batches) == [6, 6, 6]


def test_undivided_is_not_cut():
    iterator = Undivided(default=numbered(6, 2, 2), mask=mask_of([1, 2], 6))
    assert steps([only_batch(iterator)]) == [6]


def test_online_cuts_like_minibatches_of_one():
    data = {"default": numbered(6, 5, 2), "mask": mask_of(LENGTHS, 6)}
    online = list(Online(False, **data)(None))
    assert steps(online) == [3, 1, 5, 2, 1]
    for ours, theirs in zip(online, Minibatches(1, False, **data)(None), strict=True):
        np.testing.assert_array_equal(ours["default"], theirs["default"])


# -- HDF5 ----------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
def test_hdf5_data_gives_the_same_batches_as_arrays(hdf5, shuffle):
    data = {"default": numbered(6, 5, 2), "mask": mask_of(LENGTHS, 6)}
    for name, array in data.items():
        hdf5[f"training/{name}"] = array

    def batches(source):
        global_rnd.set_seed(3)
        return list(Minibatches(2, shuffle, **source)(None))

    lazy = batches(hdf5["training"])
    assert len(lazy) == 3
    for ours, theirs in zip(lazy, batches(data), strict=True):
        assert set(ours) == set(theirs)
        for name, array in ours.items():
            assert type(array) is np.ndarray
            np.testing.assert_array_equal(array, theirs[name])


def test_hdf5_data_is_read_batch_by_batch(hdf5):
    hdf5["x"] = np.zeros((1, 4, 2))
    batches = Minibatches(2, False, default=hdf5["x"])(None)
    assert next(batches)["default"].max() == 0
    hdf5["x"][:, 2:] = 7
    assert next(batches)["default"].min() == 7


@pytest.mark.parametrize("holder", [Undivided, partial(Minibatches, 2, False)])
def test_hdf5_data_is_read_piece_by_piece(hdf5, holder):
    hdf5["x"] = np.zeros((7, 2, 1))
    hdf5["static"] = np.ones((1, 2, 3))
    iterator = holder(default=hdf5["x"], static=hdf5["static"])
    pieces = Subsequences(iterator, 3)(None)
    assert not next(pieces)["default"].any()
    hdf5["x"][3:] = 7
    second, last = pieces
    assert np.array_equal(second["default"], np.full((3, 2, 1), 7))
    assert np.array_equal(last["default"], np.full((1, 2, 1), 7))
    assert np.array_equal(last["static"], np.ones((1, 2, 3)))


def test_pieces_are_those_of_what_a_derived_class_yields():
    class Negative(Undivided):
        def __call__(self, handler):
            for batch in super().__call__(handler):
                yield {name: -array for name, array in batch.items()}

    x = numbered(5, 2, 1)
    pieces = Subsequences(Negative(default=x), 3)(None)
    assert np.array_equal(np.concatenate([p["default"] for p in pieces]), -x)


def test_hdf5_data_can_be_read_undivided(hdf5):
    hdf5["x"] = numbered(3, 4, 2)
    batch = only_batch(Undivided(default=hdf5["x"]))
    assert type(batch["default"]) is np.ndarray
    np.testing.assert_array_equal(batch["default"], numbered(3, 4, 2))


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_closed_hdf5_file_is_named_at_construction(hdf5, holder):
    hdf5["x"] = numbered(3, 4, 2)
    dataset = hdf5["x"]
    hdf5.close()
    with pytest.raises(IteratorValidationError, match=r"'default'.*closed"):
        holder(default=dataset)


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_closed_hdf5_file_is_named_while_iterating(hdf5, holder):
    hdf5["x"] = numbered(3, 4, 2)
    iterator = holder(default=hdf5["x"])
    batches = iterator(None)
    if holder is not Undivided:
        next(batches)
    hdf5.close()
    with pytest.raises(IteratorValidationError, match=r"'default'.*closed"):
        next(batches)


def test_damaged_hdf5_data_is_named(tmp_path):
    path = tmp_path / "damaged.hdf5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=numbered(1, 4, 500), fletcher32=True)
        where = f["x"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(where + 100)
        raw.write(b"damage")
    with h5py.File(path, "r") as f:
        iterator = Minibatches(2, default=f["x"])
        with pytest.raises(BrainstormError, match="'default'"):
            list(iterator(None))


def test_hdf5_data_that_is_no_array_is_refused(hdf5):
    hdf5["nothing"] = h5py.Empty("f")
    hdf5["text"] = "some text"
    with pytest.raises(IteratorValidationError, match=r"'a'.*3 dimensions"):
        Undivided(a=hdf5["nothing"])
    with pytest.raises(IteratorValidationError, match=r"'b'.*dtype"):
        Undivided(b=hdf5["text"])
    with pytest.raises(IteratorValidationError, match=r"'c'.*HDF5 group"):
        Undivided(c=hdf5["/"])


# -- what all wrapping iterators have in common ---------------------------------


def wrappers():
    return {
        "noise": lambda it: AddGaussianNoise(it, {"default": 1.0}),
        "salt": lambda it: AddSaltNPepper(it, {"default": 0.3}),
        "flip": lambda it: Flip(it),
        "pad": lambda it: Pad(it, {"default": 2}, {"default": 3.0}),
        "pad by 0": lambda it: Pad(it, {"default": 0}),
        "crop": lambda it: RandomCrop(it, {"default": (3, 4)}),
        "one-hot": lambda it: OneHot(it, {"targets": 3}),
        "multi-hot": lambda it: MultiHot(it, {"many": 3}),
        "prefetch": lambda it: Prefetch(it, 2),
    }


@pytest.fixture(params=wrappers())
def wrap(request):
    return wrappers()[request.param]


@pytest.fixture(params=["noise", "salt", "flip", "crop"])
def wrap_randomly(request):
    return wrappers()[request.param]


def all_kinds():
    rnd = np.random.RandomState(1)
    return {
        "default": random_images(T=2, B=20),
        "targets": rnd.randint(0, 3, (2, 20, 1)),
        "many": rnd.randint(0, 3, (2, 20, 5)),
    }


def test_wrappers_report_the_shapes_that_they_produce(wrap):
    iterator = wrap(Undivided(**all_kinds()))
    shapes = {name: array.shape for name, array in only_batch(iterator).items()}
    assert iterator.data_shapes == shapes


def test_wrappers_leave_data_and_shapes_of_the_wrapped_iterator_alone(wrap):
    data = all_kinds()
    inner = Undivided(**data)
    shapes = dict(inner.data_shapes)
    assert len(list(wrap(inner)(None))) == 1
    assert inner.data_shapes == shapes
    for name, array in all_kinds().items():
        np.testing.assert_array_equal(data[name], array)


def test_wrappers_take_length_and_order_from_the_wrapped_iterator(wrap):
    data = {**all_kinds(), "number": np.arange(40.0).reshape(2, 20, 1)}
    iterator = wrap(Minibatches(3, False, **data))
    batches = list(iterator(None))
    assert iterator.length == len(batches) == 7
    for i, batch in enumerate(batches):
        numbers = data["number"][:, 3 * i : 3 * i + 3]
        np.testing.assert_array_equal(batch["number"], numbers)


def test_wrappers_are_reproducible_from_the_global_seed(wrap_randomly):
    def run(seed):
        global_rnd.set_seed(seed)
        iterator = wrap_randomly(Minibatches(3, False, **all_kinds()))
        return [batch["default"] for _ in range(2) for batch in iterator(None)]

    def differ(some, others):
        return any((a != b).any() for a, b in zip(some, others, strict=True))

    first = run(7)
    assert not differ(first, run(7))
    assert differ(first, run(8))
    assert differ(first[:7], first[7:])


def test_the_randomness_of_wrappers_is_in_rnd(wrap_randomly):
    iterator = wrap_randomly(Minibatches(3, False, **all_kinds()))
    state = iterator.rnd.get_state()
    first = list(iterator(None))
    assert len(first) == 7
    iterator.rnd.set_state(state)
    for ours, theirs in zip(first, iterator(None), strict=True):
        np.testing.assert_array_equal(ours["default"], theirs["default"])


def test_wrappers_can_be_nested():
    images = np.full((1, 6, 4, 4, 1), 5, np.uint8)
    inner = Minibatches(4, default=images, targets=np.eye(6)[None])
    iterator = Flip(RandomCrop(Pad(inner, {"default": 2}), {"default": (8, 8)}))
    assert iterator.data_shapes == {"default": (1, 6, 8, 8, 1), "targets": (1, 6, 6)}
    images = np.concatenate([batch["default"] for batch in iterator(None)], axis=1)
    assert images.sum(axis=(0, 2, 3, 4)).tolist() == [80] * 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrappers_keep_float_types(wrap, dtype):
    data = {name: array.astype(dtype) for name, array in all_kinds().items()}
    for array in only_batch(wrap(Undivided(**data))).values():
        assert array.dtype == dtype


DIMS = {"default": np.zeros((1, 4, 6, 6, 1)), "labels": np.zeros((1, 4, 1))}


@pytest.mark.parametrize(
    ("wrapper", "arguments", "words"),
    [
        (AddGaussianNoise, [{"x": 1}], ["std_dict", "'x'", "'default', 'labels'"]),
        (AddGaussianNoise, [0.5], ["std_dict", "dict", "0.5"]),
        (AddGaussianNoise, [{"default": -1}], ["std_dict['default']", ">= 0", "-1"]),
        (AddGaussianNoise, [{"default": np.nan}], ["std_dict['default']", "nan"]),
        (AddGaussianNoise, [{"default": np.inf}], ["std_dict['default']", "inf"]),
        (AddGaussianNoise, [{"default": "a"}], ["std_dict['default']", "'a'"]),
        (
            AddGaussianNoise,
            [{"default": 1}, {"labels": 0}],
            ["mean_dict", "'labels'", "'default'"],
        ),
        (AddGaussianNoise, [{"default": 1}, {"default": None}], ["mean_dict", "None"]),
        (AddSaltNPepper, [{"x": 1}], ["prob_dict", "'x'", "'default', 'labels'"]),
        (AddSaltNPepper, [{"default": 1.1}], ["prob_dict['default']", "0 to 1", "1.1"]),
        (AddSaltNPepper, [{"default": -0.1}], ["prob_dict['default']", "-0.1"]),
        (
            AddSaltNPepper,
            [{"default": 1}, {"default": 2}],
            ["ratio_dict['default']", "0 to 1", "2"],
        ),
        (AddSaltNPepper, [{"default": 1}, {"labels": 1}], ["ratio_dict", "'labels'"]),
        (Flip, [{"x": 1}], ["prob_dict", "'x'", "'default', 'labels'"]),
        (Flip, [{"default": 1.5}], ["prob_dict['default']", "0 to 1", "1.5"]),
        (Flip, [{"labels": 0.5}], ["Flip", "'labels'", "(1, 4, 1)"]),
        (Pad, [{"x": 1}], ["size_dict", "'x'", "'default', 'labels'"]),
        (Pad, [{"default": -1}], ["size_dict['default']", ">= 0", "-1"]),
        (Pad, [{"default": 1.5}], ["size_dict['default']", "1.5"]),
        (Pad, [{"labels": 1}], ["Pad", "'labels'", "(1, 4, 1)"]),
        (Pad, [{"default": 1}, {"labels": 1}], ["value_dict", "'labels'"]),
        (Pad, [{"default": 1}, {"default": np.nan}], ["value_dict", "nan"]),
        (RandomCrop, [{"x": (1, 1)}], ["shape_dict", "'x'", "'default', 'labels'"]),
        (RandomCrop, [{"default": (7, 2)}], ["shape_dict", "(6, 6)", "(7, 2)"]),
        (RandomCrop, [{"default": (2, 7)}], ["shape_dict", "(6, 6)", "(2, 7)"]),
        (RandomCrop, [{"default": (0, 2)}], ["shape_dict", "(0, 2)"]),
        (RandomCrop, [{"default": 3}], ["shape_dict", "(height, width)", "3"]),
        (RandomCrop, [{"default": (2, 2, 1)}], ["shape_dict", "(2, 2, 1)"]),
        (RandomCrop, [{"labels": (1, 1)}], ["RandomCrop", "'labels'", "(1, 4, 1)"]),
        (OneHot, [{"x": 3}], ["vocab_size_dict", "'x'", "'default', 'labels'"]),
        (OneHot, [{"labels": 0}], ["vocab_size_dict['labels']", ">= 1", "0"]),
        (OneHot, [{"default": 3}], ["OneHot", "(T, B, 1)", "(1, 4, 6, 6, 1)"]),
        (MultiHot, [{"x": 3}], ["vocab_size_dict", "'x'", "'default', 'labels'"]),
        (MultiHot, [{"labels": 2.5}], ["vocab_size_dict['labels']", "2.5"]),
        (MultiHot, [{"default": 3}], ["MultiHot", "3 dim", "(1, 4, 6, 6, 1)"]),
    ],
)
def test_bad_arguments_of_wrappers(wrapper, arguments, words):
    with pytest.raises(IteratorValidationError) as error:
        wrapper(Undivided(**DIMS), *arguments)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("wrapper", [OneHot, Pad, AddGaussianNoise])
def test_wrappers_want_an_iterator(wrapper):
    with pytest.raises(IteratorValidationError, match="iter: expected a DataIterator"):
        wrapper({"labels": 1}, {"labels": 1})


def test_flip_without_default_item_names_the_choices():
    with pytest.raises(IteratorValidationError, match=r"'default'.*'images'"):
        Flip(Undivided(images=random_images()))


# -- what each wrapping iterator does --------------------------------------------


def test_gaussian_noise_has_the_given_mean_and_deviation():
    data = {"default": np.full((2, 100, 100), 5.0), "b": np.zeros((2, 100, 100), int)}
    iterator = AddGaussianNoise(
        Undivided(**data), {"default": 2.0, "b": 0.5}, {"b": -3.0}
    )
    batch = only_batch(iterator)
    tolerance = 5 / np.sqrt(20000)
    assert abs(batch["default"].mean() - 5) < 2 * tolerance
    assert abs(batch["default"].std() - 2) < 2 * tolerance
    assert abs(batch["b"].mean() + 3) < 0.5 * tolerance
    assert abs(batch["b"].std() - 0.5) < 0.5 * tolerance
    assert batch["b"].dtype == np.float32
    assert abs(np.corrcoef(batch["default"].ravel(), batch["b"].ravel())[0, 1]) < 0.04


def test_noise_of_deviation_zero_shifts_by_the_mean():
    data = numbered(2, 3, 4)
    iterator = AddGaussianNoise(Undivided(default=data), {"default": 0}, {"default": 2})
    np.testing.assert_array_equal(only_batch(iterator)["default"], data + 2)


def test_shares_of_salt_and_pepper():
    data = {"default": np.full((4, 100, 100), 5.0), "b": np.full((1, 100, 400), 7)}
    probs, ratios = {"default": 0.3, "b": 0.6}, {"b": 0.9}
    batch = only_batch(AddSaltNPepper(Undivided(**data), probs, ratios))
    for name, value, salt, pepper in [
        ("default", 5, 0.15, 0.15),
        ("b", 7, 0.54, 0.06),
    ]:
        array = batch[name]
        assert set(np.unique(array)) == {0, 1, value}
        assert abs((array == 1).mean() - salt) < 0.015
        assert abs((array == 0).mean() - pepper) < 0.015


@pytest.mark.parametrize(
    ("prob", "ratio", "expected"), [(0, 0.5, 5), (1, 0, 0), (1, 1, 1)]
)
def test_extremes_of_salt_and_pepper(prob, ratio, expected):
    data = Undivided(default=np.full((2, 3, 40), 5.0))
    iterator = AddSaltNPepper(data, {"default": prob}, {"default": ratio})
    assert (only_batch(iterator)["default"] == expected).all()


def test_flip_reverses_the_width():
    images = random_images()
    batch = only_batch(Flip(Undivided(default=images), {"default": 1}))
    for t, b, y, x in np.ndindex(images.shape[:4]):
        flipped = batch["default"][t, b, y, images.shape[3] - 1 - x]
        np.testing.assert_array_equal(flipped, images[t, b, y, x])


def test_flip_with_probability_zero_does_nothing():
    images = random_images()
    batch = only_batch(Flip(Undivided(default=images), {"default": 0}))
    np.testing.assert_array_equal(batch["default"], images)


def test_flip_takes_all_images_of_a_sequence_or_none():
    images = random_images(T=3, B=400, H=2, W=3, C=1)
    result = only_batch(Flip(Undivided(default=images)))["default"]
    same = (result == images).all(axis=(2, 3, 4))
    flipped = (result == images[:, :, :, ::-1]).all(axis=(2, 3, 4))
    assert (same ^ flipped).all()
    assert (flipped == flipped[0]).all()
    assert abs(flipped[0].mean() - 0.5) < 0.125


def test_pad_adds_a_frame():
    images = random_images(H=3, W=4)
    iterator = Pad(Undivided(a=images, b=images), {"a": 2, "b": 1}, {"b": 7})
    batch = only_batch(iterator)
    for name, size, value in [("a", 2, 0), ("b", 1, 7)]:
        frame = [(0, 0), (0, 0), (size, size), (size, size), (0, 0)]
        expected = np.pad(images, frame, constant_values=value)
        np.testing.assert_array_equal(batch[name], expected)


def test_pad_does_not_round_its_value_to_integers():
    images = np.ones((1, 2, 2, 2, 1), np.uint8)
    batch = only_batch(Pad(Undivided(default=images), {"default": 1}, {"default": 0.5}))
    assert batch["default"][0, 0, 0, 0, 0] == 0.5
    assert batch["default"].dtype == np.float32


def test_crops_are_windows_at_one_place_per_sequence():
    images = numbered(3, 300, 4, 5, 2)
    crops = only_batch(RandomCrop(Undivided(default=images), {"default": (2, 3)}))
    places = set()
    for b in range(300):
        crop = crops["default"][:, b]
        found = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if (crop == images[:, b, y : y + 2, x : x + 3]).all()
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) == 9


def test_a_crop_of_the_full_size_changes_nothing():
    images = random_images(H=6, W=7, dtype=np.float64).astype(np.uint8)
    batch = only_batch(RandomCrop(Undivided(default=images), {"default": (6, 7)}))
    np.testing.assert_array_equal(batch["default"], images)
    assert batch["default"].dtype == np.uint8
    assert batch["default"].flags.c_contiguous


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_one_hot(dtype):
    labels = np.array([[[0], [1]], [[1], [1]], [[1], [0]]]).astype(dtype)
    batch = only_batch(OneHot(Undivided(labels=labels, same=labels), {"labels": 4}))
    expected = [
        [[1, 0, 0, 0], [0, 1, 0, 0]],
        [[0, 1, 0, 0], [0, 1, 0, 0]],
        [[0, 1, 0, 0], [1, 0, 0, 0]],
    ]
    np.testing.assert_array_equal(batch["labels"], expected)
    assert batch["labels"].dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(batch["same"], labels)


def test_multi_hot():
    words = np.array([[[0, 2, 2], [1, 1, 1]], [[3, 2, 1], [0, 3, 0]]])
    batch = only_batch(MultiHot(Undivided(words=words), {"words": 5}))
    expected = [
        [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]],
        [[0, 1, 1, 1, 0], [1, 0, 0, 1, 0]],
    ]
    np.testing.assert_array_equal(batch["words"], expected)


@pytest.mark.parametrize("wrapper", [OneHot, MultiHot])
@pytest.mark.parametrize("bad", [3, -1, 0.5, np.nan, np.inf, 1e30])
def test_labels_outside_the_vocabulary(wrapper, bad):
    labels = np.array([[[0.0], [2.0]], [[bad], [1.0]]])
    iterator = wrapper(Undivided(labels=labels), {"labels": 3})
    with pytest.raises(IteratorValidationError) as error:
        list(iterator(None))
    for word in ("'labels'", "0 to 2", "vocabulary size is 3", f"got {bad}"):
        assert word in str(error.value)


def test_one_hot_works_on_cut_batches():
    labels = numbered(6, 5, 1).astype(int) % 4
    data = Minibatches(2, False, labels=labels, mask=mask_of(LENGTHS, 6))
    batches = list(OneHot(data, {"labels": 4})(None))
    assert [batch["labels"].shape for batch in batches] == [
        (3, 2, 4),
        (5, 2, 4),
        (1, 1, 4),
    ]
    np.testing.assert_array_equal(
        batches[1]["labels"].argmax(axis=2), labels[:5, 2:4, 0]
    )


# -- pieces --------------------------------------------------------------------


def steps_of(iterator):
    """Numbers of time steps, and whether each piece continues the one before."""
    return [(len(piece["default"]), iterator.continues) for piece in iterator()]


def test_pieces_of_pieces_continue_like_their_sequences():
    batches = Minibatches(2, False, default=numbered(11, 3, 1))
    nested = Subsequences(AsItIs(Subsequences(batches, 6)), 4)
    steps = [(4, False), (2, True), (4, True), (1, True)]
    assert steps_of(nested) == steps * 2
    assert nested.length == 8
    assert nested.data_shapes == {"default": (4, 3, 1)}
    three = Subsequences(nested, 3)
    assert [n for n, _ in steps_of(three)] == [3, 1, 2, 3, 1, 1] * 2
    assert [c for _, c in steps_of(three)] == ([False] + [True] * 5) * 2
    assert three.length == 12


class AsItIs(DataIterator):
    """Changes nothing, in the way of a user."""

    def __init__(self, iter):
        super().__init__(iter.data_shapes, iter.length)
        self.iter = iter

    def __call__(self, handler=None):
        yield from self.iter(handler)


def test_iterators_of_users_say_whether_batches_continue():
    class Own(DataIterator):
        def __call__(self, handler=None):
            for self.continues in (False, True):
                yield {"default": numbered(2, 3, 1)}

    class Never(AsItIs):
        continues = None

    own = Own({"default": (2, 3, 1)}, 2)
    assert own.continues is None
    assert steps_of(own) == [(2, False), (2, True)]
    assert steps_of(AsItIs(own)) == [(2, False), (2, True)]
    assert steps_of(Subsequences(own, 1)) == [(1, False), *[(1, True)] * 3]
    assert Never(own).continues is None
    assert Undivided(default=numbered(2, 3, 1)).continues is None


@pytest.mark.parametrize("steps", [(3, 2), (2, 3), (1, 1), (6, 7), (7, 3)])
def test_static_items_stay_static_in_pieces_of_pieces(steps):
    data = {"default": numbered(7, 2, 1), "static": numbered(3, 2, 1)}
    iterator = Undivided(**data)
    for n in steps:
        iterator = Subsequences(iterator, n)
    pieces = list(iterator())
    assert iterator.length == len(pieces)
    joined = np.concatenate([piece["default"] for piece in pieces])
    assert np.array_equal(joined, data["default"])
    assert all(np.array_equal(piece["static"], data["static"]) for piece in pieces)
    assert iterator.data_shapes["static"] == (3, 2, 1)


def test_the_number_of_pieces_of_cut_batches_is_not_known():
    data = {"default": numbered(6, 4, 1), "mask": mask_of([1, 6, 2, 3], 6)}
    assert Subsequences(Subsequences(Online(**data), 3), 2).length is None


def test_each_thread_knows_whether_its_own_pieces_continue():
    pieces = Subsequences(Undivided(default=numbered(5, 1, 1)), 2)
    iteration = pieces()
    next(iteration), next(iteration)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(steps_of, pieces).result()[0] == (2, False)
        assert pieces.continues is True
        assert pool.submit(lambda: pieces.continues).result() is True


# -- without a handler, lengths ------------------------------------------------


@pytest.mark.parametrize("holder", HOLDERS)
def test_iterators_need_no_handler(holder, wrap):
    iterator = wrap(holder(**all_kinds()))
    assert len(list(iterator())) == len(list(iterator(handler=None))) > 0
    assert list(Subsequences(iterator, 1)())


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_lengths_of_sequences(batch_size):
    lengths = [3, 0, 5, 1]
    mask = mask_of(lengths, 6).astype(float)
    mask[0, 2] = 0  # a gap does not end a sequence
    data = {"default": numbered(6, 4, 2), "mask": mask}
    make = partial(Minibatches, batch_size, False)
    assert make(**data).seq_lens.tolist() == lengths
    assert make(cut_according_to=lengths, **data).seq_lens.tolist() == lengths
    assert make(cut_according_to=None, **data).seq_lens is None
    assert make(default=data["default"]).seq_lens is None
    by_features = make(cut_according_to="default", default=mask.repeat(2, axis=2))
    assert by_features.seq_lens.tolist() == lengths


# -- state ---------------------------------------------------------------------


def test_iterations_at_the_same_time_do_not_disturb_each_other(wrap_randomly):
    def make():
        global_rnd.set_seed(7)
        return wrap_randomly(Minibatches(4, False, **all_kinds()))

    alone = [batch["default"] for batch in make()()]
    assert len(alone) == 5
    iterator = make()
    disturbed = []
    for i, batch in enumerate(iterator()):
        disturbed.append(batch["default"])
        if i == 1:
            list(iterator())
        next(iterator())
    np.testing.assert_array_equal(disturbed, alone)


def test_iterations_draw_one_after_the_other(wrap_randomly):
    """As if there were one stream, as long as they do not overlap."""
    global_rnd.set_seed(7)
    iterator = wrap_randomly(Undivided(**all_kinds()))
    before = iterator.rnd.get_state()
    first = only_batch(iterator)["default"]
    assert not np.array_equal(only_batch(iterator)["default"], first)
    iterator.rnd.set_state(before)
    assert np.array_equal(only_batch(iterator)["default"], first)


def augmented(**data):
    batches = Minibatches(2, **data)
    return AddGaussianNoise(RandomCrop(batches, {"default": (3, 3)}), {"default": 1.0})


def test_iterations_from_the_same_state_are_the_same():
    images = numbered(2, 9, 4, 4, 1)
    iterator = augmented(default=images)
    list(iterator(None))
    state = iterator.get_state()
    first = list(iterator(None))
    other = augmented(default=images)
    other.set_state(state)
    for a, b in zip(first, other(None), strict=True):
        np.testing.assert_array_equal(a["default"], b["default"])
    assert not np.array_equal(next(iterator(None))["default"], first[0]["default"])


def test_iterators_without_randomness_have_no_state():
    assert Undivided(default=numbered(1, 2, 3)).get_state() == {}
    wrapped = Pad(Undivided(default=numbered(1, 2, 3, 3, 1)), {"default": 1})
    assert wrapped.get_state() == {"iter": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rnd"), "state of a AddGaussianNoise, .* 'iter', 'rnd'"),
        (lambda s: s.update(more=1), "state of a AddGaussianNoise"),
        (lambda s: s["iter"].clear(), "state of a RandomCrop, .* 'iter', 'rnd'"),
        (lambda s: s["iter"].update(iter=5), "state of a Minibatches, .* 'rnd'"),
        (lambda s: s.update(rnd=["MT19937", [1, 2], 0]), "'rnd' of a AddGaussianNoise"),
        (lambda s: s.update(rnd=None), "'rnd' of a AddGaussianNoise"),
    ],
)
def test_states_of_other_iterators_are_refused(change, message):
    iterator = augmented(default=numbered(2, 9, 4, 4, 1))
    state = iterator.get_state()
    change(state)
    with pytest.raises(IteratorValidationError, match=message):
        iterator.set_state(state)


def test_descriptions_hold_no_data():
    data = np.zeros((2, 10, 1))
    for make in (Undivided, lambda **d: Online(**d), lambda **d: Minibatches(3, **d)):
        for iterator in (
            make(default=data),
            OneHot(make(default=data), {"default": 2}),
        ):
            with pytest.raises(ValidationError, match="describe a .*hold no data"):
                get_description(iterator)


class Countdown(DataIterator):
    """One of a user's own, which makes its data."""

    def __init__(self, start):
        super().__init__({"default": (1, 4, 1)}, start)

    def __call__(self, handler=None):
        for _ in range(self.length):
            yield {"default": self.rnd.randn(1, 4, 1)}


def test_iterators_of_ones_own_can_be_described():
    noisy = AddGaussianNoise(Countdown(3), {"default": 0.5})
    again = create_from_description(json.loads(json.dumps(get_description(noisy))))
    assert (type(again), type(again.iter)) == (AddGaussianNoise, Countdown)
    assert [batch["default"].shape for batch in again()] == [(1, 4, 1)] * 3
    assert again.iter.rnd.get_seed() != noisy.iter.rnd.get_seed()
