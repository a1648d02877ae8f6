"""Short ways to write posted questions in tests."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.given import decision
from tests.streams.build import MINUTE, T0, configured

from coordinator.streams import events as ev
from coordinator.streams.contract import Questions
from coordinator.streams.events import Feed
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.ports import FeedRecord

ASKED = Questions(ask_missing_seconds=0).terms()
"""A schedule that asks once, in one scope."""
FEED = Feed(source="questions", kind="question", granularity="1s")


def question(question_id: str = "q1", **changes: Any) -> ev.PostedQuestion:
    """A question that opens at T0 and closes ten minutes later. `payload` may be plain data."""
    fields: dict[str, Any] = {
        "question_id": question_id,
        "payload": {"title": "Will it rain?"},
        "opens_at": T0,
        "closes_at": T0 + 10 * MINUTE,
    } | changes
    return ev.PostedQuestion(**(fields | {"payload": raw(fields["payload"])}))


def raw(value: Any) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))


def post(*questions: ev.PostedQuestion, at: int = T0, round_id: str = "r1") -> ev.PostQuestions:
    data = ev.PostQuestionsData(round_id=round_id, questions=list(questions))
    return ev.PostQuestions(id=f"post/{at}/{len(questions)}", at=at, data=data)


def close(*question_ids: str, at: int = T0, round_id: str = "r1") -> ev.CloseQuestions:
    data = ev.CloseQuestionsData(round_id=round_id, question_ids=list(question_ids))
    return ev.CloseQuestions(id=f"close/{at}", at=at, data=data)


def resolve(
    truths: dict[str, Any], at: int = T0, round_id: str = "r1", *, again: bool = False
) -> ev.ResolveQuestions:
    data = ev.ResolveQuestionsData(
        round_id=round_id, truths={name: raw(truth) for name, truth in truths.items()}, again=again
    )
    return ev.ResolveQuestions(id=f"resolve/{at}", at=at, data=data)


def void(
    *question_ids: str, at: int = T0, round_id: str = "r1", reason: str = "annulled"
) -> ev.VoidQuestions:
    data = ev.VoidQuestionsData(round_id=round_id, reason=reason, question_ids=list(question_ids))
    return ev.VoidQuestions(id=f"void/{at}", at=at, data=data)


def stakes(at: int = T0, **table: str) -> ev.PostStakes:
    return ev.PostStakes(id=f"stakes/{at}", at=at, data=ev.StakesPostedData(stakes=table))


def as_post(command: Any) -> dict[str, Any]:
    """The command, as a source writes it."""
    names = {
        "PostQuestions": "post",
        "CloseQuestions": "close",
        "ResolveQuestions": "resolve",
        "VoidQuestions": "void",
        "PostStakes": "stakes",
    }
    return {
        "do": names[type(command).__name__],
        **msgspec.json.decode(msgspec.json.encode(command.data)),
    }


class Node:
    """A feed stage that receives commands, posts of a source, and the time. `restart` resumes it from its log."""

    def __init__(self, **changes: Any) -> None:
        self.log: list[list[ev.AnyEvent]] = []
        self.upto: list[Any] = []
        self.commands: list[Any] = []
        self.stage = FeedStage()
        self.terms = configured(**({"questions": ASKED} | changes))
        self._remember([self.terms], {})

    def _remember(self, events: list[ev.AnyEvent], upto: Any) -> None:
        self.log.append(events)
        self.upto.append(dict(upto))
        self.stage.remember(decision("feeds", len(self.log) - 1, events, upto=upto))

    def restart(self) -> None:
        self.stage = FeedStage()
        for offset, (events, upto) in enumerate(zip(self.log, self.upto, strict=True)):
            self.stage.remember(decision("feeds", offset, events, upto=upto))

    def tell(self, command: Any) -> tuple[list[ev.AnyEvent], list[tuple[str, str]]]:
        """(events, refusals) after a command."""
        self.commands.append(command)
        self.stage.absorb(decision("commands", len(self.commands) - 1, [command]))
        refused = self.stage.refused()
        draft = self.stage.next_draft()
        assert draft is not None
        self._remember(list(draft.events), draft.upto)
        return list(draft.events), refused

    def made(self, command: Any) -> list[ev.AnyEvent]:
        events, refused = self.tell(command)
        assert refused == []
        return events

    def refusals(self, command: Any) -> str:
        events, refused = self.tell(command)
        assert events == [], "nothing of a refused post is done"
        return "; ".join(f"{item}: {reason}" for item, reason in refused)

    def tick(self, at: int) -> None:
        self.offer(tick=at)

    def offer(self, *posts: tuple[int, Any], tick: int | None = None) -> list[ev.AnyEvent]:
        """Delivers posts of a source, each with its time."""
        records = [
            FeedRecord(
                "questions",
                "questions",
                "question",
                "1s",
                at,
                at,
                {"post": text if isinstance(text, str) else msgspec.json.encode(text).decode()},
            )
            for at, text in posts
        ]
        draft = self.stage.offer(records, tick, rehearsal=False)
        if draft is None:
            return []
        self._remember(list(draft.events), {})
        return list(draft.events)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for events in self.log for event in events]
