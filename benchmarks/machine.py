"""What the numbers were measured on: processor, memory, versions; nothing that reveals whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("SQLAlchemy", "psycopg", "pyarrow", "pandas", "dagster", "dlt", "diffsync")


def describe_machine() -> dict[str, str]:
    """By name, for people."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Of what takes part."""
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        for line in cpus.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
