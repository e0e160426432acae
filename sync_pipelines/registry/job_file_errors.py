"""What keeps a job file from being loaded, and where in it; what a file that can't be loaded seems to declare."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sync_pipelines.engine.declaration import DEFAULT_GROUP, AnyJob, default_asset_path
from sync_pipelines.engine.places import users_place
from sync_pipelines.engine.redaction import described, message_of, redact, typed
from sync_pipelines.errors import ConfigurationError

_FIELDS = ("name", "asset_key", "group")
_CALL = re.compile(r"\bSyncJob\b(?:\[[^\n(]*\])?\(")
_TEXT_FIELD = re.compile(r"""\b(name|asset_key|group)\s*=\s*(["'])([^"'\n]*)\2""")
_LARGEST_FILE = 1_000_000


@dataclass(frozen=True, slots=True)
class DeclaredJob:
    """A job as the text of a file declares it, as far as it does so with literals."""

    name: str
    asset_key: str
    line: int


class JobFileError(ConfigurationError):
    """A job file, or jobs of files, can't be loaded. The others can.

    Args:
        message: What is wrong, with file and line.
        module: The file's module, or what else the problem is known by.
        file: Its path; None if it has none.
        line: The line that is to blame; None if that is not known.
        jobs: The jobs that are concerned, if they are known: none of a file that could not be imported.
    """

    def __init__(
        self,
        message: str,
        *,
        module: str = "",
        file: str | None = None,
        line: int | None = None,
        jobs: Sequence[AnyJob] = (),
    ) -> None:
        place = "" if file is None else f" ({file}:{line})" if line is not None else f" ({file})"
        super().__init__(message + place)
        self.module = module
        self.file = file
        self.line = line
        self.jobs = tuple(jobs)

    def declared(self) -> tuple[DeclaredJob, ...]:
        """Returns the jobs that the file's text declares, for one that was not imported; empty if they are known."""
        path = None if self.jobs else file_of_module(self.module)
        return () if path is None else declared_jobs(path)

    def may_be_about(self, name: str) -> bool:
        """Returns True if the job of that name is one of those concerned, or seems to be declared in the file."""
        known = {job.name for job in self.jobs} | {job.name for job in self.declared()}
        return name in (known or {self.module.rpartition(".")[2].replace("_", "-")})


def import_error(module: str, error: BaseException) -> JobFileError:
    """Returns the error that says why a module can't be imported: where in the user's own code it was raised."""
    file, line = _place_of(module, error)
    if isinstance(error, ConfigurationError):
        message = f"{module}: {message_of(error)}"
    elif isinstance(error, SyntaxError) and error.msg:  # its text has file and line as well
        message = f"the jobs module {module} can't be imported: {typed(type(error).__name__, redact(error.msg))}"
    else:
        message = f"the jobs module {module} can't be imported: {described(error)}"
    problem = JobFileError(message, module=module, file=file, line=line)
    problem.__cause__ = error
    return problem


def _place_of(module: str, error: BaseException) -> tuple[str | None, int | None]:
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return error.filename, error.lineno
    place = users_place(error)
    return place if place is not None else (file_of_module(module), None)


def file_of_module(module: str) -> str | None:
    """Returns the path of a module's file; None if there is none, e.g. of a package that is not there."""
    with suppress(Exception):  # whatever its package raises: it is imported for that
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.has_location:
            return spec.origin
    return None


def declared_jobs(path: str) -> tuple[DeclaredJob, ...]:
    """Returns what a file seems to declare, from its text: nothing is executed.

    It is a guess, so that a job that can't be loaded keeps its name and the key of its asset: only literals count.
    """
    try:
        file = Path(path)
        text = file.read_text(encoding="utf-8") if file.stat().st_size <= _LARGEST_FILE else ""
    except (OSError, ValueError):
        return ()
    try:
        calls = list(_calls_parsed(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        calls = list(_calls_in_text(text))
    return tuple(_declared(fields, line) for fields, line in calls if fields.get("name"))


def _declared(fields: dict[str, str], line: int) -> DeclaredJob:
    name = fields["name"]
    default = default_asset_path(name, fields.get("group") or DEFAULT_GROUP)
    return DeclaredJob(name, fields.get("asset_key") or default, line)


def _calls_parsed(tree: ast.Module) -> Iterator[tuple[dict[str, str], int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node.func) == "SyncJob":
            given = ((word.arg, word.value) for word in node.keywords)
            constants = ((name, value.value) for name, value in given if isinstance(value, ast.Constant))
            fields = {name: value for name, value in constants if name in _FIELDS and isinstance(value, str)}
            yield fields, node.lineno


def _called(function: ast.expr) -> str:
    while isinstance(function, ast.Subscript):  # SyncJob[Item, Local](...)
        function = function.value
    return getattr(function, "attr", getattr(function, "id", ""))


def _calls_in_text(text: str) -> Iterator[tuple[dict[str, str], int]]:
    """Finds the calls in a text that is no Python; a field's first mention counts, for later ones may be nested."""
    starts = [match.end() for match in _CALL.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        fields: dict[str, str] = {}
        for match in _TEXT_FIELD.finditer(text, start, end):
            fields.setdefault(match[1], match[3])
        yield fields, text.count("\n", 0, start) + 1
