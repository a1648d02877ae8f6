"""The models of the played questions, for the tests and for the predict worker that they start and kill.

`crashing_worker.py` asks those of `COORDINATOR_TEST_MODELS`. A process may die, so what a model must remember of an
earlier asking is a file in the folder that the worker runs in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def linear(number: int, table: Sequence[Sequence[float]]) -> list[float]:
    """The answers of the tournament's model of this number: its first feature, with a growing part of the others."""
    weights = [1.0 / (1 + number), *(0.1 * number for _ in table[0][1:])]
    return [round(math.fsum(w * x for w, x in zip(weights, row, strict=True)), 6) for row in table]


def of_tournament(models: int) -> dict[str, Callable[[Any], Any]]:
    """model_id -> its answer to a question's data."""

    def behaviour(number: int) -> Callable[[Any], Any]:
        return lambda data: linear(number, data["rows"])

    return {f"m{number:02}": behaviour(number) for number in range(models)}


def of_events(_: int) -> dict[str, Callable[[Any], Any]]:
    """The four models of the played events: each question's payload has the answer of each, and which is down for how
    long.
    """

    def behaviour(model_id: str) -> Callable[[Any], Any]:
        def answer(data: Any) -> Any:
            asked = Path(f"asked-{model_id}-{data['question_id']}")
            is_first = not asked.exists()
            asked.touch()
            if data["down"][model_id][0 if is_first else 1]:
                raise RuntimeError("down")
            return {"value": data["said"][model_id]}

        return answer

    return {model_id: behaviour(model_id) for model_id in ("even", "bold", "late", "gone")}


def behaviours(text: str) -> dict[str, Callable[[str, Sequence[Any]], Any]]:
    """Those of a text such as `of_tournament:5`, as `FakeGateway` takes them: a tick tells, then comes the question."""
    name, _, count = text.partition(":")

    def behaviour(answer: Callable[[Any], Any]) -> Callable[[str, Sequence[Any]], Any]:
        told: list[Any] = [None]

        def call(method: str, arguments: Sequence[Any]) -> Any:
            if method == "tick":
                told[0] = arguments[0]
                return None
            return answer(told[0])

        return call

    return {model_id: behaviour(answer) for model_id, answer in globals()[name](int(count or 0)).items()}
