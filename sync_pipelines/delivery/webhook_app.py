"""`webhook_app`: the receiver of all webhooks, to be served or mounted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_pipelines.delivery.apply_or_store import apply_or_store
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_jobs
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.webhooks.error_log import logger
from sync_pipelines.webhooks.inline import Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess

if TYPE_CHECKING:  # the web server's parts are an extra, and `dg` loads every public name to look for components
    from sync_pipelines.webhooks.application import WebhookApp
    from sync_pipelines.webhooks.receiver import Hook


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
        ConfigurationError: No sync job has a webhook, or none of them can be served, for want of its secret, say. If
            some can be served, they are; senders of the others are answered with 503, and the log says why.
    """
    from sync_pipelines.webhooks.application import WebhookApp  # noqa: PLC0415 - needs the extra

    settings = settings or load_settings()
    access = LedgerAccess(settings.ledger_database_url())
    served = served_hooks(settings)
    return WebhookApp(served.hooks, access, apply_or_store(access), report, knows_all=served.knows_all)


@dataclass(frozen=True, slots=True)
class ServedHooks:
    """Holds the webhooks of all sync jobs by name.

    Args:
        knows_all: False if a file of jobs could not be read, in which there may be more.
    """

    hooks: Mapping[str, Hook]
    knows_all: bool


def served_hooks(settings: Settings) -> ServedHooks:
    """Returns the webhooks of all sync jobs by name, with their secrets. Logs what is wrong with some of them.

    Raises:
        ConfigurationError: No sync job has a webhook, or something is wrong with all of them.
    """
    from sync_pipelines.webhooks.receiver import hooks_of  # noqa: PLC0415 - needs the extra

    unread: list[Exception] = []
    hooks = hooks_of(find_jobs(settings.jobs, unread=unread).values())
    problems = [message_of(each) for each in unread]
    problems += [f"the webhook {name!r}: {hook.problem}" for name, hook in hooks.items() if hook.problem is not None]
    if all(hook.problem is not None for hook in hooks.values()):
        none = "no sync job has a webhook; give one of them SyncJob(webhook=Webhook(signature=...))"
        raise ConfigurationError(problems[0] if problems else none)
    for problem in problems:
        logger.error("its senders are answered with status 503, until it is mended: %s", problem)
    return ServedHooks(hooks, knows_all=not unread)
