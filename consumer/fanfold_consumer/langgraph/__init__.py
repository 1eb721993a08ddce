"""LangGraph on the fleet: a graph's mapped nodes fanned out over Kafka, and folded once into its checkpoint.

Needs the extra: `pip install 'fanfold[langgraph]'`.
"""

from __future__ import annotations

from fanfold_consumer.langgraph.saver import FanfoldSaver
from fanfold_consumer.langgraph.saver_heads import ForkRefused, Head
from fanfold_consumer.langgraph.saver_writes import TaskWrites

__all__ = ["FanfoldSaver", "ForkRefused", "Head", "TaskWrites"]
