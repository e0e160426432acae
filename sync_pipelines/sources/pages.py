"""Pages: how sources hand over many items without holding them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sync_pipelines.errors import ConfigurationError

Page = list[dict[str, Any]]
"""Some items, one dict each."""

Fetch = Callable[[], Iterator[Page]]
"""What `SyncJob(fetch_external=...)` takes: called without arguments, it streams pages."""

PAGE_SIZE = 10_000
"""Items in a page unless somebody says otherwise: enough for speed, and a few megabytes at most."""


def check_page_size(page_size: object) -> None:
    """Checks the number of items in a page.

    Raises:
        ConfigurationError: It is no positive whole number.
    """
    # `type`, not `isinstance`: True is an int to Python and a slip to everybody else.
    if type(page_size) is not int or page_size < 1:
        raise ConfigurationError(f"page_size={page_size!r}: give a positive whole number of items")
