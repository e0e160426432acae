"""Which process this is, and whether another one still lives: so that a killed run is known to be dead at once."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc")
_UNKNOWN = ""


def describe_process() -> str:
    """This process for people: `process 4711 on shop-1`."""
    return f"process {os.getpid()} on {platform.node()}"


def own_process() -> str:
    """This process for `is_dead`; empty where the system does not tell (it is not Linux)."""
    return _identity(os.getpid())


def is_dead(process: str) -> bool:
    """True if the process certainly does not live any more; False if it lives, or nobody here can know.

    Args:
        process: What `own_process` gave there.
    """
    machine, _, pid = process.rpartition(" ")[0].rpartition(" ")
    if not machine or not pid.isdecimal() or machine != _machine():
        return False
    return _identity(int(pid)) != process


def _identity(pid: int) -> str:
    """Boot, process namespace, number and start of a process: a number alone is used again."""
    machine = _machine()
    try:
        # the name in parentheses may hold anything; the start is the 20th field after it
        started = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{machine} {pid} {started[19]}" if machine and started[0] not in {"Z", "X"} else _UNKNOWN
    except (OSError, IndexError):
        return _UNKNOWN


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return _UNKNOWN
