"""A graph-backed asset per sync, and the external asset it reads."""

from collections.abc import Collection, Sequence
from typing import Any

from dagster import AssetIn, AssetKey, AssetsDefinition, AssetSpec, ConfigMapping, Nothing, graph_asset

from sync_pipelines.engine.code_version import code_version_of
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.automation import automation_tags, condition_of
from sync_pipelines.orchestration.definition_metadata import (
    MAX_KINDS,
    declared_table_of,
    definition_metadata,
    freshness_policy,
    kinds_of,
    source_kind,
)
from sync_pipelines.orchestration.keys import as_name, asset_key, source_key, upstream_keys
from sync_pipelines.orchestration.ops import SELECTION, build_apply_op, build_diff_op, build_fetch_op


def build_asset(job: AnyJob) -> AssetsDefinition:
    """Builds the asset with its ops fetch, diff and apply, and `limit` and `only` at the top of its config."""
    upstream, table = upstream_keys(job), declared_table_of(job)
    fetch, diff, apply = build_fetch_op(job), build_diff_op(job), build_apply_op(job)

    @graph_asset(
        key=asset_key(job),
        description=job.description or f"The local records that the sync `{job.name}` keeps in step with their source.",
        ins={
            "source": AssetIn(source_key(job), dagster_type=Nothing),
            **{f"upstream_{number}": AssetIn(key, dagster_type=Nothing) for number, key in enumerate(upstream)},
        },
        config=ConfigMapping(
            config_fn=lambda config: {"fetch": {"config": dict(config)}},
            config_schema=SELECTION.config_type,
        ),
        group_name=job.group,
        owners=list(job.owners) or None,
        kinds=kinds_of(job, table) or None,
        tags={**job.tags, **automation_tags(job)} or None,
        metadata=definition_metadata(job, table),
        automation_condition=condition_of(job),
        code_version=code_version_of(job),
    )
    def asset(source: Any, **further: Any) -> Any:
        return apply.alias("apply")(diff.alias("diff")(fetch.alias("fetch")(source=source, **further)))

    policy = freshness_policy(job)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy)) if policy else asset


def build_source_specs(
    jobs: Sequence[AnyJob], besides: Collection[AssetKey] = (), *, only_own: bool = False
) -> list[AssetSpec]:
    """Builds the external assets upstream, each once however many syncs read it.

    Args:
        jobs: The syncs.
        besides: Keys of assets that others build.
        only_own: Only those of syncs that name none: what they name may be an asset of somebody else.
    """
    written = {*map(asset_key, jobs), *besides}
    readers: dict[AssetKey, list[AnyJob]] = {}
    for job in jobs:
        is_anothers = source_key(job) in written or (only_own and job.source_asset is not None)
        if not is_anothers:
            readers.setdefault(source_key(job), []).append(job)
    return [
        AssetSpec(
            key,
            description=f"In the external system; read by the sync {', '.join(job.name for job in reading)}.",
            # in a group of its own: the lineage shows only the last part of a key, and both sides may be "products"
            group_name=as_name(key.path[0]),
            kinds={"source", *sorted({kind for job in reading if (kind := source_kind(job))})[: MAX_KINDS - 1]},
        )
        for key, reading in readers.items()
    ]
