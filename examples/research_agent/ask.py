"""Ask the agent, with its research on the fleet. Prints the report, and whether one process writes the same."""

from __future__ import annotations

import asyncio
import os
import sys
from uuid import uuid4

from agent import builder  # type: ignore[import-not-found]  # beside this file
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from fanfold_consumer.langgraph import FanfoldSaver, distribute
from fanfold_producer import KafkaConfig, Publisher, create_topics

QUESTION = "How do kafka and langgraph go together?"
TOPIC = "research.v1"


async def prepare() -> None:
    """What is made once: the topic, and the tables of the checkpoints."""
    create_topics(KafkaConfig.from_env(), {TOPIC: 4})
    async with FanfoldSaver.from_conn_string(os.environ["DATABASE_URL"]) as saver:
        await saver.setup()


async def ask(thread_id: str) -> None:
    database_url = os.environ["DATABASE_URL"]
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    async with (
        Publisher(KafkaConfig.from_env(), topic=TOPIC, database_url=database_url) as publisher,
        FanfoldSaver.from_conn_string(database_url) as saver,
    ):
        # These two lines are all that makes it run on a fleet.
        graph = distribute(builder, nodes=["research"], publisher=publisher, saver=saver)
        answer = await graph.ainvoke({"question": QUESTION}, config, timeout=60)
    print(answer["messages"][-1].content)
    alone = await builder.compile(checkpointer=InMemorySaver()).ainvoke({"question": QUESTION}, config)
    print(f"findings={len(answer['findings'])} rounds={answer['rounds']} equal={'yes' if alone == answer else 'no'}")


if __name__ == "__main__":
    asyncio.run(prepare() if sys.argv[1:] == ["prepare"] else ask(f"research-{uuid4()}"))
