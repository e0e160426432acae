"""`make demo-change`: real changes in the ERP of the running demo, so that the next run has something to do."""

from __future__ import annotations

import json
import sys

from demo.erp import RunningErp, change
from demo.run import FOLDER, SYNCS, console
from sync_pipelines.errors import SyncPipelinesError


def main() -> int:
    """Makes the changes and says what they were. Gives the exit code."""
    try:
        note = json.loads((FOLDER / "running.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        console.print("No demo is running; start it in another terminal with `make demo`.")
        return 1
    try:
        changes = change(RunningErp(FOLDER, int(note["erp_port"])))
    except SyncPipelinesError as error:
        console.print(f"[bold red]The ERP refused:[/] {error}", highlight=False)
        return 1
    console.print(str(changes), highlight=False)
    url = f"http://127.0.0.1:{note['dagster_port']}"
    console.print(f"Now run {' or '.join(SYNCS)} again: {url}/jobs, or wait for the schedule.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
