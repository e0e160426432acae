"""Walks through known dangers: the state machine's own steps, in an order that chance seldom finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sync_pipelines.engine.changes import Delete
from sync_pipelines_tests.runner.machine.model import REFUSED, UNREADABLE, Item
from sync_pipelines_tests.runner.machine.outages import Outages
from sync_pipelines_tests.runner.machine.world import World

Walk = Callable[[Outages], Iterator[object]]
"""Gives a value after each step, so that the world is looked at in between."""

EVERY = ("table", "marks", "functions", "grace", "versions")


def item(sku: str, quantity: int | str, version: int = 2) -> Item:
    return {"sku": sku, "quantity": quantity, "skip": False, "version": version}


def a_guarded_run_is_killed_gone_on_with_and_released(machine: Outages) -> Iterator[object]:
    """What it has created by then would make its deletes look few."""
    items = [item("ü", 2), item("7", 2), item("x", 2), item("y", 2), item("z", 2)]
    for then in ("tables are lost", "diff again"):
        yield machine.begin({"a": 1, "b": 1, "ü": 1}, set(), holds_version=True)
        yield machine.run_is_killed(items, "hard", bulk=True, survived=2, instant=7, then=then)
        assert machine.withheld is not None
        plan = machine.withheld
        yield machine.release()
        yield machine.apply_it_again(plan)


def a_newer_run_supersedes_what_an_older_one_withheld(machine: Outages) -> Iterator[object]:
    yield machine.begin({"a": 1, "b": 1, "ü": 1}, set(), holds_version=False)
    yield machine.run([item("ü", 1)], "hard", bulk=False)
    yield machine.run([item("ü", 1)], "hard", bulk=True)
    yield machine.apply_what_is_superseded()
    yield machine.release()


def a_plan_is_applied_after_its_items_came(machine: Outages) -> Iterator[object]:
    yield machine.begin({"a": 1, "b": 1, "ü": 1, "7": 1}, {"7"}, holds_version=True)
    yield machine.run([item("a", 1), item("7", 1)], "off", bulk=False)
    yield machine.run_of_what_is_there(bulk=False)
    plan = machine.dry_run_of([item("a", 2, 3), item("7", 2, 3)], "hard")
    yield machine.changes_arrive([item("b", 1, 1), item("7", 1, 4)])
    yield machine.drain()
    yield machine.single_change(item("a", 3, 4))
    yield machine.apply_a_plan(plan)
    yield machine.apply_it_again(plan)


def a_failed_item_comes_and_is_tried_again(machine: Outages) -> Iterator[object]:
    yield machine.begin({"a": 1, "b": 1}, set(), holds_version=True)
    items = [item("a", REFUSED), item("b", UNREADABLE), item("ü", UNREADABLE), item("7", 1)]
    yield machine.run_and_try_again(items, bulk=True, answers={"a": item("a", 2), "ü": item("ü", 3, 1)})
    yield machine.run_and_try_again([item("a", 3, 3), item("b", 2, 3), item("7", 1, 3)], bulk=True, answers={})
    yield machine.run([item("a", REFUSED, 3), item("b", UNREADABLE, 3)], "off", bulk=False)
    yield machine.run_of_a_part([item("a", 2, 3), item("b", 2, 3)], {"only": {"a"}}, bulk=True)
    yield machine.run_and_items_come(
        [item("a", 0, 3), item("b", 3, 3), item("7", 2, 3)], {"a", "b"}, [item("a", 1, 4)], bulk=False
    )


def deletes_wait_for_two_fetches_however_they_die(machine: Outages) -> Iterator[object]:
    items = [item("a", 1), item("b", 1), item("ü", 1)]
    for instant in (2, 7, 12):
        yield machine.begin({"a": 1, "b": 1, "ü": 1, "7": 1}, set(), holds_version=False)
        yield machine.run_is_killed(items, "hard", bulk=instant > 4, survived=1, instant=instant, then="go on")
        yield machine.run_is_killed(items, "hard", bulk=instant < 9, survived=1, instant=instant, then="begin anew")
        yield machine.changes_arrive([item("7", 2)])
        yield machine.drain()
        yield machine.run(items, "hard", bulk=True)
        yield machine.dry_run_of(items, "hard")
        yield machine.run(items, "hard", bulk=False)


def a_marked_record_comes_back(machine: Outages) -> Iterator[object]:
    whole = [item("a", 1), item("b", 1), item("ü", 1)]
    yield machine.begin({"a": 1, "b": 1, "ü": 1}, set(), holds_version=False)
    for bulk in (True, False):
        yield machine.run(whole[:2], "hard", bulk=bulk)
        yield machine.run_is_killed(whole, "hard", bulk=bulk, survived=2, instant=4, then="go on")
    yield machine.single_change(Delete("ü"))
    plan = machine.dry_run_of(whole, "hard")
    yield machine.apply_a_plan(plan)
    yield machine.changes_arrive([Delete("ü"), item("a", 1)])
    yield machine.drain()
    yield machine.run_of_a_part(whole, {"only": {"ü"}}, bulk=True)


def nobody_touches_what_is_others(machine: Outages) -> Iterator[object]:
    for bulk in (True, False):
        yield machine.begin({"a": 1, "b": 1, "ü": 1, "7": 1}, {"b"}, holds_version=False)
        for _ in range(2):
            yield machine.run([item("a", 1), item("ü", 2)], "hard", bulk=bulk)
        yield machine.single_change(Delete("b"))
        yield machine.changes_arrive([Delete("b"), item("b", 2)])
        yield machine.drain()
        plan = machine.dry_run_of([item("a", 1)], "hard")
        machine.others_write({"ü": 2}, {"ü"})
        yield machine.apply_a_plan(plan)
        yield machine.changes_arrive([Delete("b")])
        yield machine.drain_is_killed(2)


def an_older_item_comes_whichever_way(machine: Outages) -> Iterator[object]:
    for holds_version in (True, False):
        yield machine.begin({"a": 1, "b": 1}, set(), holds_version=holds_version)
        yield machine.run([item("a", 2, 3), item("b", 2, 3), item("ü", 2, 3)], "off", bulk=True)
        yield machine.run([item("a", 1, 2), item("b", 3, 4), item("b", 1, 2), item("ü", 2, 2)], "off", bulk=True)
        yield machine.single_change(item("a", 0, 2))
        yield machine.changes_arrive([item("a", 0, 2), Delete("b"), item("b", 0, 3), item("ü", 3, 3)])
        yield machine.drain()
        yield machine.changes_arrive([item("b", 0, 3), item("a", 1, 4), item("a", 2, 3)])
        yield machine.drain_is_killed(5)
        plan = machine.dry_run_of([item("a", 3, 5), item("ü", 1, 4)], "off")
        yield machine.single_change(item("ü", 0, 5))
        yield machine.apply_a_plan(plan)
        answers = {"a": item("a", 1, 4), "b": item("b", 1, 5)}
        yield machine.run_and_try_again([item("a", REFUSED, 6), item("b", REFUSED, 6)], bulk=False, answers=answers)


def a_run_is_killed_where_its_history_moves(machine: Outages) -> Iterator[object]:
    """Into the ledger, from the database of the records."""
    items = [item(sku, 2) for sku in ("a", "b", "ü", "x", "y")]
    for instant in range(4, 14, 2):
        yield machine.begin({"a": 1, "b": 1}, set(), holds_version=True)
        yield machine.run_is_killed(items, "off", bulk=True, survived=2, instant=instant, then="go on")


def a_target_takes_no_writes_and_comes_back(machine: Outages) -> Iterator[object]:
    items = [item("a", 2, 3), item("ü", 2, 3), item("7", REFUSED, 3), item("x", 1, 3), item("y", 1, 3)]
    for bulk, kind, after in ((True, "read-only", 0), (False, "full", 0), (True, "full", 1), (False, "read-only", 1)):
        yield machine.begin({"a": 1, "b": 1, "ü": 1}, set(), holds_version=True)
        yield machine.target_takes_no_writes(items, "hard", bulk=bulk, kind=kind, after=after)
        yield machine.run(items, "hard", bulk=not bulk)


def a_source_ends_early_and_says_so(machine: Outages) -> Iterator[object]:
    whole = [item("a", 1), item("b", 1), item("ü", REFUSED), item("7", 1)]
    for bulk in (True, False):
        yield machine.begin({"a": 1, "b": 1, "x": 1}, set(), holds_version=False)
        yield machine.run(whole, "hard", bulk=bulk)
        plan = machine.dry_run_of(whole[:2], "hard")
        yield machine.run_that_is_not_complete([item("a", 2)], bulk=bulk)
        yield machine.run_that_is_not_complete([], bulk=bulk)
        yield machine.apply_a_plan(plan)
        yield machine.run(whole[1:], "hard", bulk=bulk)


def old_deliveries_bring_no_old_state_back(machine: Outages) -> Iterator[object]:
    old = [item("a", 0, 1), Delete("b"), item("ü", 3, 1), Delete("7"), item("x", 3, 1)]
    whole = [item("a", 2), item("b", 2), item("ü", REFUSED), item("x", 2) | {"skip": True}]
    for bulk in (True, False):
        yield machine.begin({"a": 1, "b": 1, "7": 1}, set(), holds_version=False)
        yield machine.changes_arrive(old)
        yield machine.run(whole, "off", bulk=bulk)
        yield machine.drain()
        yield machine.changes_arrive(old)
        yield machine.run_of_a_part(whole, {"only": {"b", "7"}}, bulk=bulk)
        yield machine.changes_arrive([item("b", 3, 1)])
        yield machine.drain()
        yield machine.changes_arrive(old)
        plan = machine.dry_run_of(whole, "hard")
        yield machine.changes_arrive([item("7", 3, 4)])
        yield machine.apply_a_plan(plan)
        yield machine.drain_is_killed(3)


WALKS: tuple[tuple[Walk, tuple[str, ...]], ...] = (
    (a_guarded_run_is_killed_gone_on_with_and_released, ("table", "marks", "versions", "functions")),
    (a_newer_run_supersedes_what_an_older_one_withheld, ("table", "functions")),
    (a_plan_is_applied_after_its_items_came, EVERY),
    (a_failed_item_comes_and_is_tried_again, EVERY),
    (deletes_wait_for_two_fetches_however_they_die, ("grace",)),
    (a_marked_record_comes_back, ("marks",)),
    (nobody_touches_what_is_others, ("table", "grace")),
    (an_older_item_comes_whichever_way, ("versions",)),
    (a_run_is_killed_where_its_history_moves, ("table",)),
    (a_target_takes_no_writes_and_comes_back, ("table", "marks", "grace", "versions")),
    (a_source_ends_early_and_says_so, ("table", "functions", "grace")),
    (old_deliveries_bring_no_old_state_back, ("table", "marks", "versions")),
)


def take_walks(world: World) -> None:
    """Takes all walks that are meant for such a world."""
    for walk, kinds in WALKS:
        if world.kind in kinds:
            machine = Outages(world)
            for _ in walk(machine):
                machine.the_table_is_what_the_model_says()
