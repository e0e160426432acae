"""What a connection's transactions are like."""

from __future__ import annotations

import sqlalchemy as sa


def commits_by_itself(connection: sa.Connection) -> bool:
    """True if each statement is a transaction of its own, as an `Engine` may ask for."""
    given = connection.connection.dbapi_connection
    dialect = connection.dialect
    return dialect.name == "postgresql" and given is not None and dialect.detect_autocommit_setting(given)
