"""A crunch worth looking at, as records of its topics: days of rounds, periods, checkpoints, holes, every ending.

All numbers follow from the models' numbers, so that two runs show the same page.
"""

from __future__ import annotations

import math

import msgspec
from tests.logs import CONTRACT_HASH, HOUR_MS, MINUTE_MS, START_MS, TX_HASH, UNIT, LogBuilder
from tests.posted import add_questions

from coordinator.streams import events as ev
from coordinator.streams.log import ids

HOSTILE = """<img src=x onerror="window.injected=1">'&amp; 模型 """ + "long " * 20
CRUNCHERS = ("ada", "babbage", "curie", "dirac", "euler", "fermi", "gauss", "hopper", "ito", "jaynes")
HOLE = "the exchange closed the connection (1006), history has no trades for the minute"


def name_of(i: int) -> str:
    if i == 9:
        return HOSTILE
    kinds = ("momentum", "mean-revert", "kalman", "garch", "orderflow", "ridge", "lstm", "carry")
    return f"{kinds[i % len(kinds)]}-{i // len(kinds) + 1}"


def skill(i: int, hour: float) -> float:
    """The score of model i around an hour: better ones have low numbers, and all drift."""
    return round(0.35 - 0.7 * ((i * 37) % 101) / 101 + 0.12 * math.sin(hour / 5 + i) - i / 4000, 9)


