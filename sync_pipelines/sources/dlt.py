"""Any dlt resource as a source, so that dlt's ready connectors serve here. dlt itself is an optional extra."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from sync_pipelines.engine.completeness import reading_source
from sync_pipelines.engine.pages import batches
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.arrow_values import rows_of_batch
from sync_pipelines.sources.pages import PAGE_SIZE, Fetch, Page, check_page_size
from sync_pipelines.sources.unreadable_item import UnreadableItem


def dlt_resource(resource: Any, *, page_size: int = PAGE_SIZE) -> Fetch:
    """Makes a source of a dlt resource: `fetch_external=dlt_resource(lambda: github_issues("acme/shop"))`.

    Takes plain and async resources, transformers, and sources of which one resource is selected, as in
    `lambda: my_source().with_resources("orders")`. The items are the resource's own; Arrow tables and DataFrames become
    their rows. No dlt pipeline runs: dlt keeps no state between fetches, so that an incremental resource starts at its
    initial value each time, and nothing is normalised or loaded by dlt.

    Only iterating, dlt sends no telemetry and writes no files; it does read its own configuration (`.dlt/config.toml`,
    `.dlt/secrets.toml`, environment variables) for what the resource is to be given.

    dlt is imported when a sync fetches: `pip install sync-pipelines[dlt]`.

    Args:
        resource: A function without arguments that gives the resource or source, called at each fetch; or the resource
            or source itself. Of a resource made of a generator object, which dlt can read only once, give the function.
        page_size: Items in a page.

    Returns:
        A callable without arguments that streams pages of dicts. While it is iterated it raises `ConfigurationError` if
        dlt is not installed, if it lacks a setting or an argument, and if there is not exactly one resource; whatever
        the resource raises comes as dlt's `ResourceExtractionError`.

    Raises:
        ConfigurationError: An option is not valid.
    """
    check_page_size(page_size)
    if not callable(resource) and not isinstance(resource, Iterable):
        raise ConfigurationError(f"dlt_resource got a {type(resource).__name__}; give a dlt resource or its function")
    return _DltResource(resource, page_size)


@dataclass(frozen=True, slots=True)
class _DltResource:
    source_kind: ClassVar[str] = "dlt"
    resource: Any
    page_size: int

    def __call__(self) -> Iterator[Page]:
        dlt = _dlt()
        with reading_source("dlt_resource") as said, _explained():
            resource = _single_resource(dlt, self.resource)
            if any(each.limit is not None for each in getattr(resource, "resources", {"": resource}).values()):
                said.doubt("add_limit lets only a part of the dlt resource through")
            yield from batches(_items(resource, self.page_size), self.page_size)
            said.ended("the dlt resource ended")


def _dlt() -> Any:
    try:
        return import_module("dlt")
    except ModuleNotFoundError as error:
        if error.name != "dlt":
            raise
        raise ConfigurationError(
            "dlt_resource needs dlt, which is not installed: pip install sync-pipelines[dlt]"
        ) from error


def _single_resource(dlt: Any, declared: Any) -> Any:
    # A resource with parameters is callable as well, yet no function that gives one.
    resource = declared if isinstance(declared, (dlt.sources.DltResource, dlt.sources.DltSource)) else declared()
    if isinstance(resource, dlt.sources.DltResource):
        if dlt.sources.DltSource(dlt.Schema(resource.name), resource.section, [resource]).exhausted:
            raise _exhausted()
        return resource
    if not isinstance(resource, dlt.sources.DltSource):
        raise ConfigurationError(f"dlt_resource got a {type(resource).__name__} where a dlt resource or source belongs")
    selected = resource.selected_resources
    if len(selected) != 1:
        raise ConfigurationError(
            f"dlt_resource: {len(selected)} resources of the dlt source {resource.name!r} are selected "
            f"({', '.join(selected) or 'none'}); choose one with .with_resources(...)"
        )
    if resource.exhausted:
        raise _exhausted()
    # Not `found[name]`: only the source itself gives its resource the settings of the source's section.
    return resource


def _exhausted() -> ConfigurationError:
    return ConfigurationError(
        "dlt_resource: the resource is made of a generator that has been read already; give the function that makes it"
    )


def _items(resource: Any, page_size: int) -> Iterator[dict[str, Any]]:
    for position, element in enumerate(_elements(resource)):
        if isinstance(element, Mapping):
            yield element if isinstance(element, dict) else dict(element)
        elif hasattr(element, "to_batches"):
            for batch in element.to_batches(max_chunksize=page_size):
                yield from rows_of_batch(batch, batch.schema.names, "row {} of an Arrow table of dlt's".format)
        elif hasattr(element, "itertuples"):
            from sync_pipelines.sources.frames import rows_of_frame  # noqa: PLC0415 - whoever gives one has pandas loaded

            yield from rows_of_frame(element)
        else:
            yield _as_dict(element, position)


def _as_dict(element: Any, position: int) -> dict[str, Any]:
    if hasattr(type(element), "model_fields") and hasattr(element, "model_dump"):
        return dict(element.model_dump())
    return UnreadableItem(f"item {position + 1} of the dlt resource is a {type(element).__name__}, not a dict")


def _elements(resource: Any) -> Iterator[Any]:
    brake = _Brake()
    elements = iter(brake.built_into(resource))
    try:
        for element in elements:  # noqa: UP028 - `yield from` would close dlt's outer generator before the brake is set
            yield element
    except GeneratorExit:
        brake.is_set = True
        with suppress(Exception):
            deque(elements, maxlen=0)
        raise


@dataclass
class _Brake:
    """A last step that stops the resource. dlt closes its generators, threads and event loop at an error only."""

    is_set: bool = False

    def built_into(self, resource: Any) -> Any:
        """Returns a copy of the resource (or source with one selected resource) that stops when the brake is set."""
        if hasattr(resource, "selected_resources"):
            copy = resource.clone()
            (selected,) = copy.selected_resources.values()
            selected.add_step(self._pass_on)
            return copy
        return resource.with_name(resource.name).add_step(self._pass_on)

    def _pass_on(self, element: Any) -> Any:
        if self.is_set:
            raise InterruptedError("the fetch was broken off")
        return element


@contextmanager
def _explained() -> Iterator[None]:
    """Tells what a person must set right from what only went wrong this time."""
    configuration = import_module("dlt.common.configuration.exceptions")
    extract = import_module("dlt.extract.exceptions")
    mistakes = (configuration.ConfigurationException, extract.DltSourceException, extract.PipeNotBoundToData)
    try:
        yield
    except mistakes as error:
        raise ConfigurationError(f"dlt_resource: {message_of(error)}") from error
