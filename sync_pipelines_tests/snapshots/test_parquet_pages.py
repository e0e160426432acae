"""Parquet files written page by page: complete when they have their name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from sync_pipelines.errors import ConfigurationError, RunError
from sync_pipelines.snapshots.parquet_pages import PageWriter, read_pages, read_summary

SCHEMA = pa.schema([("position", pa.int64()), ("text", pa.string())])


def test_pages_come_back_as_they_were_written_with_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "run" / "plan.parquet"
    pages = [[(0, "Größe\x00\n"), (1, None)], [(2, "")], [(-1, "x" * 100_000)]]
    with PageWriter(UPath(path), SCHEMA) as writer:
        for page in [*pages, []]:
            writer.write(page)
        writer.finish({"items": writer.rows, "complete": True})
    assert list(read_pages(UPath(path))) == pages
    assert list(read_pages(UPath(path), ["text"])) == [[(text,) for _, text in page] for page in pages]
    assert read_summary(UPath(path)) == {"items": 4, "complete": True}


def test_a_file_without_rows_is_complete_as_well(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    with PageWriter(UPath(path), SCHEMA) as writer:
        writer.finish({"items": 0})
    assert list(read_pages(UPath(path))) == []
    assert read_summary(UPath(path)) == {"items": 0}


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    with PageWriter(UPath(path), SCHEMA) as writer:
        writer.write([(0, "a")])
        assert not path.exists()
        writer.finish({})
        assert path.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["plan.parquet"]


def test_what_was_not_finished_is_removed(tmp_path: Path) -> None:
    def break_off() -> None:
        with PageWriter(UPath(tmp_path / "plan.parquet"), SCHEMA) as writer:
            writer.write([(0, "a")])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_new_attempt_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    """A reader sees the old file or the new one, and a leftover of a killed attempt is no hindrance."""
    path = tmp_path / "plan.parquet"
    (tmp_path / "plan.parquet.part").write_text("half a file")
    for text in ("old", "new"):
        with PageWriter(UPath(path), SCHEMA) as writer:
            writer.write([(0, text)])
            if text == "new":
                assert list(read_pages(UPath(path))) == [[(0, "old")]]
            writer.finish({"text": text})
    assert list(read_pages(UPath(path))) == [[(0, "new")]]


def test_a_writer_that_is_not_open_says_so(tmp_path: Path) -> None:
    writer = PageWriter(UPath(tmp_path / "plan.parquet"), SCHEMA)
    with pytest.raises(RunError, match=r"plan\.parquet is not open"):
        writer.write([(0, "a")])
    with pytest.raises(RunError, match=r"plan\.parquet is not open"):
        writer.finish({})


def test_a_file_that_is_not_there_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"plan\.parquet of run 7f .*cleaned up.*SYNC_PIPELINES_DATA_DIR.*Start a new run"
    ):
        read_summary(UPath(tmp_path / "7f" / "plan.parquet"))
    with pytest.raises(RunError, match="not in the snapshot store"):
        list(read_pages(UPath(tmp_path / "7f" / "plan.parquet")))


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
        PageWriter(UPath(tmp_path / "run" / "plan.parquet"), SCHEMA).__enter__()
