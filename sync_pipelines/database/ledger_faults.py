"""Raises what the ledger's database answers, but for what is wrong with a row, as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from sync_pipelines.database.connections import shown_url
from sync_pipelines.database.faults import LOCKED, Fault, State, sentence, states_raised
from sync_pipelines.errors import ConfigurationError, RunError, UnavailableError

_AGAIN = "What was applied stays; run the sync again then."
_WHERE = "SYNC_PIPELINES_LEDGER_URL, SYNC_PIPELINES_DATABASE_URL and SYNC_PIPELINES_DATA_DIR say where it is."


class LedgerLockedError(UnavailableError):
    """Somebody else has a lock for longer than the caller was to wait."""


@contextmanager
def ledger_failures(database: Engine, *, opening: bool = False) -> Iterator[None]:
    """Raises failures of the ledger; errors about a row go through as they are.

    Args:
        opening: True while nothing has been done with it: what stays is then the configuration's fault.

    Raises:
        UnavailableError: It passes.
        RunError: It stays until a person acts.
        ConfigurationError: The same, while the ledger is opened.
    """

    def raised(state: State, error: Exception) -> Exception:
        message = sentence(f"the ledger {shown_url(database.url)}", state, error)
        kind: type[Exception] = ConfigurationError if opening else RunError
        if state.fault is Fault.MOMENT:
            kind = LedgerLockedError if state is LOCKED else UnavailableError
        return kind(f"{message} {_WHERE if opening else _AGAIN}")

    with states_raised(database, raised):
        yield
