"""Decides which tests are quick and which soak, where no test says so itself; docs/decisions/0018 has the reasons."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
COMBINED = ("benchmarks", "delivery", "orchestration", "runner", "targets", "testing", "webhooks")
"""Where a case costs a table, a ledger or a process, so that not all combinations of parameters are quick."""
SEMANTICS = ("delivery", "runner")
"""What is the same on each kind of database, unless a test is marked `each_database`."""


def few_and_many(few: int, many: int) -> pytest.MarkDecorator:
    """Gives a test of properties its number of `examples`: few in the quick part, many in the soak."""
    given = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.soak)]
    return pytest.mark.parametrize("examples", given)


def spread(values: Iterable[object], every: int) -> list[Any]:
    """Leaves every so-many-th of the values of a parameter in the quick part, and the others to the soak."""
    return spread_rows([(each,) for each in values], every)


def spread_rows(rows: Iterable[tuple[object, ...]], every: int) -> list[Any]:
    """Does so with rows of values, for several parameters."""
    return [pytest.param(*row, marks=[pytest.mark.soak] if number % every else []) for number, row in enumerate(rows)]


def mark_soak(items: Sequence[pytest.Item]) -> None:
    """Marks what is not needed in the quick part: the other database, then combinations of parameters."""
    cases: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("soak") is not None:
            continue
        if _room(item) in SEMANTICS and _is_on_postgresql(item) and item.get_closest_marker("each_database") is None:
            item.add_marker(pytest.mark.soak)
        elif _room(item) in COMBINED:
            cases[item.nodeid.partition("[")[0]].append(item)
    for of_one_test in cases.values():
        for item in _left_out(of_one_test):
            item.add_marker(pytest.mark.soak)


def _left_out(items: Iterable[pytest.Function]) -> list[pytest.Function]:
    """Returns the cases without which each value of each parameter is still there, though not each combination.

    The others are chosen one by one: first the case with most values that no chosen one has, then with most of those
    that one has, so that of two databases each gets its half.
    """
    left = [item for item in items if getattr(item, "callspec", None) is not None]
    values = {item: _values(item) for item in left}
    seen: Counter[object] = Counter()
    while left:
        chosen = max(left, key=lambda item: [sum(seen[each] == count for each in values[item]) for count in range(5)])
        if all(seen[each] for each in values[chosen]):
            break
        left.remove(chosen)
        seen.update(values[chosen])
    return left


def _values(item: pytest.Function) -> list[object]:
    """The values of the parameters of a case; what one `parametrize` gives together is one value."""
    given = {name: _identity(value) for name, value in item.callspec.params.items()}
    rows = [_names(mark.args[0]) for mark in item.iter_markers("parametrize")]
    alone = [(name,) for name in given if not any(name in row for row in rows)]
    return [(row, tuple(given.get(name) for name in row)) for row in (*rows, *alone)]


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",")) if isinstance(given, str) else tuple(given)


def _identity(value: object) -> object:
    """The value where it is plain; else which object it is, for some can neither be hashed nor shown."""
    return (type(value), value) if isinstance(value, str | int | float) else id(value)


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


def _is_on_postgresql(item: pytest.Function) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "postgresql" in callspec.params.values()
