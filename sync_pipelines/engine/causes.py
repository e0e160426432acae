"""Errors by cause: what is left of a message without the values that change from item to item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256

from sync_pipelines.engine.redaction import typed

MAX_CAUSES = 200
"""How many causes of a run are kept; further errors are counted together."""
MAX_SAMPLES = 5
OTHER = "other causes"
"""Stands in place of a template for the errors whose causes are not kept."""

_MAX_COUNTED = 2_000
"""How many causes are kept apart while counting, so that the most frequent ones are kept."""
_MAX_TEMPLATE_CHARS = 500
_LOOKED_AT_CHARS = 1_000

_NAMED = (
    "argument|attribute|class|column|constraint|enum|field|function|has no|index|key|method|model|module|named|name|"
    "object|option|parameter|property|relation|schema|table|trigger|type|variable|view"
)
_QUOTED = re.compile(
    rf"(?P<named>\b(?:{_NAMED})\s+)?(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`)", re.IGNORECASE
)
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.$-]{0,62}")
# Of these the quoted word is what is missing, not a value of the item.
_ABOUT_NAMES = frozenset({"AttributeError", "ImportError", "KeyError", "ModuleNotFoundError", "NameError"})
_EMAIL = re.compile(r"[^\s<>@'\"()]+@[\w-]+(?:\.[\w-]+)+")
_PLACE = re.compile(r" \([^()\n]{1,300}:\d+, in [^()\n]{1,300}\)\Z")
"""Where a function of the user raised the error, as `engine.redaction.message_of` writes it."""
_DIGIT = re.compile(r"\d")
_REPLACED = (
    (re.compile(r"(?P<keep>=\s*)\([^)]*\)"), r"\g<keep>(<value>)"),  # PostgreSQL: Key (sku)=(A-1) already exists
    (re.compile(r"(?P<keep>\brow contains )\(.*\)"), r"\g<keep>(<value>)"),
)
# A status says what went wrong; any other number is a value. An id is a word with a digit in it, such as A-1.
_VALUE = re.compile(
    r"(?P<status>\b(?i:HTTP(?:/\d(?:\.\d)?)?|status(?: code)?|code|error)[ :=]+[1-5]\d\d\b)"
    r"|(?P<uuid>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b)"
    r"|(?P<date>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?(?:Z|[+-]\d\d:?\d\d))?)?\b)"
    r"|(?P<hex>\b(?:0x[0-9a-fA-F]+|(?=[0-9a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{8,})\b)"
    r"|(?P<number>(?<![\w<.-])[-+]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?(?![\w-]|\.\w))"
    r"|(?P<id>(?<![\w<.-])(?=[\w.-]*\d)\w(?:[\w.-]*\w)?(?![\w>]))"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Errors of a run that differ only in their values.

    Args:
        exception_type: Name of the exception's class.
        template: The message with `<...>` in place of what changes from item to item.
        count: How many items failed for it. Of a cause that is gone, how many did in the run before.
        sample_ids: The first external ids, five at most.
        is_new: True if the run before had no such error.
    """

    exception_type: str
    template: str
    count: int
    sample_ids: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def fingerprint(self) -> str:
        """What two runs have in common that know the same cause."""
        return fingerprint(self.exception_type, self.template)

    def line(self) -> str:
        """Returns one line for logs and terminals."""
        line = f"{self.count:,} x {typed(self.exception_type, self.template)}"
        line += f" (e.g. {', '.join(self.sample_ids)})" if self.sample_ids else ""
        return f"{line}; new since the last run" if self.is_new else line


def template_of(exception_type: str, message: str, external_id: str | None = None) -> str:
    """Returns what is left of an error's message without its values, the item's external id among them."""
    place = _PLACE.search(message)
    if place is not None:  # where a function of the user went wrong says more than names, which may be values
        return f"{template_of('', message[: place.start()], external_id)}{place[0]}"
    text = " ".join(message[:_LOOKED_AT_CHARS].split())
    if external_id and external_id in text:
        text = _without_word(text, external_id)
    return _template(text, keeps_names=exception_type in _ABOUT_NAMES)


