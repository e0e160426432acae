"""Fresh ledgers without Alembic: what it sent to the first one of a database's kind is sent to the others as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, event

from sync_pipelines.database import migrate

_upgrade = migrate._upgrade
_sent: dict[str, list[str]] = {}
_READS = ("SELECT", "PRAGMA")


@contextmanager
def quick_ledgers() -> Iterator[None]:
    """Migrates only the first empty ledger of each kind of database in this process, and those of older versions."""
    with patch.object(migrate, "_upgrade", _send_again):
        yield


@contextmanager
def migrated_ledgers() -> Iterator[None]:
    """Migrates each ledger, as users do."""
    with patch.object(migrate, "_upgrade", _upgrade):
        yield


def _send_again(connection: Connection, version: str | None) -> None:
    kind = connection.dialect.name
    if version is not None:
        _upgrade(connection, version)
    elif kind in _sent:
        at_once = ["; ".join(_sent[kind])] if kind == "postgresql" else _sent[kind]
        for statement in at_once:
            connection.exec_driver_sql(statement)
    else:
        _sent[kind] = _noted(connection)


def _noted(connection: Connection) -> list[str]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.lstrip().startswith(_READS):
            assert not parameters, f"{statement} can't be sent again as it is"
            found.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    try:
        _upgrade(connection, None)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return found
