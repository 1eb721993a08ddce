"""Errors that a user can mend. The message says what failed, why, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class FanfoldError(Exception):
    """Base of the errors of the fleet and its commands."""


class ConfigError(FanfoldError):
    """The configuration cannot work. Every problem is listed, not only the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the configuration cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = tuple(problems)
