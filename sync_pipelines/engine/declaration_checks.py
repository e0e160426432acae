"""What a `SyncJob` must be like, field by field: each error names job, field and value and says what to do."""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.intervals import as_interval
from sync_pipelines.engine.retry import MAX_ATTEMPTS, Retry
from sync_pipelines.engine.webhooks import check_webhook
from sync_pipelines.errors import ConfigurationError

Unchecked = Any
"""A `SyncJob` whose fields may still hold anything, whatever its annotations promise."""

MAX_CONCURRENCY = 1_000
"""Each call at a time takes a thread, and most systems bear far fewer."""
MAX_DELETE_AFTER = 1_000
"""More fetches than that without a record are a mistake."""

MAX_HISTORY_DAYS = 36_500

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_KEY_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_GROUP = re.compile(r"[A-Za-z0-9_]+")
# what Dagster does not allow as a name
_RESERVED = {
    *keyword.kwlist,
    *["bool", "conf", "config", "context", "dict", "float", "input", "int", "meta", "output", "self", "str", "type"],
}
# What Dagster takes, said when the declaration is made instead of when all definitions fail to load.
_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_MAX_KINDS = 3
_HOOKS = {
    "fetch_external": 0, "fetch_one": 1, "find_local": 1, "create": 1, "update": 2, "delete": 1, "list_local": 0,
    "should_skip": 1, "has_changed": 2, "on_start": 0, "on_complete": 1,
}  # fmt: skip
"""Function -> how many arguments it is called with."""
_MAY_YIELD = ("fetch_external", "list_local")
MAX_NAME_CHARS = 200
"""The ledger keeps no longer ones."""
_PER_RECORD = ("find_local", "create", "update")


def _wrong(job: Unchecked, name: str, problem: str) -> ConfigurationError:
    shown = job.name if isinstance(job.name, str) else "?"
    return ConfigurationError(f"sync job {shown!r}: {name}: {problem}", field=name)


def check_declaration(job: Unchecked) -> None:
    """Checks all fields of a declaration.

    Raises:
        ConfigurationError: One is wrong; the message names job and field.
    """
    _check_name(job)
    _check_callables(job)
    _check_identity(job)
    _check_target(job)
    _check_pace(job)
    _check_retry(job)
    _check_deletes(job)
    _check_limits(job)
    _check_history(job)
    _check_presentation(job)
    if job.schedule is not None:
        with _naming(job, "schedule"):
            as_interval(job.schedule)
    if job.webhook is not None:
        with _naming(job, "webhook"):
            check_webhook(job.webhook)


@contextmanager
def _naming(job: Unchecked, name: str) -> Iterator[None]:
    """Lets an error of the field's own check name job and field."""
    try:
        yield
    except ConfigurationError as error:
        raise _wrong(job, name, str(error)) from error


def _check_name(job: Unchecked) -> None:
    if not isinstance(job.name, str) or not _NAME.fullmatch(job.name):
        raise _wrong(job, "name", f"{job.name!r} must be lower case words and digits joined by '-': 'erp-inventory'")
    if len(job.name) > MAX_NAME_CHARS:
        raise _wrong(job, "name", f"has {len(job.name)} characters; {MAX_NAME_CHARS} are the most")
    if job.name in _RESERVED:
        raise _wrong(job, "name", f"Dagster allows no job named {job.name!r}; add a word, as in 'crm-{job.name}'")


def _check_callables(job: Unchecked) -> None:
    if not callable(job.fetch_external):
        raise _wrong(job, "fetch_external", f"{job.fetch_external!r} is not a function; pass it without calling it")
    for name in _HOOKS:
        value = getattr(job, name)
        if value is None:
            continue
        if not callable(value):
            raise _wrong(job, name, f"{value!r} is not a function")
        if name not in _MAY_YIELD and (inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)):
            raise _wrong(job, name, f"{value!r} has a yield: called, it would do nothing; let it return")


_ARGUMENTS = ("no argument", "one argument", "two arguments")


def require_callable_as_declared(job: Unchecked) -> None:
    """Makes sure that each function takes what it will be called with; a call would fail every item, or the run.

    Raises:
        ConfigurationError: One does not; the message names job and field.
    """
    for name, value, count in _functions_of(job):
        if callable(value) and not _takes(value, count):
            raise _wrong(job, name, f"{value!r} is called with {_ARGUMENTS[count]}, which it does not take")


