"""Every nemesis by itself, one after another, against one fleet at work; and whether the guarantees held through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.chaos.campaign import Campaign, Settings, campaign
from tests.fault.chaos.nemeses import ALL
from tests.fault.chaos.requirements import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")
_FAULTS_S = (1.0, 3.0)
"""What a fault meets within a second is a matter of luck on a busy machine; so there is a second, longer go."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    folder: Path = tmp_path_factory.mktemp("chaos")
    with campaign(Settings(rate=100.0, members=3, settle_s=60.0), folder) as running:
        yield running


@pytest.mark.parametrize("nemesis", ALL)
def test_a_nemesis_has_an_effect_that_can_be_seen(nemesis: str, running: Campaign) -> None:
    journal = running.world.journal
    for seconds in _FAULTS_S:
        running.await_commits()
        running.strike([nemesis], seconds)
        if journal.entries(nemesis, "effect"):
            return
    pytest.fail(f"{nemesis} changed nothing: {[entry.detail for entry in journal.entries(nemesis, 'end')]}")


def test_after_all_of_them_every_guarantee_holds(running: Campaign) -> None:
    report = running.conclude()
    assert [str(finding) for finding in report.verdict.findings] == []
    assert report.broken_off == ()
    assert report.verdict.tasks > 0
