"""Packages of job files that a test makes, and that are forgotten after it."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

_numbers = itertools.count()


class Packages:
    """Makes importable packages in a folder that is on the path.

    Args:
        folder: The folder.
        word: Begins their names.
    """

    def __init__(self, folder: Path, word: str) -> None:
        self._folder = folder
        self._word = word
        self._made: list[str] = []

    def make(self, **files: str) -> str:
        """Makes a package of these modules, and returns its name, which no other has had in this process."""
        name = f"{self._word}_{next(_numbers)}"
        (self._folder / name).mkdir()
        for module, text in {"__init__": "", **files}.items():
            self.write(name, module, text)
        self._made.append(name)
        return name

    def write(self, package: str, module: str, text: str) -> Path:
        """Writes one module."""
        path = self._folder / package / f"{module}.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def forget(self) -> None:
        """Has Python forget what was imported of them."""
        for module in [each for each in sys.modules if each.partition(".")[0] in self._made]:
            del sys.modules[module]
