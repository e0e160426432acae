"""How values are written for people."""

from __future__ import annotations

import pytest

from sync_pipelines.cli.formats import counts_text, duration
from sync_pipelines.cli.output import one_line


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [
        (None, ""),
        (0, "0.0 s"),
        (1_250, "1.2 s"),
        (59_949, "59.9 s"),
        (59_960, "1 min 0 s"),
        (3_599_400, "59 min 59 s"),
        (3_599_600, "1 h 0 min"),
        (90_000_000, "25 h 0 min"),
    ],
)
def test_durations_are_told_in_a_fitting_unit(milliseconds: int | None, told: str) -> None:
    assert duration(milliseconds) == told


def test_counts_leave_out_what_is_zero() -> None:
    assert counts_text({"fetched": 12_000, "created": 0, "updated": 3}) == "12,000 fetched: 3 updated"
    assert counts_text({"fetched": 0, "created": 0}) == "0 fetched"
    assert counts_text({}) == ""


def test_text_from_outside_can_not_steer_the_terminal() -> None:
    assert one_line("a\n b\t\x1b[2Jc\x07 \u202egnp\u200b ü 😀") == "a b �[2Jc� �gnp� ü 😀"
