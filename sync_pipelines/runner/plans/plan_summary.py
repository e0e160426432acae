"""Holds what a diff leaves for apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sync_pipelines.engine.guards import Verdict
from sync_pipelines.engine.plan import Action, PlanCounts
from sync_pipelines.engine.results import Counts
from sync_pipelines.engine.set_back import WrittenColumns
from sync_pipelines.engine.staged_target import StagedPlan


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Holds what a diff has completed without a write, and what it has planned.

    Args:
        staged: What the target says of the plan that it keeps itself, None if all of it is in the plan file.
        planned: What is to be written, by action, as far as all of it is in the plan file.
        verdict: What limits say of it; what they withhold is neither in `writes` nor in `planned`.
        written_columns: Which columns it writes on nearly all records; None if it writes to few, or was not asked.
        no_deletes: True if it was to find deletes, and could not tell which records are missing.
    """

    fetched: int
    settled: Counts
    writes: int
    notes: Sequence[str] = ()
    staged: StagedPlan | None = None
    planned: PlanCounts | None = None
    verdict: Verdict = Verdict()
    no_deletes: bool = False
    written_columns: WrittenColumns | None = None

    def without_withheld(self, found: PlanCounts) -> PlanSummary:
        """Returns the same without what limits withhold: its items count as skipped.

        Args:
            found: All that the diff wants written, by action.
        """
        counts = {action: getattr(found, action.value) for action in self.verdict.withheld}
        settled = self.settled + Counts(skipped=counts.get(Action.UPDATE, 0))
        planned = replace(self.planned, **{action.value: 0 for action in counts}) if self.planned is not None else None
        return replace(self, settled=settled, writes=self.writes - sum(counts.values()), planned=planned)

    def as_dry_run(self) -> PlanSummary:
        """Returns the same with nothing withheld, as of a run that writes nothing: notes say what would be."""
        told = [f"a run would be guarded: {reason}" for reason in self.verdict.reasons]
        return replace(self, notes=[*self.notes, *told], verdict=Verdict())

    def summary(self) -> dict[str, Any]:
        """Returns the summary of the plan file."""
        return {
            "fetched": self.fetched,
            "settled": self.settled.to_dict(),
            "writes": self.writes,
            "bulk": asdict(self.staged) if self.staged is not None else None,
            "planned": self.planned.to_dict() if self.planned is not None else None,
            "guarded": list(self.verdict.reasons),
            "withheld": sorted(self.verdict.withheld),
        }

    @staticmethod
    def of_summary(summary: Mapping[str, Any]) -> PlanSummary:
        """Makes the same from the summary of a plan file."""
        settled = Counts(**summary["settled"])
        withheld = frozenset(map(Action, summary.get("withheld", ())))
        verdict = Verdict(tuple(summary.get("guarded", ())), withheld)
        staged = StagedPlan.of_summary(summary["bulk"]) if summary["bulk"] is not None else None
        return PlanSummary(int(summary["fetched"]), settled, int(summary["writes"]), staged=staged, verdict=verdict)
