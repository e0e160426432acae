"""The receiver as an ASGI application: webhooks, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sync_pipelines.webhooks.delivery_writer import DeliveryWriter
from sync_pipelines.webhooks.inline import ApplyOrStore, InlineApplier, Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess
from sync_pipelines.webhooks.metrics import CONTENT_TYPE, Metrics
from sync_pipelines.webhooks.receiver import Hook, Receiver

T = TypeVar("T")

_HEALTH_TIMEOUT_S = 3.0
_PATH = "/webhooks/"


class WebhookApp:
    """The ASGI application: hands deliveries to the receiver on the shortest way, everything else to Starlette.

    All starts when it is first needed, because an application that is mounted does not learn when it starts.

    Args:
        knows_all: False if there may be webhooks that are not among the hooks.
    """

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        access: LedgerAccess,
        apply_or_store: ApplyOrStore,
        report: Report | None = None,
        *,
        knows_all: bool = True,
    ) -> None:
        metrics = Metrics()
        self._access = access
        self._inline = InlineApplier(apply_or_store, report)
        self._writer = DeliveryWriter(access.store)
        self._health = _Health(access, metrics, sorted({hook.job.name for hook in hooks.values()}))
        self._receiver = Receiver(hooks, self._writer, self._inline, metrics, knows_all=knows_all)
        self._rest = self._build_rest()

    def _build_rest(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        rest = Starlette(
            routes=[
                Route("/healthz", endpoint=self._health.alive),
                Route("/readyz", endpoint=self._health.ready),
                Route("/metrics", endpoint=self._health.metrics),
            ],
            lifespan=lifespan,
        )
        rest.router.redirect_slashes = False
        return rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))  # of an application that is mounted
            if path.startswith(_PATH) and "/" not in path[len(_PATH) :]:
                await self._receiver.answer(path[len(_PATH) :], scope, receive, send)
                return
        await self._rest(scope, receive, send)

    def close(self) -> None:
        """Stores what still waits, then closes threads and connections. A server does so at its end."""
        self._writer.close()
        self._inline.close()
        self._health.close()
        self._access.close()


class _Health:
    """Tells how the receiver is. Never has more than one question at the database, however many ask."""

    def __init__(self, access: LedgerAccess, metrics: Metrics, jobs: list[str]) -> None:
        self._access = access
        self._metrics = metrics
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sync_pipelines.health")
        self._asking: set[str] = set()

    async def alive(self, _request: Request) -> Response:
        """Answers that the process lives."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """Deliveries can be stored: the database answers and has our tables."""
        if await self._ask("ready", self._access.is_ready):
            return JSONResponse({"status": "ready"})
        return JSONResponse({"error": "the ledger does not answer, or has other tables"}, 503, {"Retry-After": "5"})

    async def metrics(self, _request: Request) -> Response:
        """Answers with what Prometheus reads."""
        depths = await self._ask("depths", lambda: self._access.depths(self._jobs))
        return Response(self._metrics.render(depths, datetime.now(UTC)), media_type=CONTENT_TYPE)

    async def _ask(self, what: str, question: Callable[[], T]) -> T | None:
        """Returns the answer; None if there is none in time, or the last question of the kind is still open."""
        if what in self._asking:
            return None
        try:
            work = asyncio.get_running_loop().run_in_executor(self._pool, question)
            self._asking.add(what)
            work.add_done_callback(lambda _: self._asking.discard(what))
            return await asyncio.wait_for(asyncio.shield(work), _HEALTH_TIMEOUT_S)
        except Exception:  # noqa: BLE001 - whatever it is, the answer is that there is none
            return None

    def close(self) -> None:
        """Waits for the question that is open."""
        self._pool.shutdown()
