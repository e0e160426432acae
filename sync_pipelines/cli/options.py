"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from sync_pipelines.cli.program import remember_debug

JobName = Annotated[str, typer.Argument(metavar="NAME", help="The sync job's name, e.g. erp-inventory.")]
OptionalJobName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A sync job; without a name, all.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else there.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=remember_debug, help="Show where an error comes from (a traceback).")
]
HowMany = Annotated[int, typer.Option(min=1, help="How many, the newest first.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take only the first items. No deletes then.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="Take only the item with this external id; may be repeated."),
]
Wait = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait while another run of it is under way.")
]
