"""Counters of the server, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0)


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        """Initialize all metrics at 0."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "svilm_requests",
            "Answered requests by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "svilm_request_seconds",
            "Time from a request to the start of its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.encoding = Histogram(
            "svilm_encoding_seconds",
            "Time that a request used the encoder.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.waiting = Gauge(
            "svilm_waiting_requests",
            "Requests that wait for the encoder.",
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
