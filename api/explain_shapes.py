"""The shape of an explanation: that of `streams/audit/explain/steps.py`, and of `coordinator explain --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coordinator.api.shapes import Shape


class Source(Shape):
    """An event in the log."""

    topic: str = Field(examples=["scores"])
    offset: int = Field(description="Of the append that completes its decision.")
    event_id: str
    kind: str = Field(examples=["RoundScored"])
    at_ms: int = Field(description="Event time, ms since 1970.")


class Value(Shape):
    """One number or fact."""

    name: str
    exact: str = Field(description="It in full: a whole number's digits, or JSON.", examples=["190000000"])
    shown: str = Field(description="It for people.", examples=["0.190000000"])
    source: Source | None


class Step(Shape):
    """One step from the events to the figure."""

    name: str
    rule: str = Field(description="How the result follows from the inputs, in words.")
    sources: list[Source]
    inputs: list[Value]
    result: list[Value] = Field(description="As it is recorded.")
    agrees: bool | None = Field(
        description="Is what was computed again what is recorded? Null: not computed again, see `note`."
    )
    note: str
    left_out: int = Field(description="How many further inputs are not listed.")


class Explanation(Shape):
    """A figure and its life."""

    kind: Literal["prediction", "ensemble", "snapshot", "share", "place", "scope", "copies"]
    id: str
    title: str
    agrees: bool | None = Field(description="False if a step's figure is not the recorded one.")
    hidden_until_ms: int | None = Field(
        description="Until when the answer is hidden: neither it nor what follows is explained before."
    )
    steps: list[Step]
