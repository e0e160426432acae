"""`POST /webhooks/{name}`: verifies a delivery, stores it, and only then answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from starlette.types import Receive, Scope, Send

from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.engine.changes import Ignore
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.json_text import charset_of
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.webhooks import Webhook, body_text, decode_body
from sync_pipelines.errors import ConfigurationError, WebhookRejectedError
from sync_pipelines.webhooks.bodies import Body, DisconnectedError, Memory, check_length
from sync_pipelines.webhooks.delivery_writer import DeliveryWriter, NotStoredError
from sync_pipelines.webhooks.error_log import log_problem, logger
from sync_pipelines.webhooks.inline import InlineApplier
from sync_pipelines.webhooks.interpreter import Interpreter, headers_of
from sync_pipelines.webhooks.metrics import Metrics
from sync_pipelines.webhooks.rate_limit import Rate
from sync_pipelines.webhooks.responses import RETRY_AFTER_S, Answer, RefusedError, error, refused
from sync_pipelines.webhooks.signatures import Verify, verifier_of

MAX_MEMORY_BYTES = 128_000_000
"""What all bodies that are being read or stored may take together."""

_JSON = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.IGNORECASE)
_LINES_PER_S = 10
_USUAL_TYPE_CHARS = 60


@dataclass(frozen=True)
class Hook:
    """One webhook that is served.

    Args:
        name: The last part of its path.
    """

    name: str
    job: AnyJob
    webhook: Webhook
    verify: Verify
    rate: Rate
    interpreter: Interpreter


def hooks_of(jobs: Iterable[AnyJob], clock: Callable[[], float] = time.time) -> dict[str, Hook]:
    """Returns the webhooks of the jobs by name, with their secrets.

    Raises:
        ConfigurationError: A secret is missing, or two webhooks have one name.
    """
    hooks: dict[str, Hook] = {}
    for job in jobs:
        webhook = job.webhook
        if webhook is None or webhook.signature is None:
            continue
        name = webhook.name or job.name
        if name in hooks:
            raise ConfigurationError(
                f"the webhooks of the sync jobs {hooks[name].job.name!r} and {job.name!r} are both named {name!r}; "
                "give one of them another Webhook(name=...)"
            )
        verify = verifier_of(webhook.signature, job.name, clock)
        hooks[name] = Hook(name, job, webhook, verify, Rate(webhook.max_per_s), Interpreter(job))
    return hooks


class Receiver:
    """Takes deliveries, as a plain ASGI application: this is the path that must be fast."""

    def __init__(
        self, hooks: Mapping[str, Hook], writer: DeliveryWriter, inline: InlineApplier, metrics: Metrics
    ) -> None:
        self._hooks = hooks
        self._writer = writer
        self._inline = inline
        self._metrics = metrics
        self._memory = Memory(MAX_MEMORY_BYTES)
        self._remarks = _Remarks()

    async def answer(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that was sent to the webhook of that name."""
        hook = self._hooks.get(name)
        try:
            answer = await self._answer(hook, scope, receive)
        except DisconnectedError:
            return
        except Exception as problem:  # noqa: BLE001 - a defect of ours; the sender tries again
            log_problem(f"webhook {_shown(name)}", problem)
            answer = error(503, "the receiver has a problem", retry_after_s=RETRY_AFTER_S)
        self._metrics.answered(hook.name if hook is not None else "", answer.status)
        if answer.status >= 400:  # noqa: PLR2004
            self._remarks.make(f"webhook {_shown(name)}: {answer.status}: {answer.document['error']}")
        await answer.send(send)

    async def _answer(self, hook: Hook | None, scope: Scope, receive: Receive) -> Answer:
        headers = headers_of(scope["headers"])
        body = Body(receive, hook.webhook.max_body_bytes if hook is not None else 0, self._memory)
        try:
            if hook is None:
                raise refused(404, "there is no such webhook")
            _check_method(scope)
            check_length(headers, hook.webhook.max_body_bytes)
            _check_rate(hook)
            return await self._take(hook, headers, await body.read())
        except RefusedError as refusal:
            await body.discard(headers)
            return refusal.answer
        finally:
            body.release()

    async def _take(self, hook: Hook, headers: Mapping[str, str], raw: bytes) -> Answer:
        if not hook.verify(headers, raw):
            raise refused(401, "the signature is missing, wrong or expired")
        _check_type(headers.get("content-type", ""))
        try:
            text = body_text(raw, charset_of(headers.get("content-type", "")))
            event = hook.interpreter.event(decode_body(text), headers, datetime.now(UTC))
            meaning = await hook.interpreter.meaning(event, text)
        except WebhookRejectedError as rejected:
            raise refused(422, message_of(rejected)) from rejected
        if meaning.delivery is None:
            return Answer(200, {"ignored": meaning.change.reason if isinstance(meaning.change, Ignore) else ""})
        if hook.webhook.mode == "inline" and meaning.change is not None:
            return await self._inline.answer(hook.job, meaning.change, meaning.delivery)
        stored = await self._stored(meaning.delivery)
        return Answer(200 if stored.repeated else 202, {"delivery": stored.id})

    async def _stored(self, delivery: NewDelivery) -> Stored:
        began_s = time.perf_counter()
        try:
            stored = await self._writer.store(delivery)
        except NotStoredError as problem:
            raise refused(503, "the delivery can't be stored now", retry_after_s=RETRY_AFTER_S) from problem
        self._metrics.stored(time.perf_counter() - began_s)
        return stored


class _Remarks:
    """Lines in the log about what was refused: a few a second at most, because anybody may cause them."""

    def __init__(self) -> None:
        self._second = 0
        self._made = 0

    def make(self, text: str) -> None:
        """Makes a remark."""
        second = int(time.monotonic())
        if second != self._second:
            if self._made > _LINES_PER_S:
                logger.warning("%s more were refused in that second", self._made - _LINES_PER_S)
            self._second, self._made = second, 0
        self._made += 1
        if self._made <= _LINES_PER_S:
            logger.warning("%s", text)


def _check_method(scope: Scope) -> None:
    if scope["method"] != "POST":
        raise refused(405, "send it with POST", allow="POST")


def _check_rate(hook: Hook) -> None:
    wait_s = hook.rate.wait_s()
    if wait_s:
        raise refused(429, f"more than {hook.webhook.max_per_s:g} deliveries a second", retry_after_s=wait_s)


def _check_type(content_type: str) -> None:
    """Checks the content type. Without one the body is taken for JSON; it must be JSON anyway."""
    if content_type and not (_is_json if len(content_type) <= _USUAL_TYPE_CHARS else _is_json.__wrapped__)(
        content_type
    ):
        raise refused(415, "send JSON, with content-type: application/json")


@lru_cache(maxsize=100)
def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type.partition(";")[0].strip()) is not None


def _shown(name: Any) -> str:
    text = str(name)[:80]
    return repr(text) if text.isprintable() else ascii(text)
