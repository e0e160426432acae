"""`frame_pages`: DataFrames as pages. pandas, an optional extra, is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sync_pipelines.sources.pages import PAGE_SIZE, Page, check_page_size

if TYPE_CHECKING:
    import pandas as pd


def frame_pages(frames: pd.DataFrame | Iterable[pd.DataFrame], page_size: int = PAGE_SIZE) -> Iterator[Page]:
    """Returns the rows of one DataFrame, or of many that come one after the other, as pages of plain dicts.

    Args:
        frames: A DataFrame, or DataFrames as `pandas.read_sql(..., chunksize=...)` yields them; only one is in memory.
        page_size: Rows in a page at most. A page ends with its DataFrame.

    Raises:
        ConfigurationError: `page_size` is no positive whole number; `frames` holds something else than DataFrames; two
            columns (or a column and an index level) have one name, or a label is neither text nor a whole number.
    """
    from sync_pipelines.sources.frames import pages_of_frames  # noqa: PLC0415 - whoever gives a frame has pandas loaded

    check_page_size(page_size)
    return pages_of_frames(frames, page_size)
