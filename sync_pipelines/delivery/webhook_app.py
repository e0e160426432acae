"""`webhook_app`: the receiver of all webhooks, to be served or mounted."""

from __future__ import annotations

from sync_pipelines.delivery.apply_or_store import apply_or_store
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_jobs
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.webhooks.application import WebhookApp
from sync_pipelines.webhooks.inline import Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess
from sync_pipelines.webhooks.receiver import Hook, hooks_of


def webhook_app(*, settings: Settings | None = None, report: Report | None = None) -> WebhookApp:
    """Makes the ASGI application that receives the webhooks of all sync jobs.

    `sync-pipelines webhooks serve` serves it; `app.mount("/sync", webhook_app())` has it in a web application of your
    own. It answers at `/webhooks/{name}`, `/healthz`, `/readyz` and `/metrics`.

    Args:
        settings: By default those of the environment.
        report: `report(job, result)` is called with each item that a webhook in inline mode has applied.

    Returns:
        An ASGI application.

    Raises:
        ConfigurationError: No sync job has a webhook, or a secret is missing in the environment.
    """
    settings = settings or load_settings()
    access = LedgerAccess(settings.ledger_database_url())
    return WebhookApp(served_hooks(settings), access, apply_or_store(access), report)


def served_hooks(settings: Settings) -> dict[str, Hook]:
    """Returns the webhooks of all sync jobs by name, with their secrets.

    Raises:
        ConfigurationError: No sync job has a webhook, two have one name, or a secret is missing.
    """
    hooks = hooks_of(find_jobs(settings.jobs).values())
    if not hooks:
        raise ConfigurationError("no sync job has a webhook; give one of them SyncJob(webhook=Webhook(signature=...))")
    return hooks
