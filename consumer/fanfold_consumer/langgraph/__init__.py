"""LangGraph on the fleet: a graph's mapped nodes fanned out over Kafka, and folded once into its checkpoint.

Needs the extra: `pip install 'fanfold[langgraph]'`.
"""

from __future__ import annotations

from fanfold_consumer.langgraph.blueprint import Blueprint
from fanfold_consumer.langgraph.errors import GraphRefused, NodeFailed, StillRunning, Superseded
from fanfold_consumer.langgraph.fleet_graph import FleetGraph, distribute
from fanfold_consumer.langgraph.members import load_graph, register_graph
from fanfold_consumer.langgraph.saver import FanfoldSaver
from fanfold_consumer.langgraph.saver_heads import ForkRefused, Head
from fanfold_consumer.langgraph.saver_writes import TaskWrites

__all__ = [
    "Blueprint",
    "FanfoldSaver",
    "FleetGraph",
    "ForkRefused",
    "GraphRefused",
    "Head",
    "NodeFailed",
    "StillRunning",
    "Superseded",
    "TaskWrites",
    "distribute",
    "load_graph",
    "register_graph",
]
