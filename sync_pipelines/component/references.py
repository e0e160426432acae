"""Names of Python objects in YAML: `job: my_project.jobs.stock.JOB`."""

from importlib import import_module
from typing import Any

from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError


def object_at(name: str) -> Any:
    """Imports what a dotted name leads to.

    Raises:
        ConfigurationError: There is no such module or name, or its module can't be imported; the message says which.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is no dotted name; write it as 'my_project.jobs.stock.JOB'")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ConfigurationError(f"{name!r}: the module {module_name} can't be imported: {described(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigurationError(f"{name!r}: the module {module_name} has no {attribute!r}") from error


def function_at(value: Any) -> Any:
    """Returns the function that a dotted name leads to; a function, out of a template, as it is.

    Raises:
        ConfigurationError: It leads to no function.
    """
    found = object_at(value) if isinstance(value, str) else value
    if not callable(found):
        raise ConfigurationError(f"{value!r} is a {type(found).__name__}, not a function")
    return found
