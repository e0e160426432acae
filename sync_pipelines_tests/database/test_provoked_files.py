"""What the operating system really answers in states of the table of files and networks."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from pathlib import Path

import pytest

from sync_pipelines.database.faults import FILE_SYSTEM, state_of
from sync_pipelines_tests.children import run_child
from sync_pipelines_tests.database.provoked import Provoked
from sync_pipelines_tests.small_disk import small_disk

PROVOKED: Provoked[int, Path] = Provoked()
"""Error number -> what makes the operating system say it, in a folder of its own."""
_NETWORK = "a network that fails; a network of the tests does not"
_MACHINE = "a state of the whole machine, or of its hardware"
NOT_PROVOKED = {
    errno.EDQUOT: "quotas are set for users of a whole machine",
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), _MACHINE),
    **dict.fromkeys(
        (errno.ESTALE, errno.EINTR, errno.ECONNABORTED), "Python, or a network's file system, deals with it"
    ),
    **dict.fromkeys((errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN), _NETWORK),
    **dict.fromkeys((errno.ENETRESET, errno.ETIMEDOUT), _NETWORK),
    errno.EDEADLK: "locks of files, of which there are none here that wait for each other",
    errno.EACCES: "root may do all; test_file_modes.py has files of others",
    errno.EMFILE: "test_states_of_a_database.py takes the descriptors from a whole sync",
    errno.ETXTBSY: "programs that run, which no file of ours is",
    errno.EBUSY: "mount points, which no file of ours is",
}


@PROVOKED.by(errno.ENOSPC)
def a_disk_that_is_full(folder: Path) -> None:
    with small_disk(folder / "small", "16k") as disk:
        (disk / "file").write_bytes(bytes(100_000))


@PROVOKED.by(errno.EROFS)
def a_disk_that_may_only_be_read(folder: Path) -> None:
    with small_disk(folder / "small", "16k") as disk:
        run_child(["mount", "-o", "remount,ro", str(disk)], check=True)
        (disk / "file").touch()


@PROVOKED.by(errno.EFBIG)
def a_file_that_may_grow_no_more(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))  # Python ignores the signal
    try:
        (folder / "file").write_bytes(bytes(5_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@PROVOKED.by(errno.EPERM)
def what_nobody_may_do(folder: Path) -> None:
    os.link(folder, folder / "other")


@PROVOKED.by(errno.ENXIO)
def a_pipe_that_nobody_reads(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK)


@PROVOKED.by(errno.EAGAIN)
def a_file_that_somebody_has_locked(folder: Path) -> None:
    with (folder / "file").open("w") as first, (folder / "file").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


@PROVOKED.by(errno.EPIPE)
def a_pipe_whose_reader_is_gone(_: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        os.write(writing, b"x")
    finally:
        os.close(writing)


@PROVOKED.by(errno.ECONNREFUSED)
def a_port_where_nobody_listens(_: Path) -> None:
    socket.create_connection(("127.0.0.1", 1), timeout=5)


@PROVOKED.by(errno.ECONNRESET)
def a_peer_that_hangs_up(_: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]) as own:
        peer, _address = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        own.recv(1)


@PROVOKED.by(errno.ENOTCONN)
def a_peer_that_was_never_there(_: Path) -> None:
    with socket.socket() as own:
        own.getpeername()


def test_each_error_is_provoked_or_has_a_reason_why_not() -> None:
    assert PROVOKED.keys() | NOT_PROVOKED.keys() == FILE_SYSTEM.keys()
    assert not PROVOKED.keys() & NOT_PROVOKED.keys()


@pytest.mark.parametrize("number", PROVOKED)
def test_the_operating_system_says_this_error_in_this_state(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        PROVOKED[number](tmp_path)
    assert (caught.value.errno, state_of(caught.value)) == (number, FILE_SYSTEM[number])
