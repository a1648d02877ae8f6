"""given(stage).own(past).when(topic, events).then(kinds): a stage as a conversation in events.

    given(stage).when("feeds", record, tick).then(InputReceived, InputsUntil)

`own` are the stage's decisions from an earlier life. `when` delivers one counted decision of a source and takes every
decision that becomes due. `then` compares what was decided since then, by kind or by whole event. `made` are those
events, `drafts` the decisions. There is no broker and no clock: offsets count up by themselves.
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
    """A counted decision as a reader returns it, encoded and decoded, so that events that do not survive encoding fail
    here.
    """
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
        """Remembers one of the stage's own decisions from an earlier life."""
        self.stage.remember(decision(self.stage.topic, self._own, events))
        self._own += 1
        return self

    def at(self, topic: str, offset: int) -> Given:
        """The offset of a topic's next decision."""
        self._offsets[topic] = offset
        return self

    def when(self, topic: str, *events: Event) -> Given:
        """Delivers one decision of a source; every decision that is now due is taken and remembered."""
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        self.stage.absorb(decision(topic, offset, events))
        self.drafts, self.made = [], []
        while (draft := self.stage.next_draft()) is not None:
            assert encoded(self.stage.next_draft()) == encoded(draft), "decide() is not pure"
            self.stage.remember(draft)
            self.drafts.append(draft)
            # encoded and decoded, as others will read them
            self.made += decision(self.stage.topic, 0, list(draft.events)).events
        return self

    def then(self, *expected: type[Event] | Event) -> Given:
        """Asserts that the last `when` made exactly these events. A class matches any event of its kind."""
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
    """The feed stage's decision on a command, not yet remembered, and its refusals."""
    stage.absorb(command)
    return stage.next_draft(), stage.refused()


def encoded(draft: Draft) -> bytes:
    """A draft as bytes, to compare."""
    return msgspec.json.encode([list(draft.events), dict(draft.upto), dict(draft.need)])


def given(stage: Stage) -> Given:
    """Starts a conversation with a stage."""
    return Given(stage)
