"""Tells an answer that its sender broke off from one that is no JSON at all: the first passes, the second does not."""

from __future__ import annotations

import json
import re

_LITERALS = ("true", "false", "null")
_CUT_TOKEN = re.compile(r"-|\.|(\.\d+)?[eE][+-]?|\\?u[0-9a-fA-F]{0,4}")
"""What is left where a number or an escape ends too early."""


def is_cut_off(error: ValueError) -> bool:
    """Returns True if a JSON text is right as far as it goes, and ends too early: its sender broke off."""
    if isinstance(error.__cause__, UnicodeDecodeError):
        return "end of data" in error.__cause__.reason
    if not isinstance(error, json.JSONDecodeError) or not error.doc.strip():
        return False
    rest = error.doc[error.pos :].strip()
    if error.msg.startswith("Unterminated string"):
        return True
    return not rest or _CUT_TOKEN.fullmatch(rest) is not None or any(each.startswith(rest) for each in _LITERALS)
