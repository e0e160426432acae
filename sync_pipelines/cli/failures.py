"""`failures` and `retry`: the items that failed, and another try."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sync_pipelines.cli.columns import Column, document, show_list, show_rows
from sync_pipelines.cli.formats import local_time
from sync_pipelines.cli.output import remark, show_facts, show_json, show_line
from sync_pipelines.cli.program import exit_code_of
from sync_pipelines.cli.run import show_results, showing_what_is_known
from sync_pipelines.cli.run_progress import watch_run
from sync_pipelines.database.failure_rows import STATES, UNRESOLVED, FailureCount, FailureGroup, FailureRow
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.inbox import FAILED, Inbox
from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.run_causes import RunCauses
from sync_pipelines.engine.causes import MAX_SAMPLES, Cause
from sync_pipelines.engine.display import shown_stored, shown_text
from sync_pipelines.engine.redaction import typed
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_job, known_job
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.failures.reconcile import CausesOfRun, causes_of_run
from sync_pipelines.settings.model import load_settings

_NO_ID = "(none)"


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """Which failures to show, how many at most, and whether by cause or one by one."""

    state: str | None
    limit: int
    one_by_one: bool


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Which failures to try again, and how many seconds to wait while another run of the sync is under way."""

    ids: Sequence[str]
    everything: bool
    wait_s: float


@dataclass(frozen=True, slots=True)
class _JobFailures:
    """What the ledger has of a sync job's failures."""

    groups: Sequence[FailureGroup]
    rows: Sequence[FailureRow]
    count: int
    new: set[str]
    gone: Sequence[Cause]
    deliveries: int


def show_failures(name: str, chosen: FailureFilter, *, as_json: bool) -> None:
    """Shows the failures of a sync job."""
    states = _states(chosen.state)
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        failures = _read_failures(ledger, name, states, chosen)
    if not failures.count:
        find_job(name)
    if as_json:
        show_json(_failures_document(name, failures, one_by_one=chosen.one_by_one))
        return
    if not failures.count:
        remark(f"no {chosen.state or 'open'} failures of {name}")
    elif chosen.one_by_one:
        show_rows(_FAILURE_COLUMNS, failures.rows)
        for row in failures.rows:
            if row.external_id is None:
                remark(f"item with no external id: {shown_text('', shown_stored(row.payload))}")
        _remark_rest(len(failures.rows), failures.count)
    else:
        show_rows(_group_columns(failures.new), failures.groups)
        _remark_rest(sum(group.count for group in failures.groups), failures.count)
    for cause in failures.gone if chosen.state is None else ():
        remark(f"gone since the last run: {cause.line()}")
    if failures.deliveries:
        remark(
            f"{failures.deliveries:,} deliveries have been given up besides: "
            f"sync-pipelines webhooks list {name} --state failed"
        )


def show_counts(*, as_json: bool) -> None:
    """Shows which sync jobs have failures that are not resolved, and how many."""
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        counts = Failures(ledger).counts()
    show_list("jobs", _COUNT_COLUMNS, counts, if_none="no open failures of any sync", as_json=as_json)
    if counts and not as_json:
        remark("by cause: sync-pipelines failures NAME")


def _states(wanted: str | None) -> Sequence[str]:
    if wanted is None:
        return UNRESOLVED
    state = wanted.replace("-", " ")
    if state not in STATES:
        known = ", ".join(each.replace(" ", "-") for each in STATES)
        raise ConfigurationError(f"--state {wanted!r} is none of {known}")
    return (state,)


def _read_failures(ledger: Ledger, name: str, states: Sequence[str], chosen: FailureFilter) -> _JobFailures:
    failures, causes = Failures(ledger), RunCauses(ledger)
    newest = next(iter(causes.runs_before(name)), None)
    last = causes_of_run(causes, newest) if newest is not None else CausesOfRun()
    return _JobFailures(
        groups=() if chosen.one_by_one else failures.groups(name, states, chosen.limit, MAX_SAMPLES),
        rows=failures.newest(name, states, chosen.limit) if chosen.one_by_one else (),
        count=failures.count(name, states),
        new={each.fingerprint for each in last.found if each.is_new},
        gone=last.gone,
        deliveries=Inbox(ledger).count(name, FAILED),
    )


def _remark_rest(shown: int, count: int) -> None:
    if count > shown:
        remark(f"{shown:,} of {count:,} failed items are shown; --limit shows more")


def _thousands(count: int) -> str:
    return f"{count:,}"


def _next_try(failure: FailureRow) -> str:
    if failure.state != "open":
        return ""
    return local_time(failure.next_try_at) if failure.next_try_at is not None else "with the next run"


