"""given(stage).own(past).when(topic, events).then(kinds): a stage as a conversation in events.

    given(stage).when("feeds", record, tick).then(InputReceived, InputsUntil)

`own` is what the stage decided in an earlier life, `when` delivers one counted decision of a source and takes every
decision that becomes due, `then` names what was decided since: kinds, or whole events. `made` gives those events,
`drafts` the decisions. No broker and no clock: offsets count up by themselves.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.streams.events import AnyEvent, Event
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position, encode_event
from coordinator.streams.log.stage import Draft, Stage


def decision(
    topic: str,
    offset: int,
    events: tuple[Event, ...] | list[Event],
    *,
    upto: dict[str, Position] | None = None,
    need: dict[str, Need] | None = None,
) -> Decision:
    """A counted decision as a reader would give it: through its bytes, so that what cannot travel fails here."""
    body = msgspec.Raw(b"[" + b",".join(encode_event(event) for event in events) + b"]")
    return Decision(
        topic, offset, offset, offset + 1, Need(offset, 1, offset), upto or {}, need or {}, (body,)
    )


class Given:
    """One stage under test."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.drafts: list[Draft] = []
        self.made: list[AnyEvent] = []
        self._offsets: dict[str, int] = {}
        self._own = 0

    def own(self, *events: Event) -> Given:
        """An own decision of an earlier life is remembered."""
        self.stage.remember(decision(self.stage.topic, self._own, events))
        self._own += 1
        return self

    def at(self, topic: str, offset: int) -> Given:
        """The next decision of a topic stands there."""
        self._offsets[topic] = offset
        return self

    def when(self, topic: str, *events: Event) -> Given:
        """One decision of a source arrives; everything that is due now is decided and remembered."""
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        self.stage.absorb(decision(topic, offset, events))
        self.drafts, self.made = [], []
        while (draft := self.stage.next_draft()) is not None:
            assert encoded(self.stage.next_draft()) == encoded(draft), "decide() is not pure"
            self.stage.remember(draft)
            self.drafts.append(draft)
            # As others will read them: through bytes.
            self.made += decision(self.stage.topic, 0, list(draft.events)).events
        return self

    def then(self, *expected: type[Event] | Event) -> Given:
        """The last `when` made exactly these events: a class stands for any event of its kind."""
        kinds = [kind if isinstance(kind, type) else type(kind) for kind in expected]
        assert [type(event) for event in self.made] == kinds
        for event, wanted in zip(self.made, expected, strict=True):
            assert isinstance(wanted, type) or event == wanted
        return self

    def only(self, kind: type[Any]) -> Any:
        """The one event of a kind that the last `when` made."""
        events_of_kind = self.all(kind)
        assert len(events_of_kind) == 1, (
            f"{len(events_of_kind)} events of {kind.__name__} in {[type(e).__name__ for e in self.made]}"
        )
        return events_of_kind[0]

    def all(self, kind: type[Any]) -> list[Any]:
        """Every event of a kind that the last `when` made."""
        return [event for event in self.made if isinstance(event, kind)]


def heard(stage: FeedStage, command: Decision) -> tuple[Draft | None, list[tuple[str, str]]]:
    """What the feed stage makes of a command, not remembered yet, and what of it is refused."""
    stage.absorb(command)
    return stage.next_draft(), stage.refused()


def encoded(draft: Draft) -> bytes:
    """A draft as bytes, to compare."""
    return msgspec.json.encode([list(draft.events), dict(draft.upto), dict(draft.need)])


def given(stage: Stage) -> Given:
    """Begin."""
    return Given(stage)
