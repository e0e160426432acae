"""Answers the handshakes of a webhook. Of what comes so nothing is stored, whoever sends it."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

from sync_pipelines.engine.calls import call_own
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.webhook_handshakes import PLACE, Handshake
from sync_pipelines.engine.webhook_signatures import names_of
from sync_pipelines.engine.webhooks import decode_body
from sync_pipelines.errors import WebhookRejectedError
from sync_pipelines.webhooks.content_types import fields_of_form
from sync_pipelines.webhooks.responses import Answer, refused
from sync_pipelines.webhooks.signatures import read_secrets

_LONGEST = 4_096


@dataclass
class Asked:
    """Holds a request that may be a handshake."""

    method: str
    query_string: bytes
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def query(self) -> dict[str, str]:
        """Its query, of several values of one name the first."""
        found = parse_qs(self.query_string.decode("latin-1"), keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    @cached_property
    def form(self) -> dict[str, str]:
        """Its body as a form."""
        return fields_of_form(self.raw)

    @cached_property
    def body(self) -> Any:
        """Its body as JSON, None if it is none."""
        try:
            return decode_body(self.raw)
        except WebhookRejectedError:
            return None

    def at(self, place: str) -> str | None:
        """Returns what is at a place, None if there is no text or number."""
        found = PLACE.fullmatch(place)
        assert found is not None  # noqa: S101 - it was checked when it was declared
        where, name = found[1], found[2]
        if where == "header":
            return self.headers.get(name.lower())
        if where == "body":
            return self._at_path(name)
        return (self.query if where == "query" else self.form).get(name)

    def _at_path(self, path: str) -> str | None:
        value = self.body
        for step in path.split("."):
            if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Handshakes:
    """The handshakes of one webhook, with their tokens."""

    declared: Sequence[Handshake] = ()
    tokens: Mapping[int, Sequence[bytes]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, job: AnyJob) -> Handshakes:
        """Reads the tokens.

        Raises:
            ConfigurationError: One is missing in the environment.
        """
        declared = job.webhook.all_handshakes if job.webhook is not None else ()
        tokens = {
            place: [secret.encode() for _, secret in read_secrets(names_of(each.secrets), job.name)]
            for place, each in enumerate(declared)
            if each.secrets is not None
        }
        return cls(declared, tokens)

    @cached_property
    def methods(self) -> frozenset[str]:
        """The methods of requests, those of deliveries among them."""
        return frozenset({"POST", *(each.method for each in self.declared)})

    def answer(self, asked: Asked, is_signed: Callable[[], bool]) -> Answer | None:
        """Returns the answer to a request; None if it is no handshake.

        Raises:
            RefusedError: Its signature, its token or its value is none.
        """
        for place, each in enumerate(self.declared):
            if each.method != asked.method or not _is_meant(each, asked):
                continue
            if each.signed and not is_signed():
                raise refused(401, "the signature is missing, wrong or expired")
            if each.secret_in is not None and not _is_one_of(self.tokens[place], asked.at(each.secret_in)):
                raise refused(403, "the token of the handshake is missing or wrong")
            return _answer(each, asked)
        if asked.method != "POST":
            raise refused(400, f"this is no handshake that the webhook knows with {asked.method}")
        return None


def _is_meant(handshake: Handshake, asked: Asked) -> bool:
    fields = {place.removeprefix("form:") for place in handshake.when if place.startswith("form:")}
    if fields and fields != asked.form.keys():
        return False
    found = {place: asked.at(place) for place in handshake.when}
    return all(value and handshake.when[place] in (None, value) for place, value in found.items())


def _is_one_of(tokens: Sequence[bytes], given: str | None) -> bool:
    text = (given or "").encode("utf-8", "surrogateescape")
    return any(hmac.compare_digest(token, text) for token in tokens)


def _answer(handshake: Handshake, asked: Asked) -> Answer:
    found = {name: asked.at(place) for name, place in handshake.headers.items()}
    headers = {name: _sendable(value, in_header=True) for name, value in found.items() if value}
    if handshake.method == "OPTIONS":
        headers["Allow"] = "POST"
    if handshake.echo is None:
        return Answer(200, {}, headers, text="")
    value = _sendable(asked.at(handshake.echo))
    told = value if handshake.answer is None else call_own("answer of the handshake", handshake.answer, value)
    return Answer(200, told, headers) if isinstance(told, Mapping) else Answer(200, {}, headers, text=str(told))


def _sendable(value: str | None, *, in_header: bool = False) -> str:
    """Returns a value that may be sent back: one line of text."""
    is_text = value is not None and 0 < len(value) <= _LONGEST and value.isprintable()
    if value is None or not is_text or (in_header and not value.isascii()):
        raise refused(400, "the handshake has no value that could be sent back")
    return value
