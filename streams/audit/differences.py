"""What is recorded and what was computed again, as text for people: the fields that differ, and both figures.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import msgspec

SHOWN_CHARS = 120
LISTED_MAX = 3


class Outcome(Protocol):
    """How an answer ended, as recorded or as computed again."""

    @property
    def status(self) -> str: ...
    @property
    def units(self) -> dict[str, int] | None: ...
    @property
    def reason(self) -> str: ...


def difference(recorded: Any, again: Any, giving: str) -> str:
    """`key_units is 5, the snapshots give 6`: the first fields that differ. `giving` is `the snapshots give` there."""
    plain = (msgspec.to_builtins(recorded), msgspec.to_builtins(again))
    apart = islice(differences(*plain), LISTED_MAX)
    return "; ".join(
        f"{f'{field} is' if field else 'recorded is'} {short(was)}, {giving} {short(should)}"
        for field, was, should in apart
    )


def differences(recorded: Any, again: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path of a field, its recorded value, the other one) of each that differs in these plain values."""
    if isinstance(recorded, dict) and isinstance(again, dict):
        for name in dict.fromkeys((*recorded, *again)):
            yield from differences(
                recorded.get(name), again.get(name), f"{path}.{name}" if path else str(name)
            )
    elif isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        for index, pair in enumerate(zip(recorded, again, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif recorded != again or type(recorded) is not type(again):
        yield path.removeprefix("data."), recorded, again


def outcome_text(outcome: Outcome) -> str:
    """`SCORED {"value":5}`, `FAILED null why`: how an answer ended."""
    return f"{outcome.status} {short(outcome.units)} {outcome.reason}".strip()


def short(value: Any) -> str:
    """A plain value as JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}.."
