"""`webhook_app`: the receiver of all webhooks, to be served or mounted."""

from __future__ import annotations

from typing import Any

from sync_pipelines.database.failures import Failures
from sync_pipelines.database.leases import Leases
from sync_pipelines.engine.changes import ChangeEvent
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ConfigurationError, SyncBusyError
from sync_pipelines.registry.registry import find_jobs
from sync_pipelines.runner.changes.single_item import apply_change
from sync_pipelines.runner.context.workspace import utc_now
from sync_pipelines.runner.failures.failure_notes import delivered_now, resolve_delivered
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.webhooks.application import WebhookApp, build_app
from sync_pipelines.webhooks.inline import Apply, Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess
from sync_pipelines.webhooks.receiver import Hook, hooks_of

_GONE_THROUGH = {each.value for each in (Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED, Outcome.DELETED)}


def webhook_app(*, settings: Settings | None = None, report: Report | None = None) -> WebhookApp:
    """Makes the ASGI application that receives the webhooks of all sync jobs.

    `sync-pipelines webhooks serve` serves it; `app.mount("/sync", webhook_app())` has it in a web application of your
    own. It answers at `/webhooks/{name}`, `/healthz`, `/readyz` and `/metrics`.

    Args:
        settings: By default those of the environment.
        report: `report(job, result)` is told of each item that a webhook in inline mode has applied.

    Returns:
        An ASGI application.

    Raises:
        ConfigurationError: No sync job has a webhook, or a secret is missing in the environment.
    """
    settings = settings or load_settings()
    access = LedgerAccess(settings.ledger_database_url())
    return build_app(served_hooks(settings), access, one_at_a_time(applied_by(access), access), report)


def applied_by(access: LedgerAccess) -> Apply:
    """Applies an item with the ledger that the receiver has open: to open it for each would take longer than the rest.

    Args:
        access: To the ledger.
    """

    def apply(job: SyncJob[Any, Any], change: ChangeEvent) -> ItemResult:
        ledger, began_at = access.ledger(), utc_now()
        result = apply_change(job, change, ledger)
        if result.action in _GONE_THROUGH:
            gone_through = [delivered_now(job, change, result.external_id, began_at)]
            resolve_delivered(job, Failures(ledger), gone_through, utc_now())
        return result

    return apply


def one_at_a_time(apply: Apply, access: LedgerAccess) -> Apply:
    """Applies an item only while no run of its sync is under way, which may have fetched an older state of it.

    If one begins meanwhile, nobody knows who wrote last: the item is then applied once more, after that run.

    Args:
        apply: Applies a change.
        access: To the ledger, which has the leases.
    """

    def apply_between_runs(job: SyncJob[Any, Any], change: ChangeEvent) -> ItemResult:
        leases = Leases(access.ledger())
        before = leases.token(job.name)
        lease = leases.in_force(job.name)
        if lease is not None:
            raise SyncBusyError(f"{job.name}: a run of this sync is under way ({lease.holder.described})")
        result = apply(job, change)
        if leases.token(job.name) != before:
            raise SyncBusyError(f"{job.name}: a run of this sync began while an item was applied")
        return result

    return apply_between_runs


def served_hooks(settings: Settings) -> dict[str, Hook]:
    """The webhooks of all sync jobs by name, with their secrets.

    Raises:
        ConfigurationError: No sync job has a webhook, two have one name, or a secret is missing.
    """
    hooks = hooks_of(find_jobs(settings.jobs).values())
    if not hooks:
        raise ConfigurationError("no sync job has a webhook; give one of them SyncJob(webhook=Webhook(signature=...))")
    return hooks
