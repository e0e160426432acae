"""`/webhooks/{name}`: verifies a delivery, stores it, and only then answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive, Scope, Send

from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.json_text import charset_of
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.webhooks import Webhook, body_text, decode_body
from sync_pipelines.errors import ConfigurationError, WebhookRejectedError
from sync_pipelines.webhooks.bodies import Body, DisconnectedError, Memory, check_length
from sync_pipelines.webhooks.content_types import json_in, require_no_encoding
from sync_pipelines.webhooks.delivery_writer import DeliveryWriter, NotStoredError
from sync_pipelines.webhooks.error_log import log_problem, logger
from sync_pipelines.webhooks.handshakes import Asked, Handshakes
from sync_pipelines.webhooks.inline import InlineApplier
from sync_pipelines.webhooks.interpreter import Interpreter, headers_of
from sync_pipelines.webhooks.metrics import Metrics
from sync_pipelines.webhooks.rate_limit import Rate
from sync_pipelines.webhooks.responses import RETRY_AFTER_S, Answer, RefusedError, error, refused
from sync_pipelines.webhooks.signatures import Verify, verifier_of

MAX_MEMORY_BYTES = 128_000_000
"""What all bodies that are being read or stored may take together."""

UNTIL_MENDED_S = 60
"""When a sender may come again whose webhook a person has to mend."""
_LINES_PER_S = 10


@dataclass(frozen=True)
class Hook:
    """One webhook that is served.

    Args:
        name: The last part of its path.
        problem: Why it can't take deliveries; None if it can. Then its senders are asked to come again.
    """

    name: str
    job: AnyJob
    webhook: Webhook
    verify: Verify
    rate: Rate
    interpreter: Interpreter
    handshakes: Handshakes = field(default_factory=Handshakes)
    problem: str | None = None


def hooks_of(jobs: Iterable[AnyJob], clock: Callable[[], float] = time.time) -> dict[str, Hook]:
    """Returns the webhooks of the jobs by name, with their secrets. What is wrong with one is its own problem.

    That is a secret that is missing or none of its scheme, and a name that two webhooks have.
    """
    hooks: dict[str, Hook] = {}
    for job in jobs:
        hook = _hook_of(job, clock)
        if hook is None:
            continue
        other = hooks.setdefault(hook.name, hook)
        if other is not hook:
            problem = (
                f"the webhooks of the sync jobs {other.job.name!r} and {job.name!r} are both named {hook.name!r}; "
                "give one of them another Webhook(name=...)"
            )
            hooks[hook.name] = replace(other, problem=problem)
    return hooks


def _hook_of(job: AnyJob, clock: Callable[[], float]) -> Hook | None:
    webhook = job.webhook
    if webhook is None or webhook.signature is None:
        return None
    verify: Verify = _never
    handshakes, problem = Handshakes(), None
    try:
        verify, handshakes = verifier_of(webhook.signature, job.name, clock), Handshakes.of(job)
    except ConfigurationError as error:
        problem = message_of(error)
    rate, interpreter = Rate(webhook.max_per_s), Interpreter(job)
    return Hook(webhook.name or job.name, job, webhook, verify, rate, interpreter, handshakes, problem)


def _never(_headers: Mapping[str, str], _body: bytes) -> bool:
    return False


class Receiver:
    """Takes deliveries, as a plain ASGI application: this is the path that must be fast."""

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        writer: DeliveryWriter,
        inline: InlineApplier,
        metrics: Metrics,
        *,
        knows_all: bool = True,
    ) -> None:
        self._hooks = hooks
        self._writer = writer
        self._inline = inline
        self._metrics = metrics
        self._knows_all = knows_all
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
            log_problem(_named(name, hook), problem)
            answer = error(503, "the receiver has a problem", retry_after_s=RETRY_AFTER_S)
        self._metrics.answered(hook.name if hook is not None else "", answer.status)
        if answer.status >= 400:  # noqa: PLR2004
            self._remarks.make(f"{_named(name, hook)}: {answer.status}: {answer.document['error']}")
        await answer.send(send, with_body=scope["method"] != "HEAD")

    async def _answer(self, hook: Hook | None, scope: Scope, receive: Receive) -> Answer:
        headers = headers_of(scope["headers"])
        body = Body(receive, hook.webhook.max_body_bytes if hook is not None else 0, self._memory)
        try:
            if hook is None:
                raise self._unknown()
            _check_method(hook, scope)
            check_length(headers, hook.webhook.max_body_bytes)
            require_no_encoding(headers)
            _check_rate(hook)
            raw = await body.read()
            if hook.handshakes.declared:
                asked = Asked(scope["method"], scope.get("query_string", b""), headers, raw)
                answer = hook.handshakes.answer(asked, lambda: hook.verify(headers, raw))
                if answer is not None:
                    return answer
            taken = await self._take(hook, headers, raw)
            is_bare = hook.webhook.bare_answers and taken.status < 300  # noqa: PLR2004
            return Answer(200, {}, text="") if is_bare else taken
        except RefusedError as refusal:
            await body.discard(headers)
            return refusal.answer
        finally:
            body.release()

    def _unknown(self) -> RefusedError:
        """Refuses a name that nobody has; if a file of jobs can't be read, it may be that of a webhook in it."""
        if self._knows_all:
            return refused(404, "there is no such webhook")
        return refused(503, "the webhook can't be served now", retry_after_s=UNTIL_MENDED_S)

    async def _take(self, hook: Hook, headers: Mapping[str, str], raw: bytes) -> Answer:
        if not hook.verify(headers, raw):
            raise refused(401, "the signature is missing, wrong or expired")
        try:
            content_type = headers.get("content-type", "")
            text = body_text(json_in(raw, content_type), charset_of(content_type))
            event = hook.interpreter.event(decode_body(text), headers, datetime.now(UTC))
            meaning = await hook.interpreter.meaning(event, text)
        except WebhookRejectedError as rejected:
            raise refused(422, message_of(rejected)) from rejected
        if not meaning.parts:
            return Answer(200, {"ignored": meaning.reason})
        if hook.webhook.mode == "inline" and any(each.change is not None for each in meaning.parts):
            return await self._inline.answer(hook.job, meaning.parts)
        stored = await self._stored([each.delivery for each in meaning.parts])
        told: dict[str, Any] = {"delivery": stored[0].id}
        if len(stored) > 1:
            told["deliveries"] = [each.id for each in stored]
        return Answer(200 if all(each.repeated for each in stored) else 202, told)

    async def _stored(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        began_s = time.perf_counter()
        try:
            stored = await self._writer.store_together(deliveries)
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


def _check_method(hook: Hook, scope: Scope) -> None:
    if hook.problem is not None:
        raise refused(503, "the webhook can't be served now", retry_after_s=UNTIL_MENDED_S)
    if scope["method"] not in hook.handshakes.methods:
        raise refused(405, "send it with POST", allow=", ".join(sorted(hook.handshakes.methods)))


def _check_rate(hook: Hook) -> None:
    wait_s = hook.rate.wait_s()
    if wait_s:
        raise refused(429, f"more than {hook.webhook.max_per_s:g} deliveries a second", retry_after_s=wait_s)


def _named(name: str, hook: Hook | None) -> str:
    """Returns how the log calls a webhook: by its name, and its job if that has another."""
    of_job = "" if hook is None or hook.job.name == name else f" of {hook.job.name}"
    return f"webhook {_shown(name)}{of_job}"


def _shown(name: Any) -> str:
    text = str(name)[:80]
    return repr(text) if text.isprintable() else ascii(text)
