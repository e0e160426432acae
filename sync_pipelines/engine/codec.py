"""Items as JSON text and back, exactly: what a snapshot keeps is what `create` and `update` get.

Plain JSON values stand for themselves; every other value is an object with the key `$` that names its type:
`{"$": "decimal", "v": "10.50"}`. Dataclasses, pydantic models and enums are kept by the name of their class.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any
from uuid import UUID

from sync_pipelines.errors import ConfigurationError, ItemError

_TAG = "$"
_PLAIN = frozenset({str, int, float, bool, type(None)})
_BY_TEXT = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, PurePath)
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_classes: dict[str, type] = {}
"""Classes met in this process, so that one defined inside a function can be found again."""


def encode(value: Any) -> str:
    """Returns the JSON text of an item or a value.

    Raises:
        ItemError: The value, or something inside it, has a type that can't be kept; the message names type and place.
    """
    text = _to_json(value if type(value) in _PLAIN else _tagged(value, "the item"))
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ItemError(f"the item holds text that is not Unicode: {text[error.start : error.end]!a}") from error
    return text


def decode(text: str) -> Any:
    """Returns the item or value that `encode` was given.

    Raises:
        ConfigurationError: The class of an item can't be imported here.
    """
    return json.loads(text, object_hook=_restore)


def encodable(value: Any) -> Any:
    """Returns the value, or the name of its type if JSON can't hold it."""
    try:
        encode(value)
    except Exception:  # noqa: BLE001 - whatever a local value raises, it is only shown
        return _type_name(value)
    return value


def encode_shown(value: Any) -> str:
    """Returns the JSON text of a value, or of the name of its type if JSON can't hold it."""
    try:
        return encode(value)
    except Exception:  # noqa: BLE001 - as above
        return encode(_type_name(value))


def _type_name(value: Any) -> str:
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _tagged(value: Any, place: str) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return _tagged_dict(value, place)
    if kind is list:
        return [_tagged(element, place) for element in value]
    for base, tagger in _TAGGERS:
        if isinstance(value, base):
            return tagger(value, place)
    return _tagged_other(value, place)


def _tagged_dict(value: Mapping[Any, Any], place: str) -> dict[str, Any]:
    if all(type(key) is str for key in value) and _TAG not in value:
        return {
            key: element if type(element) in _PLAIN else _tagged(element, f"{place}, field {key!r}")
            for key, element in value.items()
        }
    pairs = [[_tagged(key, place), _tagged(element, f"{place}, field {key!r}")] for key, element in value.items()]
    return {_TAG: "dict", "v": pairs}


def _tagged_moment(value: datetime, _place: str) -> Any:
    # pandas' NaT is a datetime that is unequal to itself
    return {_TAG: "datetime", "v": value.isoformat()} if value == value else None  # noqa: PLR0124


def _tagged_sequence(value: Any, place: str) -> Any:
    elements = [_tagged(element, place) for element in value]
    if hasattr(value, "_fields"):
        return {_TAG: "namedtuple", "c": remember_class(type(value)), "v": elements}
    return {_TAG: "tuple", "v": elements}


def _tagged_members(value: Iterable[Any], place: str) -> list[Any]:
    """Members of a set in an order that is the same in every process."""
    return sorted((_tagged(element, place) for element in value), key=repr)


def _tagged_enum(value: Enum, place: str) -> Any:
    kind = type(value)
    if kind.__members__.get(value.name) is value:
        return {_TAG: "enum", "c": remember_class(kind), "v": value.name}
    return {_TAG: "flag", "c": remember_class(kind), "v": _tagged(value.value, place)}  # several flags have no name


def _tagged_other(value: Any, place: str) -> Any:
    kind = type(value)
    if hasattr(kind, "model_fields") and hasattr(kind, "model_construct"):
        state = value.__getstate__()  # what pydantic's own pickling keeps: fields, extra, set and private ones
        fields = _tagged(state.pop("__dict__"), place)
        return {_TAG: "model", "c": remember_class(kind), "v": fields, "s": _tagged(state, place)}
    if dataclasses.is_dataclass(kind):
        declared = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
        attributes = {**_tagged(declared, place), **_added(value, declared, place)}
        return {_TAG: "object", "c": remember_class(kind), "v": attributes}
    if hasattr(kind, "unicode_string"):
        return {_TAG: "text", "c": remember_class(kind), "v": str(value)}  # a URL of pydantic's
    if isinstance(value, ItemError):
        raise value  # a source that found a field it can't read leaves the error in its place
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _tagged_numpy(value, place)
    return _tagged_last(value, place)


