"""Faults of the market: silent, in part silent, lying, in the wrong order, away, too much."""

from __future__ import annotations

from typing import Any

from coordinator.cli.drills.drill import Drill, Step
from coordinator.cli.drills.market import SUBJECTS
from coordinator.cli.drills.scratch import ScratchNode

LIE = 100.0
TOLD_SECONDS = 20
WAIT = "Wait: records of the outage are asked of history when the source is back."


def market(**lies: Any) -> Step:
    """A step that gives the market these attributes."""

    def step(node: ScratchNode) -> None:
        for name, value in lies.items():
            setattr(node.market, name, value)

    return step


def _gone(node: ScratchNode) -> None:
    for subject in SUBJECTS:
        path = node.market.path(subject)
        path.rename(path.with_suffix(".away"))


def _back(node: ScratchNode) -> None:
    for subject in SUBJECTS:
        path = node.market.path(subject)
        path.with_suffix(".away").rename(path)


DRILLS = (
    Drill(
        name="feed-silent",
        breaks="The source says nothing more of any subject.",
        alert="feed",
        inject=market(silent=set(SUBJECTS)),
        end=market(silent=set()),
        ends_by=WAIT,
    ),
    Drill(
        name="subject-silent",
        breaks="The source says nothing more of one of two subjects.",
        alert="feed",
        inject=market(silent={SUBJECTS[1]}),
        end=market(silent=set()),
        ends_by=WAIT,
    ),
    Drill(
        name="source-gone",
        breaks="The source is away: its files are not there any more.",
        alert="feed",
        inject=_gone,
        end=_back,
        ends_by="Bring the source back, or wait until it is. " + WAIT,
    ),
    Drill(
        name="price-lie",
        breaks="The source says prices that are a hundred times too high.",
        alert="feed",
        inject=market(factor=LIE),
        end=market(factor=1.0),
        ends_by="Correct the checkpoint if it is wrong; the alert ends after PRICE_JUMP_TOLD_SECONDS.",
        settings={"PRICE_JUMP_TOLD_SECONDS": str(TOLD_SECONDS)},
    ),
    Drill(
        name="load-tenfold",
        breaks="The source sends each candle ten times.",
        holds="What the log holds is not doubled, and the node keeps up.",
        inject=market(repeats=10),
        end=market(repeats=1),
        ends_by="Nothing is to be done.",
    ),
    Drill(
        name="candle-order",
        breaks="Of two candles the later one comes first.",
        holds="A candle that comes late completes what waits for it, and opens nothing.",
        inject=market(swapped=True),
        end=market(swapped=False),
        ends_by="Nothing is to be done.",
    ),
    Drill(
        name="feed-flood",
        breaks="The source sends forty lines a second that are no candle, among good ones.",
        alert="log",
        inject=market(unreadable_lines=20),
        end=market(unreadable_lines=0),
        ends_by="Mend what the source sends; the alert ends a minute after the last of it.",
    ),
)
