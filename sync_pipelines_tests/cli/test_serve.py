"""`webhooks serve` ends soon, whatever its clients do."""

from __future__ import annotations

import asyncio

import uvicorn
from uvicorn.lifespan.off import LifespanOff

from sync_pipelines.cli.serve import _Server


class Connection:
    """One of a client that keeps it open."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._connections = server.server_state.connections
        self._connections.add(self)  # type: ignore[arg-type]

    def shutdown(self) -> None:
        self._connections.discard(self)  # type: ignore[arg-type]


def test_a_connection_that_is_made_while_it_ends_does_not_keep_it() -> None:
    async def app(*_: object) -> None: ...

    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=30)
    server = _Server(config)
    server.servers, server.lifespan = [], LifespanOff(config)

    async def end() -> None:
        Connection(server)
        asyncio.get_running_loop().call_later(0.05, Connection, server)
        await asyncio.wait_for(server.shutdown(), 10)

    asyncio.run(end())
    assert not server.server_state.connections
