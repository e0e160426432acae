"""One sync declared in YAML: its fields are those of `SyncJob`, in words that YAML has."""

from datetime import timedelta
from typing import Any, Literal, Self

from dagster import ResolutionContext, Resolvable
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from sync_pipelines.component.choices import built
from sync_pipelines.component.durations import ScheduleDeclaration, duration_of
from sync_pipelines.component.places import Place, within
from sync_pipelines.component.references import function_at, object_at
from sync_pipelines.component.sources import SourceChoice
from sync_pipelines.component.templates import Declaration, Templated, resolve
from sync_pipelines.engine import declared_at
from sync_pipelines.engine.declaration import AnyJob, SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete


class SoftDeleteDeclaration(Declaration):
    """How rows are marked as deleted, as `SoftDelete` says it; a text is the column."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "string"]})

    column: Templated[str]
    """The column that marks a row."""
    deleted: Any = None
    """The value of deleted rows; left out, it is the moment of the delete."""
    live: Any = None
    """The value that new rows get, and deleted ones when their item comes back."""

    @model_validator(mode="before")
    @classmethod
    def _accept_column(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    def build(self) -> SoftDelete:
        """Builds what `SqlTable(soft_delete=...)` takes."""
        return self.make(SoftDelete, self.named())


class TargetDeclaration(Declaration):
    """A database table, as `SqlTable` declares it."""

    table: Templated[str]
    """The table's name, `variants` or `shop.variants`."""
    key: Templated[str | list[str]]
    """The column whose value is the external id, or several columns."""
    columns: Templated[dict[str, Any] | list[str] | None] = None
    """Local column -> item field, or a list of names that are both; by default every field that is a column."""
    database: Templated[str | None] = Field(default=None, repr=False)
    """A URL; by default the configured database."""
    compare: Templated[list[str] | None] = None
    """The columns that decide whether a found row has changed; by default all that are written."""
    create_only: Templated[list[str]] = Field(default_factory=list)
    """Columns that are written when a row is created and never again."""
    soft_delete: Templated[SoftDeleteDeclaration | None] = None
    """How a delete marks a row instead of removing it."""
    scope: Templated[dict[str, Any] | None] = None
    """Which rows this sync answers for."""

    def build(self) -> SqlTable:
        """Builds what `SyncJob(target=...)` takes."""
        options = self.named()
        if "soft_delete" in options:
            with within("soft_delete"):
                options["soft_delete"] = built(options["soft_delete"], lambda mark: mark.build())
        return self.make(SqlTable, options)


class GuardsDeclaration(Declaration):
    """Limits of what a full run may do by itself, as `Guards` says them."""

    max_delete_share: Templated[float | None] = 0.2
    """The largest share of the local records that a run may delete."""
    max_deletes: Templated[int | None] = None
    """The largest number of local records that a run may delete."""
    max_update_share: Templated[float | None] = None
    """The largest share of the found local records that a run may update."""
    max_shrink_share: Templated[float | None] = 0.5
    """By what share a fetch may have fewer items than the last good ones, before a run deletes nothing."""
    max_blank_share: Templated[float | None] = 0.2
    """In what share of the found local records a run may blank a column, before it updates nothing."""
    few: Templated[int] = 10
    """So many are never a matter of shares."""

    def build(self) -> Guards:
        """Builds what `SyncJob(guards=...)` takes."""
        return self.make(Guards, self.named())


class RetryDeclaration(Declaration):
    """When an item that failed is tried again, as `Retry` says it."""

    attempts: Templated[int] = 6
    """How often it is tried in all."""
    first_wait_s: Templated[float] = 60
    """Seconds after the first attempt; each further wait is four times as long."""

    def build(self) -> Retry:
        """Builds what `SyncJob(retry=...)` takes."""
        return Retry(**self.named())


