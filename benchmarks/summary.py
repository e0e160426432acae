"""What the measurements say: ratios taken within one repetition, median with least and most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contestants import CONTESTANTS, LIMIT
from benchmarks.results import Measurement, Results

EXTRAPOLATED = "loop"
"""The contestant that is measured at a small size only; what it needs grows with the items."""


@dataclass(frozen=True)
class Spread:
    """A median with least and most."""

    middle: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return Spread(median(values), min(values), max(values))


@dataclass(frozen=True, order=True)
class Cell:
    """One comparison."""

    database: str
    size: int
    scenario: str


@dataclass(frozen=True)
class Row:
    """One contestant in one comparison.

    Args:
        contestant: Its name.
        variant: The form that the numbers are of.
        wall: Seconds; None if it has no right end state to show.
        ratio: To the limit; in scenario E to itself without the items that fail. None if there is nothing to compare.
        peak_mb: The most of all repetitions.
        repetitions: How many count.
        problem: What went wrong, None if nothing did.
        measured_at: Items of the fetch from which the numbers are extrapolated; None if they are measured.
    """

    contestant: str
    variant: str
    wall: Spread | None
    ratio: Spread | None
    peak_mb: float
    repetitions: int
    problem: str | None = None
    measured_at: int | None = None


def cells_of(results: Results) -> list[Cell]:
    """Every comparison that was made, in order."""
    return sorted({_cell(each) for each in results.measurements if not each.profiled})


def rows_of(results: Results, cell: Cell) -> list[Row]:
    """A comparison's contestants in their order, each from the newest run in which it can be compared."""
    rows = [_row(results, cell, name) for name in CONTESTANTS]
    return [row for row in rows if row is not None]


def variants_of(results: Results, cell: Cell) -> list[Row]:
    """The forms of the limit in a comparison, best first."""
    measured = _of_newest_run(results, cell, LIMIT)
    best = _best_limit(measured)
    rows = [
        _summed(_of(measured, LIMIT, variant), _walls(best))
        for variant in sorted({each.variant for each in measured if each.contestant == LIMIT})
    ]
    return sorted(rows, key=lambda row: row.wall.middle if row.wall else float("inf"))


def _row(results: Results, cell: Cell, name: str) -> Row | None:
    measured = _of_newest_run(results, cell, name)
    if not measured:
        return _extrapolated(results, cell) if name == EXTRAPOLATED else None
    if cell.scenario == "E":
        own = _of(measured, name, "")
        return _summed([each for each in own if not each.clean], _walls([each for each in own if each.clean]))
    limit = _best_limit(measured)
    own = limit if name == LIMIT else _of(measured, name, "")
    return _summed(own, _walls(limit)) if own else None


def _extrapolated(results: Results, cell: Cell) -> Row | None:
    """The same number of items per second as at the largest size that was measured."""
    smaller = [
        other
        for other in cells_of(results)
        if (other.database, other.scenario) == (cell.database, cell.scenario) and other.size < cell.size
    ]
    for other in reversed(smaller):
        row = _row(results, other, EXTRAPOLATED)
        limit = _row(results, cell, LIMIT)
        if row and row.wall and row.measured_at is None and limit and limit.wall:
            wall_s = row.wall.middle * cell.size / other.size
            wall, ratio = Spread.of([wall_s]), Spread.of([wall_s / limit.wall.middle])
            return Row(EXTRAPOLATED, "", wall, ratio, row.peak_mb, row.repetitions, measured_at=other.size)
    return None


def _of_newest_run(results: Results, cell: Cell, name: str) -> list[Measurement]:
    """The comparison's measurements in the newest run that has the contestant, and what it is compared with."""
    needed = {name} if cell.scenario == "E" else {name, LIMIT}
    by_run: dict[str, list[Measurement]] = defaultdict(list)
    for each in results.measurements:
        if _cell(each) == cell and not each.profiled:
            by_run[each.run].append(each)
    complete = [found for found in by_run.values() if needed <= {each.contestant for each in found}]
    if not complete:  # without a limit there are still seconds to show
        complete = [found for found in by_run.values() if name in {each.contestant for each in found}]
    return complete[-1] if complete else []


def _best_limit(measured: Sequence[Measurement]) -> list[Measurement]:
    forms = [_of(measured, LIMIT, variant) for variant in {each.variant for each in measured}]
    sound = [form for form in forms if _walls(form)]
    return min(sound, key=lambda form: median(_walls(form).values()), default=[])


def _summed(measured: Sequence[Measurement], compared: dict[int, float]) -> Row:
    walls = _walls(measured)
    ratios = [wall_s / compared[repetition] for repetition, wall_s in walls.items() if repetition in compared]
    problems = [each.problem for each in measured if each.problem]
    return Row(
        contestant=measured[0].contestant,
        variant=measured[0].variant,
        wall=Spread.of(list(walls.values())) if walls else None,
        ratio=Spread.of(ratios) if ratios else None,
        peak_mb=max((each.peak_mb for each in measured if each.peak_mb is not None), default=0.0),
        repetitions=len(walls),
        problem=problems[0] if problems else None,
    )


def _of(measured: Sequence[Measurement], name: str, variant: str) -> list[Measurement]:
    return [each for each in measured if each.contestant == name and each.variant == variant]


def _walls(measured: Sequence[Measurement]) -> dict[int, float]:
    """Seconds by repetition, where the end state was right."""
    return {each.repetition: each.wall_s for each in measured if each.wall_s is not None and each.problem is None}


def _cell(measurement: Measurement) -> Cell:
    return Cell(measurement.database, measurement.size, measurement.scenario)
