"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from sync_pipelines.cli.program import remember_debug

JobName = Annotated[str, typer.Argument(metavar="NAME", help="The sync job's name, e.g. erp-inventory.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else there.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=remember_debug, help="Show where an error comes from (a traceback).")
]
