"""What the receiver counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sync_pipelines.database.inbox import Depth

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_PREFIX = "sync_pipelines_webhook"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The counters of one receiver."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._deliveries = Counter(
            f"{_PREFIX}_deliveries", "Deliveries by webhook and status.", ["webhook", "status"], registry=self._registry
        )
        self._stored = Histogram(
            f"{_PREFIX}_store_seconds",
            "Seconds until a delivery was durably stored.",
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        self._ledger_up = self._gauge("ledger_up", "1 if the ledger's database answers.", [])
        self._waiting = self._gauge("inbox_waiting", "Deliveries that wait, 100,000 at most.", ["job"])
        self._failed = self._gauge("inbox_failed", "Deliveries that have failed, 100,000 at most.", ["job"])
        self._oldest = self._gauge("inbox_oldest_waiting_seconds", "Age of the oldest delivery that waits.", ["job"])
        self._counters: dict[tuple[str, int], Counter] = {}

    def _gauge(self, name: str, description: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"sync_pipelines_{name}", description, labels, registry=self._registry)

    def answered(self, webhook: str, status: int) -> None:
        """Counts a delivery that was answered. An unknown name is counted as the empty one."""
        counter = self._counters.get((webhook, status))
        if counter is None:
            counter = self._counters[webhook, status] = self._deliveries.labels(webhook, str(status))
        counter.inc()

    def stored(self, seconds: float) -> None:
        """Counts a delivery that was stored."""
        self._stored.observe(seconds)

    def render(self, depths: Sequence[Depth] | None, now: datetime) -> bytes:
        """Writes the page that Prometheus reads.

        Args:
            depths: How much is in the inbox, None if the ledger does not answer.
        """
        self._ledger_up.set(0 if depths is None else 1)
        for gauge in (self._waiting, self._failed, self._oldest):
            gauge.clear()
        for depth in depths or ():
            self._waiting.labels(depth.job).set(depth.waiting)
            self._failed.labels(depth.job).set(depth.failed)
            oldest = depth.oldest_waiting_at
            self._oldest.labels(depth.job).set(0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        return generate_latest(self._registry)
