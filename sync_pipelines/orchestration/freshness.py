"""A sensor that says when the last good run of a sync has become too old: nobody else would, if nothing runs."""

import json
from datetime import datetime

from dagster import SensorEvaluationContext, SensorResult, SkipReason

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.broken_files import read_cursor
from sync_pipelines.orchestration.checks import Freshness, freshness_of
from sync_pipelines.orchestration.location import CODE_LOCATION, HELD_WORKSPACE
from sync_pipelines.orchestration.sensors import LocationSensor, some_of

LOOK_EVERY_S = 60


def build_freshness_sensor() -> LocationSensor:
    """Builds the sensor that watches all syncs with such a check."""
    watch = FreshnessWatch()
    return LocationSensor(
        "sync_freshness_sensor",
        watch.look,
        LOOK_EVERY_S,
        "Reports the check is_fresh of an asset when its last good run becomes too old, and when it is not any more.",
    )


class FreshnessWatch:
    """Remembers until when the good runs that it knows make a sync fresh: until then nobody need be asked."""

    def __init__(self) -> None:
        self._fresh_until: dict[AnyJob, datetime] = {}

    def look(self, context: SensorEvaluationContext) -> SensorResult:
        """Reports what has changed since the last look; the cursor holds what was too old then."""
        known = read_cursor(context.cursor)
        syncs = [job for job in CODE_LOCATION.in_sight_of(context) if job.fresh_after is not None]
        too_old = []
        with HELD_WORKSPACE.opened() as workspace:
            for job in syncs:
                was_fresh = known.get(job.name, True)
                until = self._fresh_until.get(job)
                if was_fresh and until is not None and workspace.clock() <= until:
                    continue
                freshness = freshness_of(job, workspace)
                if freshness.is_fresh != was_fresh:
                    context.instance.report_runless_asset_event(freshness.evaluation(job))
                if not freshness.is_fresh:
                    too_old.append(job.name)
                self._remember(job, freshness)
        reason = f"too old: {some_of(too_old)}" if too_old else "every sync that is watched has run in time"
        return SensorResult(skip_reason=SkipReason(reason), cursor=json.dumps(dict.fromkeys(too_old, False)))

    def _remember(self, job: AnyJob, freshness: Freshness) -> None:
        self._fresh_until.pop(job, None)
        if freshness.is_fresh and freshness.until is not None:
            self._fresh_until[job] = freshness.until