class SyncDeclaration(Declaration, Resolvable):
    """One sync: a job that is declared in Python, or all that makes one.

    Fields that are not given have the defaults of `SyncJob`. It is its own form in YAML: there, a template may stand
    for each value.
    """

    job: Any = None
    """Dotted name of a `SyncJob`; then no other field is given."""
    name: Templated[str | None] = None
    """Lower case words joined by `-`, e.g. `erp-inventory`."""
    source: Templated[SourceChoice | None] = None
    """What is fetched: `rest`, `sql`, `csv`, `parquet`, `json_lines`, `dlt` or `function`, with its options."""
    target: Templated[TargetDeclaration | None] = None
    """The table that is kept in step."""
    get_external_id: Any = None
    """The field of an item that identifies it; by default what the target's key says."""
    get_version: Any = None
    """The field of an item that says which of two states is the newer one."""
    fetch_one: Any = None
    """Dotted name of a function that gives one item by its external id."""
    should_skip: Any = None
    """Dotted name of a function that is true for items that are to be left alone."""
    on_start: Any = None
    """Dotted name of a function that is called before the fetch."""
    on_complete: Any = None
    """Dotted name of a function that is called with the results."""
    concurrency: Templated[int] = 1
    """How many calls for single records run at one time."""
    max_calls_per_s: Templated[float | None] = None
    """How many such calls may begin in a second."""
    deletes: Templated[Literal["off", "hard", "soft", False]] = "off"
    """What becomes of local records that a complete fetch no longer has."""
    delete_after: Templated[int] = 1
    """How many complete fetches in a row must be without a record before it is deleted."""
    guards: Templated[GuardsDeclaration | None] = None
    """Limits of what a full run may do by itself; null for none."""
    fail_above: Templated[float | None] = None
    """How many items may fail before the run counts as failed: a share below 1, or a number."""
    fresh_within: Templated[str | timedelta | None] = None
    """How old the last good run may be: `2 hours`."""
    retry: Templated[RetryDeclaration | None] = None
    """When an item that failed is tried again; null for never."""
    keep_history_days: Templated[int] = 90
    """How long the ledger remembers what was written of each record."""
    schedule: Templated[ScheduleDeclaration | None] = None
    """`{every: 30 minutes}`, `{every: 1 day, at: "05:30", timezone: Europe/Berlin}`, or a cron line."""
    description: Templated[str] = ""
    """What an operator should know. Markdown."""
    asset_key: Templated[str | None] = None
    """Key of the Dagster asset, e.g. `shop/variants`."""
    source_asset: Templated[str | None] = None
    """Key of the asset upstream."""
    upstream: Templated[list[str]] = Field(default_factory=list)
    """Keys of further assets that it reads."""
    automation: Any = None
    """When Dagster starts it, instead of a schedule: `eager` or `on_change`."""
    group: Templated[str] = "sync"
    """Dagster's asset group."""
    owners: Templated[list[Templated[str]]] = Field(default_factory=list)
    """E-mail addresses or `team:name`."""
    kinds: Templated[list[Templated[str]]] = Field(default_factory=list)
    """Up to three words that Dagster shows as badges."""
    tags: Templated[dict[str, Templated[str]]] = Field(default_factory=dict)
    """Further Dagster tags."""
    run_tags: Templated[dict[str, Any]] = Field(default_factory=dict)
    """Tags of its runs alone."""
    op_tags: Templated[dict[str, Any]] = Field(default_factory=dict)
    """Tags of the steps of its runs alone."""

    _place: Place = PrivateAttr(default_factory=Place)

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Returns the form in YAML."""
        return cls

    @classmethod
    def resolve_from_model(cls, context: ResolutionContext, model: Any) -> Self:
        """Puts values in place of the templates.

        Raises:
            ConfigurationError: A value is none that may stand there; the message says file and line.
        """
        place = Place(context.source_position_tree, tuple(context.path))
        with place.located():
            found: Self = resolve(context, model)
        found._place = place
        return found

    @property
    def place(self) -> Place:
        """Where it is declared."""
        return self._place

    def build(self) -> AnyJob:
        """Builds the job.

        Raises:
            ConfigurationError: Something in the declaration is wrong; the message says in which file and line.
        """
        with self._place.located():
            if self.job is not None:
                return self._named_job()
            job: AnyJob = SyncJob(**self._options())
        declared_at.note_place(job, self._place.line())
        return job

    def _named_job(self) -> AnyJob:
        others = [name for name in self.named() if name != "job"]
        if others:
            raise ConfigurationError(
                f"{others[0]}: the job is declared in Python, with all its fields; change it there, or leave out `job`",
                field=others[0],
            )
        with within("job"):
            found = object_at(self.job) if isinstance(self.job, str) else self.job
            if not isinstance(found, SyncJob):
                raise ConfigurationError(f"{self.job!r} is a {type(found).__name__}, not a SyncJob")
        return found

    def _options(self) -> dict[str, Any]:
        for name in ("name", "source", "target"):
            if getattr(self, name) is None:
                raise ConfigurationError(
                    f"{name} is missing; a sync has a name, a source and a target, or is named by `job`"
                )
        options = {name: value for name, value in self.named().items() if name not in {"source", "job"}}
        options["fetch_external"] = self._built("source")
        for name in ("target", "guards", "retry", "schedule"):
            if options.get(name) is not None:
                options[name] = self._built(name)
        for name in ("fetch_one", "should_skip", "on_start", "on_complete"):
            if options.get(name) is not None:
                with within(name):
                    options[name] = function_at(options[name])
        if options.get("fresh_within") is not None:
            with within("fresh_within"):
                options["fresh_within"] = duration_of(options["fresh_within"])
        if options.get("deletes") is False:
            options["deletes"] = "off"  # without quotes, YAML reads `off` as false
        return options

    def _built(self, name: str) -> Any:
        with within(name):
            return built(getattr(self, name), lambda declared: declared.build())
