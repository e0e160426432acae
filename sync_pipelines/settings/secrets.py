"""Secrets of sources: given as the name of an environment variable, read when a fetch starts, never shown."""

from __future__ import annotations

import os
import re

from pydantic import SecretStr

from sync_pipelines.errors import ConfigurationError

Secret = str | SecretStr
"""The name of an environment variable that holds a secret, or the secret itself as a `SecretStr`."""

_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


def check_secret(secret: object, used_for: str) -> None:
    """Checks the form of a declared secret without reading the environment.

    Args:
        used_for: Where the secret was given, e.g. `"BearerAuth(token=...)"`.

    Raises:
        ConfigurationError: It is no name of an environment variable; the message does not show it, because it may be
            the secret itself.
    """
    if isinstance(secret, SecretStr) or (isinstance(secret, str) and _NAME.fullmatch(secret)):
        return
    raise ConfigurationError(
        f"{used_for}: give the name of an environment variable that holds the secret (capital letters, digits and _), "
        "or the secret itself as SecretStr(...)"
    )


def is_set(name: str) -> bool:
    """Returns True if the environment variable holds something."""
    return bool(os.environ.get(name, "").rstrip("\r\n"))


def read_secret(secret: Secret, used_for: str) -> SecretStr:
    """Returns the secret. Line breaks at its end, which files mounted as secrets often have, do not belong to it.

    Raises:
        ConfigurationError: The variable is not set or empty; the message names it.
    """
    check_secret(secret, used_for)
    value = secret.get_secret_value() if isinstance(secret, SecretStr) else os.environ.get(secret, "")
    value = value.rstrip("\r\n")
    if value:
        return SecretStr(value)
    if isinstance(secret, SecretStr):
        raise ConfigurationError(f"{used_for}: the secret is empty")
    raise ConfigurationError(f"the environment variable {secret} is not set or empty; {used_for} needs it")
