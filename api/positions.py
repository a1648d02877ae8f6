"""The position in the log that an answer shows, as text, and the headers of every answer from read models. Pure.

X-As-Of          `live`, `time 2023-03-10T00:00:00.000Z` or `offsets`
X-Log-Position   `models:7.scores:90`: per topic that was read, the next offset. `~93` names a decision behind it
that counts too, since it was known by then. `as_of_offsets` takes the same text.
X-State-Hash     `leaderboard=<64 hex>`: per read model, what `coordinator replay` prints when it stops there
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from coordinator.projections.folding.as_of import KEEPERS, Cut, Cuts
from coordinator.projections.folding.projection import Projection

OFFSETS_CHARS_MAX = 6_000
_OFFSET = "(?:0|[1-9][0-9]{0,17})"
_PART = f"({'|'.join(sorted(KEEPERS))}):({_OFFSET})((?:~{_OFFSET})*)"
_POSITION = re.compile(rf"{_PART}(?:\.{_PART})*")
_part = re.compile(_PART)
PATTERN = "^" + _POSITION.pattern + "$"


class ContradictionError(ValueError):
    """The question is well formed and contradicts itself: it names two moments, or one cut twice."""


def position_text(cuts: Cuts) -> str:
    """The cuts as `X-Log-Position` says them."""
    return ".".join(
        f"{topic}:{cut.offset}" + "".join(f"~{offset}" for offset in cut.late)
        for topic, cut in sorted(cuts.items())
    )


def parse_position(text: str) -> dict[str, Cut]:
    """The cuts that a text of `X-Log-Position` names.

    Raises ValueError with a sentence, ContradictionError where the form is right.
    """
    cut_of_topic: dict[str, Cut] = {}
    if len(text) > OFFSETS_CHARS_MAX:
        raise ValueError(f"as_of_offsets has more than {OFFSETS_CHARS_MAX} characters")
    if _POSITION.fullmatch(text) is None:
        raise ValueError(
            "as_of_offsets is topic:offset joined by '.', as X-Log-Position says it; the topics are "
            + ", ".join(sorted(KEEPERS))
        )
    for topic, offset, late in _part.findall(text):
        if topic in cut_of_topic:
            raise ContradictionError(f"as_of_offsets names {topic} twice")
        behind = tuple(int(part) for part in late.split("~")[1:])
        if list(behind) != sorted(set(behind)) or (behind and behind[0] < int(offset)):
            raise ContradictionError(f"the decisions behind the cut of {topic} are not in order")
        cut_of_topic[topic] = Cut(int(offset), behind)
    return cut_of_topic


def headers_of(used: Sequence[Projection], cuts: Cuts, stands_for: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer made from the read models `used`, at `cuts`."""
    hashes = ", ".join(f"{read.name}={read.store.state_hash}" for read in used)
    headers = [(b"x-log-position", position_text(cuts).encode())]
    if hashes:
        headers.append((b"x-state-hash", hashes.encode()))
    if stands_for:
        headers.append((b"x-as-of", stands_for.encode()))
    return headers
