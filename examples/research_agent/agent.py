"""A research agent as LangGraph tutorials write it: plan, research each question, review, maybe research more, write.

Nothing here knows of a fleet. The model is a fake one, so that it runs without a key; put your own in its place.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import RetryPolicy, Send

LIBRARY = {
    "kafka": "Kafka keeps records in partitions and hands them out at least once.",
    "postgres": "Postgres commits a transaction as a whole, or not at all.",
    "langgraph": "LangGraph runs a graph in supersteps and keeps a checkpoint after each.",
    "checkpoints": "A checkpoint is written by one run at a time, or it forks.",
}
ROUNDS_MAX = 2


class FakeModel(SimpleChatModel):
    """Answers what it is asked in a way that depends on nothing else."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _call(self, messages: list[BaseMessage], *_: Any, **__: Any) -> str:
        task, said = str(messages[0].content), str(messages[-1].content)
        if task == "plan":
            return ", ".join(word for word in LIBRARY if word in said)
        return f"{task}: {said}"


model = FakeModel()


@tool
def look_up(topic: str) -> str:
    """What the library has about a topic."""
    return LIBRARY.get(topic, "nothing")


class Finding(TypedDict):
    topic: str
    text: str


class State(TypedDict, total=False):
    question: str
    topics: list[str]
    rounds: int
    findings: Annotated[list[Finding], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]


class Research(TypedDict):
    """What one mapped task gets."""

    topic: str


async def plan(state: State) -> State:
    answer = await model.ainvoke([SystemMessage("plan"), HumanMessage(state["question"])])
    return {"topics": str(answer.content).split(", "), "rounds": 0}


def send(state: State) -> list[Send]:
    return [Send("research", Research(topic=topic)) for topic in state["topics"]]


async def research(state: Research) -> State:
    """One topic: a tool call and its answer, then what the model makes of that. This is what a fleet is for."""
    call = {"name": "look_up", "args": {"topic": state["topic"]}, "id": f"call-{state['topic']}", "type": "tool_call"}
    asking = AIMessage("", id=f"ask-{state['topic']}", tool_calls=[call])
    found: ToolMessage = await look_up.ainvoke(call)
    found.id = f"found-{state['topic']}"
    answer = await model.ainvoke([SystemMessage(f"about {state['topic']}"), found])
    return {
        "findings": [Finding(topic=state["topic"], text=str(answer.content))],
        "messages": [asking, found],
    }


def review(state: State) -> State:
    """Whatever was found may name something else in the library: that is researched next."""
    known = {finding["topic"] for finding in state["findings"]}
    text = " ".join(finding["text"].lower() for finding in state["findings"])
    more = [topic for topic in LIBRARY if topic.rstrip("s") in text and topic not in known]
    return {"topics": more, "rounds": state["rounds"] + 1}


def more_or_write(state: State) -> list[Send] | Literal["write"]:
    return send(state) if state["topics"] and state["rounds"] < ROUNDS_MAX else "write"


async def write(state: State) -> State:
    found = " ".join(finding["text"] for finding in state["findings"])
    answer = await model.ainvoke([SystemMessage("report"), HumanMessage(found)])
    return {"messages": [AIMessage(str(answer.content), id="report")]}


builder = StateGraph(State)
builder.add_node("plan", plan)
# The graph's own policy holds wherever the node runs; `fanfold` is for what the fleet does beyond it.
builder.add_node(
    "research",
    research,
    input_schema=Research,
    retry_policy=RetryPolicy(),
    metadata={"fanfold": {"timeout": 60, "retries": 5}},
)
builder.add_node("review", review)
builder.add_node("write", write)
builder.add_edge(START, "plan")
builder.add_conditional_edges("plan", send, ["research"])
builder.add_edge("research", "review")
builder.add_conditional_edges("review", more_or_write, ["research", "write"])
builder.add_edge("write", END)
