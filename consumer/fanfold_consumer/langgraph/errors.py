"""What can go wrong with a distributed graph, one class for each thing that its caller can do about it."""

from __future__ import annotations

from collections.abc import Sequence

from fanfold_consumer.errors import FanfoldError


class GraphRefused(FanfoldError):
    """This graph, or this way to run it, would not do on a fleet what it does in one process.

    Attributes:
        problems: all of them, each with what to change.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class NodeFailed(FanfoldError):
    """A node failed for good, and nothing in the graph handles that.

    The thread stays where it is, as it would in one process. `ainvoke(None, config)` runs again what failed, and
    nothing that succeeded; a mapped node's dead letter may be redriven instead.

    Attributes:
        node: the node's name; of one in a subgraph, `subgraph:node`. Empty if it is not known.
        reason: class and message of its exception. The exception itself stays on the member that caught it.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"node {node!r} failed: {reason}" if node else reason)
        self.node = node
        self.reason = reason


class StillRunning(FanfoldError):
    """This thread's run has not come to its end. `result(config)` waits for what is on the fleet; if nothing is there,
    its caller is at work, or died, and `ainvoke(None, config)` goes on."""


class Superseded(FanfoldError):
    """The thread went on without this run, with new input for example. `result(config)` waits for what it does now."""
