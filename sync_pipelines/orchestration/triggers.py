"""`trigger_sync`: puts a run on Dagster's run queue, through its web server."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sync_pipelines.engine.redaction import message_of, redact
from sync_pipelines.errors import ConfigurationError, RetryableError, SyncPipelinesError
from sync_pipelines.settings.model import Settings, load_settings

if TYPE_CHECKING:
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

TIMEOUT_S = 60
_UNKNOWN_JOB = {"JobNotFoundError", "PipelineNotFoundError"}


def trigger_sync(name: str, *, settings: Settings | None = None) -> str:
    """Puts a run of a sync on Dagster's run queue.

    Args:
        name: The sync job's name, e.g. `"erp-inventory"`.
        settings: By default those of the environment; `dagster_url` says where Dagster's web server answers.

    Returns:
        The id of the Dagster run.

    Raises:
        ConfigurationError: The code location that Dagster has loaded has no such sync.
        RetryableError: Dagster's web server does not answer.
    """
    try:
        from dagster_graphql import DagsterGraphQLClientError  # noqa: PLC0415 - slow to import, and seldom needed
    except ImportError as error:
        raise ConfigurationError("trigger_sync needs Dagster: pip install 'sync-pipelines[dagster]'") from error
    url = (settings or load_settings()).dagster_url
    try:
        return str(_client(url).submit_job_execution(name.replace("-", "_"), run_config={}))
    except DagsterGraphQLClientError as error:
        raise _clear_error(name, url, error) from error


def _client(url: str) -> "DagsterGraphQLClient":
    from dagster_graphql import DagsterGraphQLClient  # noqa: PLC0415

    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"SYNC_PIPELINES_DAGSTER_URL: {redact(url)!r} must look like 'http://127.0.0.1:3000'")
    return DagsterGraphQLClient(
        parts.hostname,
        parts.port,
        use_https=parts.scheme == "https",
        timeout=TIMEOUT_S,
        path_prefix=parts.path.rstrip("/"),
    )


def _clear_error(name: str, url: str, error: "DagsterGraphQLClientError") -> SyncPipelinesError:
    kind, *details = [str(argument) for argument in error.args] or [""]
    if kind in _UNKNOWN_JOB:
        return ConfigurationError(
            f"the code location that Dagster at {redact(url)} has loaded has no sync {name!r}; its file must be in a "
            "package of SYNC_PIPELINES_JOBS there, and the code location reloaded"
        )
    if details:  # Dagster has answered, with the kind of its refusal and the reason
        return ConfigurationError(f"Dagster at {redact(url)} refused to run {name!r}: {redact(' '.join(details))}")
    cause = f" ({message_of(error.__cause__)})" if error.__cause__ else ""
    return RetryableError(
        f"Dagster at {redact(url)} does not answer; start it, or set SYNC_PIPELINES_DAGSTER_URL to where it is{cause}"
    )
