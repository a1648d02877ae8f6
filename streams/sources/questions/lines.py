"""Reads one line of a source of questions: a post as JSON, with times as ms or as text.

    {"do": "post", "round_id": "r1", "questions": [{"question_id": "q1", "payload": {..},
     "opens_at": "2026-11-30T12:00:00Z", "closes_at": "2026-12-01T12:00:00Z"}]}
    {"do": "resolve", "round_id": "r1", "truths": {"q1": {"outcome": 1}}}

`do` is post, close, resolve, void or stakes (`feeds/posts.py`). `at` may say when the post was made; a question without
`opens_at` opens then. The text that is given on follows from the line alone, since a post is known by its text. Pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from coordinator.streams.feeds.posted_json import posted_json
from coordinator.streams.setting_checks import FAR_FUTURE_MS

TIMES = ("opens_at", "closes_at", "resolves_at")


class PostLine(NamedTuple):
    """`at`: when the post was made, in ms; None if the line does not say. `text`: the post as `read_post` reads it."""

    at: int | None
    text: str


def read_line(line: str) -> PostLine:
    """The post of a line. Raises ValueError that says what is wrong."""
    try:
        post = posted_json(line, _no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(post, dict) or not isinstance(post.get("do"), str):
        raise ValueError(  # noqa: TRY004 - the line is at fault, as with any other reason
            'a post is an object with "do": post, close, resolve, void or stakes'
        )
    if post.get("at") is not None:
        post["at"] = _ms("at", post["at"])
    questions = post.get("questions")
    for question in questions if isinstance(questions, list) else []:
        if not isinstance(question, dict):
            continue  # refused where the post is decided
        if question.get("opens_at") is None and "at" in post:
            question["opens_at"] = post["at"]
        for name in TIMES:
            if question.get(name) is not None:
                question[name] = _ms(name, question[name])
    return PostLine(post.get("at"), msgspec.json.encode(post).decode())


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _ms(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _within(name, value)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} {str(value)[:40]!r} is neither ms since 1970 nor a time in ISO 8601"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{name} {str(value)[:40]!r} has no zone: end it with Z or +00:00")
    return _within(name, round(moment.timestamp() * 1000))


def _within(name: str, ms: int) -> int:
    if not 0 <= ms <= FAR_FUTURE_MS:
        raise ValueError(f"{name} {str(ms)[:40]} is not between 1970 and 9999: times are ms")
    return ms
