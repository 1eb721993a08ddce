"""Classes of a graph, as users write them, and the graph that declares them."""

from __future__ import annotations

import enum
import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired

from langchain_core.messages import AnyMessage
from langgraph.graph import StateGraph, add_messages
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    RootModel,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict


class Color(enum.Enum):
    RED = 1
    GREEN = "green"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Step(BaseModel):
    name: str
    tags: list[str] = []
    color: Color | None = None


class Plan(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    title: str = Field(alias="Title", default="")
    steps: dict[str, Step] = Field(default_factory=dict)
    source: AnyUrl | None = None
    _seen: int = PrivateAttr(default=0)


class Steps(RootModel[list[Step]]):
    pass


@dataclass(frozen=True, slots=True)
class Box:
    inside: Any = None
    weight: int = field(default=0, init=False)


@dataclass
class Report:
    plan: Plan | None = None
    at: Point | None = None

    @cached_property
    def summary(self) -> str:
        return f"{self.plan} at {self.at}"


class Shouting(BaseModel):
    """Its validator does not leave alone what it made."""

    text: str

    @field_validator("text")
    @classmethod
    def louder(cls, text: str) -> str:
        return text + "!"


class Turning(BaseModel):
    """Its validator makes something else of it."""

    text: str

    @model_validator(mode="wrap")
    @classmethod
    def turn(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        return Step(name="turned")


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number <= 0:
            raise ValueError(f"{self.number} is not positive")


class Undeclared(BaseModel):
    secret: str


class StepAndMore(Step):
    more: int = 0


Weight = NewType("Weight", Box)


class Inner(TypedDict):
    access: NotRequired[Access]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    report: Report
    steps: Annotated[list[Steps], operator.add]
    inner: dict[str, list[Inner]]
    choice: Literal[Level.LOW] | None


@dataclass
class Context:
    weight: Weight


class NodeInput(TypedDict):
    shouting: Shouting | Turning
    numbers: list[Positive]


def node(state: NodeInput) -> dict[str, Any]:
    return {}


def make_builder() -> StateGraph[Any, Any, Any, Any]:
    return StateGraph(State, Context).add_node("node", node)
