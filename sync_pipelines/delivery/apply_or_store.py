"""`apply_or_store`: applies one change at once and notes it, or stores it for after the run that is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.inbox import APPLIED, WAITING, Delivery
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.database.leases import Leases
from sync_pipelines.engine.changes import ChangeEvent
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import SUCCEEDED
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import SyncBusyError
from sync_pipelines.runner.changes.single_item import apply_change
from sync_pipelines.runner.context.workspace import utc_now
from sync_pipelines.runner.failures.failure_notes import delivered_now, resolve_delivered
from sync_pipelines.webhooks.inline import ApplyOrStore, Noted
from sync_pipelines.webhooks.ledger_access import LedgerAccess

Apply = Callable[[SyncJob[Any, Any], ChangeEvent], ItemResult]
"""Applies one change at once. Raises `ItemError` if the item is at fault."""


def apply_or_store(access: LedgerAccess, apply: Apply | None = None) -> ApplyOrStore:
    """Returns the one function through which changes come in that are to be applied at once.

    It applies a change while no run of its sync is under way, and notes it in the inbox. Else it stores the change, and
    the next drain applies it. A delivery that repeats one that was applied is not applied again: it is older than what
    has come since. One that repeats another that waits, waits with it; and one that repeats another that has failed is
    stored, if anything has come since: the drain knows what is newer. What fails is not stored.

    Args:
        apply: Applies a change; by default as `sync_single_item` does, with the ledger that is open.
    """
    applied = one_at_a_time(apply or applied_by(access), access)

    def is_overtaken(job: SyncJob[Any, Any], known: Delivery) -> bool:
        """True if newer state than that of a delivery may have been applied since it came."""
        since = AppliedSince(access.ledger(), job.name)
        until = since.until(utc_now())
        return (until is not None and until >= known.received_at) or since.single_items(known.received_at)

    def apply_or_store_change(job: SyncJob[Any, Any], event: ChangeEvent | None, delivery: NewDelivery) -> Noted:
        inbox = access.inbox()
        known = inbox.known(delivery)
        if known is not None and known.state == APPLIED:
            return Noted(known.id, known.action, known.external_id)
        is_to_wait = event is None or (known is not None and (known.state == WAITING or is_overtaken(job, known)))
        try:
            result = applied(job, event) if event is not None and not is_to_wait else None
        except SyncBusyError:  # what the run has fetched may be older; the item is applied after it
            result = None
        if result is None:
            [stored] = inbox.store_many([delivery])
            return Noted(stored.id, None, delivery.external_id, is_stored=True)
        [stored] = inbox.store_many([replace(delivery, external_id=result.external_id, action=result.action)])
        return Noted(stored.id, result.action, result.external_id, result)

    return apply_or_store_change


def applied_by(access: LedgerAccess) -> Apply:
    """Returns a function that applies an item with an open ledger, whose opening takes longer than the rest."""

    def apply(job: SyncJob[Any, Any], event: ChangeEvent) -> ItemResult:
        ledger, began_at = access.ledger(), utc_now()
        result = apply_change(job, event, ledger)
        if result.action in SUCCEEDED:
            delivered = delivered_now(job, event, result.external_id, began_at)
            resolve_delivered(job, Failures(ledger), [delivered], utc_now())
        return result

    return apply


def one_at_a_time(apply: Apply, access: LedgerAccess) -> Apply:
    """Returns a function that applies an item only while no run of its sync is under way: that may hold older state.

    If one begins meanwhile, nobody knows who wrote last: the item is then applied once more, after that run.
    """

    def apply_between_runs(job: SyncJob[Any, Any], event: ChangeEvent) -> ItemResult:
        leases = Leases(access.ledger())
        before = leases.token(job.name)
        lease = leases.in_force(job.name)
        if lease is not None:
            raise SyncBusyError(f"{job.name}: a run of this sync is under way ({lease.holder.described})")
        result = apply(job, event)
        if leases.token(job.name) != before:
            raise SyncBusyError(f"{job.name}: a run of this sync began while an item was applied")
        return result

    return apply_between_runs
