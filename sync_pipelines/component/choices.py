"""A choice of one of several kinds, each with options of its own: `paging: {cursor: {path: meta.next}}`."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, model_validator

from sync_pipelines.component.templates import Declaration


def _one_key(schema: dict[str, Any]) -> None:
    """Says in the JSON schema what `Choice` checks: one key, or the name of a kind that needs no options."""
    kinds = list(schema["properties"])
    schema.update(type=["object", "string"], minProperties=1, maxProperties=1)
    schema.update({"if": {"type": "string"}, "then": {"enum": kinds}})


class Choice(Declaration):
    """One of several kinds; the fields are their names."""

    model_config = ConfigDict(json_schema_extra=_one_key)
    noun: ClassVar[str]
    """What is chosen, as messages call it."""

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_name(cls, value: Any) -> Any:
        """Lets a kind without options be written as its name alone."""
        if isinstance(value, str) and value in cls.model_fields:
            return {value: {}}
        if isinstance(value, dict):
            return {name: {} if each is None else each for name, each in value.items()}
        return value

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(f"give one {self.noun}: {kinds}")
        return self

    @property
    def chosen(self) -> tuple[str, Any]:
        """The kind's name and its options."""
        (name,) = self.model_fields_set
        return name, getattr(self, name)


def built(choice: Any, build: Callable[[Any], Any]) -> Any:
    """Builds what was chosen; what a template gave, which is no declaration, is taken as it is."""
    return build(choice) if isinstance(choice, Declaration) else choice
