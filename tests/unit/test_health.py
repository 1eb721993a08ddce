"""/live, /ready and /metrics over real HTTP."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from fanfold_consumer.health import HealthServer
from fanfold_consumer.metrics import Metrics
from fanfold_schemas import Outcome

_TIMEOUT_S = 10.0


@dataclass
class Member:
    """What the server reports on."""

    metrics: Metrics = field(default_factory=Metrics)
    not_live: str | None = None
    not_ready: str | None = None


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def server(member: Member) -> Iterator[HealthServer]:
    server = HealthServer(
        "127.0.0.1", 0, member.metrics.registry, live=lambda: member.not_live, ready=lambda: member.not_ready
    )
    yield server
    server.close()


Get = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def get(server: HealthServer) -> Get:
    """Status, content type and body of a path."""

    def get(path: str) -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=_TIMEOUT_S) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    return get


@pytest.mark.parametrize("path", ["/live", "/ready", "/live?verbose=1"])
def test_a_member_that_works_says_ok(get: Get, path: str) -> None:
    assert get(path) == (200, "text/plain; charset=utf-8", "ok\n")


def test_a_member_that_hangs_is_not_live_and_says_why(get: Get, member: Member) -> None:
    member.not_live = "the event loop has not turned for 40 s"
    assert get("/live")[::2] == (503, "the event loop has not turned for 40 s\n")
    assert get("/ready")[0] == 200


def test_a_member_that_cannot_take_work_is_not_ready_but_live(get: Get, member: Member) -> None:
    member.not_ready = "Postgres does not answer"
    assert get("/ready")[::2] == (503, "Postgres does not answer\n")
    assert get("/live")[0] == 200
    member.not_ready = None
    assert get("/ready")[0] == 200


def test_a_check_that_breaks_is_a_no_and_not_a_silence(member: Member) -> None:
    def broken() -> str | None:
        raise LookupError("no loop")

    server = HealthServer("127.0.0.1", 0, member.metrics.registry, live=broken, ready=broken)
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/live", timeout=_TIMEOUT_S)
        with caught.value as answer:
            assert answer.code == 503
            assert b"LookupError" in answer.read()
    finally:
        server.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=fanfold_results_total"])
def test_metrics_are_prometheus_text(get: Get, member: Member, path: str) -> None:
    member.metrics.committed({Outcome.APPLIED: 3, Outcome.DUPLICATE: 1}, 0.02)
    status, content_type, body = get(path)
    assert status == 200
    assert content_type.startswith("text/plain")
    assert 'fanfold_results_total{outcome="applied"} 3.0' in body
    assert 'fanfold_results_total{outcome="duplicate"} 1.0' in body
    assert 'fanfold_commit_seconds_bucket{le="0.025"} 1.0' in body
    assert "fanfold_commit_results_sum 4.0" in body


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/../metrics"])
def test_another_path_is_told_which_there_are(get: Get, path: str) -> None:
    status, _, body = get(path)
    assert status == 404
    assert "/live" in body
    assert "/metrics" in body


def test_a_client_that_says_nothing_keeps_nobody_waiting(get: Get, server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S):
        assert get("/live")[0] == 200


def test_an_address_that_is_taken_is_an_error_at_once(server: HealthServer, member: Member) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer("127.0.0.1", server.port, member.metrics.registry, live=lambda: None, ready=lambda: None)


def test_after_close_nothing_listens_and_no_thread_is_left(member: Member) -> None:
    server = HealthServer("127.0.0.1", 0, member.metrics.registry, live=lambda: None, ready=lambda: None)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S)
    assert "fanfold-health" not in {thread.name for thread in threading.enumerate()}
