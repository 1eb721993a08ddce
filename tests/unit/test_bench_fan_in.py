from __future__ import annotations

from tests.benchmarks.contenders.fan_in_client import Client, Commit, Job
from tests.benchmarks.fan_in_clients import total_s, waits_s


def test_every_result_of_a_commit_waited_as_long_as_the_commit() -> None:
    assert waits_s([_commit(2, 0.5), _commit(1, 0.25)]) == [0.5, 0.5, 0.25]


def test_a_fan_in_takes_until_its_last_commit_whichever_client_made_it() -> None:
    assert total_s([_commit(2, 0.5), _commit(1, 0.75), _commit(3, 0.25)]) == 0.75


def test_the_clients_share_the_workers_of_a_job_and_leave_none_out() -> None:
    clients = [Client("", number, clients=2, workers=100) for number in range(2)]
    job = Job("t", results=100, workers=5)
    assert sorted(number for client in clients for number in client.taking_part(job)) == list(range(5))


def _commit(results: int, seconds: float) -> Commit:
    return Commit(results, seconds, write_s=0.0, rejections=0)
