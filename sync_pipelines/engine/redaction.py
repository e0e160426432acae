"""Turns exceptions into text that may be logged, stored and shown: their own message, without secrets."""

from __future__ import annotations

import re
import traceback

from sync_pipelines.engine.places import keep_only_place, place_of

MAX_MESSAGE_CHARS = 2_000
_LOOKED_AT_CHARS = 2 * MAX_MESSAGE_CHARS  # of a message of megabytes

_STATES_WITH_ROWS = frozenset({"23502", "23514", "44000"})  # NOT NULL, CHECK, WITH CHECK OPTION
_LONGEST_CHAIN = 10
_MEMBERS_SHOWN = 5

HIDDEN = "***"
"""Stands where a secret was."""
SENSITIVE_NAMES = r"password|passwd|passphrase|pwd|secret|token|api[_-]?key|private[_-]?key"
"""What announces a secret in the name of a field, a column or a parameter; URLs and headers have more such words."""

_PATTERNS = (  # none begins with a repetition: looking for it in a text of megabytes would take hours
    # the password in scheme://user:password@host
    re.compile(r"(?P<keep>(?<=[A-Za-z0-9+.-])://[^\s:/@]*:)(?:[^\s/]+|[^\s@]+)(?=@)"),
    # a token in https://token@host
    re.compile(r"(?P<keep>\bhttps?://)[^\s:/@]{8,}(?=@)"),
    # Authorization: Bearer ..., Basic ..., Session ...
    re.compile(r"(?P<keep>\b(?:bearer|basic|session|token)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    # password=..., "token": "...", api_key: ...
    re.compile(
        rf"(?P<keep>(?:{SENSITIVE_NAMES})(?:[_-]?(?:key|access[_-]?key|value|hash|id))?['\"]?\s*[=:]\s*['\"]?)"
        r"(?:(?<=\")[^\"\n]{1,500}(?=\")|(?<=')[^'\n]{1,500}(?=')|[^\s'\",;&)}]+)",
        re.IGNORECASE,
    ),
    # Authorization: ApiKey ..., Cookie: sid=...
    re.compile(
        r"(?P<keep>\b(?:authorization|(?:set-)?cookie)['\"]?\s*[=:]\s*['\"]?)"
        r"(?!(?:bearer|basic|session|token)\s)[^\s'\"][^'\"\n]{0,500}",
        re.IGNORECASE,
    ),
    # PostgreSQL: Key (id, api_token)=(7, ...) already exists. In whatever language, values may have parentheses.
    re.compile(
        rf"(?P<keep>\([^()\n]{{0,300}}(?:{SENSITIVE_NAMES})[^()\n]{{0,300}}\)=\().{{1,2000}}(?=\))", re.IGNORECASE
    ),
    # MySQL: Duplicate entry '...' for key 'users.api_token'
    re.compile(
        rf"(?P<keep>\bentry ').{{1,300}}?(?=' for key '[^'\n]{{0,300}}(?:{SENSITIVE_NAMES})[^'\n]{{0,300}}')",
        re.IGNORECASE,
    ),
)


def redact(text: str) -> str:
    """Replaces passwords in URLs, authorization values and `password=`-like pairs by `***`."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<keep>{HIDDEN}", text)
    return text


def exception_type(error: BaseException) -> str:
    """Returns the name of the exception that a person should see: the database's own below SQLAlchemy's."""
    return type(_innermost(error)).__name__


def message_of(error: BaseException) -> str:
    """Returns the exception's own message, redacted and at most 2,000 characters.

    Of a database error this is what the database said, without the statement, its parameters and the row that it
    refused, which may hold personal data. Of an error of a user's function it says in which, and where:
    `column 'price': KeyError: 'price' (prices.py:14, in price_of)`.
    """
    original, place = _innermost(error), place_of(error)
    text = _text_of(original)
    if place is None:
        return _clean(text or type(original).__name__)
    where = f" ({place.where})" if place.where else ""
    name = type(original).__name__
    said = typed(name, text) if text else name
    said = f"{place.what}: {said}" if place.what else said
    return _clean(said, MAX_MESSAGE_CHARS - len(where)) + where


def _clean(text: str, most: int = MAX_MESSAGE_CHARS) -> str:
    """Returns the text without secrets, of a length and in characters that can be kept."""
    if len(text) > _LOOKED_AT_CHARS:
        text = text[:_LOOKED_AT_CHARS].rsplit(maxsplit=1)[0] + "…"  # half a secret would not be known as one
    text = redact(text).encode("utf-8", "replace").decode("utf-8").replace("\x00", "\\x00")
    return text if len(text) <= most else text[: most - 1] + "…"


def described(error: BaseException) -> str:
    """Returns type and message of an exception on one line, without secrets."""
    return typed(exception_type(error), message_of(error))


def typed(exception_name: str, message: str) -> str:
    """Puts the name of an exception before its message, unless the message has it: that of a user's function has."""
    told = f": {message}"
    has_name = not exception_name or f": {exception_name}: " in told or f": {exception_name} (" in told
    return message if has_name else f"{exception_name}: {message}"


def trace_of(error: BaseException) -> str:
    """Describes where the exception and its causes came from, each with its own redacted message."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < _LONGEST_CHAIN:
        frames = redact("".join(traceback.format_tb(current.__traceback__)))
        parts.insert(0, f"{frames}{described(current)}")
        current = current.__cause__ or current.__context__
    return "\n\nwhich led to\n\n".join(parts)


def forget_frames(error: BaseException) -> None:
    """Lets an exception and all that it came from go of the frames they went through."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        keep_only_place(current)
        waiting += [current.__cause__, current.__context__, _innermost(current)]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _text_of(error: BaseException) -> str:
    try:
        text = _without_row(error) or str(error).strip()
    except Exception:  # noqa: BLE001 - a broken __str__ of somebody's exception must not stop a sync
        text = ""
    if isinstance(error, BaseExceptionGroup):
        members = map(described, error.exceptions[:_MEMBERS_SHOWN])
        text = f"{text}: {'; '.join(members)}"
    return text


def _without_row(error: BaseException) -> str | None:
    """Returns what PostgreSQL says of a row that it refuses, without the row; None for any other error.

    It shows the values of all columns, and no names by which a secret could be known among them.
    """
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return primary if state in _STATES_WITH_ROWS and isinstance(primary, str) else None


def _innermost(error: BaseException) -> BaseException:
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else error