def show_failure(name: str, external_id: str, *, as_json: bool) -> None:
    """Shows all about one failure, with its item; what looks like a secret is redacted."""
    job = known_job(name)
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        failure = Failures(ledger).of_item(name, *spellings_of(job, external_id, name))
    if failure is None:
        find_job(name)
        raise ConfigurationError(
            f"{name} has no failure of {external_id!r}; `sync-pipelines failures {name} --list` lists those that there "
            "are"
        )
    if as_json:
        show_json(document(_FAILURE_COLUMNS, failure))
        return
    show_facts(
        {
            "sync": failure.job,
            "external id": failure.external_id or "",
            "action": failure.action,
            "state": failure.state,
            "error": failure.exception_type,
            "message": failure.message,
            "attempts": str(failure.attempts),
            "first failed": local_time(failure.first_failed_at),
            "last failed": local_time(failure.last_failed_at),
            "next try": _next_try(failure),
            "in run": failure.last_run_id,
            "resolved": local_time(failure.resolved_at) if failure.resolved_at else "",
            "resolved by": failure.resolved_by or "",
        }
    )
    for line in (failure.trace or "").splitlines():
        show_line(line)
    for line in _item_lines(shown_stored(failure.payload)):
        show_line(line)


def _item_lines(item: Any) -> Iterable[str]:
    if item is None:
        return []
    return [f"item {item}"] if not isinstance(item, dict) else [f"item {name}: {value}" for name, value in item.items()]


def _failures_document(name: str, failures: _JobFailures, *, one_by_one: bool) -> dict[str, Any]:
    if one_by_one:
        listed = {"failures": [document(_FAILURE_COLUMNS, row) for row in failures.rows]}
    else:
        listed = {"causes": [document(_group_columns(failures.new), group) for group in failures.groups]}
    return {
        "job": name,
        "count": failures.count,
        "deliveries_given_up": failures.deliveries,
        "gone_causes": [asdict(cause) for cause in failures.gone],
        **listed,
    }


_COUNT_COLUMNS: Sequence[Column[FailureCount]] = (
    Column("job", "sync"),
    Column("open", "open", cell=_thousands, is_number=True),
    Column("given_up", "given up", cell=_thousands, is_number=True),
    Column("last_failed_at", "last"),
)
_FAILURE_COLUMNS: Sequence[Column[FailureRow]] = (
    Column("job"),
    Column("external_id", "external id", cell=lambda external_id: _NO_ID if external_id is None else external_id),
    Column("action"),
    Column("state", "state"),
    Column("attempts", "attempts", is_number=True),
    Column("first_failed_at", "first"),
    Column("last_failed_at", "last"),
    Column("next_try_at"),
    Column(None, "next try", _next_try),
    Column(None, "error", lambda failure: typed(failure.exception_type, failure.message)),
    Column("exception_type"),
    Column("message"),
    Column("trace"),
    Column("last_run_id"),
    Column("resolved_at"),
    Column("resolved_by"),
    Column("item", value=lambda failure: shown_stored(failure.payload)),
)


def _group_columns(new: Collection[str]) -> Sequence[Column[FailureGroup]]:
    """Returns the columns of causes; `new` are the fingerprints of those that the last run met for the first time."""
    return (
        Column("count", "items", cell=_thousands, is_number=True),
        Column("given_up", "given up", cell=lambda count: _thousands(count) if count else "", is_number=True),
        Column("exception_type", "error"),
        Column("template", "message"),
        Column("sample_ids", "e.g.", cell=", ".join),
        Column("first_failed_at", "first"),
        Column("last_failed_at", "last"),
        Column("is_new", "", lambda group: group.fingerprint in new, lambda is_new: "new" if is_new else ""),
    )


def retry(name: str, choice: RetryChoice, *, as_json: bool) -> int:
    """Tries failures again, shows the results, and gives the exit code."""
    if choice.ids and choice.everything:
        raise ConfigurationError("--id and --all exclude each other; give one of them")
    job = find_job(name)
    stays = "What succeeded stays; what did not is tried again when it is due."
    with showing_what_is_known(as_json=as_json, if_stopped=stays), watch_run(name) as on_progress:
        results = retry_failures(
            job, external_ids=choice.ids, everything=choice.everything, on_progress=on_progress, wait_s=choice.wait_s
        )
    show_results(results, as_json=as_json)
    if not as_json:
        with open_ledger(load_settings().ledger_database_url()) as ledger:
            left = Failures(ledger).count(name, UNRESOLVED)
        if left:
            due = ""
            if not (results.fetched or choice.everything):
                due = f", none of them due; now: sync-pipelines retry {name} --all"
            remark(f"{left:,} failed items are left: sync-pipelines failures {name}{due}")
    return exit_code_of(results.outcome)
