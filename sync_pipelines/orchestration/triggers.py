"""`trigger_sync`: puts a run on Dagster's run queue, through its web server."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sync_pipelines.engine.redaction import message_of, redact
from sync_pipelines.errors import ConfigurationError, RetryableError, SyncPipelinesError
from sync_pipelines.settings.model import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
    from dagster_graphql.client.utils import JobInfo

TIMEOUT_S = 60
_SETTING = "SYNC_PIPELINES_DAGSTER_LOCATION"
_UNKNOWN_JOB = {"JobNotFoundError", "PipelineNotFoundError"}


def trigger_sync(name: str, *, location: str | None = None, settings: Settings | None = None) -> str:
    """Puts a run of a sync on Dagster's run queue.

    Args:
        name: The sync job's name, e.g. `"erp-inventory"`.
        location: The code location whose job is meant, where several have a sync of that name; by default that of the
            setting `dagster_location`.
        settings: By default those of the environment; `dagster_url` says where Dagster's web server answers.

    Returns:
        The id of the Dagster run.

    Raises:
        ConfigurationError: No code location that Dagster has loaded has such a sync, or several have.
        RetryableError: Dagster's web server does not answer.
    """
    try:
        from dagster_graphql import DagsterGraphQLClientError  # noqa: PLC0415 - slow to import, and seldom needed
    except ImportError as error:
        raise ConfigurationError("trigger_sync needs Dagster: pip install 'sync-pipelines[dagster]'") from error
    settings = settings or load_settings()
    url = settings.dagster_url
    client, dagster_name = _client(url), name.replace("-", "_")
    try:
        # the client itself can't be given a location alone, and of several it says that Dagster does not answer
        found = client._get_repo_locations_and_names_with_pipeline(dagster_name)  # noqa: SLF001
        job = _chosen(name, redact(url), found, _Wanted.of(location, settings))
        return str(
            client.submit_job_execution(
                dagster_name,
                repository_location_name=job.repository_location_name,
                repository_name=job.repository_name,
                run_config={},
            )
        )
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The code location that is meant, or None for the only one that has the sync, and who says so."""

    location: str | None
    said_by: str

    @classmethod
    def of(cls, location: str | None, settings: Settings) -> "_Wanted":
        if location is not None:
            return cls(location, "")
        return cls(settings.dagster_location or None, f"{_SETTING}: ")


def _chosen(name: str, url: str, found: "Sequence[JobInfo]", wanted: _Wanted) -> "JobInfo":
    """Returns the job that is meant.

    Args:
        wanted: A code location, or `repository@location` as Dagster's web pages write it.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
    if not found:
        raise _unknown(name, url)
    places = [f"{job.repository_name}@{job.repository_location_name}" for job in found]
    locations = [job.repository_location_name for job in found]
    names = locations if len(set(locations)) == len(locations) else places
    meant = [
        job
        for job, place in zip(found, places, strict=True)
        if wanted.location is None or wanted.location in {place, job.repository_location_name}
    ]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise ConfigurationError(
            f"{wanted.said_by}the code location {wanted.location!r} of Dagster at {url} has no sync {name!r}; there it "
            f"is in {', '.join(names)}"
        )
    choice = (
        f"say which one is meant: --location {names[0]}, or trigger_sync({name!r}, location={names[0]!r}), or "
        f"{_SETTING}={names[0]} for all that is triggered from here"
    )
    raise ConfigurationError(
        f"Dagster at {url} has the sync {name!r} in {len(names)} code locations, {', '.join(names)}; {choice}"
    )


def _unknown(name: str, url: str) -> ConfigurationError:
    return ConfigurationError(
        f"the code location that Dagster at {url} has loaded has no sync {name!r}; its file must be in a "
        "package of SYNC_PIPELINES_JOBS there, and the code location reloaded"
    )


def _clear_error(name: str, url: str, error: "DagsterGraphQLClientError") -> SyncPipelinesError:
    kind, *details = [str(argument) for argument in error.args] or [""]
    if kind in _UNKNOWN_JOB:
        return _unknown(name, redact(url))
    if details:  # Dagster has answered, with the kind of its refusal and the reason
        return ConfigurationError(f"Dagster at {redact(url)} refused to run {name!r}: {redact(' '.join(details))}")
    cause = f" ({message_of(error.__cause__)})" if error.__cause__ else ""
    return RetryableError(
        f"Dagster at {redact(url)} does not answer; start it, or set SYNC_PIPELINES_DAGSTER_URL to where it is{cause}"
    )
