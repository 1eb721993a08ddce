"""What the benchmark of other systems takes for done, and what it says when one of them is not here."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.contenders.peer import ARGUMENTS, check_joined
from tests.benchmarks.peers import Peer, missing_for


def test_an_argument_is_200_bytes_of_json() -> None:
    assert {len(json.dumps(argument)) for argument in ARGUMENTS} == {200}


def test_a_fan_out_whose_results_are_all_there_in_order_is_joined() -> None:
    check_joined(list(ARGUMENTS))


@pytest.mark.parametrize(
    "results",
    [
        ARGUMENTS[:-1],
        [*ARGUMENTS, ARGUMENTS[0]],
        [ARGUMENTS[1], ARGUMENTS[0], *ARGUMENTS[2:]],
        [ARGUMENTS[0], *ARGUMENTS[:-1]],
        ["something else", *ARGUMENTS[1:]],
    ],
    ids=["one short", "one twice", "out of order", "one in another's place", "another result"],
)
def test_a_fan_out_that_is_not_all_there_in_order_is_refused(results: list[str]) -> None:
    with pytest.raises(ValueError, match="was joined as"):
        check_joined(results)


@pytest.mark.parametrize("package", ["no_such_package_anywhere", "no_such_package_anywhere.inner"])
def test_a_peer_whose_package_is_not_installed_is_skipped_with_the_reason(package: str) -> None:
    reason = missing_for(Peer("program", package, {}))
    assert reason is not None
    assert package in reason
    assert "requirements/bench.txt" in reason


def test_a_peer_that_needs_redis_is_skipped_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    reason = missing_for(Peer("program", "json", {}, needs_redis=True))
    assert reason is not None
    assert "redis-server" in reason


def test_a_peer_that_has_all_it_needs_is_not_skipped() -> None:
    assert missing_for(Peer("program", "json", {})) is None
