"""What a deployment can set, from environment variables that start with `SYNC_PIPELINES_`."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fsspec import get_filesystem_class
from fsspec.utils import get_protocol
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from upath import UPath

from sync_pipelines.errors import ConfigurationError

_NUMBER = re.compile(r"[-+]?[0-9.]{1,12}")
_IDLE_WAIT, _IDLE_WAIT_BEFORE = "SYNC_PIPELINES_IDLE_WAIT_S", "SYNC_PIPELINES_LINGER_S"
SomeSettings = TypeVar("SomeSettings", bound=BaseSettings)
_LOCAL = frozenset({"", "file", "local"})


class StartSettings(BaseSettings):
    """What counts when definitions are loaded, which other variables can't keep from loading."""

    model_config = SettingsConfigDict(
        env_prefix="SYNC_PIPELINES_", frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True
    )

    start: Literal["running", "stopped"] = "running"
    """Whether schedules and sensors run from the start. `stopped` on a machine that is not to write by itself; what was
    started or stopped by hand in Dagster stays so."""


class Settings(StartSettings):
    """The settings of one process. Every field is the environment variable `SYNC_PIPELINES_<FIELD>`."""

    data_dir: Path = Path(".sync_pipelines")
    """Folder of snapshots, plans and the embedded databases; relative to the current directory."""
    database_url: SecretStr | None = None
    """Where local records live unless a job says otherwise. Default: `local.sqlite` in the data folder."""
    ledger_url: SecretStr | None = None
    """Where the ledger lives. Default: the PostgreSQL of `database_url` in a schema of its own, else `ledger.sqlite` in
    the data folder."""
    jobs: Annotated[tuple[str, ...], NoDecode] = ("sync_pipelines.jobs",)
    """Packages whose files are sync jobs, separated by commas."""
    dagster_url: str = "http://127.0.0.1:3000"
    """Where the Dagster webserver answers; `trigger_sync` sends runs there."""
    dagster_location: str | None = None
    """The code location whose sync is meant where several have it, for `trigger_sync`."""
    lease_s: float = Field(default=60, gt=0)
    """Seconds after which a run that died or stalled no longer keeps others of its sync from starting."""
    wait_s: float = Field(default=900, ge=0)
    """Seconds that a run started by Dagster waits at most for another run of the same sync."""
    connect_timeout_s: float = Field(default=10, ge=0)
    """Seconds to wait at most for a connection to a database; 0 for as long as it takes. Not of an `Engine`."""
    lock_timeout_s: float = Field(default=60, ge=0)
    """Seconds to wait at most for a lock that somebody else has in PostgreSQL or MySQL, at each of four attempts; 0 for
    as long as it takes. What the URL or the role says goes first."""
    idle_in_transaction_s: float = Field(default=600, ge=0)
    """Seconds after which PostgreSQL or MariaDB ends a transaction of a run that has stopped or lost the network, and
    its locks; 0 for never. Raise it if a job's own functions take longer over one batch."""
    idle_wait_s: float = Field(default=5, ge=0, le=60, validation_alias=AliasChoices(_IDLE_WAIT, _IDLE_WAIT_BEFORE))
    """Seconds that a drain waits for late arrivals once the inbox is empty. Earlier name: `linger_s`."""
    delivery_attempts: int = Field(default=6, ge=1, le=20)
    """How often a single item (a webhook's, or of `trigger_item`) that fails is tried before it is given up."""
    delivery_first_wait_s: float = Field(default=10, gt=0)
    """Seconds until such an item is tried for the second time; each further wait is four times as long, six hours at
    most."""
    snapshot_url: str | None = None
    """Where snapshots and plans lie, if not in the data folder: a folder, or an object store such as `s3://bucket/sync`
    (with fsspec's package for it installed)."""
    work_schema: str = Field(default="sync_pipelines_work", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """Schema of the staging tables of a run in the PostgreSQL of its target; made when it is missing. Where the role
    may not, temporary tables serve."""
    keep_snapshots_days: float = Field(default=7, gt=0)
    """Days after which files of past runs are removed; until then a run can be re-executed."""
    keep_plans_days: float | None = Field(default=None, gt=0)
    """Days after which the plan of a dry run expires. Default: as long as files of past runs are kept."""
    keep_runs_days: float = Field(default=365, gt=0)
    """Days after which the ledger forgets a run with its errors. The newest run of each sync stays."""
    keep_deliveries_days: float = Field(default=30, gt=0)
    """Days after which a delivery that was applied, or has failed for good, is removed from the inbox."""

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {_IDLE_WAIT if name == "linger_s" else name: value for name, value in values.items()}

    @property
    def linger_s(self) -> float:
        """The earlier name of `idle_wait_s`."""
        return self.idle_wait_s

    @field_validator("jobs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("snapshot_url")
    @classmethod
    def _can_be_reached(cls, value: str | None) -> str | None:
        """Looks for the package that knows such places; nothing is asked of the place itself."""
        if value:
            try:
                get_filesystem_class(get_protocol(value))
            except (ImportError, ValueError) as error:
                raise ValueError(
                    f"{error}. Give a folder, or the URL of an object store whose fsspec package is installed "
                    "(s3fs for s3://, gcsfs for gs://, adlfs for abfs://)"
                ) from error
        return value

    def database_limits(self) -> dict[str, float]:
        """Returns the fields of `database.connections.Limits`."""
        return {
            "connect_s": self.connect_timeout_s,
            "lock_s": self.lock_timeout_s,
            "idle_s": self.idle_in_transaction_s,
        }

    def local_url(self) -> str:
        """Returns the URL of the database with the local records."""
        return self.database_url.get_secret_value() if self.database_url else self._embedded("local")

    def ledger_database_url(self) -> str:
        """Returns the URL of the database with the ledger."""
        if self.ledger_url:
            return self.ledger_url.get_secret_value()
        local = self.local_url()
        return local if local.startswith("postgres") else self._embedded("ledger")

    def snapshot_dir(self) -> UPath:
        """Returns the folder of snapshots and plans: absolute, or in an object store."""
        if not self.snapshot_url:
            return UPath(self.data_dir.resolve() / "snapshots")
        folder = UPath(self.snapshot_url)
        return UPath(Path(folder.path).resolve()) if folder.protocol in _LOCAL else folder

    def work_dir(self) -> Path:
        """Returns the folder of working files, on this machine."""
        return self.data_dir.resolve() / "work"

    def _embedded(self, name: str) -> str:
        return f"sqlite:///{self.data_dir.resolve() / name}.sqlite"


def load_settings() -> Settings:
    """Reads the environment.

    Raises:
        ConfigurationError: A variable has a value that is not allowed; the message names it, never a secret's value.
    """
    return _read(Settings)


def starts_running() -> bool:
    """Returns True if schedules and sensors run from the start.

    Raises:
        ConfigurationError: The variable has a value that is not allowed.
    """
    return _read(StartSettings).start == "running"


def _read(kind: type[SomeSettings]) -> SomeSettings:
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"SYNC_PIPELINES_{str(first['loc'][0]).upper().removeprefix('SYNC_PIPELINES_')}"
        if name == _IDLE_WAIT:
            name += f" (or {_IDLE_WAIT_BEFORE}, its earlier name)"
        # only numbers are shown: a URL, or what is pasted into the wrong variable, may be a secret
        value = f"; it is {first['input']!r}" if _NUMBER.fullmatch(str(first["input"])) else ""
        raise ConfigurationError(f"the environment variable {name} is wrong: {first['msg']}{value}") from None


def configured_database_url() -> str | None:
    """Returns the URL of the database with the local records, to be shown; None if a variable is wrong.

    Reading the environment takes a millisecond, and definitions ask once for each sync: while what decides it
    is the same, it is read once: two variables, and the current folder, which the embedded database is relative to.
    """
    decisive = (os.environ.get("SYNC_PIPELINES_DATABASE_URL"), os.environ.get("SYNC_PIPELINES_DATA_DIR"), Path.cwd())
    try:
        return _database_url_of(decisive)
    except ConfigurationError:
        return None


@lru_cache(maxsize=1)
def _database_url_of(_decisive: tuple[str | None, str | None, Path]) -> str:
    return load_settings().local_url()
