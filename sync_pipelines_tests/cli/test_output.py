"""Tables on a terminal: readable where it is narrow."""

from __future__ import annotations

import pytest

from sync_pipelines.cli.output import column_widths
from sync_pipelines.cli.run_progress import watch_run
from sync_pipelines.runner.context.run_log import RunReport

ID = ["run", "532c9e58"]
STARTED = ["started", "2026-11-26 02:47:07"]
ITEMS = ["items", "3 fetched: 1 created, 1 unchanged, 1 failed"]


def test_a_table_that_fits_is_as_wide_as_its_cells() -> None:
    assert column_widths([ID, STARTED, ITEMS], 80) == [8, 19, 43]


def test_a_table_that_does_not_fit_breaks_lines_between_words() -> None:
    widths = column_widths([ID, STARTED, ITEMS], 40)
    assert sum(widths) == 40
    assert widths[0] == len("532c9e58")
    assert widths[1] >= len("2026-11-26")
    assert widths[2] >= len("unchanged,")


def test_words_are_broken_only_where_nothing_else_helps() -> None:
    widths = column_widths([ID, STARTED, ITEMS], 20)
    assert sum(widths) == 20
    assert min(widths) == max(widths) - 1


def test_only_what_is_marked_as_the_result_is_left_out_of_the_run_log(capsys: pytest.CaptureFixture[str]) -> None:
    """However a note of a target begins."""
    with watch_run("stock"):
        RunReport().warning("plan: of the archive")
        RunReport().warning("stock: clean: the shelves")
        RunReport().result("stock: clean: 3 fetched")
    assert capsys.readouterr().err == "warning: plan: of the archive\nwarning: stock: clean: the shelves\n"