def rich_log(models: int = 40, hours: int = 30, rounds_an_hour: int = 4) -> LogBuilder:
    """`models` models over `hours` hours; model 3 is often absent, 5 failed, 7 left, 8 never answered."""
    log = LogBuilder()
    log.terms()
    names = [f"m{i:04}" for i in range(models)]
    for i, model_id in enumerate(names):
        log.model(
            model_id, model_name=name_of(i), cruncher_name=CRUNCHERS[i % len(CRUNCHERS)], cruncher_id=str(i)
        )
    for hour in range(hours):
        for n in range(rounds_an_hour):
            add_round(log, names, hour * 60 + n * (60 // rounds_an_hour))
        for minute in range(0, 60, 5):
            log.record(START_MS + (hour * 60 + minute) * MINUTE_MS, price=str(23_000 + hour * 7 + minute))
        log.tick(START_MS + (hour + 1) * HOUR_MS)
        log.inputs_until((hour + 1) * HOUR_MS)
        log.scored_until((hour + 1) * HOUR_MS)
        add_snapshots(log, names, hour, rounds_an_hour)
    add_holes(log)
    if models > 7:
        log.model_left(names[7])
    reported = ev.ModelFailureData(
        model_id=names[5], deployment_id=f"{names[5]}-d1", code="MULTIPLE_FAILED", reason="100 rounds without an answer"
    )  # fmt: skip
    log.append("models", ev.ModelFailureReported(id="failed/5", at=START_MS + 5 * HOUR_MS, data=reported))
    add_questions(log, answered=False)
    return log


def add_round(log: LogBuilder, names: list[str], minute: int, *, tick: bool = False, lift: str = "") -> None:
    """One round. `lift` names a model that now scores best of all."""
    answers: dict[str, float | str] = {}
    for i, model_id in enumerate(names):
        if i == 8 or (i == 3 and minute % 45 == 0):
            answers[model_id] = "ABSENT"
        elif i == 5 and minute % 2 == 0:
            answers[model_id] = "FAILED"
        else:
            answers[model_id] = skill(i, minute / 60)
    if lift:
        answers[lift] = 1.0
    log.round(minute * MINUTE_MS, answers)
    if tick:
        log.tick(START_MS + (minute + 2) * MINUTE_MS)
        log.inputs_until((minute + 2) * MINUTE_MS)


def add_snapshots(log: LogBuilder, names: list[str], hour: int, rounds: int) -> None:
    start, end = START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS
    taken: list[ev.Event] = []
    for i, model_id in enumerate(names):
        if i == 8:
            continue
        absent = rounds // 2 if i == 3 else 0
        units = round(skill(i, hour) * UNIT)
        windows: dict[str, int | None] = {
            "score_recent": units, "score_steady": round(units * 0.9), "score_anchor": round(units * 0.8) if hour > 4 else None
        }  # fmt: skip
        data = ev.SnapshotTakenData(
            snapshot_id=ids.snapshot_id(model_id, start, end), model_id=model_id, period_start=start, period_end=end,
            sums={"value": ev.FieldSum(units * rounds, rounds)}, windows_units=windows,
            summary_units={"value": units, "max_drawdown": -250_000_000},
            scored_count=rounds - absent, failed_count=int(i == 5), absent_model_count=absent,
            absent_node_count=int(hour == 9), charged_count=0, rehearsal=True, contract_hash=CONTRACT_HASH,
        )  # fmt: skip
        taken.append(ev.SnapshotTaken(id=data.snapshot_id, at=end, data=data))
    closed = ev.PeriodClosedData(from_ms=start, until_ms=end, snapshot_count=len(taken), rehearsal=True)
    log.append("snapshots", *taken, ev.PeriodClosed(id=f"period/{end}", at=end, data=closed))
    if hour % 6 == 5:
        add_checkpoint(log, names, hour - 5)


def correct_first(log: LogBuilder, names: list[str]) -> ev.Credits:
    """Corrects the first checkpoint. Returns what the second one carries for it."""
    first = ids.checkpoint_id(log.crunch_id, START_MS, START_MS + 6 * HOUR_MS)
    models = [
        ev.ModelCorrection(model_id=names[0], paid=9_000, due=8_000),
        ev.ModelCorrection(model_id=names[1], paid=0, due=1_000),
    ]
    correction = ev.CheckpointCorrectedData(
        correction_id="correction/1", checkpoint_id=first, total_prize=10_000, models=models,
        reason="the close of 00:07 was wrong", command_id="c",
    )  # fmt: skip
    log.append(
        "checkpoints",
        ev.CheckpointCorrected(id="correction/1:c", at=START_MS + 11 * HOUR_MS, data=correction),
    )
    return ev.Credits(
        correction_id="correction/1", checkpoint_id=first, reason=correction.reason, prizes={names[1]: 1_000}
    )


def add_checkpoint(log: LogBuilder, names: list[str], hour: int) -> None:
    """Periods of six hours: the first is paid, the second under way, the third withheld, the rest offered."""
    order = sorted((i for i in range(len(names)) if i != 8), key=lambda i: -skill(i, hour + 3))
    tiers = [350_000_000] + [100_000_000] * 4 + [50_000_000] * 5
    shares = {names[i]: tiers[place] if place < len(tiers) else 0 for place, i in enumerate(order)}
    left = 1_000_000_000 - sum(shares.values())
    shares[names[order[0]]] += left
    keys = {names[i]: round(skill(i, hour + 3) * UNIT) for i in order}
    data = log.checkpoint_data(hour * HOUR_MS, shares, keys)
    number, at = hour // 6, data.period_end
    if number == 1:
        data = msgspec.structs.replace(data, credits=[correct_first(log, names)])
    if number == 2:
        held = ev.CheckpointWithheldData(
            reason="scores do not add up: 2 predictions of m0003 have no end", checkpoint=data
        )
        log.append(
            "checkpoints", ev.CheckpointWithheld(id=f"{data.checkpoint_id}/withheld", at=at, data=held)
        )
        return
    log.append("checkpoints", ev.CheckpointOpened(id=f"{data.checkpoint_id}/opened", at=at, data=data))
    if number < 2:
        submit(log, data.checkpoint_id, at + 5 * MINUTE_MS)
        done = ev.CheckpointAdvancedData(checkpoint_id=data.checkpoint_id, command_id="c")
        log.append(
            "checkpoints",
            ev.CheckpointClaimable(id=f"{data.checkpoint_id}/claimable", at=at + 6 * MINUTE_MS, data=done),
        )
        if number == 0:
            log.append(
                "checkpoints", ev.CheckpointPaid(id=f"{data.checkpoint_id}/paid", at=at + 90 * MINUTE_MS, data=done)
            )  # fmt: skip


def submit(log: LogBuilder, checkpoint_id: str, at: int) -> None:
    """The decision of the checkpoint stage on a confirm."""
    data = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash=TX_HASH, command_id="c")
    log.append("checkpoints", ev.CheckpointSubmitted(id=f"{checkpoint_id}/sent", at=at, data=data))


def add_holes(log: LogBuilder) -> None:
    log.feed_state("connected", START_MS)
    for n, (minute, length) in enumerate(((190, 12), (640, 3), (1220, 25))):
        from_ms, until_ms = START_MS + minute * MINUTE_MS, START_MS + (minute + length) * MINUTE_MS
        log.hole(from_ms, until_ms, HOLE)
        if n < 2:
            log.hole_closed(
                from_ms, until_ms, complete=n == 0, at=until_ms + MINUTE_MS, reason="history has none"
            )
