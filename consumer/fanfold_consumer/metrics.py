"""Every metric, in one list. Names follow Prometheus' conventions; lag is named as kafka-lag-exporter names it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fanfold_schemas import Outcome

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one member, in a registry of their own so that several may live in one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        # What became of results: applied, duplicate, stale, closed.
        self._results = Counter("fanfold_results", "Results by outcome of their commit", ["outcome"], registry=registry)
        # Deliveries whose handler did not run, or not to its end, because the answer was known.
        self._skipped = Counter(
            "fanfold_deliveries_skipped", "Deliveries that needed no handler", ["why"], registry=registry
        )
        self._retries = Counter("fanfold_task_retries", "Handler attempts after the first", registry=registry)
        self._parked = Counter("fanfold_dead_letters", "Records parked", ["code"], registry=registry)
        self._fenced = Counter("fanfold_partitions_fenced", "Claims lost to another owner", registry=registry)
        self._rewound = Counter("fanfold_partitions_rewound", "Claims found ahead of the database", registry=registry)
        self._completed = Counter("fanfold_fan_outs_completed", "Fan-outs completed here", registry=registry)
        self._expired = Counter(
            "fanfold_fan_outs_expired", "Fan-outs that their deadline ended here", registry=registry
        )
        self._published = Counter("fanfold_outbox_published", "Outbox records acknowledged by Kafka", registry=registry)
        self._commit_seconds = Histogram(
            "fanfold_commit_seconds", "Time of one commit", buckets=_SECONDS, registry=registry
        )
        self._commit_results = Histogram(
            "fanfold_commit_results",
            "Results in one commit",
            buckets=(1, 10, 50, 100, 250, 500, 1000, 2500),
            registry=registry,
        )
        self.running = Gauge("fanfold_handlers_running", "Handlers running now", registry=registry)
        self.in_flight = Gauge("fanfold_in_flight", "Records polled and not yet committed", registry=registry)
        self.in_flight_bytes = Gauge("fanfold_in_flight_bytes", "Their size", registry=registry)
        self.partitions = Gauge("fanfold_partitions", "Partitions by phase", ["phase"], registry=registry)
        self.store_away = Gauge("fanfold_store_away", "1 while Postgres does not answer", registry=registry)
        self.claim_store_away = Gauge(
            "fanfold_claim_store_away", "1 while the claim store does not answer", registry=registry
        )

    def committed(self, outcomes: Mapping[Outcome, int], seconds: float) -> None:
        for outcome, count in outcomes.items():
            self._results.labels(outcome.value).inc(count)
        self._commit_seconds.observe(seconds)
        self._commit_results.observe(sum(outcomes.values()))

    def completed(self, fan_outs: int) -> None:
        self._completed.inc(fan_outs)

    def expired(self, fan_outs: int) -> None:
        self._expired.inc(fan_outs)

    def skipped(self, why: str, deliveries: int = 1) -> None:
        self._skipped.labels(why).inc(deliveries)

    def retried(self) -> None:
        self._retries.inc()

    def parked(self, code: str) -> None:
        self._parked.labels(code).inc()

    def fenced(self, partitions: int) -> None:
        self._fenced.inc(partitions)

    def rewound(self, partitions: int) -> None:
        self._rewound.inc(partitions)

    def published(self, records: int) -> None:
        self._published.inc(records)
