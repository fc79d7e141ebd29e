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
    with pytest.raises(StructureValidationError):
        BufferStructure(*shape)


def test_only_time_buffers_have_a_context():
    assert BufferStructure("T", "B", 3, context_size=1).context_size == 1
    with pytest.raises(StructureValidationError, match="context"):
        BufferStructure("B", 3, context_size=1)


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
    with pytest.raises(StructureValidationError):
        StructureTemplate(*shape)
