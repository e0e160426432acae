"""`make demo-change`: real changes in the ERP of the running demo, so that the next run has something to do."""

from __future__ import annotations

import json
import sys

from demo.erp import RunningErp, change
from demo.run import FOLDER, SYNCS, console, is_running
from sync_pipelines.errors import SyncPipelinesError


def main() -> int:
    """Makes the changes and says what they were. Gives the exit code."""
    note = _note_of_running_demo()
    if note is None:
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


def _note_of_running_demo() -> dict[str, int] | None:
    if not is_running():
        return None
    try:
        note: dict[str, int] = json.loads((FOLDER / "running.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return note


if __name__ == "__main__":
    sys.exit(main())
