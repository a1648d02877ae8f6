"""Faults of the market: silent, in part silent, lying, in the wrong order, away, too much."""

from __future__ import annotations

from typing import Any

from coordinator.cli.drills.drill import Drill, Step
from coordinator.cli.drills.market import SUBJECTS
from coordinator.cli.drills.scratch import ScratchNode

LIE = 100.0
TOLD_SECONDS = 20
WAIT = "Wait. When the source is back, the node asks its history for the records of the outage."


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
        breaks="The source sends no more records of any subject.",
        alert="feed",
        inject=market(silent=set(SUBJECTS)),
        end=market(silent=set()),
        ends_by=WAIT,
    ),
    Drill(
        name="subject-silent",
        breaks="The source sends no more records of one of two subjects.",
        alert="feed",
        inject=market(silent={SUBJECTS[1]}),
        end=market(silent=set()),
        ends_by=WAIT,
    ),
    Drill(
        name="source-gone",
        breaks="The source is gone: its files do not exist any more.",
        alert="feed",
        inject=_gone,
        end=_back,
        ends_by="Restart the source, or wait until it is back. " + WAIT,
    ),
    Drill(
        name="price-lie",
        breaks="The source sends prices that are a hundred times too high.",
        alert="feed",
        inject=market(factor=LIE),
        end=market(factor=1.0),
        ends_by="Correct the checkpoint if it is wrong; the alert ends after PRICE_JUMP_TOLD_SECONDS.",
        settings={"PRICE_JUMP_TOLD_SECONDS": str(TOLD_SECONDS)},
    ),
    Drill(
        name="load-tenfold",
        breaks="The source sends each candle ten times.",
        holds="The log holds each candle once, and the node keeps up.",
        inject=market(repeats=10),
        end=market(repeats=1),
        ends_by="Nothing has to be done.",
    ),
    Drill(
        name="candle-order",
        breaks="Two candles arrive in the wrong order.",
        holds="A late candle completes the truths that wait for it, and opens no input.",
        inject=market(swapped=True),
        end=market(swapped=False),
        ends_by="Nothing has to be done.",
    ),
    Drill(
        name="feed-flood",
        breaks="Among good candles the source sends forty lines a second that are not candles.",
        alert="log",
        inject=market(unreadable_lines=20),
        end=market(unreadable_lines=0),
        ends_by="Repair the source. The alert ends a minute after the last bad line.",
    ),
)
