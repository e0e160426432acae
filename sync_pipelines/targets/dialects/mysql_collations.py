"""Finds out which texts a collation of MySQL or MariaDB takes for equal, and the one text that stands for all of them.

The server gives the weights of a text; texts are equal if and only if their weights are. Of the weights a readable text
is made again: `"ÄPFEL "` becomes `"apfel"` where case, accents and blanks at the end mean nothing. Plain ASCII, which
most keys are, is folded without asking.

Source: WEIGHT_STRING in the manuals of both servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.engine.pages import batches
from sync_pipelines.targets.db_errors import asking_about_a_value, passing_failures

# Small letters come first, so that they stand for their capitals.
_PRINTABLE = sorted(map(chr, range(0x20, 0x7F)), key=lambda character: (character.isupper(), character))
_LONGEST_UNIT = 2
_UNKNOWN = 0xF0000  # of a private plane: no text of anybody's
_ASKED_AT_ONCE = 500
_ASKED_VALUES_KEPT = 100_000
_NAME = re.compile(r"\w+")
_NOT_UNDERSTOOD = (
    "has the collation {name}, whose way of finding texts equal can't be followed here; give it another, such as "
    "utf8mb4_bin or utf8mb4_general_ci"
)


class Collation:
    """A collation of one database. Nothing is asked before it is needed."""

    def __init__(self, database: sa.Engine, charset: str, name: str) -> None:
        self._database = database
        self._charset = charset
        self._name = name
        self._is_binary = name.endswith("_bin")
        self._asked: dict[str, str | None] = {}

    def why_no_key(self) -> str | None:
        """Says why a column with this collation can't be a key; None if it can."""
        if self._is_binary:
            return None
        try:
            with passing_failures(self._database):
                return None if self._unit else _NOT_UNDERSTOOD.format(name=self._name)
        except DBAPIError:
            return _NOT_UNDERSTOOD.format(name=self._name)

    def fold(self, text: str) -> str:
        """Gives the text that stands for all that are equal to this one.

        Raises:
            ValueError: The character set can't hold the text.
        """
        if self._is_binary:
            if self._must_ask(text):
                self._fold_asked(text)  # raises for what the character set can't hold
            return text.rstrip(" ") if self._pads else text
        if self._plain is not None and text.isascii() and text.isprintable():
            folded = text.translate(self._plain)
            return folded.rstrip(self._plain[0x20]) if self._pads else folded
        return self._fold_asked(text)

    def expect(self, texts: Iterable[str]) -> None:
        """Asks for all texts together that are about to be folded, as far as they have to be asked for."""
        unknown = (text for text in dict.fromkeys(texts) if self._must_ask(text) and text not in self._asked)
        for batch in batches(unknown, _ASKED_AT_ONCE):
            self._ask(batch)

    def _must_ask(self, text: str) -> bool:
        if self._is_binary:
            return not text.isascii() and self._charset != "utf8mb4"
        return self._plain is None or not (text.isascii() and text.isprintable())

    def _fold_asked(self, text: str) -> str:
        if text not in self._asked:
            self._ask([text])
        folded = self._asked[text]
        if folded is None:
            raise ValueError(f"the character set {self._charset} can't hold it")
        return folded

    def _ask(self, texts: Sequence[str]) -> None:
        if len(self._asked) > _ASKED_VALUES_KEPT:
            self._asked = {}
        for text, weights in zip(texts, self._weights(texts), strict=True):
            if weights is not None:
                self._asked[text] = text if self._is_binary else self._decoded(weights)
            else:
                self._asked[text] = None

    @cached_property
    def _pads(self) -> bool:
        """True if blanks at the end mean nothing."""
        blank = f"CONVERT(:blank USING {self._charset}) COLLATE {self._checked_name}"
        with asking_about_a_value(self._database), self._database.connect() as connection:
            return bool(connection.scalar(sa.text(f"SELECT {blank} = ''"), {"blank": " "}))

    @cached_property
    def _blank(self) -> bytes:
        return self._weights([" "])[0] or b"\x00"

    @property
    def _checked_name(self) -> str:
        if not _NAME.fullmatch(self._name) or not _NAME.fullmatch(self._charset):
            raise ValueError(
                f"{self._charset}, {self._name}: these are no names"
            )  # pragma: no cover - the server's own
        return self._name

    @cached_property
    def _unit(self) -> int:
        """Bytes of a weight; 0 if the weights have more than one level, or in no order that could be followed."""
        one, other, both = self._weights(["a", "b", "ab"])
        if one is None or other is None or both != one + other or len(one) > _LONGEST_UNIT:
            return 0
        return len(one)

    @cached_property
    def _plain(self) -> dict[int, str] | None:
        """Returns what stands for each printable character of ASCII; None if two together may mean something else."""
        weights = self._weights(_PRINTABLE)
        known = {weight: character for character, weight in reversed([*zip(_PRINTABLE, weights, strict=True)])}
        rows = ["".join(first + second for second in _PRINTABLE) for first in _PRINTABLE]
        single = [weight or b"" for weight in weights]
        expected = [b"".join(first + second for second in single) for first in single]
        if not all(single) or self._weights(rows) != expected:
            return None
        return {ord(character): known[weight] for character, weight in zip(_PRINTABLE, weights, strict=True)}

    @cached_property
    def _characters(self) -> dict[bytes, str]:
        """Weights -> the character that stands for them; of those that several weights make, only what is needed."""
        single: dict[bytes, str] = {}
        longer: dict[bytes, str] = {}
        for character, weight in self._all_weights():
            (single if len(weight) == self._unit else longer).setdefault(weight, character)
        needed = {weight: character for weight, character in longer.items() if not self._known_parts(weight, single)}
        return needed | single

    def _known_parts(self, weight: bytes, single: dict[bytes, str]) -> bool:
        return all(weight[at : at + self._unit] in single for at in range(0, len(weight), self._unit))

    def _decoded(self, weights: bytes) -> str:
        """Makes text of weights. Other weights give other text, for each character has its own."""
        unit, known = self._unit, self._characters
        if self._pads:
            while weights.endswith(self._blank):
                weights = weights[: -len(self._blank)]
        parts: list[str] = []
        at = 0
        while at < len(weights):
            sizes = (unit, 2 * unit, 3 * unit)
            size = next((size for size in sizes if weights[at : at + size] in known), unit)
            part = weights[at : at + size]
            parts.append(known.get(part) or chr(_UNKNOWN + int.from_bytes(part)))
            at += size
        return "".join(parts)

    def _all_weights(self) -> list[tuple[str, bytes]]:
        """Asks for the characters of the basic plane that the character set has and the collation looks at, sorted."""
        kept = f"CONVERT(code USING {self._charset})"
        digits = "(SELECT 0 AS d" + "".join(f" UNION ALL SELECT {digit}" for digit in range(1, 16)) + ")"
        codes = (
            "SELECT CONVERT(UNHEX(LPAD(HEX(a.d * 4096 + b.d * 256 + c.d * 16 + e.d), 4, '0')) USING utf16) AS code "  # noqa: S608 - of numbers
            f"FROM {digits} a JOIN {digits} b JOIN {digits} c JOIN {digits} e"
        )
        weight = f"HEX(WEIGHT_STRING({kept} COLLATE {self._checked_name}))"
        same = f"HEX(CONVERT({kept} USING utf16)) = HEX(code)"
        query = f"SELECT HEX(code), {weight} FROM ({codes}) AS codes WHERE code IS NOT NULL AND {same}"  # noqa: S608 - checked names
        with asking_about_a_value(self._database), self._database.connect() as connection:
            rows = connection.execute(sa.text(query)).all()
        characters = ((bytes.fromhex(code).decode("utf-16-be"), bytes.fromhex(weight)) for code, weight in rows)
        return sorted(((character, weight) for character, weight in characters if weight), key=_preferred)

    def _weights(self, texts: Sequence[str]) -> list[bytes | None]:
        """Asks for the weights of texts; None for one that the character set can't hold."""
        parts = [self._asking(number) for number in range(len(texts))]
        values = {f"text_{number}": text for number, text in enumerate(texts)}
        with asking_about_a_value(self._database), self._database.connect() as connection:
            row = connection.execute(sa.text(f"SELECT {', '.join(parts)}"), values).one()
        pairs = zip(texts, row[::2], row[1::2], strict=True)
        return [bytes.fromhex(weight) if bytes.fromhex(kept) == text.encode() else None for text, weight, kept in pairs]

    def _asking(self, number: int) -> str:
        kept = f"CONVERT(:text_{number} USING {self._charset})"
        weight = f"HEX(WEIGHT_STRING({kept} COLLATE {self._checked_name}))"
        return f"{weight}, HEX(CONVERT({kept} USING utf8mb4))"


def _preferred(weighed: tuple[str, bytes]) -> tuple[bool, bool, bool, str]:
    """Orders characters: ASCII stands for its relatives, letters for signs like them, small letters for capitals."""
    character, _ = weighed
    return (not character.isascii(), not character.isalpha(), character != character.lower(), character)
