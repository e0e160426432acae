"""Decides which tests are quick and which soak, where no test says so itself; docs/decisions/0018 has the reasons."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COMBINED = ("benchmarks", "delivery", "orchestration", "promises", "runner", "targets", "testing", "webhooks")
"""Where a case costs a table, a ledger or a process, so that not all combinations of parameters are quick."""
SEMANTICS = ("delivery", "runner")
"""What is the same on each kind of database, unless a test is marked `each_database`."""


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
    values = _values(left)
    seen: Counter[object] = Counter()
    while left:
        chosen = max(left, key=lambda item: [sum(seen[each] == count for each in values[item]) for count in range(5)])
        if all(seen[each] for each in values[chosen]):
            break
        left.remove(chosen)
        seen.update(values[chosen])
    return left


def _values(items: Iterable[pytest.Function]) -> dict[pytest.Function, list[object]]:
    """The values of a test's parameters, case by case; those of parameters that come as rows are one value."""
    columns: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in {name for item in items for name in item.callspec.params}:
        columns[tuple(item.callspec.indices.get(name, -1) for item in items)].append(name)
    return {
        item: [(names[0], *(repr(item.callspec.params.get(name)) for name in names)) for names in columns.values()]
        for item in items
    }


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


def _is_on_postgresql(item: pytest.Function) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "postgresql" in callspec.params.values()
