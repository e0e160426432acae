"""Is what a contestant left right? Who is wrong is reported as wrong, and its time does not count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.tables import TABLE, State
from benchmarks.task import Measured
from benchmarks.work import Work

_OWN_WORDS = {"postgresql": "violates check constraint", "sqlite": "CHECK constraint failed"}


def problem_of(work: Work, database: str, expected: State, found: State, measured: Measured) -> str | None:
    """What is wrong, None if nothing is.

    Args:
        work: What was to be done.
        database: `postgresql` or `sqlite`.
        expected: Out of the generator alone.
        found: What the table holds.
        measured: What the contestant said.
    """
    problems = [*_state_problems(expected, found)]
    if measured.counts is not None:
        problems += _count_problems(work.expected_counts(), measured.counts)
        problems += _error_problems(work, database, measured.errors)
    return "; ".join(problems) or None


def _state_problems(expected: State, found: State) -> Iterator[str]:
    if found.rows != expected.rows:
        yield f"{found.rows:,} rows instead of {expected.rows:,}"
    elif found.checksum != expected.checksum:
        yield "the rows are not what they should be"
    if found.moved:
        yield f"{found.moved:,} rows have another surrogate key than before"


def _count_problems(expected: Mapping[str, int], reported: Mapping[str, int]) -> Iterator[str]:
    for name, count in expected.items():
        if reported.get(name, 0) != count:
            yield f"it says {name} {reported.get(name, 0):,} instead of {count:,}"


def _error_problems(work: Work, database: str, errors: tuple[str, ...]) -> Iterator[str]:
    own = [
        message
        for message in errors
        if _OWN_WORDS[database] in message and f"{TABLE}_" in message and "_check" in message
    ]
    if len(errors) != work.poisoned:
        yield f"{len(errors):,} errors instead of {work.poisoned:,}"
    elif len(own) != len(errors):
        yield f"{len(errors) - len(own):,} errors without the database's own message"
