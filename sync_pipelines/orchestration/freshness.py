"""A sensor that says when the last good run of a sync has become too old: nobody else would, if nothing runs."""

import json
from collections.abc import Callable, Sequence

from dagster import SensorDefinition, SensorEvaluationContext, SensorResult, SkipReason

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.checks import freshness_evaluation
from sync_pipelines.orchestration.start import sensor_status
from sync_pipelines.runner.context.workspace import open_workspace

LOOK_EVERY_S = 60


def build_freshness_sensor(jobs: Sequence[AnyJob]) -> SensorDefinition | None:
    """Builds the sensor for all syncs that have such a check; None if there are none."""
    watched = [job for job in jobs if job.fresh_after is not None]
    if not watched:
        return None
    return SensorDefinition(
        name="sync_freshness_sensor",
        evaluation_fn=_look(watched),
        minimum_interval_seconds=LOOK_EVERY_S,
        description="Reports the check is_fresh of an asset when its last good run becomes too old, and when it is not "
        "any more.",
        default_status=sensor_status(),
    )


def _look(jobs: Sequence[AnyJob]) -> Callable[[SensorEvaluationContext], SensorResult]:
    def look(context: SensorEvaluationContext) -> SensorResult:
        known: dict[str, bool] = json.loads(context.cursor) if context.cursor else {}
        now: dict[str, bool] = {}
        with open_workspace() as workspace:
            for job in jobs:
                evaluation = freshness_evaluation(job, workspace)
                now[job.name] = evaluation.passed
                if known.get(job.name, True) != evaluation.passed:
                    context.instance.report_runless_asset_event(evaluation)
        stale = [name for name, is_fresh in now.items() if not is_fresh]
        reason = f"too old: {', '.join(stale)}" if stale else "every sync that is watched has run in time"
        return SensorResult(skip_reason=SkipReason(reason), cursor=json.dumps(now))

    return look
