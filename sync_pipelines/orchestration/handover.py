"""Hands references from op to op through the snapshot store, so that they reach another process or machine."""

import json
from dataclasses import asdict
from typing import Any

from dagster import InputContext, IOManager, OutputContext, io_manager
from upath import UPath

from sync_pipelines.errors import RunError
from sync_pipelines.runner.runs.comparing_run import PlanRef, SnapshotRef
from sync_pipelines.settings.model import load_settings
from sync_pipelines.snapshots.durable_files import write_json

_KINDS: dict[str, type[SnapshotRef | PlanRef]] = {kind.__name__: kind for kind in (SnapshotRef, PlanRef)}


class HandoverIOManager(IOManager):
    """Keeps a reference as a small JSON file in the folder of its Dagster run.

    Args:
        root: The snapshot store; its clean-up removes the references of old runs as well.
    """

    def __init__(self, root: UPath) -> None:
        self._root = root

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Writes the reference; the file appears whole or not at all."""
        write_json(self._path(context), {"kind": type(obj).__name__, **asdict(obj)})

    def load_input(self, context: InputContext) -> SnapshotRef | PlanRef:
        """Reads the reference that the op before left, in this run or in the one that this run re-executes.

        Raises:
            RunError: It is gone.
        """
        upstream = context.upstream_output
        if upstream is None:
            raise RunError("this op gets its input from the op before it; run the whole sync")
        path = self._path(upstream)
        try:
            reference = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(
                f"what the op {upstream.step_key} left is no longer in the snapshot store; start a new run"
            ) from error
        return _KINDS[reference.pop("kind")](**reference)

    def _path(self, context: OutputContext) -> UPath:
        run_id, *rest = context.get_identifier()
        return self._root / run_id / f"{'-'.join(rest)}.json"


@io_manager(description="Hands references to snapshots and plans from op to op, through the snapshot store.")
def handover_io_manager() -> HandoverIOManager:
    """Reads the settings when a run starts, not when the code location loads."""
    return HandoverIOManager(load_settings().snapshot_dir())
