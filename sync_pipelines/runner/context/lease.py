"""Holds the lease of a sync while a run works: renews it in the background, checks it before every write."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from sync_pipelines.database.leases import Holder, Lease, Leases
from sync_pipelines.database.ledger_faults import LedgerLockedError
from sync_pipelines.errors import ConfigurationError, LeaseLostError, RunError, SyncBusyError
from sync_pipelines.runner.context.workspace import Workspace

_RENEWALS_PER_TTL = 4
_LOOK_EVERY_S = 0.25
_PROC = Path("/proc")
_UNKNOWN = ""


class HeldLease:
    """Holds a lease, and renews it.

    Args:
        ttl: How long it lasts from each renewal.
    """

    def __init__(
        self, leases: Leases, lease: Lease, ttl: timedelta, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.lease = lease
        self._leases = leases
        self.ttl = ttl
        self._elapsed_s = elapsed_s
        self._good_until_s = elapsed_s() + ttl.total_seconds()
        self._lost = False
        self._asking = threading.Lock()
        self._row_is_locked = False

    def renew(self) -> None:
        """Lengthens the lease, or notes that it is lost."""
        asked_s = self._elapsed_s()
        try:
            is_renewed = self._leases.renew(self.lease, self.ttl)
        except LedgerLockedError:
            # in PostgreSQL nobody but a transaction of this run has the row for so long, and until it ends nobody can
            # take the lease
            if not self._leases.locks_rows:
                raise
            return
        if is_renewed:
            self._good_until_s = max(self._good_until_s, asked_s + self.ttl.total_seconds())
        else:
            self._lost = True

    def check(self) -> None:
        """Makes sure that this process may still write. Asks the ledger if the last renewal is long ago.

        May be called from several threads: one asks, the others wait for its answer.

        Raises:
            LeaseLostError: Another run has the lease by now.
        """
        if self._is_stale():
            with self._asking:
                if self._is_stale():
                    self.renew()
        if self._lost:
            raise self._lost_error()

    def _is_stale(self) -> bool:
        if self._lost or self._row_is_locked:
            return False
        return self._elapsed_s() >= self._good_until_s - self.ttl.total_seconds() / 2

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Suspends renewals while a transaction has locked the lease's row: nobody can take the lease then.

        To renew it would be to wait for the end of that very transaction.
        """
        self._row_is_locked = True
        try:
            yield
        finally:
            self._row_is_locked = False

    def fence(self, connection: Connection) -> None:
        """Checks the lease inside the transaction that is about to write; exactly so where target and ledger are one.

        Raises:
            LeaseLostError: Another run has the lease by now.
        """
        self.check()
        if not self._leases.is_fenced(connection, self.lease, self.ttl):
            raise self._lost_error()

    def _lost_error(self) -> LeaseLostError:
        return LeaseLostError(
            f"{self.lease.job}: this run stalled for longer than its lease of {self.ttl.total_seconds():g} s, and "
            "another run has taken over; it stops without writing any more. Nothing needs to be done."
        )


def take_lease(workspace: Workspace, job: str, run_id: str, dagster_run_id: str | None, wait_s: float) -> HeldLease:
    """Takes the lease of a sync, waiting for the run that has it.

    A run whose process is known to be dead on this machine does not keep others waiting until its lease expires.

    Raises:
        ConfigurationError: `wait_s` is no number of seconds.
        SyncBusyError: Another run still has it after that time.
        LedgerLockedError: Somebody has the whole ledger, a SQLite file, for longer than that.
    """
    if not isinstance(wait_s, (int, float)) or not wait_s >= 0:
        raise ConfigurationError(f"{job}: wait_s={wait_s!r} must be a number of seconds, 0 or more")
    leases, ttl = workspace.leases, workspace.lease
    holder = Holder(run_id, dagster_run_id, describe_process(), own_process())
    until_s = time.monotonic() + wait_s
    while True:
        try:
            if (lease := leases.acquire(job, holder, ttl)) is not None:
                return HeldLease(leases, lease, ttl)
            problem: RunError | None = _release_dead(leases, job, wait_s)
        except LedgerLockedError as locked:  # by a run that has stopped while it wrote, until the server ends that
            problem = _held_while_locked(leases, job, wait_s) or locked
        if problem is not None and time.monotonic() >= until_s:
            raise problem
        time.sleep(min(_LOOK_EVERY_S, max(0.0, until_s - time.monotonic())) if problem is not None else 0)


def _release_dead(leases: Leases, job: str, wait_s: float) -> SyncBusyError | None:
    """Gives back the lease of a run whose process is dead; else gives the error that says who has it."""
    other = leases.of_job(job)
    if other is not None and is_dead(other.holder.process):
        leases.release(other)
        return None
    return _busy(job, other, wait_s)


def _held_while_locked(leases: Leases, job: str, wait_s: float) -> SyncBusyError | None:
    """Says who has the lease whose row is locked; None if the ledger can't even be read, as a locked SQLite file."""
    with suppress(LedgerLockedError):
        return _busy(job, leases.of_job(job), wait_s)
    return None


def _busy(job: str, other: Lease | None, wait_s: float) -> SyncBusyError:
    who = f" in {other.holder.described} (run {other.holder.run_id})" if other else ""
    waited = f" after waiting {wait_s:g} s" if wait_s else ""
    return SyncBusyError(
        f"{job}: another run of this sync is under way{who}{waited}, and one goes at a time; nothing was done. Wait "
        "for it, or allow more time with --wait or wait_s (for runs that Dagster starts: SYNC_PIPELINES_WAIT_S)."
    )


@contextmanager
def renewing(held: HeldLease) -> Iterator[HeldLease]:
    """Renews the lease in the background as long as the block lasts. Does not give it back."""
    stop = threading.Event()
    every_s = held.ttl.total_seconds() / _RENEWALS_PER_TTL

    def renew() -> None:
        while not stop.wait(every_s):
            try:
                held.renew()
            except Exception:  # noqa: BLE001, S112 - the ledger may be away for a moment; `check` decides
                continue

    thread = threading.Thread(target=renew, name=f"lease of {held.lease.job}", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        stop.set()
        thread.join()


def describe_process() -> str:
    """Returns this process for people: `process 4711 on shop-1`."""
    return f"process {os.getpid()} on {platform.node()}"


def own_process() -> str:
    """Returns this process for `is_dead`; empty where the system does not tell (it is not Linux)."""
    return _identity(os.getpid())


def is_dead(process: str) -> bool:
    """True if the process certainly does not live any more; False if it lives, or nobody here can know.

    Args:
        process: What `own_process` gave there.
    """
    machine, _, pid = process.rpartition(" ")[0].rpartition(" ")
    if not machine or not pid.isdecimal() or machine != _machine():
        return False
    return _identity(int(pid)) != process


def _identity(pid: int) -> str:
    """Returns boot, process namespace, number and start of a process: a number alone is used again."""
    machine = _machine()
    try:
        # the name in parentheses may hold anything; the start is the 20th field after it
        started = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{machine} {pid} {started[19]}" if machine and started[0] not in {"Z", "X"} else _UNKNOWN
    except (OSError, IndexError):
        return _UNKNOWN


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return _UNKNOWN
