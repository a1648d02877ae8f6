"""The faults of a run as data, so that a schedule can be drawn from a seed, printed, kept in a file, and made smaller.

Times are in seconds since the run's start. After the last fault comes the calm, in which the node must come to rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, get_args

import msgspec

WORKERS = ("feed", "predict", "score", "checkpoint")
TOPICS_SENT = {
    "feed": ("feeds", "inputs"),
    "predict": ("predictions", "models"),
    "score": ("scores", "snapshots"),
    "checkpoint": ("checkpoints",),
}
"""Worker -> the topics that it writes."""
STAGES = {
    "feed": ("input",),
    "predict": ("predict",),
    "score": ("score", "aggregate"),
    "checkpoint": ("checkpoint",),
}
"""Worker -> its stages, each with a consumer group of its own."""
RULES = ("first", "absence", "score")
"""The rules that an operator may apply in mid-run; `Challenge.rules` has their contracts."""
GARBAGE = b"garbage"
CORRECTED_MAX = 10**6
"""In micro-USDC: all of the simulated pool."""
GARBAGE_AMONG_COMMANDS = 0.2
"""The share of runs with garbage in the one topic into which others write, too."""
SEND_IS_LOST = 0.3
"""The share of runs in which a send certainly fails, and is not in the log."""
STATES_OFTEN = 0.5
"""The share of runs in which new owners begin at recorded states."""
MODEL_MISBEHAVES = 0.3
"""The share of runs in which a model certainly does wrong, and is charged for it."""


class _Fault(msgspec.Struct, frozen=True, tag_field="fault", forbid_unknown_fields=True):
    pass


class Crash(_Fault, frozen=True, tag="crash"):
    """The process that makes the `send`-th send to `topic` is killed in the middle of it.

    Of its records on their way `landing` still reach the log, `late_seconds` later. It is started again after
    `back_seconds`.
    """

    topic: str
    send: int
    landing: int
    late_seconds: float
    back_seconds: float

    def __str__(self) -> str:
        landing = f"{self.landing} on their way land {self.late_seconds:g} s later"
        return f"crash at send {self.send} to {self.topic}; {landing}; back after {self.back_seconds:g} s"


class SendFails(_Fault, frozen=True, tag="send_fails"):
    """The `send`-th send to `topic` is reported as failed; `lands`: its record is in the log all the same."""

    topic: str
    send: int
    lands: bool

    def __str__(self) -> str:
        return f"send {self.send} to {self.topic} fails{', and lands' if self.lands else ''}"


class Cut(_Fault, frozen=True, tag="cut"):
    """The owner of a worker's stages is cut off from the log, and comes back: a zombie.

    `successor`: meanwhile another process is assigned its partitions, and the first is told so only when it is back.
    """

    worker: str
    at: float
    seconds: float
    successor: bool

    def __str__(self) -> str:
        successor = ", another takes over meanwhile" if self.successor else ""
        return f"{self.at:g} s: {self.worker} is cut off from the log for {self.seconds:g} s{successor}"


class Claimants(_Fault, frozen=True, tag="claimants"):
    """Two processes of a worker both believe that the partitions are theirs, for a while."""

    worker: str
    at: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:g} s: two processes of {self.worker} claim its topics for {self.seconds:g} s"


class Delivered(_Fault, frozen=True, tag="delivered"):
    """A stage's delivery continues elsewhere: `back` records are delivered again, or skipped if it is negative."""

    stage: str
    at: float
    back: int

    def __str__(self) -> str:
        what = f"delivers {self.back} records again" if self.back > 0 else f"skips {-self.back} records"
        return f"{self.at:g} s: the consumer group of {self.stage} {what}"


class Garbage(_Fault, frozen=True, tag="garbage"):
    """A foreign record stands in a topic: garbage, or (`repeats` > 0) a copy of the record so many places before."""

    topic: str
    at: float
    repeats: int

    def __str__(self) -> str:
        what = f"a copy of the {self.repeats}. record from its end" if self.repeats else "garbage"
        return f"{self.at:g} s: {what} in {self.topic}"


class ModelsAway(_Fault, frozen=True, tag="models_away"):
    """The orchestrator does not answer."""

    at: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:g} s: no orchestrator for {self.seconds:g} s"


class ModelDoes(_Fault, frozen=True, tag="model_does"):
    """For a while one model `hangs`, `raises`, is `slow`, answers something that is no `number`, or has `left`."""

    model: int
    at: float
    seconds: float
    what: str

    def __str__(self) -> str:
        what = {
            "number": "answers with no number",
            "slow": "answers slowly",
            "left": "has left",
        }.get(self.what, self.what)
        return f"{self.at:g} s: model m{self.model} {what} for {self.seconds:g} s"


