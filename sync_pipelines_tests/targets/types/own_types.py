"""Types that only the application knows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Shouting(sa.types.TypeDecorator[str]):
    """An application's own type: lower case in the database, upper case in Python."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else value.lower()

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else value.upper()
