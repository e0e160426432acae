"""`webhooks serve`: the receiver as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import uvicorn

from sync_pipelines.cli.output import remark, result_stream, show_table
from sync_pipelines.cli.stop_signals import Stopped, signals_handled_by
from sync_pipelines.delivery.apply_or_store import apply_or_store
from sync_pipelines.delivery.webhook_app import served_hooks
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.model import load_settings
from sync_pipelines.webhooks.application import WebhookApp
from sync_pipelines.webhooks.inline import Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess
from sync_pipelines.webhooks.receiver import Hook

_BACKLOG = 2_048
_KEEP_ALIVE_S = 75
"""Longer than a proxy keeps a connection that nobody uses, so that it is never us who close it under a delivery."""
_FINISH_S = 30
_LOOK_AGAIN_S = 0.2


def serve(host: str, port: int) -> None:
    """Receives webhooks until a signal, and finishes what was accepted.

    Raises:
        Stopped: A signal came.
    """
    settings = load_settings()
    served = served_hooks(settings)
    access = LedgerAccess(settings.ledger_database_url())
    access.ledger()
    app = WebhookApp(served.hooks, access, apply_or_store(access), _reporter(served.hooks), knows_all=served.knows_all)
    with _listening(host, port) as listener:
        _show(served.hooks, listener)
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # a line per delivery would cost more than the delivery; /metrics counts them
                server_header=False,
                proxy_headers=False,  # nobody asks where a delivery came from
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_FINISH_S,
                backlog=_BACKLOG,
            )
        )
        server.run(sockets=[listener])
    if server.stopped_by is not None:
        raise Stopped(server.stopped_by)


def _reporter(hooks: Mapping[str, Hook]) -> Report | None:
    """Returns what reports inline items to Dagster; it takes seconds to load, so only where there are such."""
    if not any(hook.webhook.mode == "inline" for hook in hooks.values()):
        return None
    try:
        from sync_pipelines.orchestration.asset_events import dagster_reporter  # noqa: PLC0415
    except ImportError:  # the receiver needs no Dagster
        return None
    return dagster_reporter()


class _Server(uvicorn.Server):
    """Finishes what it accepted when a signal comes, and remembers which it was."""

    stopped_by: int | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals, except those that the caller has us ignore, without raising them again afterwards."""
        with signals_handled_by(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops cleanly at the first signal; a second Ctrl-C waits for nothing."""
        if self.stopped_by is None:
            self.stopped_by = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends connections as well that are made while it ends; uvicorn tells those alone that it has at the start."""

        async def end_late_ones() -> None:
            while True:
                await asyncio.sleep(_LOOK_AGAIN_S)
                for connection in list(self.server_state.connections):
                    connection.shutdown()

        ending = asyncio.create_task(end_late_ones())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Binds the socket: a port that was free a moment ago may be taken now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--host {host}: {error.strerror}; give an address of this machine") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of {host} can't be had: {error.strerror}; stop what listens there, or give another --port"
            ) from error
        yield listener


def _show(hooks: Mapping[str, Hook], listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    rows = [
        [
            f"{base}/webhooks/{name}",
            hook.job.name,
            hook.webhook.signature.title if hook.webhook.signature else "",
            hook.webhook.mode if hook.problem is None else "not served",
        ]
        for name, hook in sorted(hooks.items())
    ]
    show_table(["POST", "sync", "signature", "mode"], rows)
    result_stream().flush()  # a service's log says at once where it listens, also through a pipe
    remark(f"also GET {base}/healthz, /readyz and /metrics; Ctrl-C stops")
