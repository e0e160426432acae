"""The benchmark of the receiver sends what it says, and counts what is stored."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=pytest.mark.soak), "sqlite"])
def test_all_that_was_sent_is_stored_and_timed(database: str) -> None:
    options = f"--deliveries 400 --repetitions 1 --connections 4 --database {database}"
    done = run_child([sys.executable, "-m", "benchmarks.receiver", *options.split()], cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert (measured["database"], measured["deliveries"], measured["stored"]) == (database, 400, 400)
    assert measured["statuses"] == {"202": 400}
    assert 0 < measured["p50_ms"] <= measured["p99_ms"]
    assert measured["per_s"] > 0
