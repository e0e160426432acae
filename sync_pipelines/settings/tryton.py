"""How to reach a Tryton server, from environment variables that start with `TRYTON_`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sync_pipelines.errors import ConfigurationError


class TrytonSettings(BaseSettings):
    """Where Tryton answers and who asks. Every field is the environment variable `TRYTON_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="TRYTON_", env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(description="Scheme, host and port of the server, e.g. `http://127.0.0.1:8000`.")
    database: str = Field(min_length=1, description="The database's name.")
    user: str = Field(min_length=1, description="The login of a user that may read products and stock.")
    password: SecretStr = Field(min_length=1, description="That user's password.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("give scheme and host, e.g. http://127.0.0.1:8000")
        if parts.username or parts.password:
            # A URL appears in logs and error texts; a password must not.
            raise ValueError("leave the login out of the URL and give it as TRYTON_USER and TRYTON_PASSWORD")
        if parts.query or parts.fragment:
            raise ValueError("give scheme, host and port only; the rest of the address is known")
        return value.rstrip("/")


def load_tryton_settings(**overrides: str | SecretStr | None) -> TrytonSettings:
    """Reads from the environment what is not passed.

    Args:
        **overrides: Any of `url`, `database`, `user` and `password`; None means "read it from the environment".

    Raises:
        ConfigurationError: Something is missing or wrong; the message names it, never a secret's value.
    """
    values: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    try:
        return TrytonSettings(**values)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
    missing = [f"TRYTON_{problem['loc'][0]}".upper() for problem in problems if problem["type"] == "missing"]
    if missing:
        raise ConfigurationError(
            f"no connection to Tryton: {', '.join(missing)} not set; set the environment variable, "
            f"or pass {', '.join(name.removeprefix('TRYTON_').lower() + '=...' for name in missing)} to Tryton(...)"
        )
    field, reason = problems[0]["loc"][0], problems[0]["msg"]
    raise ConfigurationError(f"the Tryton setting TRYTON_{str(field).upper()} (or {field}=...) is wrong: {reason}")
