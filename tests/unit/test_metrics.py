"""The metrics of a member: names as Prometheus wants them, and what each call counts."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fanfold_consumer.metrics import Metrics
from fanfold_schemas import Outcome


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_each_call_counts_what_it_says() -> None:
    metrics = Metrics()
    metrics.committed({Outcome.APPLIED: 2, Outcome.STALE: 1}, 0.3)
    metrics.committed({}, 0.1)
    metrics.completed(2)
    metrics.skipped("duplicate")
    metrics.retried()
    metrics.parked("E_HANDLER")
    metrics.fenced(3)
    metrics.rewound(1)
    metrics.published(7)
    assert _value(metrics, "fanfold_results_total", outcome="applied") == 2
    assert _value(metrics, "fanfold_results_total", outcome="stale") == 1
    assert _value(metrics, "fanfold_commit_seconds_count") == 2
    assert _value(metrics, "fanfold_commit_seconds_sum") == pytest.approx(0.4)
    assert _value(metrics, "fanfold_commit_results_sum") == 3
    assert _value(metrics, "fanfold_fan_outs_completed_total") == 2
    assert _value(metrics, "fanfold_deliveries_skipped_total", why="duplicate") == 1
    assert _value(metrics, "fanfold_task_retries_total") == 1
    assert _value(metrics, "fanfold_dead_letters_total", code="E_HANDLER") == 1
    assert _value(metrics, "fanfold_partitions_fenced_total") == 3
    assert _value(metrics, "fanfold_partitions_rewound_total") == 1
    assert _value(metrics, "fanfold_outbox_published_total") == 7


def test_gauges_hold_what_they_are_set_to() -> None:
    metrics = Metrics()
    metrics.in_flight.set(5)
    metrics.in_flight_bytes.set(500)
    metrics.partitions.labels("running").set(2)
    metrics.store_away.set(True)
    assert _value(metrics, "fanfold_in_flight") == 5
    assert _value(metrics, "fanfold_in_flight_bytes") == 500
    assert _value(metrics, "fanfold_partitions", phase="running") == 2
    assert _value(metrics, "fanfold_store_away") == 1


def test_two_members_of_one_process_do_not_share_a_number() -> None:
    one, other = Metrics(), Metrics()
    one.retried()
    assert _value(other, "fanfold_task_retries_total") == 0


def test_every_metric_has_our_prefix_and_says_what_it_is() -> None:
    families = list(text_string_to_metric_families(generate_latest(Metrics().registry).decode()))
    assert len(families) > 10
    for family in families:
        assert family.name.startswith("fanfold_")
        assert family.documentation
