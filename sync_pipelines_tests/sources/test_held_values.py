"""Values of files and frames that Python can't hold, and values that are very long: one stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.sources.files import csv_file, parquet_file
from sync_pipelines.sources.frames import rows_of_frame
from sync_pipelines.testing import MemoryTarget

BERLIN = ZoneInfo("Europe/Berlin")
EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
LAST_SECOND = 253_402_300_799


def items(fetch: Callable[[], Iterator[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    return [item for page in fetch() for item in page]


def ticks(values: list[int], kind: pa.DataType) -> pa.Array:
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    return pa.array(values, pa.int32() if narrow else pa.int64()).view(kind)


def test_a_parquet_moment_that_its_zone_puts_into_the_year_10000_fails_its_item_alone(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    until = pa.array([0, LAST_SECOND * 1_000_000, None], pa.timestamp("us", "Europe/Berlin"))
    pq.write_table(pa.table({"sku": ["A", "B", "C"], "until": until}), path)
    target = MemoryTarget()
    job: SyncJob[Any, Any] = SyncJob(
        name="prices", fetch_external=parquet_file(path, page_size=1), get_external_id="sku", target=target
    )
    settings = Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)
    results = run_sync(job, settings=settings)
    assert (results.outcome, results.created) == ("partial", 2)
    (error,) = results.errors
    assert (error.external_id, error.exception_type) == ("B", "ItemError")
    assert f"{path}, row 2: until is 10000-01-01 00:59:59" in error.message
    assert "(timestamp[us, tz=Europe/Berlin]), which Python does not hold (OverflowError: " in error.message
    assert target.records["A"]["until"] == datetime(1970, 1, 1, 1, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("column", "good"),
    [
        (ticks([0, 2**50], pa.timestamp("s")), EPOCH),
        (ticks([0, -(2**60)], pa.timestamp("ms", "UTC")), datetime(1970, 1, 1, tzinfo=UTC)),
        (ticks([0, 2**31 - 1], pa.date32()), EPOCH.date()),
        (ticks([1, 2**60], pa.duration("s")), timedelta(seconds=1)),
        (ticks([0, 86_400_000], pa.time32("ms")), EPOCH.time()),
        (ticks([0, -1], pa.time64("us")), EPOCH.time()),
        (pa.array([[0], [2**50]], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("s"))), [EPOCH]),
        (pa.array([b"\xc3\xa4", b"\xff"], pa.binary()).view(pa.string()), "ä"),
    ],
)
def test_a_parquet_value_that_python_does_not_hold_stands_as_an_error_in_its_field(
    tmp_path: Path, column: pa.Array, good: Any
) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1, 2], "x": column}), path)
    first, second = items(parquet_file(path))
    assert (first, second["id"]) == ({"id": 1, "x": good}, 2)
    assert isinstance(second["x"], ItemError)
    assert str(second["x"]).startswith(f"{path}, row 2: x is ")


def test_a_zone_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": ticks([0], pa.timestamp("us", "Mars/Phobos"))}), path)
    assert "row 1: x is a value (timestamp[us, tz=Mars/Phobos])" in str(items(parquet_file(path))[0]["x"])


def test_the_times_of_older_parquet_writers_keep_their_year(tmp_path: Path) -> None:
    path, last_day = tmp_path / "x.parquet", datetime.fromisoformat("9999-12-31")
    table = pa.table({"x": pa.array([last_day], pa.timestamp("us"))})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert items(parquet_file(path)) == [{"x": last_day}]


@pytest.mark.parametrize(
    ("column", "good"),
    [
        (np.array(["1970-01-01", "20240-01-01"], "datetime64[s]"), EPOCH),
        (np.array(["1970-01-01", "-0044-03-15"], "datetime64[s]"), EPOCH),
        (np.array([1, 2**60], "timedelta64[s]"), timedelta(seconds=1)),
        ([np.datetime64("1970-01-01"), np.datetime64("20240-01-01")], EPOCH),
        (
            pd.Series(np.array([0, LAST_SECOND], "datetime64[s]")).dt.tz_localize("UTC").dt.tz_convert(BERLIN),
            datetime(1970, 1, 1, 1, tzinfo=BERLIN),
        ),
        (
            pd.Series(pd.arrays.ArrowExtensionArray(pa.array([0, LAST_SECOND], pa.timestamp("s", "Europe/Berlin")))),
            datetime(1970, 1, 1, 1, tzinfo=BERLIN),
        ),
    ],
)
def test_a_value_of_a_frame_that_python_does_not_hold_stands_as_an_error_in_its_field(column: Any, good: Any) -> None:
    first, second = rows_of_frame(pd.DataFrame({"id": [1, 2], "x": column}))
    assert (first, second["id"]) == ({"id": 1, "x": good}, 2)
    assert isinstance(second["x"], ItemError)
    assert str(second["x"]).startswith("row 1 of the DataFrame: x is ")


def test_a_csv_value_of_140_000_characters_is_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text(f'sku,text\nA,"{"x" * 140_000}"\nB,short\n')
    assert [len(item["text"]) for item in items(csv_file(path))] == [140_000, 5]


def test_the_longest_csv_value_is_an_option_and_a_longer_one_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text('sku,text\nA,"12345"\nB,"123456"\n')
    with pytest.raises(FetchError, match=r"texts\.csv, line 3: a value has more than 5 characters; .*max_field_chars"):
        items(csv_file(path, max_field_chars=5))
    assert len(items(csv_file(path, max_field_chars=6))) == 2
    for wrong in (0, True, 2.5, 2**31):
        with pytest.raises(ConfigurationError, match=r"max_field_chars=.*: give a whole number"):
            csv_file(path, max_field_chars=wrong)  # type: ignore[arg-type]


def test_a_quote_left_open_ends_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text('sku,text\nA,"open\n' + "B,x\n" * 3_000_000)
    with pytest.raises(FetchError, match=r"line 2: a value has more than 10,000,000 characters; is a quote left open"):
        items(csv_file(path))
