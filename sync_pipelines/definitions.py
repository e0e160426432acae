"""What Dagster loads: every sync that the registry finds. `workspace.yaml` names this module."""

from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.registry.registry import find_jobs

defs = build_definitions(list(find_jobs().values()))
