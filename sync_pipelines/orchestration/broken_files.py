"""Job files that can't be loaded, as operators see them: an asset each, whose check says file, line and error."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetSpec,
    CodeReferencesMetadataValue,
    DagsterInstance,
    LocalFileCodeReference,
    MetadataValue,
    UrlCodeReference,
    multi_asset_check,
)

from sync_pipelines.engine.declaration import DEFAULT_GROUP, AnyJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.keys import as_name, asset_key
from sync_pipelines.registry.job_file_errors import JobFileError

CHECK = "job_file_loads"
GROUP = "broken_job_files"
_TO_DO = "Mend it and reload the code location. All other syncs are loaded; `sync-pipelines check` says the same."


class JobsConflictError(ConfigurationError):
    """Jobs can't be loaded together.

    Args:
        message: Why.
        jobs: Those concerned. Without the last one the others would not be in each other's way for this reason.
    """

    def __init__(self, message: str, jobs: Sequence[AnyJob]) -> None:
        super().__init__(message)
        self.jobs = tuple(jobs)


@dataclass(frozen=True, slots=True)
class BrokenAsset:
    """Stands in Dagster for a sync that can't be loaded, or for a file of which nobody knows which syncs it has."""

    key: AssetKey
    problems: tuple[JobFileError, ...]

    @property
    def text(self) -> str:
        """Says what is wrong, one problem a line."""
        return "\n".join(map(str, self.problems))

    @property
    def metadata(self) -> dict[str, Any]:
        """Returns file, line and error of the first problem, and of others after it."""
        found: dict[str, Any] = {}
        for number, problem in enumerate(self.problems, start=1):
            after = "" if number == 1 else f" {number}"
            found |= {f"module{after}": problem.module, f"error{after}": MetadataValue.text(str(problem))}
            if problem.file is not None:
                found[f"file{after}"] = MetadataValue.path(problem.file)
            if problem.line is not None:
                found[f"line{after}"] = MetadataValue.text(str(problem.line))  # of a number Dagster draws a curve
        return found


def broken_assets(problems: Sequence[JobFileError], loaded: Sequence[AnyJob]) -> list[BrokenAsset]:
    """Returns what Dagster shows in place of what can't be loaded.

    A sync that is known, or that the text of its file declares, keeps the key of its asset, and with it its history.
    Of other files it is `sync/` and the file's name: what a sync has that is named like its file.

    Args:
        problems: What is wrong.
        loaded: The jobs that Dagster loads; their assets are their own.
    """
    taken = set(map(asset_key, loaded))
    found: dict[AssetKey, list[JobFileError]] = {}
    for problem in problems:
        for key in dict.fromkeys(_keys(problem)):
            found.setdefault(key if key not in taken else _key_of_module(problem), []).append(problem)
    return _sorted(found)


def broken_modules(problems: Sequence[JobFileError]) -> list[BrokenAsset]:
    """Returns what Dagster shows if it refuses an asset of the above: one of each module, by a key it always takes."""
    found: dict[AssetKey, list[JobFileError]] = {}
    for problem in problems:
        found.setdefault(_key_of_module(problem), []).append(problem)
    return _sorted(found)


def _sorted(found: dict[AssetKey, list[JobFileError]]) -> list[BrokenAsset]:
    return [BrokenAsset(key, tuple(ones)) for key, ones in sorted(found.items())]


def _key_of_module(problem: JobFileError) -> AssetKey:
    return AssetKey([GROUP, as_name(problem.module)])


def _keys(problem: JobFileError) -> list[AssetKey]:
    if problem.jobs:
        return [asset_key(job) for job in problem.jobs]
    declared = ([part for part in each.asset_key.split("/") if part] for each in problem.declared())
    of_file = AssetKey([DEFAULT_GROUP, as_name(problem.module.rpartition(".")[2])])
    return [AssetKey(list(map(as_name, parts))) for parts in declared if parts] or [of_file]


def build_broken_specs(broken: Sequence[BrokenAsset]) -> list[AssetSpec]:
    """Builds the assets, in a group of their own: whoever opens Dagster sees them, also if nothing has run yet."""
    return [
        AssetSpec(
            each.key,
            description=f"This sync can't be loaded: {' '.join(map(_code, each.problems))}\n\n{_TO_DO}",
            group_name=GROUP,
            kinds={"broken"},
            metadata={**each.metadata, **_code_references(each)},
        )
        for each in broken
    ]


def _code(problem: JobFileError) -> str:
    """Returns an error as Markdown shows it as it is, and breaks its lines."""
    text = " ".join(str(problem).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def _code_references(broken: BrokenAsset) -> dict[str, Any]:
    """Returns the metadata from which Dagster makes links to the files."""
    places: list[LocalFileCodeReference | UrlCodeReference] = [
        LocalFileCodeReference(file_path=problem.file, line_number=problem.line or 1)
        for problem in broken.problems
        if problem.file is not None
    ]
    return {"dagster/code_references": CodeReferencesMetadataValue(code_references=places)} if places else {}


def build_broken_checks(broken: Sequence[BrokenAsset]) -> list[AssetChecksDefinition]:
    """Builds the check of each such asset, which fails whenever it is run; of nothing, none."""
    if not broken:
        return []
    described = "Fails as long as the job file can't be loaded; says file, line and error."
    specs = [AssetCheckSpec(CHECK, asset=each.key, description=described) for each in broken]

    @multi_asset_check(name=GROUP, specs=specs, can_subset=True)
    def checks(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
        for each in broken:
            if any(key.asset_key == each.key for key in context.selected_asset_check_keys):
                yield AssetCheckResult(**_failed(each))

    return [checks]


def _failed(broken: BrokenAsset) -> dict[str, Any]:
    return {
        "asset_key": broken.key,
        "check_name": CHECK,
        "passed": False,
        "severity": AssetCheckSeverity.ERROR,
        "description": broken.text,
        "metadata": broken.metadata,
    }


def report_broken_files(instance: DagsterInstance, broken: Collection[BrokenAsset], cursor: str | None) -> str:
    """Reports each new problem once as a failed check, and once as a passed one when it is gone.

    Once more if the asset is materialised later, say by a run that was under way: Dagster would show the check as one
    that nobody has evaluated since.

    Args:
        instance: Where the checks' evaluations are kept.
        broken: What can't be loaded now.
        cursor: What the call before returned; None at the first.

    Returns:
        What has been reported, for the next call.
    """
    known, now = read_cursor(cursor), {each.key.to_user_string(): _fingerprint(instance, each) for each in broken}
    for each in broken:
        if known.get(each.key.to_user_string()) != now[each.key.to_user_string()]:
            instance.report_runless_asset_event(AssetCheckEvaluation(**_failed(each)))
    for name in sorted(known.keys() - now.keys()):
        key, text = AssetKey.from_user_string(name), "The job file can be loaded, or is gone."
        passed = AssetCheckEvaluation(asset_key=key, check_name=CHECK, passed=True, description=text)
        instance.report_runless_asset_event(passed)
    return json.dumps(now)


def read_cursor(cursor: str | None) -> dict[str, Any]:
    """Returns what a sensor's cursor says; nothing of one that somebody has edited: then all is reported again."""
    try:
        found = json.loads(cursor) if cursor else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fingerprint(instance: DagsterInstance, broken: BrokenAsset) -> str:
    last = instance.fetch_materializations(broken.key, limit=1).records
    told = f"{last[0].storage_id if last else None} {broken.text}"
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]
