"""Who takes part. Each contestant is a module with `prepare(task)`, loaded in the process that measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_BOTH = ("postgresql", "sqlite")
_WITHOUT_POISON = ("A", "B", "C", "D")
_ALL = (*_WITHOUT_POISON, "E")
_NO_END = 10_000_000


@dataclass(frozen=True)
class Contestant:
    """Who takes part, where, and how far.

    Args:
        title: Its name on the page.
        module: What measures it, below `benchmarks.contestants`; by database where that differs.
        databases: Where it can work.
        scenarios: What it can do.
        usual_size: Largest size at which it takes part unless it is asked for by name.
        largest_size: Largest size at which it takes part at all.
        variants: Its forms by database and scenario; empty if it has one only.
        extra_columns: Columns that it needs in the table for itself.
    """

    title: str
    module: str | Mapping[str, str]
    databases: tuple[str, ...] = _BOTH
    scenarios: tuple[str, ...] = _WITHOUT_POISON
    usual_size: int = 100_000
    largest_size: int = _NO_END
    variants: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()

    def module_for(self, database: str) -> str:
        """The module to import."""
        name = self.module if isinstance(self.module, str) else self.module[database]
        return f"{__name__}.{name}"

    def forms(self, database: str, scenario: str) -> tuple[str, ...]:
        """The variants to measure, one empty name if there is one form only."""
        return self.variants[database][scenario] if self.variants else ("",)


LIMIT = "limit"
WITHOUT_HISTORY = "no-history"

_LIMIT_VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "postgresql": {
        "A": ("straight", "ordered", "merge", "on_conflict"),
        "B": ("plan", "merge", "compare"),
        "C": ("plan", "merge", "compare"),
        "D": ("on_conflict", "ranges", "plan", "merge"),
    },
    "sqlite": {
        "A": ("direct", "staged"),
        "B": ("direct", "staged"),
        "C": ("direct", "staged"),
        "D": ("direct", "staged"),
    },
}

CONTESTANTS: dict[str, Contestant] = {
    LIMIT: Contestant(
        "the limit: best hand-written script",
        {"postgresql": "limit_postgres", "sqlite": "limit_sqlite"},
        variants=_LIMIT_VARIANTS,
        usual_size=_NO_END,
    ),
    "run_sync": Contestant("sync_pipelines, `run_sync`", "own_run_sync", scenarios=_ALL, usual_size=_NO_END),
    WITHOUT_HISTORY: Contestant("sync_pipelines, `run_sync`, `keep_history_days=0`", "own_run_sync", usual_size=0),
    "dagster": Contestant("sync_pipelines, Dagster job", "own_dagster_job", scenarios=_ALL),
    "dlt-arrow": Contestant("dlt, Arrow", "dlt_merge", databases=("postgresql",), usual_size=1_000_000),
    "dlt-dicts": Contestant(
        "dlt, dicts", "dlt_merge", databases=("postgresql",), extra_columns=("_dlt_load_id", "_dlt_id")
    ),
    "core": Contestant("SQLAlchemy Core, bulk", "sqlalchemy_core"),
    "orm": Contestant("SQLAlchemy ORM, bulk", "sqlalchemy_orm"),
    "diffsync": Contestant("DiffSync, bulk writes", "diff_sync", largest_size=100_000),
    "loop": Contestant(
        "per-item loop",
        {"postgresql": "loop_postgres", "sqlite": "loop_sqlite"},
        scenarios=_ALL,
        usual_size=10_000,
        largest_size=10_000,
    ),
}
