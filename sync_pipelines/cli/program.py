"""What holds for every command: errors as one clear line with an exit code, signals, and a clean end."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from sync_pipelines.cli.output import keep_stdout_for_results, remark, show_json
from sync_pipelines.cli.stop_signals import Stopped, is_stop, stop_on_signals
from sync_pipelines.engine.redaction import described, message_of, redact
from sync_pipelines.errors import ConfigurationError, ItemError, SyncPipelinesError, UnavailableError

CLEAN = 0
FAILED = 1
WRONG = 2
GUARDED = 3
MAY_WORK_LATER = 4

_DEBUG = "sync_pipelines.debug"
_is_debug: ContextVar[bool] = ContextVar(_DEBUG, default=False)
_OWES_DOCUMENT = "sync_pipelines.owes_document"
_CODES: Mapping[type[Exception], int] = {ConfigurationError: WRONG, UnavailableError: MAY_WORK_LATER}
_OUTCOMES = {"clean": CLEAN, "planned": CLEAN, "guarded": GUARDED}


class Program(TyperGroup):
    """The commands together."""

    def invoke(self, ctx: Any) -> Any:
        """Carries out a command; whatever it raises becomes a line on stderr and an exit code."""
        try:
            with stop_on_signals():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except KeyboardInterrupt as stop:
            raise typer.Exit(_report_stop(stop)) from stop
        except Exception as error:  # the top of the command line
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # nobody reads us any more
            message, code = _report_error(error, debug=bool(ctx.meta.get(_DEBUG)))
            if ctx.meta.get(_OWES_DOCUMENT):  # whoever asked for JSON reads JSON
                show_json({"error": message, "exit_code": code})
            raise typer.Exit(code) from error
        finally:
            _is_debug.set(False)


class Command(TyperCommand):
    """One command. What the code of a job prints goes to stderr, so that stdout has the result alone."""

    def invoke(self, ctx: Any) -> Any:
        """Carries the command out."""
        with keep_stdout_for_results() as results:
            try:
                return super().invoke(ctx)
            finally:
                ctx.meta[_OWES_DOCUMENT] = bool(ctx.params.get("as_json")) and not results.has_begun


def remember_debug(context: typer.Context, value: bool) -> bool:  # noqa: FBT001 - as typer calls it
    """Notes that `--debug` was given, before or after the command's name."""
    if value:
        context.find_root().meta[_DEBUG] = True
        _is_debug.set(True)
    return value


def is_debug() -> bool:
    """Returns True if `--debug` was given to the command that is carried out."""
    return _is_debug.get()


def exit_code_of(outcome: str) -> int:
    """Returns the exit code of a run: 0 clean, 1 partial or failed, 3 guarded."""
    return _OUTCOMES.get(outcome, FAILED)


def end(program: Callable[..., object]) -> NoReturn:
    """Calls the program and ends the process with its exit code.

    A command that was stopped ends without waiting for what still runs in other threads, such as an `async` function of
    a job that hangs.
    """
    code: Any = CLEAN
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an id that the terminal has no letters for is no error
    try:
        program()
    except SystemExit as exit_:
        code = exit_.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if is_stop(code):
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _report_stop(stop: KeyboardInterrupt) -> int:
    cause, code = (stop.cause, stop.exit_code) if isinstance(stop, Stopped) else ("Ctrl-C", 130)
    remark(" ".join([f"stopped by {cause}.", *getattr(stop, "__notes__", ())]))
    return code


def _report_error(error: Exception, *, debug: bool) -> tuple[str, int]:
    if debug:
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    if isinstance(error, SyncPipelinesError):
        message, hint = f"{_of_item(error)}{message_of(error)}", ""
    else:
        message = described(error)
        hint = "" if debug else " (unexpected; --debug shows where it comes from)"
    remark(f"error: {message}{hint}")
    return message, next((code for kind, code in _CODES.items() if isinstance(error, kind)), FAILED)


def _of_item(error: SyncPipelinesError) -> str:
    return f"item {error.external_id!r}: " if isinstance(error, ItemError) and error.external_id is not None else ""
