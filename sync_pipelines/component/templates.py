"""Templates such as `"{{ env.ERP_URL }}"` in YAML: where they may stand, and how they get their values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, TypeVar

from dagster import Model, ResolutionContext
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from sync_pipelines.component.places import MisplacedError, within
from sync_pipelines.errors import ConfigurationError

T = TypeVar("T")
Made = TypeVar("Made")
Declared = TypeVar("Declared", bound="Declaration")

_OPENING = "{{"
_NAME = r"([A-Z_a-z][A-Z_a-z0-9]*)"
_VARIABLE = re.compile(rf"\{{\{{\s*env(?:\.{_NAME}|\(\s*['\"]{_NAME}['\"]\s*\))\s*\}}\}}")
_NULL = {"type": "null"}
_RESOLVED = {"resolved": True}
_TEXTS = (str, str | None)
_OF_YAML = (str, int, float, type(None), Mapping, list, tuple, date, BaseModel)


@dataclass(frozen=True, slots=True)
class _OrTemplate:
    """Lets a template stand for a value until the templates have been resolved."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        # what is declared need not be serialisable, and a template is none of its type
        as_it_is = core_schema.plain_serializer_function_ser_schema(lambda value: value)
        return core_schema.with_info_wrap_validator_function(_keep_template, handler(source), serialization=as_it_is)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # Not `anyOf`: its errors would not say what is wrong below a value that is no template.
        template = {"type": "string", "pattern": re.escape(_OPENING)}
        return {"if": template, "then": {"type": "string"}, "else": handler(schema)}


Templated = Annotated[T, _OrTemplate()]
"""A value, or a template that gives one."""


@dataclass(frozen=True, slots=True)
class _IsSecret:
    """Marks a field whose value is never read while definitions load, nor shown."""


Secret = Annotated[Any, _IsSecret()]
"""The name of an environment variable, or a template that gives a secret.

Any value passes here: an error of pydantic's would show it.
"""


class Declaration(Model):
    """A part of a sync's declaration. What it does not name is left to the Python class that it stands for."""

    model_config = ConfigDict(hide_input_in_errors=True, arbitrary_types_allowed=True, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        properties.update({name: _leading_on(each) for name, each in properties.items()})
        return made

    def named(self) -> dict[str, Any]:
        """Returns the fields that are given, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    def make(self, kind: Callable[..., Made], options: Mapping[str, Any]) -> Made:
        """Makes what it stands for of these options.

        Raises:
            ConfigurationError: An option is wrong; the way to it is told.
        """
        try:
            return kind(**options)
        except ConfigurationError as error:
            to_blame = self._to_blame(kind, options) if error.field is None else None
            with within(*([] if to_blame is None else [to_blame])):
                raise

    def _to_blame(self, kind: Callable[..., Any], options: Mapping[str, Any]) -> str | None:
        """Finds the option without which nothing is wrong; making something connects nowhere and reads nothing."""
        for name in options:
            try:
                kind(**{other: value for other, value in options.items() if other != name})
            except (ConfigurationError, TypeError):  # a TypeError, if it can't be left out
                continue
            return name
        needed = [name for name, field in type(self).model_fields.items() if field.is_required()]
        return needed[0] if len(needed) == 1 else None


def _leading_on(schema: dict[str, Any]) -> dict[str, Any]:
    """Says "null or this" without `anyOf`, whose errors do not lead to what is wrong within."""
    if "else" in schema:
        return {**schema, "else": _leading_on(schema["else"])}
    others = [each for each in schema.get("anyOf", []) if each != _NULL]
    if len(others) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**rest, "if": _NULL, "then": {}, "else": others[0]}


def _keep_template(
    value: Any, handler: core_schema.ValidatorFunctionWrapHandler, info: core_schema.ValidationInfo
) -> Any:
    if _is_template(value) and info.context != _RESOLVED:
        return value
    if info.context == _RESOLVED and not isinstance(value, _OF_YAML):
        return value  # an object of the project's own, which Python's checks will judge
    return handler(value)


def resolve(context: ResolutionContext, declared: Declared) -> Declared:
    """Returns the declaration with values in place of its templates.

    Raises:
        MisplacedError: A value is none that may stand there, or a variable of the environment is not set.
        ResolutionException: A template can't be resolved; an error of Dagster's, which says file and line.
    """
    values = _resolved(context, declared)
    try:
        return type(declared).model_validate(values, context=_RESOLVED)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise MisplacedError(first["loc"], message) from None  # the cause would show the value, which may be a secret


def _resolved(context: ResolutionContext, value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        given = [name for name in fields if name in value.model_fields_set]
        return {name: _resolved_field(context, name, fields[name], getattr(value, name)) for name in given}
    if isinstance(value, Mapping):
        return {name: _resolved_below(context, name, each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolved_below(context, number, each) for number, each in enumerate(value)]
    return _value_of(context, value) if _is_template(value) else value


def _resolved_below(context: ResolutionContext, step: str | int, value: Any) -> Any:
    with within(step):
        return _resolved(context.at_path(step), value)


def _resolved_field(context: ResolutionContext, name: str, field: FieldInfo, value: Any) -> Any:
    if not _is_template(value):
        return _resolved_below(context, name, value)
    with within(name):
        if any(isinstance(each, _IsSecret) for each in field.metadata):
            return _secret(context.at_path(name), value)
        found = _value_of(context.at_path(name), value)
        variable = _VARIABLE.fullmatch(value.strip())
        if variable and field.annotation in _TEXTS:
            return _variable(context, variable)  # a user called 0012 is no number, whatever a template takes it for
        return found


def _secret(context: ResolutionContext, template: str) -> str | SecretStr:
    """Returns the name of an environment variable where the template is one, else the secret that it gives."""
    if variable := _VARIABLE.fullmatch(template.strip()):
        return _name_in(variable)  # read when a fetch starts, not when definitions load
    found = _value_of(context, template)
    return found if isinstance(found, SecretStr) else SecretStr(str(found))


def _value_of(context: ResolutionContext, template: str) -> Any:
    for variable in _VARIABLE.finditer(template):
        if _variable(context, variable) is None:  # within a text it would be written as "None"
            name = _name_in(variable)
            raise ConfigurationError(
                f"the environment variable {name} is not set; set it, or write {{{{ env('{name}', 'a default') }}}}"
            )
    value = context.resolve_value(template)
    if value is None:
        raise ConfigurationError(f"the template {template} gives nothing; leave the field out if that is meant")
    return value


def _variable(context: ResolutionContext, variable: re.Match[str]) -> Any:
    return getattr(context.scope["env"], _name_in(variable))


def _name_in(variable: re.Match[str]) -> str:
    return variable[1] or variable[2]


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and _OPENING in value
