"""What `check` says of webhooks: secrets that are none of their scheme, names that two have, what is not set here."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.settings.secrets import is_set


def webhook_problems(jobs: Collection[AnyJob]) -> Iterator[tuple[str, str, bool]]:
    """Returns what is to be said of the webhooks of jobs: the job, a sentence, and whether it is a problem.

    That a secret is not set is none: it may be in the receiver's environment alone.
    """
    webhooks = {job.name: job.webhook for job in jobs if job.webhook is not None}
    if not webhooks:
        return
    try:
        from sync_pipelines.webhooks.receiver import hooks_of  # noqa: PLC0415 - its parts need not be installed
    except ModuleNotFoundError:
        return
    for hook in hooks_of(jobs).values():
        absent = [name for name in webhooks[hook.job.name].secret_names if not is_set(name)]
        if absent:
            told = f"the webhook {hook.name!r} can't be checked here: {', '.join(absent)} is not set"
            yield hook.job.name, told, False
        elif hook.problem is not None:
            yield hook.job.name, f"the webhook {hook.name!r}: {hook.problem}", True