def _without_word(text: str, word: str) -> str:
    """Removes a word where it stands alone. A pattern of its own for each id would take long to compile."""
    parts = text.split(word)
    kept = parts[0]
    for part in parts[1:]:
        is_alone = not _goes_on(kept[-1:]) and not _goes_on(part[:1])
        kept += ("<id>" if is_alone else word) + part
    return kept


def _goes_on(character: str) -> bool:
    return character.isalnum() or character == "_"


@lru_cache(maxsize=4_096)
def _template(text: str, *, keeps_names: bool) -> str:
    if "'" in text or '"' in text or "`" in text:
        text = _QUOTED.sub(lambda match: _without_value(match, keeps_names=keeps_names), text)
    if "@" in text:
        text = _EMAIL.sub("<email>", text)
    if "(" in text:
        for pattern, replacement in _REPLACED:
            text = pattern.sub(replacement, text)
    if _DIGIT.search(text):
        text = _VALUE.sub(lambda match: match[0] if match["status"] else f"<{match.lastgroup}>", text)
    return text if len(text) <= _MAX_TEMPLATE_CHARS else text[: _MAX_TEMPLATE_CHARS - 1] + "…"


def _without_value(match: re.Match[str], *, keeps_names: bool) -> str:
    """Replaces a quoted text, unless it names a constraint, a column or the like."""
    named, quoted = match["named"] or "", match["text"]
    if (named or keeps_names) and _IDENTIFIER.fullmatch(quoted[1:-1]):
        return f"{named}{quoted}"
    return f"{named}<text>"


def fingerprint(exception_type: str, template: str) -> str:
    """Returns a short text that is the same for errors of one cause."""
    return sha256(f"{exception_type}\n{template}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass
class _Tally:
    exception_type: str
    template: str
    count: int = 0
    sample_ids: list[str] = field(default_factory=list)

    def add(self, external_id: str | None) -> None:
        self.count += 1
        if external_id is not None and len(self.sample_ids) < MAX_SAMPLES:
            self.sample_ids.append(external_id)


class CauseCounter:
    """Counts errors by cause, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._other = 0

    def add(self, exception_type: str, template: str, external_id: str | None) -> str:
        """Counts an error; gives the fingerprint of its cause."""
        key = fingerprint(exception_type, template)
        tally = self._tallies.get(key)
        if tally is None and len(self._tallies) < _MAX_COUNTED:
            tally = self._tallies[key] = _Tally(exception_type, template)
        if tally is None:
            self._other += 1
        else:
            tally.add(external_id)
        return key

    def causes(self) -> list[Cause]:
        """Returns the most frequent causes, the most frequent first; whatever else there was is counted as one."""
        tallies = sorted(self._tallies.values(), key=lambda each: -each.count)
        causes = [
            Cause(each.exception_type, each.template, each.count, tuple(each.sample_ids))
            for each in tallies[:MAX_CAUSES]
        ]
        other = self._other + sum(tally.count for tally in tallies[MAX_CAUSES:])
        return [*causes, Cause("", OTHER, other)] if other else causes


def compared(now: Sequence[Cause], before: Iterable[Cause]) -> tuple[list[Cause], list[Cause]]:
    """Marks the causes of a run as far as they are new, and finds those of the run before that are gone.

    Where a run has more causes than are kept, nobody can say that one which is not among them is new or gone.
    """
    earlier = {cause.fingerprint: cause for cause in before}
    known = {cause.fingerprint for cause in now}
    other = Cause("", OTHER, 0).fingerprint
    causes = [
        replace(cause, is_new=cause.fingerprint not in earlier and other not in earlier and cause.fingerprint != other)
        for cause in now
    ]
    gone = [] if other in known else [cause for key, cause in earlier.items() if key not in known and key != other]
    return causes, [replace(cause, is_new=False) for cause in gone]
