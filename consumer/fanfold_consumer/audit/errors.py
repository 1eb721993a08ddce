"""Why an audit was not done to its end."""

from __future__ import annotations

from fanfold_consumer.errors import FanfoldError


class AuditRefused(FanfoldError):
    """It cannot be done as asked. The message says what to ask for instead."""
