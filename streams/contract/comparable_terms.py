"""Which scores of different terms may stand in one sum, and how far back the sums reach. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter

from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import Terms


def comparable_since(in_order: Sequence[Terms], time_ms: int) -> int:
    """The time (ms) since which scores have meant the same as at `time_ms`. No sum may include scores from before it.

    `in_order`: all terms by `effective_from`, not empty.
    """
    begun = [terms for terms in in_order if terms.effective_from <= time_ms] or list(in_order[:1])
    # Terms whose successor begins at the same time never held: they were replaced before.
    held = [
        terms
        for terms, after in zip(begun, [*begun[1:], None], strict=True)
        if after is None or after.effective_from > terms.effective_from
    ]
    # Go back from the newest terms as long as each scores as the one after it.
    since = held[-1].effective_from
    for terms, after in zip(held[-2::-1], held[:0:-1], strict=True):
        if not score_alike(terms, after):
            break
        since = terms.effective_from
    return since


def kept_since(in_order: Sequence[Terms], time_ms: int, hours_of: Callable[[Terms], int]) -> int:
    """The time (ms) since which values are kept for the windows of the terms at `time_ms`; 0 if no terms were before.

    Under each terms values are kept for as long as their longest window reaches (`hours_of`). So a window that is made
    longer begins with what was kept until then, and grows. It does not matter when its terms became known: a plan knows
    them from their first moment on, a node from the command that applied them.
    """
    begun = [terms for terms in in_order if terms.effective_from <= time_ms]
    return max(
        (
            after.effective_from - hours_of(terms) * HOUR_MS
            for terms, after in pairwise(begun)
            if terms is in_order[0] or terms.effective_from < after.effective_from
        ),
        default=0,
    )


def sums_since(in_order: Sequence[Terms], time_ms: int) -> int:
    """The time (ms) since which scores count in the windows over sums of the terms at `time_ms`, of any length."""
    return max(comparable_since(in_order, time_ms), kept_since(in_order, time_ms, attrgetter("hours_max")))


def holds_past(in_order: Sequence[Terms], time_ms: int) -> bool:
    """Whether the windows over sums at this time may hold values that newcomers were given: by the terms of now, or by
    earlier ones that a window reaches.
    """
    begun = [terms for terms in in_order if terms.effective_from <= time_ms] or list(in_order[:1])
    ends = [*(after.effective_from for after in begun[1:]), time_ms + 1]
    first = time_ms + 1 - begun[-1].hours_max * HOUR_MS
    return any(
        terms.newcomer_past != "nothing" and end > first for terms, end in zip(begun, ends, strict=True)
    )


def score_alike(terms: Terms, other: Terms) -> bool:
    """Whether scores mean the same under both terms.

    The same contract always scores the same, although another release of the node may compute another `scoring_hash`
    of it.
    """
    return terms.contract_hash == other.contract_hash or terms.scoring_hash == other.scoring_hash


def adds_up(in_order: Sequence[Terms], contract_hash: str, held: Terms) -> bool:
    """Whether scores by this contract mean the same as scores under the terms `held`, which are among `in_order`.

    True for a contract that no terms name.
    """
    if contract_hash == held.contract_hash:
        return True
    of_contract = [terms for terms in in_order if terms.contract_hash == contract_hash]
    return not of_contract or any(score_alike(terms, held) for terms in of_contract)