class FeedAway(_Fault, frozen=True, tag="feed_away"):
    """The source is away: no stream, no history."""

    at: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:g} s: no feed for {self.seconds:g} s"


class RecordIs(_Fault, frozen=True, tag="record_is"):
    """The record of an instant comes `late`, `twice`, in the history only (`lost`), `never`, or is `corrected`."""

    at: float
    what: str
    seconds: float

    def __str__(self) -> str:
        later = f" {self.seconds:g} s later" if self.what in ("late", "corrected") else ""
        return f"{self.at:g} s: the record is {self.what}{later}"


class ClockJumps(_Fault, frozen=True, tag="clock_jumps"):
    """For a while the wall clock of every process is wrong by `by_seconds`."""

    at: float
    seconds: float
    by_seconds: float

    def __str__(self) -> str:
        return f"{self.at:g} s: the clock is {self.by_seconds:+g} s wrong for {self.seconds:g} s"


class OperatorDoes(_Fault, frozen=True, tag="operator_does"):
    """The operator does more than pay: `withhold`, `ban`, `readmit`, or sends every command `twice` from then on."""

    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.at:g} s: the operator does {self.what}"


class Rebuilt(_Fault, frozen=True, tag="rebuilt"):
    """Every process is killed at once, and the node begins anew from its log: all that it keeps beside the log is gone.

    That is what a restored backup, or another machine, gets. The consumer groups are forgotten, too.
    """

    at: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:g} s: the node is gone for {self.seconds:g} s, and is built anew from its log"


class RulesApplied(_Fault, frozen=True, tag="rules_applied"):
    """The operator applies other rules: one of `Challenge.rules`, by its name."""

    at: float
    rules: str

    def __str__(self) -> str:
        return f"{self.at:g} s: the operator applies the rules {self.rules!r}"


Restated = Literal["never", "soon", "carried"]
PERIODS_TO_CARRY = 3
"""Until a checkpoint is offered and corrected, another has carried the correction, and a third has carried the rest."""


class Corrected(_Fault, frozen=True, tag="corrected"):
    """The operator corrects the first checkpoint that is `offered` or `paid` from then on: its last place should have
    got `micro_usdc` of its first. `restated`: a second statement, of half as much, follows `soon` after the first; or
    the first is of half as much, and the second of all once a later checkpoint has `carried` the first.
    """

    at: float
    status: str
    micro_usdc: int
    restated: Restated

    def __str__(self) -> str:
        then = {
            "never": "",
            "soon": ", and then by half of it",
            "carried": ", by half of it until a checkpoint has carried that",
        }[self.restated]
        return (
            f"from {self.at:g} s: the first checkpoint {self.status} is corrected by {self.micro_usdc}{then}"
        )


Fault = (
    Crash
    | SendFails
    | Cut
    | Claimants
    | Delivered
    | Garbage
    | ModelsAway
    | ModelDoes
    | FeedAway
    | RecordIs
    | ClockJumps
    | OperatorDoes
    | Rebuilt
    | RulesApplied
    | Corrected
)
Deed = OperatorDoes | RulesApplied | Corrected
"""What the operator does belongs to the world: a run without faults has it, too."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides a run, except the contract. The same schedule and version give the same log."""

    seed: int
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    models: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    latency_ms: float
    """How long a send is on its way."""
    has_clock: bool
    """Whether the source can be asked for the time."""
    faults: tuple[Fault, ...]
    states_often: bool = False
    """Whether stages record their states every few decisions, so that a new owner begins at one. Else a run is too
    short for any.
    """

    @property
    def until_seconds(self) -> float:
        """The end of the last fault that has a time."""
        ends = (getattr(fault, "at", 0.0) + getattr(fault, "seconds", 0.0) for fault in self.faults)
        return max(ends, default=0.0)


