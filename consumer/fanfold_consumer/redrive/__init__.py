"""Sending parked records again: which, what can be done for each, and doing it once."""

from __future__ import annotations

from fanfold_consumer.redrive.chunks import chunks
from fanfold_consumer.redrive.decide import Action, Decision, Outlook, Why, resolved
from fanfold_consumer.redrive.execute import preview, redrive

__all__ = ["Action", "Decision", "Outlook", "Why", "chunks", "preview", "redrive", "resolved"]
