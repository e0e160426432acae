"""In-memory fakes and contract tests for those who write targets and sources."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync_pipelines.testing.contracts import TargetContract
    from sync_pipelines.testing.memory import MemoryRecord, MemorySource, MemoryTarget

__all__ = ["MemoryRecord", "MemorySource", "MemoryTarget", "TargetContract"]

_PLACES = {
    "MemoryRecord": "memory",
    "MemorySource": "memory",
    "MemoryTarget": "memory",
    "TargetContract": "contracts",
}

if "pytest" in sys.modules:  # then a contract that is broken can show the values that it compared
    sys.modules["pytest"].register_assert_rewrite(f"{__name__}.contracts")


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used; the fakes do without the runner."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
