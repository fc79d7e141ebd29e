"""Turning objects into JSON-serializable descriptions, and back.

A description holds the *static* information needed to make an object again,
and nothing of its *dynamic* state: an object made from a description is like
a newly constructed one.

=========================================  ====================================
object                                     its description
=========================================  ====================================
``None``, bool, int, float, str            itself
NumPy scalar (bool, integer, float)        the Python number
list, tuple                                list of the descriptions of its items
NumPy array (bool, integer, float)         nested lists of numbers
dict with str keys                         dict of the descriptions of its values
:class:`Describable`                       dict with ``'@type': 'ClassName'``
=========================================  ====================================

So tuples and arrays come back as lists: a class that wants them converts its
arguments, or its members in ``__init_from_description__``. Making objects from a
description runs no code by name: ``@type`` is looked up only among the subclasses of
:class:`Describable`.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from brainstorm.utils import BrainstormError, DescriptionError, choices, listing

__all__ = ["Describable", "Registry", "create_from_description", "get_description"]

_NOTHING = inspect.Parameter.empty
_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)

# What constructors raise when an argument is not of the type that they expect.
_MISFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class TypeName(str):
    """A name that stands for a class, and remembers which class is meant.

    What is described and made again in memory so keeps its class. In JSON and in
    pickles it is a text like any other.
    """

    meant: type
    registry: Registry

    def __new__(cls, name: str, meant: type, registry: Registry) -> TypeName:
        """The name of a class in a registry."""
        self = super().__new__(cls, name)
        self.meant, self.registry = meant, registry
        return self

    def check(self) -> None:
        """Warn if this name will mean another class where it is read."""
        other = self.registry.get(str(self))
        if other not in (self.meant, None):
            names = [f"{c.__module__}.{c.__qualname__}" for c in (other, self.meant)]
            warnings.warn(
                f"the name {str(self)!r} means {names[0]}, not {names[1]}, which is"
                " saved under it: give that another name, or call"
                f" {self.meant.__name__}.register()",
                stacklevel=2,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> TypeName:
        return self

    def __reduce__(self) -> tuple[type, tuple[str]]:
        self.check()
        return str, (str(self),)


class Registry(dict[str, type]):
    """Classes by the names that stand for them in files.

    Of several classes with one name the one that was defined last counts, as in a
    notebook where a cell runs again. Names of the library are its own though: files
    do not change their meaning because some module has a class of the same name.
    """

    def add(self, name: str, cls: type) -> None:
        """Take note of a class that has just been defined."""
        if of_library(cls) or not (name in self and of_library(self[name])):
            self[name] = cls

    def find(self, name: Any) -> type | None:
        """The class that a name means, None if there is none."""
        if isinstance(name, TypeName):
            return name.meant
        return self.get(name) if isinstance(name, str) else None


def check_names(description: Any) -> None:
    """Warn if names in a description would mean other classes in a file."""
    for node in _nodes(description):
        for value in node.values():
            if isinstance(value, TypeName):
                value.check()


def of_library(cls: type) -> bool:
    """Whether a class is one of ours; those that tests make are not."""
    package, _, path = cls.__module__.partition(".")
    return package == "brainstorm" and path.partition(".")[0] != "tests"


def _is_same(value: Any, default: Any) -> bool:
    """Whether an argument is left at its default."""
    return value is default or (
        isinstance(value, type(default))
        and isinstance(value, bool | int | float | str | tuple | list)
        and value == default
    )


def _shown(value: Any) -> str:
    """A value as it is written in a call; arrays by their shapes."""
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"<array {value.shape}>"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        named_by_user = isinstance(value, Describable)
        return repr(value) if named_by_user else value.__name__
    return repr(value)


class Describable:
    """Base class of all objects that can be described and made again.

    By default the description of an object holds its ``@type`` and all its
    members, save those whose name begins with an underscore, those in
    ``__undescribed__``, and those equal to their value in
    ``__default_values__``. Both of these merge along the class hierarchy.

    An object of a class of your own is made from its description without its
    ``__init__``, in this order:

    1. If it derives from a class of the library, the ``__init__`` of that class is
       called with those members that are its arguments. So these are checked.
    2. If ``__undescribed__`` is a dict, its values are set.
    3. All other members are set, those that the description omits to their
       ``__default_values__``.
    4. ``__init_from_description__`` is called.

    Names that begin with an underscore, methods, and attributes of the library's
    classes can not be set in this way. Objects of the library's classes have no other
    members than their ``__init__`` gives them.

    The name of a class stands for it in descriptions; see :class:`Registry`.
    """

    __undescribed__: ClassVar[set[str] | dict[str, Any]] = {}
    """Names of members to leave out of the description. As a dict it also
    gives the values that they get when an object is made from a description."""

    __default_values__: ClassVar[dict[str, Any]] = {}
    """Values of members. A member with that value is left out of the
    description."""

    __omit_defaults__ = False
    """Whether the defaults of the arguments of ``__init__`` are among these, for
    classes of the library; what they list themselves comes first."""

    _registry = Registry()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Describable._registry.add(cls.__name__, cls)

    @classmethod
    def register(cls) -> None:
        """Let the name of this class mean it, even if it is that of another one."""
        Describable._registry[cls.__name__] = cls

    def __repr__(self) -> str:
        """The call that makes it, without arguments that are left at their defaults."""
        words = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            if value is not parameter.empty and not _is_same(value, parameter.default):
                words.append(f"{name}={_shown(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def __describe__(self) -> dict[str, Any]:
        """Describe this object.

        Returns:
            A JSON-serializable dict with the name of the class as ``@type``
            and the descriptions of the members.

        Raises:
            DescriptionError: A member can not be described.
        """
        cls = type(self)
        _check_members(self)
        defaults = _default_values(cls)
        type_name = TypeName(cls.__name__, cls, Describable._registry)
        description: dict[str, Any] = {"@type": type_name}
        for name in _described_members(self):
            value = _describe(getattr(self, name), f"{cls.__name__}.{name}")
            if name not in defaults or value != _describe(defaults[name], name):
                description[name] = value
        return description

    @classmethod
    def __new_from_description__(cls, description: dict[str, Any]) -> Describable:
        """Make an object of this class, as the class docstring explains.

        Raises:
            DescriptionError: Members are missing, unexpected or do not fit.
        """
        members = copy.deepcopy(_default_values(cls))
        for name, value in description.items():
            if name != "@type":
                members[name] = _create(value, f"{cls.__name__}.{name}")
        arguments = _init_arguments(cls)
        instance, passed = _construct(cls, arguments, members)
        others = {
            name: value
            for name, value in members.items()
            if name not in passed or not hasattr(instance, name)
        }
        known = {*arguments, *_described_members(instance), *_default_values(cls)}
        own = not of_library(cls)
        unexpected = [
            n for n in others if n not in known and not (own and _is_settable(cls, n))
        ]
        if unexpected:
            raise DescriptionError(
                f"the description of a {cls.__name__} has the unexpected members"
                f" {listing(unexpected)}; it may have: {listing(sorted(known))}"
            )
        initial = {n: v for n, v in _undescribed(cls).items() if v is not _NOTHING}
        for name, value in {**copy.deepcopy(initial), **others}.items():
            setattr(instance, name, value)
        return instance

    def __init_from_description__(self, description: dict[str, Any]) -> None:
        """Do more once this object has been made from a description.

        Nothing by default; for subclasses to override.
        """


def get_description(this: Any) -> Any:
    """Describe an object.

    >>> get_description({'size': (3, 4)})
    {'size': [3, 4]}

    Args:
        this: A :class:`Describable` or one of the basic types listed above.

    Returns:
        A JSON-serializable description, independent of the object.

    Raises:
        DescriptionError: It, or something in it, can not be described.
    """
    try:
        return _describe(this, type(this).__name__)
    except RecursionError:
        raise DescriptionError(
            f"can not describe a {type(this).__name__} that is nested this deeply"
        ) from None


def create_from_description(description: Any) -> Any:
    """Make a new object from its description.

    Raises:
        DescriptionError: Its ``@type`` is unknown, members are missing,
            unexpected or do not fit, or it is no description at all.
    """
    try:
        return _create(description, "description")
    except RecursionError:
        raise DescriptionError("the description is nested too deeply") from None


def check_types(description: Any, accept: Callable[[type], bool]) -> None:
    """Check which classes a description names, before any object is made.

    Args:
        description: A description that may come from anywhere.
        accept: Tells whether objects of a class may be in there.

    Raises:
        DescriptionError: It names a class that is unknown or not accepted.
    """
    for node in _nodes(description):
        if "@type" in node and not accept(_class_of(node, "the description")):
            raise DescriptionError(f"a {node['@type']} is out of place here")


def _nodes(description: Any) -> Iterator[dict[str, Any]]:
    """All dicts in a description."""
    pending = [description]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, (list, tuple)):
            pending += node


# -- describing --------------------------------------------------------------


def _describe(value: Any, where: str) -> Any:
    if isinstance(value, Describable):
        return value.__describe__()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_describe(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise DescriptionError(
                    f"can not describe {where}: keys have to be strings, not {key!r}"
                )
        return {k: _describe(v, f"{where}[{k!r}]") for k, v in value.items()}
    raise DescriptionError(
        f"can not describe {where}: expected a Describable, None, bool, int, float,"
        f" str, list, tuple, dict or array of numbers, got {type(value).__name__}"
    )


def _described_members(instance: Describable) -> list[str]:
    undescribed = _undescribed(type(instance))
    return [
        name
        for name in vars(instance)
        if not name.startswith("_") and name not in undescribed
    ]


def _maker(cls: type) -> Any:
    return inspect.getattr_static(cls, "__new_from_description__")


def _check_members(instance: Describable) -> None:
    """Refuse to describe an object that could not be made again."""
    cls = type(instance)
    if _maker(cls) is not _maker(Describable):  # it builds itself
        return
    arguments, members = _init_arguments(cls), _described_members(instance)
    if of_library(cls):
        kept = {*members, *_default_values(cls)}
        lost = [n for n, d in arguments.items() if d is _NOTHING and n not in kept]
        problem = "its arguments {} are not kept in members of the same name"
    else:
        lost = [n for n in members if n not in arguments and not _is_settable(cls, n)]
        problem = "its members {} have the names of methods or of the library's"
    if lost:
        raise DescriptionError(
            f"can not describe a {cls.__name__}: {problem.format(listing(lost))}."
            " Change that, or override __describe__ and __new_from_description__"
        )


# -- creating ----------------------------------------------------------------


def _create(description: Any, where: str) -> Any:
    if isinstance(description, dict):
        if "@type" in description:
            instance = _class_of(description, where).__new_from_description__(
                description
            )
            instance.__init_from_description__(description)
            return instance
        return {k: _create(v, f"{where}[{k!r}]") for k, v in description.items()}
    if isinstance(description, (list, tuple)):
        return [_create(v, f"{where}[{i}]") for i, v in enumerate(description)]
    if description is None or isinstance(description, (bool, int, float, str)):
        return description
    raise DescriptionError(
        f"{where}: expected None, bool, int, float, str, list or dict,"
        f" got {type(description).__name__}"
    )


def _class_of(description: dict[str, Any], where: str) -> type[Describable]:
    name = description["@type"]
    cls = Describable._registry.find(name)
    if cls is None or not issubclass(cls, Describable):
        raise DescriptionError(
            f"{where} has the unknown @type {name!r};"
            f" {choices(name, sorted(Describable._registry))}"
        )
    return cls


def _construct(
    cls: type[Describable], arguments: dict[str, Any], members: dict[str, Any]
) -> tuple[Describable, set[str]]:
    """A new object, on which only an ``__init__`` of the library has run.

    Returns:
        It, and the names of the members that it was initialized with.
    """
    missing = [n for n, d in arguments.items() if d is _NOTHING and n not in members]
    if missing and of_library(cls):
        raise DescriptionError(
            f"the description of a {cls.__name__} lacks {listing(missing)};"
            f" it has: {listing(members)}"
        )
    # What lacks them was made without this __init__ in the first place.
    passed = set() if missing else set(arguments) & set(members)
    try:
        instance = cls.__new__(cls)
        if not missing:
            initialize = _library_class(cls).__init__
            initialize(instance, **{name: members[name] for name in passed})
    except BrainstormError:
        raise
    except _MISFIT as error:
        raise DescriptionError(
            f"can not make a {cls.__name__} from its description: {error}"
        ) from error
    return instance, passed


# -- what classes declare ----------------------------------------------------


def _library_class(cls: type[Describable]) -> type[Describable]:
    """The class of the library that a class is, or derives from."""
    return next(c for c in cls.__mro__ if of_library(c))


def _init_arguments(cls: type[Describable]) -> dict[str, Any]:
    """Names and defaults of the arguments of ``__init__`` that may be described."""
    hidden = _undescribed(cls)
    arguments = _arguments(_library_class(cls))
    return {name: d for name, d in arguments.items() if name not in hidden}


def _arguments(cls: type) -> dict[str, Any]:
    """Names and defaults of the arguments of ``__init__`` that go by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in by_name and not name.startswith("_")
    }


def _is_settable(cls: type[Describable], name: str) -> bool:
    """Whether a file may set a member: no method, and nothing of the library's."""
    if not name.isidentifier() or name.startswith("_") or name in _undescribed(cls):
        return False
    owners = [c for c in cls.__mro__ if name in vars(c)]
    return name in _default_values(cls) or all(
        not of_library(c) and isinstance(vars(c)[name], _PLAIN) for c in owners
    )


def _undescribed(cls: type) -> dict[str, Any]:
    """Undescribed members and the values to give them, `_NOTHING` where none."""
    merged: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = vars(base).get("__undescribed__", {})
        merged.update(own if isinstance(own, dict) else dict.fromkeys(own, _NOTHING))
    return merged


def _default_values(cls: type) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        omits = of_library(base) and getattr(base, "__omit_defaults__", False)
        if omits and "__init__" in vars(base):
            arguments = _arguments(base).items()
            merged.update({n: d for n, d in arguments if d is not _NOTHING})
        merged.update(vars(base).get("__default_values__", {}))
    hidden = _undescribed(cls)
    return {
        name: value
        for name, value in merged.items()
        if not name.startswith("_") and name not in hidden
    }
