"""Reads the header `Link`, in which servers name the pages before and after the one they give."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = " \t"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """Holds the links of an answer.

    Args:
        links: Relation, in small letters -> URL, the first of each; without those of which another resource is the
            origin (`anchor`).
        unread: What of the header is no link; empty if all of it could be read.
    """

    links: dict[str, str]
    unread: str = ""


def read_link_header(header: str) -> LinkHeader:
    """Reads a header, or several that are joined by commas.

    Source:
        RFC 8288, section 3 and appendix B.2 to B.4: parameters in any order and case, with and without values, quoted
        or not; the first `rel` counts, and may hold several relations.
    """
    links: dict[str, str] = {}
    text = _Text(header)
    while text.skip(_SPACE + ","):
        if not text.take("<") or ">" not in text.rest:
            return LinkHeader(links, text.rest)
        url = text.until(">").strip()
        text.take(">")
        parameters = _parameters(text)
        if "anchor" not in parameters:
            for relation in parameters.get("rel", "").lower().split():
                links.setdefault(relation, url)
        text.skip(_SPACE)
        if text.rest and not text.rest.startswith(","):
            return LinkHeader(links, text.rest)
    return LinkHeader(links)


def _parameters(text: _Text) -> dict[str, str]:
    parameters: dict[str, str] = {}
    while text.skip(_SPACE) and text.take(";"):
        text.skip(_SPACE)
        name = text.until(_SPACE + "=;,").lower()
        text.skip(_SPACE)
        value = ""
        if text.take("="):
            text.skip(_SPACE)
            quoted = text.quoted()
            value = text.until(";,").strip() if quoted is None else quoted
        if name:
            parameters.setdefault(name, value)
    return parameters


class _Text:
    """A text that is read from its beginning."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def skip(self, characters: str) -> bool:
        """Leaves these characters out; False if nothing is left then."""
        self.rest = self.rest.lstrip(characters)
        return bool(self.rest)

    def take(self, character: str) -> bool:
        """Reads that character, if it is the next one."""
        if not self.rest.startswith(character):
            return False
        self.rest = self.rest[1:]
        return True

    def until(self, characters: str) -> str:
        """Reads up to the first of these characters, or all that is left."""
        end = next((place for place, each in enumerate(self.rest) if each in characters), len(self.rest))
        found, self.rest = self.rest[:end], self.rest[end:]
        return found

    def quoted(self) -> str | None:
        """Reads a quoted string, in which a backslash makes the next character a plain one; None if there is none."""
        found = _QUOTED.match(self.rest)
        if found is None:
            return None
        self.rest = self.rest[found.end() :]
        return _ESCAPED.sub(r"\1", found[1])
