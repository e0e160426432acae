"""Finds the JSON in the body of a request, by the content type that the sender gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs

from sync_pipelines.errors import WebhookRejectedError
from sync_pipelines.webhooks.responses import refused

_JSON = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json|text/json|text/plain", re.IGNORECASE)
FORM = "application/x-www-form-urlencoded"
FIELD = "payload"
"""The field of a form that holds the JSON, as GitHub and Slack send it."""
_MAX_FIELDS = 100


def json_in(raw: bytes, content_type: str) -> bytes:
    """Returns the JSON of a body, yet to be decoded. Without a type the body is taken for JSON; it must be JSON anyway.

    Raises:
        RefusedError: The type is none that carries JSON.
        WebhookRejectedError: It is a form without the field.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not content_type or _JSON.fullmatch(kind):
        return raw
    if kind != FORM:
        raise refused(415, "send JSON, with content-type: application/json")
    given = fields_of_form(raw).get(FIELD)
    if given is None:
        raise WebhookRejectedError(f"the form has no field {FIELD!r} with the JSON")
    return given.encode("utf-8", "surrogateescape")


def require_no_encoding(headers: Mapping[str, str]) -> None:
    """Refuses a body that is compressed: signatures are of bodies as they are, and small ones unpack to large ones.

    Raises:
        RefusedError: It is; the answer says so (RFC 9110, 15.5.16).
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        refusal = refused(415, "send the body without content-encoding: compressed ones are not taken")
        refusal.answer = replace(refusal.answer, headers={"accept-encoding": "identity"})
        raise refusal


def fields_of_form(raw: bytes) -> dict[str, str]:
    """Returns the fields of a form, of several with one name the first; none if it is no form."""
    try:
        text = raw.decode("ascii")
        found = parse_qs(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}
