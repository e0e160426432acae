"""Starts syncs after the assets that they read, by Dagster's automation conditions."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from dagster import (
    AssetSelection,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    SensorDefinition,
)

from sync_pipelines.engine.asset_checks import AUTOMATIONS
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.keys import source_key
from sync_pipelines.orchestration.location import SharedSensor

AUTOMATION_TAG = "sync/automation"
"""On the assets that have a condition; holds its name in the job file, or `condition`."""
_OTHER = "condition"
Condition = AutomationCondition[Any]


def build_automation_sensor(jobs: Sequence[AnyJob]) -> SensorDefinition | None:
    """Returns the sensor that starts all syncs which have an automation, running; None if there are none.

    It is the same object however often it is asked for: definitions that have it can be merged.
    """
    return _sensor() if any(job.automation is not None for job in jobs) else None


class _OneSensor(SharedSensor, AutomationConditionSensorDefinition):
    """Dagster's own sensor for conditions is stopped until somebody finds its switch, and copied by components."""


@cache
def _sensor() -> SensorDefinition:
    """Builds the sensor over the assets with our tag: it takes up nobody else's conditions, which theirs go on with."""
    ours = AssetSelection.tag(AUTOMATION_TAG, _OTHER)
    for name in AUTOMATIONS:
        ours |= AssetSelection.tag(AUTOMATION_TAG, name)
    return _OneSensor(
        "sync_automation_sensor",
        target=ours,
        description="Starts syncs whose `automation` says that it is time, after the assets that they read.",
    )


def automation_tags(job: AnyJob) -> dict[str, str]:
    """Returns the tag by which the sensor knows the asset; none of a sync without an automation."""
    if job.automation is None:
        return {}
    return {AUTOMATION_TAG: job.automation if isinstance(job.automation, str) else _OTHER}


def condition_of(job: AnyJob) -> Condition | None:
    """Returns the condition under which Dagster starts the sync; None if it has none.

    With a name it is of the assets in `upstream`. The asset of the source is left out then: the sync's own fetch is
    what updates it, and before the first one it is missing, which would keep that from ever coming.
    """
    condition: Any = job.automation
    if condition in AUTOMATIONS:
        condition = AutomationCondition.eager()
        if job.automation == "on_change":
            condition = condition.replace("any_deps_updated", _any_deps_changed()).with_label("on_change")
        if job.upstream:
            condition = condition.ignore(AssetSelection.assets(source_key(job)))
    given: Condition | None = condition
    return given


def _any_deps_changed() -> Condition:
    """Returns the condition that data of an asset which is read has changed; an update alone does not say so."""
    changed = AutomationCondition.data_version_changed() & ~AutomationCondition.executed_with_root_target()
    return AutomationCondition.any_deps_match(changed).with_label("any_deps_changed")
