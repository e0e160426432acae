"""`make demo-change`: real changes in the ERP of the running demo, some of which it reports by signed webhooks."""

from __future__ import annotations

import sys
from collections import Counter

import httpx

from demo.erp import RunningErp, change
from demo.run import FOLDER, SYNCS, console, what_runs
from demo.webhooks import send_changed
from sync_pipelines.errors import SyncPipelinesError


def main() -> int:
    """Makes the changes and says what they were. Gives the exit code."""
    running = what_runs()
    if running is None:
        console.print("No demo is running; start it in another terminal with `make demo`.")
        return 1
    try:
        changes = change(RunningErp(FOLDER, running.erp_port))
    except SyncPipelinesError as error:
        console.print(f"[bold red]The ERP refused:[/] {error}", highlight=False)
        return 1
    console.print(str(changes), highlight=False)
    skus = [*changes.created, *changes.repriced, changes.renamed, changes.deactivated]
    try:
        statuses = Counter(send_changed(running.webhook, running.secret, skus))
    except httpx.HTTPError as error:
        console.print(f"[bold red]The receiver did not answer:[/] {error}", highlight=False)
        return 1
    answers = ", ".join(f"{count} answered {status}" for status, count in sorted(statuses.items()))
    console.print(f"Webhooks for the {len(skus)} changed products: {answers}.", highlight=False)
    url = f"http://127.0.0.1:{running.dagster_port}"
    console.print(f"They are applied in seconds: {url}/jobs/erp_products_items", highlight=False)
    console.print(f"For the stock run {SYNCS[1]} again: {url}/jobs/erp_inventory, or wait for the schedule.")
    return 0 if set(statuses) == {202} else 1


if __name__ == "__main__":
    sys.exit(main())
