"""The code version of a sync: it changes with what the declaration says about records, and with nothing else."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sync_pipelines.engine.redaction import SENSITIVE_NAMES, redact

if TYPE_CHECKING:
    from sync_pipelines.engine.declaration import AnyJob

COUNTED = (
    "fetch_external", "get_external_id", "fetch_one", "get_version", "find_local", "create", "update", "delete",
    "list_local", "should_skip", "has_changed", "target", "deletes", "delete_after",
)  # fmt: skip
"""The fields of a `SyncJob` that decide what becomes of records."""

_PLAIN = (str, PurePath, bytes, int, float, complex, Decimal, date, time, timedelta, UUID, type(None), type(Ellipsis))
_PACED_BY = frozenset({"timeout_s", "attempts", "longest_wait_s", "page_size", "max_pages", "transport"})
"""Fields of sources that decide how long a fetch takes, and not what it gives."""
_SECRET = re.compile(
    rf"(^|[_-])(auth|authorization|cookie|credential|header|{SENSITIVE_NAMES})s?([_-]|$)", re.IGNORECASE
)
"""What is another value in each deployment, or another one every month: as a word, which `author` has not."""
_COLUMNS = "columns"
_WITH_ARGUMENTS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_OWN, _JOB_FILES = "sync_pipelines.", "sync_pipelines.jobs."


def code_version_of(job: AnyJob) -> str:
    """Returns a short text that is the same in every process and on every machine with one version of Python.

    Of functions their compiled code counts, with that of the functions of their module which they call, so that
    comments and layout do not; of those of this project and of those written in C, their names. Where the database is,
    credentials, time limits and sizes of pages do not count.
    """
    parse = None if job.webhook is None else job.webhook.parse
    declared = [(name, getattr(job, name)) for name in COUNTED]
    described = _Described().of([*declared, ("webhook: parse", parse)])
    return sha256(repr(described).encode()).hexdigest()[:16]


class _Described:
    """Describes values as texts and lists of texts, each function and object once: they may refer to each other."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}  # with the objects, so that no other one gets the id of one that is gone

    def of(self, value: Any) -> Any:
        """Returns what the value is; of what has no text that stays the same, its type."""
        if isinstance(value, Enum):
            return [_name(type(value)), value.name]
        if isinstance(value, _PLAIN):
            return _text(value)
        if isinstance(value, (list, tuple)):
            return [self.of(each) for each in value]
        if isinstance(value, (Mapping, set, frozenset)):
            return sorted(self._pairs(value.items()) if isinstance(value, Mapping) else map(self.of, value), key=repr)
        if id(value) in self._known:
            return _name(value)
        self._known[id(value)] = value
        return self._callable(value) if callable(value) else self._object(value)

    def _pairs(self, pairs: Any) -> Iterator[list[Any]]:
        for name, value in pairs:
            if name == _COLUMNS and isinstance(value, Mapping):
                yield [name, sorted(([self.of(key), self.of(each)] for key, each in value.items()), key=repr)]
            else:
                is_hidden = isinstance(name, str) and _SECRET.search(name) and not callable(value)
                yield [self.of(name), "" if is_hidden else self.of(value)]

    def _callable(self, value: Any) -> Any:
        if isinstance(value, MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            return [self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, _WITH_ARGUMENTS):
            return [_name(type(value)), self.of(value.__reduce__()[1])]
        if isinstance(value, (type, BuiltinFunctionType)):
            return _name(value)
        return self._object_called(value)

    def _object_called(self, value: Any) -> Any:
        if _wrapped(value) is not None:  # that of `functools.cache` is written in C
            return [_name(type(value)), self.of(_wrapped(value))]
        call = next(vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind))
        return [self._object(value), self.of(call)]

    def _function(self, function: FunctionType) -> Any:
        module = function.__module__ or ""
        if module.startswith(_OWN) and not module.startswith(_JOB_FILES):
            return _name(function)
        of_module = (function.__globals__.get(name) for name in _names_in(function.__code__))
        called = [each for each in of_module if _is_function(each) and each.__module__ == module]
        contents = [_content(cell) for cell in function.__closure__ or ()]
        return [
            self._code(function.__code__, function.__doc__),
            self.of(function.__defaults__),
            self.of(function.__kwdefaults__),
            list(self._pairs(zip(function.__code__.co_freevars, contents, strict=True))),
            [self.of(each) for each in called],
            *([] if _wrapped(function) is None else [self.of(_wrapped(function))]),
        ]

    def _code(self, code: CodeType, said: str | None = None) -> list[Any]:
        constants = code.co_consts
        if said is not None and constants and constants[0] == said:
            constants = (None, *constants[1:])  # the docstring
        parts = [self._code(each) if isinstance(each, CodeType) else self.of(each) for each in constants]
        return [code.co_code.hex(), parts, list(code.co_names)]

    def _object(self, value: Any) -> Any:
        if hasattr(value, "fullname") and hasattr(value, "columns"):  # a SQLAlchemy `Table`
            return [value.fullname, [[column.name, type(column.type).__name__] for column in value.columns]]
        if hasattr(value, "code_identity"):
            return [_name(type(value)), self.of(value.code_identity())]
        if not is_dataclass(value):
            return _name(type(value))
        kind: Any = type(value)
        return [_name(kind), list(self._pairs((name, getattr(value, name)) for name in _declared(kind)))]


@functools.cache
def _declared(kind: Any) -> tuple[str, ...]:
    """Returns the fields of a dataclass that count; what its repr leaves out is a secret, or made out of the rest."""
    return tuple(each.name for each in fields(kind) if each.repr and each.name not in _PACED_BY)


def _text(value: Any) -> str:
    """Returns a plain value as text; of a URL without its password, of an absolute path only the name of the file."""
    if isinstance(value, PurePath):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, str):
        return redact(value) if "://" in value else value
    return repr(value)


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _wrapped(function: Any) -> Any:
    """Returns what a decorator has wrapped, as `inspect.unwrap` finds it; None if it has wrapped nothing."""
    return getattr(function, "__dict__", {}).get("__wrapped__")


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType) or (callable(value) and callable(_wrapped(value)))


def _names_in(code: CodeType) -> list[str]:
    """Returns the names that a function and those defined in it look up."""
    inner = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names_in(each)]
    return [*code.co_names, *inner]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None