def draw(seed: int, rounds: int, round_seconds: float, granularity_seconds: float) -> Schedule:
    """The schedule of a seed. Pure."""
    rng = random.Random(seed)
    seconds = rounds * round_seconds
    drawing: list[Callable[[], Fault]] = [
        lambda: _crash(rng, rounds),
        lambda: _crash(rng, rounds),
        lambda: _crash(rng, rounds),
        lambda: SendFails(*_send(rng, rounds), rng.choice((True, False))),
        lambda: Cut(rng.choice(WORKERS), _at(rng, seconds), _while(rng), rng.choice((True, True, False))),
        lambda: Claimants(rng.choice(WORKERS), _at(rng, seconds), _while(rng)),
        lambda: Claimants(rng.choice(WORKERS), _at(rng, seconds), _while(rng)),
        lambda: Delivered(
            rng.choice(STAGES[rng.choice(WORKERS)]), _at(rng, seconds), rng.choice((-3, 2, 20, 200))
        ),
        lambda: Garbage(
            rng.choice(rng.choice(list(TOPICS_SENT.values()))), _at(rng, seconds), rng.choice((0, 0, 1, 2, 7))
        ),
        lambda: ModelsAway(_at(rng, seconds), _while(rng)),
        lambda: ModelDoes(
            rng.randrange(3),
            _at(rng, seconds),
            _while(rng),
            rng.choice(("hangs", "raises", "slow", "number", "left")),
        ),
        lambda: FeedAway(_at(rng, seconds), _while(rng)),
        lambda: RecordIs(
            _at(rng, seconds) // granularity_seconds * granularity_seconds,
            rng.choice(("late", "twice", "lost", "never", "corrected")),
            rng.choice((1.5, 7.0, 40.0)),
        ),
        lambda: ClockJumps(
            _at(rng, seconds),
            _while(rng),
            rng.choice((-3600.0, -15.0, -2.0, 1.0, 8.0, 100.0, 3600.0, 86400.0)),
        ),
        lambda: OperatorDoes(_at(rng, seconds), rng.choice(("withhold", "ban", "readmit", "twice"))),
    ]
    models, latency_ms, has_clock = (
        rng.choice((2, 3, 5)),
        rng.choice((0.0, 2.0, 50.0, 700.0)),
        rng.choice((True, False)),
    )
    # Some seeds draw from a few kinds of fault only, so that these meet each other more often.
    drawing = rng.sample(drawing, rng.choice((1, 3, len(drawing))))
    faults = tuple(rng.choice(drawing)() for _ in range(rng.choice((1, 2, 4, 8))))
    return Schedule(
        seed,
        rounds,
        models,
        latency_ms,
        has_clock,
        (*faults, *_rare(seed, seconds), *_often(seed, rounds, seconds)),
        states_often=random.Random(f"{seed} states").random() < STATES_OFTEN,
    )


def _rare(seed: int, seconds: float) -> Iterator[Fault]:
    """Faults that a run has rarely. They have numbers of their own, so the seeds of the others stay the same."""
    rng = random.Random(f"{seed} rare")
    drawing: list[Callable[[], Fault]] = [
        lambda: Rebuilt(_at(rng, seconds), rng.choice((0.4, 3.0, 20.0))),
        lambda: RulesApplied(_at(rng, seconds), rng.choice(RULES)),
        lambda: Corrected(
            _at(rng, seconds),
            rng.choice(("offered", "paid")),
            rng.choice((1, 1000, CORRECTED_MAX)),
            rng.choice(get_args(Restated)),
        ),
    ]
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        yield rng.choice(drawing)()


def _often(seed: int, rounds: int, seconds: float) -> Iterator[Fault]:
    """Faults that a share of the runs must have."""
    often = random.Random(f"{seed} often")
    if often.random() < GARBAGE_AMONG_COMMANDS:
        yield Garbage("commands", _at(often, seconds), 0)
    if often.random() < MODEL_MISBEHAVES:
        what = often.choice(("raises", "number", "hangs"))
        yield ModelDoes(often.randrange(3), _at(often, seconds), often.choice((12.0, 45.0)), what)
    if often.random() < SEND_IS_LOST:
        yield SendFails(*_send(often, rounds), lands=False)


def _at(rng: random.Random, seconds: float) -> float:
    return round(rng.uniform(0, seconds), 2)


def _while(rng: random.Random) -> float:
    return rng.choice((0.4, 3.0, 12.0, 45.0))


def _send(rng: random.Random, rounds: int) -> tuple[str, int]:
    topic = rng.choice(TOPICS_SENT[rng.choice(WORKERS)])
    usual = {"feeds": 10 * rounds, "models": 3, "checkpoints": max(4, rounds // 3)}.get(topic, 2 * rounds)
    return topic, rng.randint(1, usual)


def _crash(rng: random.Random, rounds: int) -> Crash:
    return Crash(
        *_send(rng, rounds),
        rng.choice((0, 0, 1, 2)),
        rng.choice((0.0, 0.5, 20.0)),
        rng.choice((0.2, 2.0, 14.0)),
    )