def _added(value: Any, declared: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns what `__post_init__` or a cached property put beside a dataclass's fields, as far as it can be kept."""
    added: dict[str, Any] = {}
    for name, attribute in getattr(value, "__dict__", {}).items():
        if name not in declared:
            with contextlib.suppress(ItemError):
                added[name] = _tagged(attribute, place)
    return added


def _tagged_numpy(value: Any, place: str) -> Any:
    """Converts a number, time or array of numpy's; in nanoseconds, its own `tolist` would make a time a number."""
    if value.dtype.kind in "mM":
        value = value.astype(f"{value.dtype.kind}8[us]")
    return _tagged(value.tolist(), place)


def _tagged_last(value: Any, place: str) -> Any:
    kind = type(value)
    if kind.__name__ == "NAType":
        return None
    if isinstance(value, (str, int, float)):
        return next(base(value) for base in (str, int, float) if isinstance(value, base))
    raise ItemError(
        f"{place} holds a {kind.__module__}.{kind.__qualname__}, which a snapshot can't keep; "
        "give dicts, dataclasses or pydantic models of plain values, dates, decimals, bytes, UUIDs and enums"
    )


_TAGGERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, str], Any]], ...] = (
    (Enum, _tagged_enum),
    (Decimal, lambda value, _: {_TAG: "decimal", "v": str(value)}),
    (datetime, _tagged_moment),
    (date, lambda value, _: {_TAG: "date", "v": value.isoformat()}),
    (time, lambda value, _: {_TAG: "time", "v": value.isoformat()}),
    (timedelta, lambda value, _: {_TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]}),
    (UUID, lambda value, _: {_TAG: "uuid", "v": str(value)}),
    (
        (bytes, bytearray, memoryview),
        lambda value, _: {_TAG: "bytes", "v": base64.b64encode(bytes(value)).decode("ascii")},
    ),
    (tuple, _tagged_sequence),
    (frozenset, lambda value, place: {_TAG: "frozenset", "v": _tagged_members(value, place)}),
    (set, lambda value, place: {_TAG: "set", "v": _tagged_members(value, place)}),
    (_BY_TEXT, lambda value, _: {_TAG: "text", "c": remember_class(type(value)), "v": str(value)}),
    ((list, deque), lambda value, place: [_tagged(each, place) for each in value]),
    (Mapping, lambda value, place: _tagged_dict(dict(value), place)),
)

BUILT_IN = tuple(base for bases, _ in _TAGGERS for base in (bases if isinstance(bases, tuple) else (bases,)))
"""What is kept as a value of one of these, even if its class has fields besides."""

_RESTORERS: dict[str, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "uuid": UUID,
    "bytes": base64.b64decode,
    "tuple": tuple,
    "frozenset": frozenset,
    "set": set,
    "dict": dict,
}


def _restore(tagged: dict[str, Any]) -> Any:
    kind = tagged.get(_TAG)
    if kind is None:
        return tagged
    value = tagged["v"]
    if kind in _RESTORERS:
        return _RESTORERS[kind](value)
    return _restore_object(kind, class_named(tagged["c"]), tagged)


def _restore_object(kind: str, found_class: Any, tagged: dict[str, Any]) -> Any:
    value = tagged["v"]
    if kind == "enum":
        return found_class[value]
    if kind == "namedtuple":
        return found_class._make(value)
    if kind in {"flag", "text"}:
        return found_class(value)
    restored = object.__new__(found_class)
    if kind == "model":
        restored.__setstate__({**tagged["s"], "__dict__": value})
        return restored
    for name, attribute in value.items():
        object.__setattr__(restored, name, attribute)
    return restored


def remember_class(kind: type) -> str:
    """Registers a class and returns the name by which `class_named` finds it again."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    _classes[name] = kind
    return name


def class_named(name: str) -> type:
    """Imports the class of that name.

    Raises:
        ConfigurationError: It can't be imported in this process.
    """
    if name in _classes:
        return _classes[name]
    module_name, _, qualified = name.partition(":")
    scope: Any = None
    try:
        scope = importlib.import_module(module_name)
        for part in qualified.split("."):
            scope = getattr(scope, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the class {name} of an item can't be imported in this process; define it at the top level of a module "
            "that fetch, diff and apply can all import"
        ) from error
    return _checked(scope, name)


def _checked(named: Any, name: str) -> type:
    keeps = isinstance(named, type) and (
        issubclass(named, (Enum, tuple, *_BY_TEXT))
        or dataclasses.is_dataclass(named)
        or hasattr(named, "model_construct")
        or hasattr(named, "unicode_string")
    )
    if not keeps:
        raise ConfigurationError(f"{name} is no dataclass, pydantic model, named tuple or enum")
    remember_class(named)
    return named  # type: ignore[no-any-return]  # checked just above
