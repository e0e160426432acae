"""Dagster's storage in the PostgreSQL that the settings name. `deploy/dagster.yaml` has the class."""

from collections.abc import Mapping
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from sync_pipelines.database.connections import database_url
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.model import Settings, load_settings

DRIVER = "postgresql+psycopg2"
"""The only driver that dagster-postgres works with. With psycopg 3 everything starts, and the first event fails."""


class SyncPostgresStorage(DagsterPostgresStorage):
    """Dagster's runs, events and schedules, in the PostgreSQL database where the ledger is.

    It has nothing to configure: the URL is that of the settings, whatever driver it names, and every process derives
    it for itself. So no second URL can disagree with the first, and the password stands in no `dagster.yaml` and in
    no command line of a run.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Returns no fields: a URL given here would be a second truth."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Builds the storage when a process opens Dagster's instance."""
        del config_value
        return cls(dagster_database_url(load_settings()), inst_data=inst_data)


def dagster_database_url(settings: Settings) -> str:
    """Returns the URL of the ledger's database with Dagster's driver, password included.

    Raises:
        ConfigurationError: The ledger is not on PostgreSQL.
    """
    url = database_url(settings.ledger_database_url())
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(
            "this dagster.yaml keeps Dagster's storage in PostgreSQL, but the settings name none: set "
            "SYNC_PIPELINES_DATABASE_URL=postgresql://user:password@host/name (or SYNC_PIPELINES_LEDGER_URL) for every "
            f"process of Dagster, the code location too; now the ledger is {url.render_as_string()}"
        )
    return url.set(drivername=DRIVER).render_as_string(hide_password=False)