def _functions_of(job: Unchecked) -> Iterator[tuple[str, Any, int]]:
    """Yields what may be functions of the user: the name, the function, and with how many arguments it is called."""
    yield from ((name, getattr(job, name), count) for name, count in _HOOKS.items())
    yield from ((name, getattr(job, name), 1) for name in ("get_external_id", "get_version"))
    of_target = getattr(job.target, "item_functions", None)
    if isinstance(of_target, Mapping):
        yield from ((f"target: {name}", function, 1) for name, function in of_target.items())
    if job.webhook is not None:
        yield from ((f"webhook: {name}", getattr(job.webhook, name), 1) for name in ("parse", "delivery_id"))
        yield from (("webhook: handshakes: answer", each.answer, 1) for each in job.webhook.all_handshakes)


def _takes(function: Any, count: int) -> bool:
    """Returns False for a function that can't be called with so many arguments; a decorator's own are what counts."""
    try:
        inspect.signature(function, follow_wrapped=False).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # of many functions of C nobody knows
        return True
    return True


def _check_identity(job: Unchecked) -> None:
    identity = job.get_external_id
    if identity is None and not hasattr(job.target, "external_id"):
        raise _wrong(job, "get_external_id", "is missing; give a function of the item or the name of one of its fields")
    if identity is not None and not callable(identity) and not (isinstance(identity, str) and identity):
        raise _wrong(job, "get_external_id", f"{identity!r} is neither a function nor a field name")
    version = job.get_version
    if version is not None and not callable(version) and not (isinstance(version, str) and version):
        raise _wrong(job, "get_version", f"{version!r} is neither a function nor a field name")


def _check_target(job: Unchecked) -> None:
    functions = [name for name in _PER_RECORD if getattr(job, name) is not None]
    if job.target is not None:
        also = [*functions, *(name for name in ("delete", "list_local") if getattr(job, name) is not None)]
        if also:
            raise _wrong(job, also[0], "a job has a target or per-record functions, not both")
        if not hasattr(job.target, "open") and not all(
            callable(getattr(job.target, method, None)) for method in _PER_RECORD
        ):
            raise _wrong(job, "target", f"{job.target!r} has no find_local, create and update")
        return
    for name in _PER_RECORD:
        if name not in functions:
            raise _wrong(job, name, "is missing; give find_local, create and update, or a target such as SqlTable(...)")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _check_pace(job: Unchecked) -> None:
    at_a_time, limit = job.concurrency, job.max_calls_per_s
    if not _is_whole(at_a_time, 1, MAX_CONCURRENCY):
        raise _wrong(job, "concurrency", f"{at_a_time!r} must be a whole number from 1 to {MAX_CONCURRENCY}")
    if limit is not None and not _is_positive(limit):
        raise _wrong(job, "max_calls_per_s", f"{limit!r} must be a number above 0, or None for no limit")


def _check_retry(job: Unchecked) -> None:
    retry = job.retry
    if retry is None:
        return
    if not isinstance(retry, Retry):
        raise _wrong(job, "retry", f"{retry!r} must be Retry(attempts=..., first_wait_s=...), or None for no retry")
    if not _is_whole(retry.attempts, 1, MAX_ATTEMPTS):
        raise _wrong(job, "retry", f"attempts={retry.attempts!r} must be a whole number from 1 to {MAX_ATTEMPTS}")
    if not _is_positive(retry.first_wait_s):
        raise _wrong(job, "retry", f"first_wait_s={retry.first_wait_s!r} must be a number of seconds above 0")


def _check_delete_after(job: Unchecked) -> None:
    after = job.delete_after
    if not _is_whole(after, 1, MAX_DELETE_AFTER):
        raise _wrong(job, "delete_after", f"{after!r} must be a whole number from 1 to {MAX_DELETE_AFTER:,}")
    if after > 1 and job.deletes == "off":
        raise _wrong(job, "delete_after", f"{after} needs deletes='hard' or 'soft'; without, nothing is deleted")


def _check_deletes(job: Unchecked) -> None:
    if job.deletes not in ("off", "hard", "soft"):  # a set would not do: what is no text may not be hashable
        raise _wrong(job, "deletes", f"{job.deletes!r} must be 'off', 'hard' or 'soft'")
    _check_delete_after(job)
    if job.deletes == "off":
        return
    if job.target is None:
        _check_delete_functions(job)
        return
    opens = hasattr(job.target, "open")
    marks = getattr(job.target, "soft_delete" if opens else "is_marked", None) is not None
    if job.deletes == "soft" and not marks:
        raise _wrong(job, "deletes", "'soft' needs a target that marks records, as SqlTable(soft_delete=...) does")
    if job.deletes == "hard" and marks:
        raise _wrong(job, "deletes", "is 'hard', but the target marks records; write 'soft', or leave soft_delete out")
    if not opens:
        for names in (("delete", "delete_many"), ("list_local",)):
            if not any(callable(getattr(job.target, name, None)) for name in names):
                raise _wrong(
                    job, "deletes", f"{job.deletes!r} needs a target with {names[0]}, which {job.target!r} lacks"
                )


