"""The picture: how many times as long as the limit each contestant takes, a mark per scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.contestants import CONTESTANTS, LIMIT
from benchmarks.results import Results
from benchmarks.summary import Cell, Row, cells_of, rows_of
from benchmarks.work import SCENARIOS

# Okabe and Ito's colours, which stay apart for every kind of colour blindness; the shapes differ as well
_MARKS = {"A": ("o", "#0072B2"), "B": ("s", "#E69F00"), "C": ("D", "#009E73"), "D": ("^", "#CC79A7")}
_TITLES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_SHIFT = 0.16


def cells_to_draw(results: Results) -> list[Cell]:
    """The comparisons with the limit at the size with most contestants, the larger one of equals."""
    cells = [cell for cell in cells_of(results) if cell.scenario in _MARKS]
    if not cells:
        return []
    taking_part: dict[int, int] = {}
    for cell in cells:
        compared = sum(row.ratio is not None and row.contestant != LIMIT for row in rows_of(results, cell))
        taking_part[cell.size] = taking_part.get(cell.size, 0) + compared
    size = max(taking_part, key=lambda each: (taking_part[each], each))
    return [cell for cell in cells if cell.size == size] if taking_part[size] else []


def draw(results: Results, cells: Sequence[Cell], path: Path) -> None:
    """Writes the picture as SVG; equal measurements give an equal file."""
    databases = [name for name in _TITLES if any(cell.database == name for cell in cells)]
    rows = {cell: {row.contestant: row for row in rows_of(results, cell)} for cell in cells}
    shown = {database: _contestants(rows, database) for database in databases}
    heights = [len(names) for names in shown.values()]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sync_pipelines", "font.size": 10}):
        figure = Figure(figsize=(9.5, 1.3 + 0.52 * sum(heights)), layout="constrained")
        panels: Any = figure.subplots(len(databases), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for panel, database in zip(panels, databases, strict=True):
            for cell in cells:
                if cell.database == database:
                    _draw_cell(panel, cell, rows[cell], shown[database])
            _finish(panel, f"{_TITLES[database]}, {cells[0].size:,} items", shown[database])
        panels[-1].set_xlabel(
            "times as long as the best hand-written script (from line to line it doubles; hollow: extrapolated)"
        )
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def _contestants(rows: Mapping[Cell, Mapping[str, Row]], database: str) -> list[str]:
    taking_part = {name for cell, found in rows.items() if cell.database == database for name in found}
    return [name for name in CONTESTANTS if name in taking_part and name != LIMIT]


def _draw_cell(panel: Any, cell: Cell, rows: Mapping[str, Row], shown: Sequence[str]) -> None:
    marker, color = _MARKS[cell.scenario]
    shift = (list(_MARKS).index(cell.scenario) - (len(_MARKS) - 1) / 2) * _SHIFT
    for place, name in enumerate(shown):
        ratio = rows[name].ratio if name in rows else None
        if ratio is None:
            continue
        spread = [[ratio.middle - ratio.least], [ratio.most - ratio.middle]]
        hollow = rows[name].measured_at is not None
        panel.errorbar(
            ratio.middle, place + shift, xerr=spread, fmt=marker, color=color, markersize=6.5, elinewidth=1.5,
            markerfacecolor="white" if hollow else color,
        )  # fmt: skip
    panel.plot([], [], marker, color=color, label=f"{cell.scenario}: {SCENARIOS[cell.scenario]}")


def _finish(panel: Any, title: str, shown: Sequence[str]) -> None:
    panel.set_title(title, loc="left", fontweight="bold")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(LogLocator(base=2, numticks=99))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    panel.tick_params(axis="x", labelbottom=True)
    panel.set_yticks(range(len(shown)), [CONTESTANTS[name].title.replace("`", "") for name in shown])
    panel.set_ylim(len(shown) - 0.5, -0.5)
    panel.axvline(1, color="black", linewidth=1)
    panel.grid(axis="x", color="#dddddd", linewidth=0.8)
    panel.set_axisbelow(True)
    for line in range(len(shown) - 1):
        panel.axhline(line + 0.5, color="#eeeeee", linewidth=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
