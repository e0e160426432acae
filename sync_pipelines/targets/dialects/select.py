"""Which database it is."""

from __future__ import annotations

import sqlalchemy as sa

from sync_pipelines.targets.dialects.mysql import MYSQL
from sync_pipelines.targets.dialects.other import other_habits
from sync_pipelines.targets.dialects.postgresql import POSTGRESQL
from sync_pipelines.targets.dialects.profile import Habits
from sync_pipelines.targets.dialects.sqlite import SQLITE

_TRIED = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "mysql": MYSQL, "mariadb": MYSQL}


def habits_of(database: sa.Engine) -> Habits:
    """How that database is worked with."""
    return _TRIED.get(database.dialect.name) or other_habits(database)
