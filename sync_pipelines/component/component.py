"""`SyncComponent`: syncs declared in a `defs.yaml` of a project of Dagster's `dg`."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Self

from dagster import Component, ComponentLoadContext, Definitions, Model, ResolutionContext, Resolvable, scaffold_with
from dagster.components.resolved.base import derive_model_type, resolve_fields
from pydantic import BaseModel, create_model

from sync_pipelines.component.declaration import SyncDeclaration
from sync_pipelines.component.places import Place
from sync_pipelines.component.scaffolder import SyncScaffolder
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.build import sync_definitions


class SyncAttributes(SyncDeclaration):
    """What stands below `attributes`: one sync, or several as `syncs`."""

    syncs: list[SyncDeclaration] | None = None
    """Several syncs, each with the fields of one."""


@scaffold_with(SyncScaffolder)
class SyncComponent(Component, Resolvable, Model):
    """Keeps tables of a database in step with external systems: fetches, compares and writes what has changed.

    Below `attributes` stands one sync, which names a job that is declared in Python (`job: my_project.jobs.stock.JOB`)
    or says all that makes one (`name`, `source`, `target`, and further fields of `SyncJob`); or several as `syncs`.

    A subclass may change what is built: `build_job` of one sync, `get_sync_definitions` of all. Fields that it adds
    stand below `attributes` as well.

    Raises:
        ConfigurationError: A declaration is wrong; the message says file, line and field.
    """

    syncs: Sequence[SyncDeclaration]
    """The syncs, with values in place of templates."""

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Returns the form of the attributes in YAML: those of the syncs, and what a subclass has added."""
        return _attributes_model(cls)

    @classmethod
    def resolve_from_model(cls, context: ResolutionContext, model: BaseModel) -> Self:
        """Makes the component of its attributes."""
        syncs = _resolved_syncs(context, model)
        others = model.model_copy(update={"syncs": []})
        return cls(**{**resolve_fields(others, cls, context), "syncs": syncs})

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Builds the definitions of all syncs."""
        jobs = [self.build_job(sync, context) for sync in self.syncs]
        try:
            return self.get_sync_definitions(jobs, context)
        except ConfigurationError as error:
            raise self._located(error, jobs) from error

    def build_job(self, sync: SyncDeclaration, context: ComponentLoadContext) -> AnyJob:  # noqa: ARG002 - for subclasses
        """Builds the job of one sync. A subclass may change the declaration before, or the job after.

        Raises:
            ConfigurationError: The declaration is wrong; the message says file, line and field.
        """
        return sync.build()

    def get_sync_definitions(self, jobs: Sequence[AnyJob], context: ComponentLoadContext) -> Definitions:  # noqa: ARG002 - for subclasses
        """Builds the definitions of the jobs. A subclass may add others to them.

        Raises:
            ConfigurationError: Two jobs would have the same name or the same asset in Dagster, or jobs read each other.
        """
        return sync_definitions(*jobs)

    def _located(self, error: ConfigurationError, jobs: Sequence[AnyJob]) -> ConfigurationError:
        """Says where the first sync is declared that does not go with those before it."""
        for number, sync in enumerate(self.syncs, 1):
            try:
                sync_definitions(*jobs[:number])
            except ConfigurationError:
                return sync.place.error((), str(error))
        return error


@cache
def _attributes_model(component: type[SyncComponent]) -> type[BaseModel]:
    derived: Any = derive_model_type(component)
    # Not as it is derived, which lets a text stand for any field: then errors would not lead to the line below.
    return create_model(derived.__name__, __base__=(SyncAttributes, derived))


def _resolved_syncs(context: ResolutionContext, model: Any) -> list[SyncDeclaration]:
    place = Place(context.source_position_tree, tuple(context.path))
    given = {name: getattr(model, name) for name in SyncAttributes.model_fields if name in model.model_fields_set}
    if model.syncs is None:
        single = SyncDeclaration.model_construct(set(given) - {"syncs"}, **given)
        return [SyncDeclaration.resolve_from_model(context, single)]
    if beside := [name for name in given if name != "syncs"]:
        raise place.error(beside, f"{beside[0]} stands beside `syncs`; put it into one of them")
    if not model.syncs:
        raise place.error(["syncs"], "there is none; give one, or remove the file")
    context = context.at_path("syncs")
    return [
        SyncDeclaration.resolve_from_model(context.at_path(number), sync) for number, sync in enumerate(model.syncs)
    ]
