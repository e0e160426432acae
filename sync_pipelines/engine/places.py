"""Where in a user's own function an error was raised: which function, which file and line, by way of which others."""

from __future__ import annotations

import linecache
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from sync_pipelines.errors import SyncPipelinesError

_ATTRIBUTE = "_sync_pipelines_place"
_OURS = "sync_pipelines"
_JOBS = "sync_pipelines.jobs"
_PACKAGE = Path(__file__).absolute().parents[1]
_JOB_FILES = _PACKAGE / "jobs"
_STANDARD = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
_INSTALLED = ("site-packages", "dist-packages")
_FRAMES_SHOWN = 12
_NEVER = 0

Frame = tuple[CodeType, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Says where an error was raised.

    Args:
        what: The function as its declaration calls it, e.g. `column 'price'` or `create`; empty where the
            sentence around it says so.
        where: File, line and function, e.g. `prices.py:14, in price_of`; empty if it is none of the user's.
        trace: The user's functions through which it came, as Python writes them.
        raised: Tells that from another time at which the very same error is raised.
    """

    what: str
    where: str = ""
    trace: str = ""
    raised: int = field(default=_NEVER, compare=False)


def note_place(error: Exception, what: str, *, by_way_of: bool = False) -> None:
    """Notes where an error was raised, unless that is known; this package's own errors say what they have to.

    Call it where the user's function was called: the error has the frames from there on.

    Args:
        by_way_of: True if what was called is this package's own, and may have called something of the user's; then it
            is the libraries' error, and has no place, if it did not.
    """
    if isinstance(error, SyncPipelinesError) or place_of(error) is not None:
        return
    frames = _users_frames(error.__traceback__)
    if by_way_of:
        frames = [frame for frame in frames if _installed_package(frame[0].co_filename) is None]
        if not frames:
            return
    trace = "".join(map(_shown, frames[-_FRAMES_SHOWN:]))
    place = Place(what, _described(frames[-1]) if frames else "", trace, _raised(error.__traceback__))
    with suppress(AttributeError, TypeError):
        object.__setattr__(error, _ATTRIBUTE, place)


def _raised(traceback: TracebackType | None) -> int:
    """Returns what all handlers of one raising see alike: where it began."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return id(traceback)


def place_of(error: BaseException) -> Place | None:
    """Returns where an error was raised, as far as that is known of the last time that it was."""
    place = getattr(error, _ATTRIBUTE, None)
    if not isinstance(place, Place):
        return None
    is_kept = error.__traceback__ is None  # it has let go of its frames
    return place if is_kept or place.raised == _raised(error.__traceback__) else None


def keep_only_place(error: BaseException) -> None:
    """Lets an error go of the frames it went through, and keeps its place if that is of the last time it was raised."""
    place = place_of(error)
    if place is None:
        vars(error).pop(_ATTRIBUTE, None)
    else:  # what its next raising begins with may lie where that of this one lay
        object.__setattr__(error, _ATTRIBUTE, replace(place, raised=_NEVER))
    object.__setattr__(error, "__traceback__", None)  # past the exception's own: a frozen dataclass would refuse


def users_place(error: BaseException) -> tuple[str, int] | None:
    """Returns file and line in the user's own code where an error was raised last; None if it never was there."""
    frames = _users_frames(error.__traceback__)
    return (frames[-1][0].co_filename, frames[-1][1]) if frames else None


def is_users(function: Any) -> bool:
    """Returns True for a function or an object that is not this package's: whose errors are about the user's code."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return module != _OURS and (not module.startswith(f"{_OURS}.") or module.startswith(_JOBS))


def _users_frames(traceback: TracebackType | None) -> list[Frame]:
    """Returns the frames of the user's code, outermost first; without those of libraries that it calls."""
    frames = [frame for frame in _frames(traceback) if not _is_ours_or_standard(frame[0].co_filename)]
    if not frames:
        return []
    own = _installed_package(frames[0][0].co_filename)  # a project may be installed among the libraries that it uses
    packages = ((frame, _installed_package(frame[0].co_filename)) for frame in frames)
    return [frame for frame, package in packages if package in {None, own}]


def _frames(traceback: TracebackType | None) -> Iterator[Frame]:
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lineno
        traceback = traceback.tb_next


@lru_cache(maxsize=4_096)
def _is_ours_or_standard(filename: str) -> bool:
    if filename.startswith("<"):  # no file: what Python or a library has generated, e.g. `__init__` of a dataclass
        return True
    path = Path(filename).absolute()
    if path.is_relative_to(_PACKAGE):
        return not path.is_relative_to(_JOB_FILES)
    return any(map(path.is_relative_to, _STANDARD)) and _installed_package(filename) is None


@lru_cache(maxsize=4_096)
def _installed_package(filename: str) -> str | None:
    """Returns the installed package that a file belongs to; None for a file that is not installed."""
    parts = Path(filename).parts
    places = [number for number, part in enumerate(parts) if part in _INSTALLED]
    return "/".join(parts[: places[-1] + 2]) if places else None


def _described(frame: Frame) -> str:
    code, line = frame
    return f"{Path(code.co_filename).name}:{line}, in {code.co_name}"


@lru_cache(maxsize=4_096)
def _shown(frame: Frame) -> str:
    code, line = frame
    source = linecache.getline(code.co_filename, line).strip()
    return f'  File "{code.co_filename}", line {line}, in {code.co_name}\n' + (f"    {source}\n" if source else "")
