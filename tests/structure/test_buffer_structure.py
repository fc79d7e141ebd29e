import numpy as np
import pytest

from brainstorm.structure.buffer_structure import BufferStructure, StructureTemplate
from brainstorm.utils import StructureValidationError


@pytest.mark.parametrize(
    ("shape", "buffer_type", "feature_shape", "size"),
    [
        ((4, 5), 0, (4, 5), 20),
        (("B", 3), 1, (3,), 3),
        (("T", "B", 28, 28), 2, (28, 28), 784),
        (("T", "B", np.int64(2)), 2, (2,), 2),
    ],
)
def test_parts_of_a_shape(shape, buffer_type, feature_shape, size):
    structure = BufferStructure(*shape)
    assert structure.buffer_type == buffer_type
    assert structure.feature_shape == feature_shape
    assert structure.feature_size == size
    assert structure.get_shape(7, 6) == (7, 6)[2 - buffer_type :] + feature_shape


@pytest.mark.parametrize(
    "shape",
    [
        (),
        ("T", "B"),
        ("T", 3),
        ("B", "T", 3),
        ("T", "B", 0),
        ("T", "B", -1),
        ("T", "B", 2.5),
        ("T", "B", "F"),
        ("T", "B", True),
        (3, "B"),
    ],
)
def test_malformed_shapes_are_refused(shape):
    with pytest.raises(StructureValidationError, match="feature sizes|starts with"):
        BufferStructure(*shape)


def test_only_time_buffers_have_a_context():
    assert BufferStructure("T", "B", 3, context_size=1).context_size == 1
    with pytest.raises(StructureValidationError, match="context"):
        BufferStructure("B", 3, context_size=1)


@pytest.mark.parametrize("size", [-1, 1.5, "1", None, True])
@pytest.mark.parametrize("cls", [BufferStructure, StructureTemplate])
def test_contexts_are_whole_numbers_of_steps(cls, size):
    with pytest.raises(StructureValidationError, match="context_size to be"):
        cls("T", "B", 3, context_size=size)


@pytest.mark.parametrize(
    ("template", "shape", "fits"),
    [
        (("T", "B", 3), ("T", "B", 3), True),
        (("T", "B", 3), ("T", "B", 4), False),
        (("T", "B", "F"), ("T", "B", 4), True),
        (("T", "B", "F"), ("T", "B", 4, 4), False),
        (("T", "B", "F"), ("B", 4), False),
        (("T", "B", "F", 2), ("T", "B", 4, 2), True),
        (("T", "B", "..."), ("T", "B", 4, 4, 1), True),
        (("T", "B", 4, "..."), ("T", "B", 4, 4, 1), True),
        (("T", "B", 4, "..."), ("T", "B", 5, 4, 1), False),
        (("B", "..."), ("T", "B", 4), False),
        (("B", "..."), ("B", 4), True),
        (("...",), (4,), True),
        (("...",), ("T", "B", 4), True),
        ((4, "..."), (4, 2), True),
        ((4, 2), (4,), False),
    ],
)
def test_templates_match(template, shape, fits):
    assert StructureTemplate(*template).matches(BufferStructure(*shape)) is fits


@pytest.mark.parametrize("shape", [("...", 3), ("...", "..."), ("T", "F"), ("X",)])
def test_malformed_templates_are_refused(shape):
    message = "feature sizes|starts with|come last"
    with pytest.raises(StructureValidationError, match=message):
        StructureTemplate(*shape)


@pytest.mark.parametrize("shape", [("T", "B", 4, 5), ("B", 4, 5), (4, 5)])
@pytest.mark.parametrize("kind", [BufferStructure, StructureTemplate])
def test_what_shapes_are_asked_for(kind, shape):
    structure = kind(*shape, is_backward_only=True)
    assert structure.scales_with_time is ("T" in shape)
    assert structure.scales_with_batch_size is ("B" in shape)
    assert structure.nr_dims == len(shape)
    assert structure.scaling_shape == shape[:-2]
    assert structure.feature_shape == shape[structure.first_feature_dim :] == (4, 5)
    assert structure.is_backward_only
    assert structure.context_size == 0


def test_templates_tell_of_a_context_and_match_without_it():
    template = StructureTemplate("T", "B", "F", "...", context_size=2)
    assert template.context_size == 2
    assert template.feature_shape == ("F", "...")
    assert template.matches(BufferStructure("T", "B", 3))
    with pytest.raises(StructureValidationError, match="context"):
        StructureTemplate("B", 3, context_size=1)


def test_structures_of_the_same_shape_are_equal():
    plain = BufferStructure("T", "B", 3)
    with_context = BufferStructure("T", "B", 3, context_size=1)
    assert plain == with_context
    assert len({plain, with_context}) == 1
    assert plain != BufferStructure("T", "B", 4)
    assert plain != ("T", "B", 3)


def test_shapes_count_the_steps_of_the_context():
    assert BufferStructure("T", "B", 3, context_size=2).get_shape(5, 4) == (7, 4, 3)


@pytest.mark.parametrize("size", [None, np.nan, np.inf, [3], np.array([3, 4]), "3"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(StructureValidationError, match="feature sizes"):
        BufferStructure("T", "B", size)
