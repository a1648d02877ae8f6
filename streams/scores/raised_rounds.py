"""Finds the answers that a contract's `score_round` cannot score, where it raised in their round.

Otherwise one absurd answer would take the score from all models of its round. The stage and the audit search in the
same way, each with its own code that calls the function. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

ANSWERS_TRIED_MAX = 200_000
"""How many answers may be given to the function during one search, all its calls together: that takes some seconds."""
CALLS_MAX = 256
"""How often the function may be called in one search with some of the answers: a slow one may take a second each time.
To blame half of the answers or more, it is called once more for each of these.
"""
_CHUNKS = (1, 2, 4, 8)
"""Into how many parts the answers are divided, one after another, until the function scores one of the parts."""

Places = Sequence[int]


class _Exhausted(Exception):  # noqa: N818 - no error: the search ends
    """No further call is allowed."""


def scorable_places(
    outputs: Sequence[bytes | msgspec.Raw],
    answered: Places,
    scores: Callable[[Places], bool],
    scores_same: Callable[[int | None], bool],
) -> list[int] | None:
    """The places of the answers that the function scores together; None if it is not clear which ones it cannot score.

    `scores`: whether the function scores a round with the answers at these places, in which the other models failed.
    `scores_same`: whether it scores the round if all answers are the one at this place; for None, a sample answer.
    Each answer that is not in the result makes the function raise beside those that are. Answers of the form that most
    of them have come first, so that it is not a single list of another length that decides which length is right. If
    the result is half of the answers or less, each of the others makes the function raise by itself. And each makes it
    raise beside either half of the result: what fails only beside all of them, such as a sum of zero, is no model's
    fault.
    """
    calls_left = min(CALLS_MAX, ANSWERS_TRIED_MAX // max(len(outputs), 1))

    def works(places: Places) -> bool:
        nonlocal calls_left
        calls_left -= 1
        if calls_left < 0:
            raise _Exhausted
        return scores(sorted(places))

    try:
        together = _start(_of_usual_form(outputs, answered), works)
        if not together:
            if not scores_same(None):
                return None  # it scores nothing: its author is to blame
            together = _joined([], answered, works)
        for _ in range(2):  # the first answers may have been refused only because too few were beside them
            together = _joined(together, _without(answered, together), works)
        blamed = _without(answered, together)
        if len(blamed) >= len(together) and any(scores_same(place) for place in blamed):
            return None
        if any(works([*half, place]) for place in blamed for half in _divided(together, 2)):
            return None
    except _Exhausted:
        return None
    return sorted(together) if blamed else None


def _start(places: Places, works: Callable[[Places], bool]) -> list[int]:
    """Some of the answers that the function scores; none, if no large part of them is found."""
    for parts in _CHUNKS:
        for chunk in _divided(places, parts):
            for tried in (_without(places, chunk), list(chunk)):
                if tried and works(tried):
                    return tried
    return []


def _joined(together: list[int], rest: Places, works: Callable[[Places], bool]) -> list[int]:
    """`together`, and each place of the rest with which it still works. Halves are tried before single places."""
    if not rest:
        return together
    if works([*together, *rest]):
        return [*together, *rest]
    if len(rest) == 1:
        return together
    for half in _divided(rest, 2):
        together = _joined(together, half, works)
    return together


def _without(places: Places, some: Places) -> list[int]:
    left_out = set(some)
    return [place for place in places if place not in left_out]


def _divided(places: Places, parts: int) -> Iterator[Places]:
    size = -(-len(places) // parts)
    return (places[i : i + size] for i in range(0, len(places), size)) if places else iter(())


def _of_usual_form(outputs: Sequence[bytes | msgspec.Raw], answered: Places) -> Places:
    """The answers of the form that more than half of them have; all, if there is none."""
    forms = {place: _form(msgspec.json.decode(outputs[place])) for place in answered}
    form, count = Counter(forms.values()).most_common(1)[0]
    return [place for place in answered if forms[place] == form] if 2 * count > len(answered) else answered


def _form(value: Any) -> Any:
    """The names and lengths in a JSON value, without its numbers and texts."""
    if isinstance(value, dict):
        return tuple((name, _form(inner)) for name, inner in sorted(value.items()))
    if isinstance(value, list):
        forms = [_form(inner) for inner in value if isinstance(inner, (dict, list))]
        return (len(value), *forms)
    return None
