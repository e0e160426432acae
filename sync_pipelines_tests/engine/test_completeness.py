"""What sources say of their ends, and which fetch hears it."""

import threading
from contextvars import copy_context

import pytest

from sync_pipelines.engine.completeness import (
    BY_CONTRACT,
    Completeness,
    SourceEnds,
    reading_source,
    source_ends,
    tell_incomplete,
)


def heard(ends: SourceEnds) -> Completeness:
    return ends.completeness(took_all=True)


def test_nothing_said_is_complete_by_contract():
    with source_ends() as ends:
        pass
    assert heard(ends) == Completeness(took_all=True, ended_by=(BY_CONTRACT,), doubts=())
    assert heard(ends).why_not is None


def test_end_that_is_said_is_complete():
    with source_ends() as ends, reading_source("a.csv") as said:
        said.ended("the file's end")
    assert heard(ends) == Completeness(ended_by=("a.csv: the file's end",))


def test_source_that_is_still_being_read_is_doubted():
    with source_ends() as ends, reading_source("a.csv") as said:
        assert heard(ends).doubts == ("a.csv: it was not read to its end",)
        said.ended("the file's end")
    assert heard(ends).is_complete


def test_source_that_breaks_off_is_doubted_with_its_error():
    with source_ends() as ends, pytest.raises(OSError, match="gone"), reading_source("a.csv"):
        raise OSError("the disk is gone")
    assert heard(ends).doubts == ("a.csv: it broke off: OSError: the disk is gone",)
    assert heard(ends).why_not == f"the fetch may not be complete: {heard(ends).doubts[0]}"


def test_limited_run_needs_no_doubts():
    with source_ends() as ends:
        tell_incomplete("half of it")
    assert ends.completeness(took_all=False) == Completeness(took_all=False, ended_by=())


def test_only_the_fetch_that_is_read_for_hears_it():
    with source_ends() as outer:
        with source_ends() as inner:
            tell_incomplete("inner")
        tell_incomplete("outer")
    tell_incomplete("nobody")
    assert (heard(inner).doubts, heard(outer).doubts) == (("inner",), ("outer",))


def test_threads_are_heard_too():
    with source_ends() as first, source_ends() as second:
        of_second = copy_context()
        for target, args in ((tell_incomplete, ("any",)), (of_second.run, (tell_incomplete, "the second"))):
            thread = threading.Thread(target=target, args=args)
            thread.start()
            thread.join()
    assert heard(first).doubts == ("any",)  # a thread that knows of no fetch speaks to all
    assert heard(second).doubts == ("any", "the second")


def test_sentences_are_kept_once_and_not_without_end():
    with source_ends() as ends:
        for number in range(1_000):
            tell_incomplete("the same")
            tell_incomplete(f"another {number}")
    assert heard(ends).doubts[0] == "the same"
    assert len(heard(ends).doubts) == 20


@pytest.mark.parametrize("completeness", [Completeness(), Completeness(False, ()), Completeness(True, ("e",), ("d",))])
def test_manifest_keeps_all_of_it(completeness: Completeness) -> None:
    assert Completeness.from_manifest({"items": 3, "parts": [], **completeness.to_manifest()}) == completeness


def test_manifest_of_an_earlier_version_says_only_whether_the_run_was_limited():
    assert Completeness.from_manifest({"complete": True}).is_complete
    assert Completeness.from_manifest({"complete": False}).took_all is False
