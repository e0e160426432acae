"""A graph-backed asset per sync, and the external asset it reads."""

from collections.abc import Collection, Sequence
from typing import Any

from dagster import AssetIn, AssetKey, AssetsDefinition, AssetSpec, ConfigMapping, Nothing, graph_asset

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.keys import asset_key, source_key
from sync_pipelines.orchestration.ops import SelectionConfig, build_apply_op, build_diff_op, build_fetch_op


def build_asset(job: AnyJob) -> AssetsDefinition:
    """Builds the asset with its ops fetch, diff and apply, and `limit` and `only` at the top of its config."""
    fetch, diff, apply = build_fetch_op(job), build_diff_op(job), build_apply_op(job)

    @graph_asset(
        key=asset_key(job),
        description=job.description or f"The local records that the sync `{job.name}` keeps in step with their source.",
        ins={"source": AssetIn(source_key(job), dagster_type=Nothing)},
        config=ConfigMapping(
            config_fn=lambda config: {"fetch": {"config": dict(config)}},
            config_schema=SelectionConfig.to_config_schema().as_field().config_type,
        ),
        group_name=job.group,
        owners=list(job.owners) or None,
        kinds=set(job.kinds) or None,
        tags=dict(job.tags) or None,
        metadata={"sync job": job.name},
    )
    def asset(source: Any) -> Any:
        return apply.alias("apply")(diff.alias("diff")(fetch.alias("fetch")(source)))

    return asset


def build_source_specs(jobs: Sequence[AnyJob], besides: Collection[AssetKey] = ()) -> list[AssetSpec]:
    """Builds the external assets upstream, each once however many syncs read it.

    Args:
        jobs: The syncs.
        besides: Keys of assets that others build.
    """
    written = {*map(asset_key, jobs), *besides}
    readers: dict[AssetKey, list[AnyJob]] = {}
    for job in jobs:
        if source_key(job) not in written:  # else this sync reads what another one writes
            readers.setdefault(source_key(job), []).append(job)
    return [
        AssetSpec(
            key,
            description=f"In the external system; read by the sync {', '.join(job.name for job in reading)}.",
            # in a group of its own: the lineage shows only the last part of a key, and both sides may be "products"
            group_name=key.path[0],
            kinds={"source"},
        )
        for key, reading in readers.items()
    ]
