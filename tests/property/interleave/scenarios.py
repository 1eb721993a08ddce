"""All scenarios."""

from __future__ import annotations

from tests.property.interleave import scenarios_commit, scenarios_lifetime, scenarios_partitions
from tests.property.interleave.scenario import Scenario


def scenarios() -> list[Scenario]:
    """Every scenario, by themes."""
    modules = (scenarios_commit, scenarios_partitions, scenarios_lifetime)
    return [scenario for module in modules for theme in module.ALL for scenario in theme()]


def named(part: str) -> list[Scenario]:
    """Those with `part` in their names."""
    return [scenario for scenario in scenarios() if part in scenario.name]


def exactly(name: str) -> Scenario:
    (scenario,) = (one for one in scenarios() if one.name == name)
    return scenario
