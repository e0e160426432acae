"""Twins and contract checks for those who write targets and sources."""

from sync_pipelines.testing.contracts import TargetContract
from sync_pipelines.testing.memory import MemoryRecord, MemorySource, MemoryTarget

__all__ = ["MemoryRecord", "MemorySource", "MemoryTarget", "TargetContract"]
