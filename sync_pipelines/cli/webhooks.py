"""`webhooks list`, `show`, `replay` and `drop`: the deliveries in the inbox."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import typer

from sync_pipelines.cli.columns import Column, document, show_list
from sync_pipelines.cli.formats import local_time
from sync_pipelines.cli.output import show_facts, show_json, show_line
from sync_pipelines.database.inbox import STATES, Delivery, Inbox
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.engine.display import shown_stored
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_job
from sync_pipelines.settings.model import load_settings

_LARGEST_ID = 2**63 - 1
_COLUMNS: Sequence[Column[Delivery]] = (
    Column("id", "delivery", is_number=True),
    Column("job", "sync"),
    Column("received_at", "received"),
    Column("kind", "kind"),
    Column("external_id", "external id"),
    Column("state", "state"),
    Column("attempts", "attempts", is_number=True),
    Column(None, "became", lambda delivery: delivery.action or delivery.message),
    Column("action"),
    Column("message"),
    Column("next_try_at"),
    Column("finished_at"),
    Column("delivery_id"),
    Column("headers"),
    Column("item", value=lambda delivery: shown_stored(delivery.item)),
    Column("payload"),
)


def list_deliveries(name: str | None, *, every: bool, state: str | None, limit: int, as_json: bool) -> None:
    """Shows the newest deliveries, of one sync job or of all."""
    if (name is None) != every:
        raise ConfigurationError("give the name of a sync job, or --all for those of all of them")
    if state is not None and state not in STATES:
        raise ConfigurationError(f"--state {state!r} is none of {', '.join(STATES)}")
    with _inbox() as inbox:
        deliveries = inbox.newest(name, state, limit)
    if not deliveries and name is not None:
        find_job(name)
    none = f"no {f'{state} ' if state else ''}deliveries{f' of {name}' if name else ''}"
    show_list("deliveries", _COLUMNS, deliveries, if_none=none, as_json=as_json)


def show_delivery(number: int, *, as_json: bool) -> None:
    """Shows one delivery."""
    with _inbox() as inbox:
        delivery = inbox.show(number) if abs(number) <= _LARGEST_ID else None
    if delivery is None:
        raise ConfigurationError(_unknown([number]))
    if as_json:
        show_json(document(_COLUMNS, delivery))
        return
    show_facts(_facts(delivery))
    if delivery.payload is not None:
        show_line(delivery.payload)
    elif delivery.item is not None:
        show_line(json.dumps(shown_stored(delivery.item), ensure_ascii=False, separators=(",", ":")))


def replay(numbers: Sequence[int], *, failed: str | None, force: bool, as_json: bool) -> None:
    """Has deliveries wait again.

    Args:
        force: True to have them applied although something newer has come since.
    """
    if bool(numbers) == (failed is not None):
        raise ConfigurationError("give the numbers of deliveries, or --failed NAME for all of a sync job that failed")
    with _inbox() as inbox:
        if failed is None:
            _require(inbox, numbers)
            done = inbox.replay(numbers, datetime.now(UTC), is_forced=force)
        else:
            done = inbox.replay_failed(failed, datetime.now(UTC), is_forced=force)
            if not done:
                find_job(failed)
    _show_done("replayed", "waiting to be applied again", done, as_json=as_json)


def drop(numbers: Sequence[int], *, sure: bool, as_json: bool) -> None:
    """Removes deliveries, after asking."""
    with _inbox() as inbox:
        _require(inbox, numbers)
        if not sure:
            typer.confirm(f"Remove {_count(set(numbers))} for good?", abort=True, err=True)
        done = inbox.drop(numbers)
    _show_done("dropped", "removed", done, as_json=as_json)


@contextmanager
def _inbox() -> Iterator[Inbox]:
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        yield Inbox(ledger)


def _require(inbox: Inbox, numbers: Sequence[int]) -> None:
    """Refuses all numbers if one is unknown: whoever mistypes one wants to look again."""
    missing = [number for number in numbers if abs(number) > _LARGEST_ID or inbox.show(number) is None]
    if missing:
        raise ConfigurationError(f"{_unknown(missing)}; nothing was done")


def _unknown(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers))
    return f"the inbox has no delivery {listed}; `sync-pipelines webhooks list --all` lists those it has"


def _show_done(what: str, sentence: str, done: Sequence[int], *, as_json: bool) -> None:
    if as_json:
        show_json({what: list(done)})
    else:
        show_line(f"{sentence}: {_count(done)}")


def _count(deliveries: Collection[int]) -> str:
    return f"{len(deliveries):,} {'delivery' if len(deliveries) == 1 else 'deliveries'}"


def _facts(delivery: Delivery) -> dict[str, str]:
    facts = {
        "delivery": str(delivery.id),
        "sync": delivery.job,
        "kind": delivery.kind,
        "external id": delivery.external_id or "",
        "state": delivery.state,
        "became": delivery.action or "",
        "why" if delivery.action else "failure": delivery.message or "",
        "attempts": str(delivery.attempts),
        "received": local_time(delivery.received_at),
        "waits": _waited(delivery),
        "next attempt": local_time(delivery.next_try_at) if delivery.next_try_at else "",
        "finished": local_time(delivery.finished_at) if delivery.finished_at else "",
        "sender's id": delivery.delivery_id or "",
        "part of delivery": str(delivery.came_with or ""),
    }
    return facts | {f"header {name}": value for name, value in (delivery.headers or {}).items()}


def _waited(delivery: Delivery) -> str:
    if delivery.state != "waiting":
        return ""
    return f"{max(0, round((datetime.now(UTC) - delivery.received_at).total_seconds())):,} s"
