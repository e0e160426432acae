"""One record's id in its spellings: as somebody types it, as the source writes it, as the target's key gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id, json_spellings
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver, open_target


def record_keys(driver: TargetDriver, external_ids: Sequence[str]) -> list[str]:
    """Returns for each id what it has in common with all other spellings of it: what the target's key makes of it.

    Where the target has no say, or can't make anything of it, ids that are JSON arrays are the same as JSON.
    """
    if not driver.knows_ids:
        return [json_spellings(each)[0] for each in external_ids]
    driver.expect(external_ids)
    keys = [driver.canonical_or_error(each) for each in external_ids]
    return [key if isinstance(key, str) else given for key, given in zip(keys, external_ids, strict=True)]


def spellings_of(job: SyncJob[Any, Any] | None, given: Any, where: str) -> list[str]:
    """Returns the spellings under which the ledger may know the id that somebody has typed, the likeliest first.

    Args:
        job: The sync job; None of one that is gone. A target that can't be reached is not asked.
        given: The id.
        where: The job's name, and what the id was given for, for messages.

    Raises:
        ConfigurationError: It is no id.
    """
    try:
        typed = checked_external_id(given)
        typed.encode("utf-8")
    except (ItemError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"{where}: {given!r} is no id; give text or numbers ({error})") from error
    return list(dict.fromkeys([typed, *(_canonical(job, typed) or json_spellings(typed))]))


def _canonical(job: SyncJob[Any, Any] | None, external_id: str) -> list[str]:
    if job is None:
        return []
    try:
        with open_target(job) as driver:
            return [driver.canonical_id(external_id)] if driver.knows_ids else []
    except Exception:  # noqa: BLE001 - the ledger answers without the target
        return []
