"""Which database it is."""

from __future__ import annotations

import sqlalchemy as sa

from sync_pipelines.targets.dialects.mysql import MYSQL
from sync_pipelines.targets.dialects.other import other_profile
from sync_pipelines.targets.dialects.postgresql import POSTGRESQL
from sync_pipelines.targets.dialects.profile import DialectProfile
from sync_pipelines.targets.dialects.sqlite import SQLITE

_TRIED = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "mysql": MYSQL, "mariadb": MYSQL}


def profile_of(database: sa.Engine) -> DialectProfile:
    """How that database is worked with."""
    return _TRIED.get(database.dialect.name) or other_profile(database)
