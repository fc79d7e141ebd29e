"""Whether all ranks are about to do the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from brainstorm.describable import get_description
from brainstorm.parallel.ranks import Ranks
from brainstorm.utils import ValidationError

_NOTHING = "not given"


def described(part: Any) -> Any:
    """A description of something, or else its type: what ranks can compare."""
    try:
        return get_description(part)
    except ValidationError:
        return type(part).__name__


def check_same(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Check that all ranks give the same.

    Args:
        ranks: The ranks.
        facts: Anything that can be pickled, by what it is in words.

    Raises:
        ValidationError: They do not; names the first rank that differs, and how.
    """
    first, *others = ranks.gather(dict(facts))
    for rank, other in enumerate(others, 1):
        for what in facts:
            found = next(_differences(first.get(what), other.get(what)), None)
            if found is not None:
                path, a, b = found
                place = f" at {path!r}" if path else ""
                text = f"{b} on rank {rank}, {a} on rank 0"
                ranks.refuse(
                    ValidationError(
                        f"rank {rank} differs from rank 0 in the {what}{place}: {text}"
                    )
                )


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two nested structures differ, and in what."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            below = f"{path}.{key}".lstrip(".")
            if (key in a) != (key in b):
                yield below, _shown(a.get(key, _NOTHING)), _shown(b.get(key, _NOTHING))
            else:
                yield from _differences(a[key], b[key], below)
    elif a != b and not (a != a and b != b):
        yield path, _shown(a), _shown(b)


def _shown(value: Any) -> str:
    text = value if value is _NOTHING else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
