"""Why a replay was not done, or not to its end."""

from __future__ import annotations

from fanfold_consumer.errors import FanfoldError


class ReplayRefused(FanfoldError):
    """It would do harm, or cannot be done as asked; nothing was changed. The message says what to do."""


class ReplayInterrupted(FanfoldError):
    """Part of the replay was done. The message says how much, and how to go on from there."""
