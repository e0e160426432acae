"""Where in a YAML file something is declared, so that an error can say file and line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Self

from dagster_shared.yaml_utils.source_position import SourcePositionTree

from sync_pipelines.engine import declared_at
from sync_pipelines.errors import ConfigurationError

Path = tuple[str | int, ...]
"""The way to a value, from key to key: `("attributes", "source", "rest", "url")`."""


class MisplacedError(ConfigurationError):
    """Something within a declaration is wrong; the path leads to it, as far as it has been followed back."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


@contextmanager
def within(*path: str | int) -> Iterator[None]:
    """Lets an error of what is declared there tell the way to it."""
    try:
        yield
    except MisplacedError as error:
        raise MisplacedError((*path, *error.path), str(error)) from error.__cause__
    except ConfigurationError as error:
        raise MisplacedError((*path, *field_of(error)), str(error)) from error


def field_of(error: ConfigurationError) -> Path:
    """Returns the field that the error is about, where it knows."""
    return () if error.field is None else (error.field,)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a component or one of its syncs is declared.

    Args:
        tree: The positions in the YAML file; None for what is declared in Python.
        path: The way from the file's top to the declaration.
    """

    tree: SourcePositionTree | None = None
    path: Path = ()

    def at(self, *path: str | int) -> Self:
        """Returns a place below this one."""
        return type(self)(self.tree, (*self.path, *path))

    def line(self) -> declared_at.Place | None:
        """Returns file and line of the declaration; None of one in Python."""
        if self.tree is None:
            return None
        here = self.tree
        for step in self.path:
            here = here.children.get(step, here)
        return declared_at.Place(here.position.filename, here.position.start.line)

    def error(self, path: Sequence[str | int], message: str) -> ConfigurationError:
        """Builds the error of something below this place: file, line and the way to it, then the message."""
        found: Path = ()
        if self.tree is None:
            way = ".".join(map(str, (*self.path, *path)))
            return ConfigurationError(f"{way}: {message}" if way else message)
        here = self.tree
        for step in (*self.path, *path):
            # a step that the file does not have is one of the checks' own, or stands for what is missing
            if step in here.children:
                here, found = here.children[step], (*found, step)
        way = ".".join(map(str, found))
        return ConfigurationError(f"{shown_file(here.position.filename)}:{here.position.start.line}: {way}: {message}")

    @contextmanager
    def located(self) -> Iterator[None]:
        """Turns the errors of a declaration into errors that say file and line."""
        try:
            yield
        except MisplacedError as error:
            raise self.error(error.path, str(error)) from error.__cause__
        except ConfigurationError as error:
            raise self.error(field_of(error), str(error)) from error


def shown_file(name: str) -> str:
    """Returns the file as seen from the current directory, where it is below that."""
    path = FilePath(name)
    return str(path.relative_to(FilePath.cwd())) if path.is_relative_to(FilePath.cwd()) else name