def _check_delete_functions(job: Unchecked) -> None:
    if job.deletes == "soft":
        raise _wrong(
            job, "deletes", "'soft' needs a target that marks records. What your function delete(local) does is up to "
            "it: write 'hard', let it mark the record, and let list_local leave marked ones out"
        )  # fmt: skip
    for name in ("delete", "list_local"):
        if getattr(job, name) is None:
            raise _wrong(job, name, "is missing; deletes='hard' needs delete and list_local")


def _check_limits(job: Unchecked) -> None:
    if job.guards is not None and not isinstance(job.guards, Guards):
        raise _wrong(job, "guards", f"{job.guards!r} must be Guards(...), or None for no limits")
    if job.guards is not None and job.guards.max_update_share is not None and not _tells_changes(job):
        raise _wrong(job, "guards", "max_update_share needs has_changed: without it every found record is updated")
    limit = job.fail_above
    is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool) and math.isfinite(limit)
    if limit is not None and not (is_number and limit >= 0 and (limit < 1 or limit == int(limit))):
        raise _wrong(job, "fail_above", f"{limit!r} must be a share from 0 to 1, a whole number of items, or None")
    within = job.fresh_within
    if within is not None and not (isinstance(within, timedelta) and within > timedelta(0)):
        raise _wrong(job, "fresh_within", f"{within!r} must be a timedelta above zero, such as timedelta(hours=3)")


def _tells_changes(job: Unchecked) -> bool:
    return job.has_changed is not None or any(hasattr(job.target, name) for name in ("open", "has_changed", "changes"))


def _check_history(job: Unchecked) -> None:
    days = job.keep_history_days
    if not _is_whole(days, 0, MAX_HISTORY_DAYS):
        problem = f"{days!r} must be a whole number of days from 0, which records nothing, to {MAX_HISTORY_DAYS}"
        raise _wrong(job, "keep_history_days", problem)


def _is_key(key: object) -> bool:
    """Returns True for two words or more: one alone would be a graph's name in Dagster, where jobs have theirs too."""
    parts = key.split("/") if isinstance(key, str) else []
    return len(parts) > 1 and all(_KEY_PART.fullmatch(part) for part in parts)


def _check_presentation(job: Unchecked) -> None:
    for name in ("asset_key", "source_asset"):
        key = getattr(job, name)
        if key is not None and not _is_key(key):
            raise _wrong(job, name, f"{key!r} must be at least two words joined by '/', such as 'shop/variants'")
    if job.asset_key is not None and job.asset_key == job.source_asset:
        raise _wrong(job, "source_asset", f"{job.source_asset!r} is the asset_key as well; a sync can't read itself")
    if not isinstance(job.group, str) or not _GROUP.fullmatch(job.group):
        raise _wrong(job, "group", f"{job.group!r} must be letters, digits and '_'")
    if not isinstance(job.description, str):
        raise _wrong(job, "description", f"{job.description!r} must be text")
    _check_labels(job)


def _check_labels(job: Unchecked) -> None:
    for name in ("owners", "kinds"):
        value = getattr(job, name)
        if not isinstance(value, (list, tuple)) or not all(isinstance(label, str) for label in value):
            raise _wrong(job, name, f"{value!r} must be a list of texts")
    for owner in job.owners:
        if not _OWNER.fullmatch(owner):
            raise _wrong(job, "owners", f"{owner!r} must be an e-mail address or 'team:name'")
    if len(job.kinds) > _MAX_KINDS or not all(kind and _TAG_VALUE.fullmatch(kind) for kind in job.kinds):
        raise _wrong(job, "kinds", f"{job.kinds!r} must be up to three words of letters, digits, '_', '.' and '-'")
    if not isinstance(job.tags, Mapping) or not all(
        isinstance(key, str) and _TAG_KEY.fullmatch(key) and isinstance(value, str) and _TAG_VALUE.fullmatch(value)
        for key, value in job.tags.items()
    ):
        raise _wrong(
            job, "tags", f"{job.tags!r} must map texts to texts, each up to 63 letters, digits, '_', '.' and '-'"
        )
