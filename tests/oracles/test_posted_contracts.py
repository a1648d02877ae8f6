"""Reference contracts of posted questions, each run as its challenge on a whole node in memory: rounds are posted, models
asked, answers handed in, truths posted by id. Every expected number is computed here from what was posted.
"""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.checkout import root_on_path
from tests.oracles.posted import T0, WEEK, Challenge, Model, shares
from tests.streams.build import DAY, HOUR, PUBKEY

from coordinator.infra.rounds.answers import AnswerableQuestion, answers_of
from coordinator.infra.rounds.files import FileRefusedError, read_content
from coordinator.streams import events as ev
from coordinator.streams.predictions.replies import check_output

with root_on_path():
    from docs.contracts import datacrunch, metaculus, numerai, numinous, numinous_reforecast


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties get the mean of their ranks."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def powered(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** 1.5


def test_numerai_pays_the_stakes_of_rounds_that_overlap_and_are_resolved_four_weeks_later():
    chance, rows, rounds, model_ids = random.Random(6), 30, 4, ("a", "b", "c")
    tables = [[round(chance.random(), 6) for _ in range(rows)] for _ in range(rounds)]
    targets = [[chance.choice((0, 0.25, 0.5, 0.75, 1)) for _ in range(rows)] for _ in range(rounds)]
    ids = [f"n{i}" for i in range(rows)]

    def predictions_of(model_id: str, week: int) -> list[float]:
        bent = {"a": 1.0, "b": 0.3, "c": -0.5, "hand": 0.8}[model_id]
        return [
            round(0.5 + 0.4 * math.sin(7 * x * bent + 3 * t * bent), 6)
            for x, t in zip(tables[week], targets[week], strict=True)
        ]

    def model(model_id: str) -> Model:
        return lambda data, name: dict(
            zip(data["columns"]["id"], predictions_of(model_id, int(name[1:])), strict=True)
        )

    node = Challenge(
        numerai.contract(PUBKEY, numerai.RULES),
        {model_id: model(model_id) for model_id in model_ids},
        weeks=10,
    )
    stakes = {"a": 900.0, "b": 40.5, "hand": 70_000.0}
    stakes_with_idle = stakes | {"idle": 12.5}  # no model of this name ever takes part
    table = ev.StakesPostedData(stakes={name: repr(stake) for name, stake in stakes_with_idle.items()})
    node.tell(ev.PostStakes, T0 + 1, table)
    for week in range(rounds + 5):
        at = T0 + week * WEEK + HOUR
        if week < rounds:
            node.post(at, f"w{week}", {"columns": {"id": ids, "x": tables[week]}}, at + 2 * DAY)
            wrong = {"columns": {"id": ids, "prediction": [0.5] * rows}}
            node.hand_in(at + HOUR, "hand", f"w{week}", wrong)
            answer = {"columns": {"id": ids, "prediction": predictions_of("hand", week)}}
            node.hand_in(at + 2 * HOUR, "hand", f"w{week}", answer)
            # Refused when handed in. Accepted, it would replace the good answer and be refused only weeks later.
            for cell in (1.25, None, "0.5", True):
                beyond = {"columns": {"id": ids, "prediction": [*predictions_of("hand", week)[1:], cell]}}
                node.hand_in(at + 3 * HOUR, "hand", f"w{week}", beyond)
        if 4 <= week < rounds + 4:
            if week == 5:
                node.void(at + 3 * DAY, "w1")
            else:
                node.resolve(
                    at + 3 * DAY, **{f"w{week - 4}": {"columns": {"id": ids, "target": targets[week - 4]}}}
                )
    node.engine.feed(T0 + 10 * WEEK + HOUR, [])
    normal, means = NormalDist(), dict[str, list[float]]()
    for week in (0, 2, 3):
        target = np.array(targets[week])
        g = {
            model_id: np.array(
                [
                    normal.inv_cdf((rank - 0.5) / rows)
                    for rank in ranks(np.array(predictions_of(model_id, week)))
                ]
            )
            for model_id in (*model_ids, "hand")
        }
        at_risk = sum(stakes.values())
        meta = sum(stake * g[model_id] for model_id, stake in stakes.items()) / at_risk
        meta = np.array([normal.inv_cdf((rank - 0.5) / rows) for rank in ranks(meta)])
        scored = node.scores(f"w{week}")
        for model_id, x in g.items():
            corr = pearson(powered(x), powered(target - target.mean()))
            left = x - meta * (x @ meta) / (meta @ meta)
            mmc = (4 * (target - target.mean())) @ left / rows
            score = 0.5 * corr + 2 * mmc
            means.setdefault(model_id, []).append(score)
            assert scored[model_id] == pytest.approx({"corr": corr, "mmc": mmc, "value": score}, abs=2e-9)
            if model_id in stakes:
                stakes[model_id] *= 1 + min(max(min(1.0, 72_000 / at_risk) * score, -0.05), 0.05)
    assert {model_id: state["stake"] for model_id, state in node.states().items()} == pytest.approx(stakes)
    (checkpoint,) = node.paid()
    mean = {model_id: sum(scores) / len(scores) for model_id, scores in means.items()}
    assert [entry.model_id for entry in checkpoint.ranking] == sorted(
        mean, key=lambda model_id: -mean[model_id]
    )
    won = {model_id: max(value, 0.0) for model_id, value in mean.items()}
    expected = {model_id: value / sum(won.values()) for model_id, value in won.items() if value}
    assert {model_id: share for model_id, share in shares(checkpoint).items() if share} == pytest.approx(
        expected, abs=1e-7
    )


def test_datacrunch_pays_each_week_by_itself():
    chance, count = random.Random(7), 25
    targets = [
        {str(1000 * week + i): round(chance.gauss(0, 1), 6) for i in range(count)} for week in range(2)
    ]
    noise = {"a": 0.2, "b": 1.0, "c": 3.0, "d": 0.5}
    answers = {
        (model_id, week): {name: round(min(max(t + chance.gauss(0, by), -9), 9), 6) for name, t in targets[week].items()}
        for model_id, by in noise.items()
        for week in range(2)
    }  # fmt: skip

    def model(model_id: str) -> Model:
        return lambda _data, name: [
            [int(name), int(row_id), prediction]
            for row_id, prediction in answers[model_id, int(name)].items()
        ]

    node = Challenge(
        datacrunch.contract(PUBKEY, datacrunch.RULES), {model_id: model(model_id) for model_id in noise}
    )
    for week in range(7):
        at = T0 + week * WEEK + HOUR
        if week < 2:
            payload = {"columns": {"moon": [week] * count, "id": [*targets[week]]}}
            node.post(at, str(week), payload, at + 2 * DAY)
        if 4 <= week < 6:
            target_by_id = targets[week - 4]
            columns = {
                "moon": [week - 4] * count,
                "id": [*map(int, target_by_id)],
                "target": [*target_by_id.values()],
            }
            node.resolve(at + 3 * DAY, **{str(week - 4): {"columns": columns}})
    node.engine.feed(T0 + 7 * WEEK + HOUR, [])
    for week, checkpoint in zip((0, 1), node.paid(), strict=True):
        target = np.array([*targets[week].values()])
        corr = {
            model_id: pearson(np.array([answers[model_id, week][name] for name in targets[week]]), target)
            for model_id in noise
        }
        assert {
            model_id: fields["value"] for model_id, fields in node.scores(str(week)).items()
        } == pytest.approx(corr, abs=1e-9)
        place = dict(zip(corr, ranks(np.array([*corr.values()])) / len(corr), strict=True))
        weight = {model_id: max(2 * (pct - 0.5), 0.0) ** 20 for model_id, pct in place.items()}
        expected = {model_id: value / sum(weight.values()) for model_id, value in weight.items()}
        assert {**dict.fromkeys(noise, 0.0), **shares(checkpoint)} == pytest.approx(expected, abs=2e-9)


def test_metaculus_scores_forecasts_for_as_long_as_they_stood():
    lean = {"a": 0.3, "b": 0.6, "c": 0.75}

    def probability_of(model_id: str, day: int) -> float:
        return round(lean[model_id] + 0.04 * day, 6)

    asked: dict[tuple[str, str], int] = {}

    def model(model_id: str) -> Model:
        def forecast(_data: Any, name: str) -> Any:
            day = asked[model_id, name] = asked.get((model_id, name), -1) + 1
            if model_id == "c" and day == 1:
                return {"p": [0.9, 0.9]}  # refused: the previous forecast stays in force
            probability = probability_of(model_id, day)
            return {"p": [probability, round(1 - probability, 6)]}

        return forecast

    rules = metaculus.RULES | {"prize_pool_usd": 500.0}
    node = Challenge(
        metaculus.contract(PUBKEY, rules), {model_id: model(model_id) for model_id in lean}, weeks=2
    )
    opens = T0 + HOUR
    node.post(opens, "q0", {"options": ["yes", "no"]}, opens + 3 * DAY)
    later = opens + HOUR
    node.post(later, "q1", {}, later + 4 * DAY)
    node.tick(opens + 10 * HOUR)
    node.hand_in(opens + 10 * HOUR, "hand", "q0", {"p": [0.9, 0.1]})
    node.tick(opens + 40 * HOUR)
    node.hand_in(opens + 40 * HOUR, "hand", "q0", {"p": None})
    node.tick(later + 2 * DAY)
    node.tell(ev.CloseQuestions, later + 2 * DAY, ev.CloseQuestionsData(round_id="r", question_ids=["q1"]))
    node.tick(opens + 5 * DAY)
    node.resolve(opens + 5 * DAY, q0={"outcome": 1}, q1={"outcome": 0, "scheduled": (later + 4 * DAY) / 1000})
    node.engine.feed(T0 + 2 * WEEK + HOUR, [])

    def stands(model_id: str, name: str, hour: int) -> float | None:
        """The probability that a model's forecast gave the true outcome in an hour of the question."""
        day = hour // 24
        if model_id == "hand":
            probability = 0.9 if name == "q0" and 10 <= hour < 40 else None
        else:
            probability = probability_of(model_id, day if model_id != "c" or day != 1 else 0)
        return probability if probability is None or name == "q1" else round(1 - probability, 6)

    everybody = (*lean, "hand")
    sums = dict.fromkeys(everybody, 0.0)
    for name, open_hours, scheduled in (("q0", 72, 72), ("q1", 48, 96)):
        peer, coverage = dict.fromkeys(everybody, 0.0), dict.fromkeys(everybody, 0)
        for hour in range(open_hours):
            probabilities = {
                model_id: probability
                for model_id in everybody
                if (probability := stands(model_id, name, hour)) is not None
            }
            logs = {model_id: math.log(probability) for model_id, probability in probabilities.items()}
            for model_id in probabilities:
                others = [log for other, log in logs.items() if other != model_id]
                peer[model_id] += 100 * (logs[model_id] - sum(others) / len(others)) / scheduled
                coverage[model_id] += 1
        scored = node.scores(name)
        assert set(scored) == {model_id for model_id, hours in coverage.items() if hours}
        for model_id, fields in scored.items():
            # A node records 12 decimals of this contract; `scores` reads nine.
            assert fields["peer"] / 1000 == pytest.approx(peer[model_id], abs=2e-4)
            assert fields["coverage"] / 1000 == pytest.approx(coverage[model_id] / scheduled, abs=1e-5)
            sums[model_id] += peer[model_id]
    (checkpoint,) = node.paid()
    take = {model_id: max(total, 0.0) ** 2 for model_id, total in sums.items()}
    paid = {model_id: amount / sum(take.values()) for model_id, amount in take.items()}
    while paid and min(paid.values()) < 0.1:  # 50 of 500: given up from the bottom
        paid.pop(min(paid, key=lambda model_id: paid[model_id]))
        paid = {model_id: take[model_id] / sum(take[other] for other in paid) for model_id in paid}
    assert {model_id: share for model_id, share in shares(checkpoint).items() if share} == pytest.approx(
        paid, abs=1e-4
    )


def test_numinous_ranks_by_the_means_of_the_last_events_of_each_pool():
    chance, count = random.Random(8), 30
    pools = {
        "global_brier": {"weight": 0.6, "last": 8, "least": 4},
        "geopolitics_brier": {"weight": 0.25, "last": 5, "least": 3},
        "reasoning": {"weight": 0.1, "last": 3, "least": 2},
    }
    lean = {(model_id, i): round(chance.random(), 4) for model_id in "abc" for i in range(count)}

    def model(model_id: str) -> Model:
        def forecast(_data: Any, name: str) -> Any:
            if model_id == "c" and int(name) % 5 == 0:
                raise RuntimeError("down")
            return {"prediction": lean[model_id, int(name)], "reasoning": "because .."}

        return forecast

    contract = numinous.contract(PUBKEY, "b", pools=pools)
    node = Challenge(contract, {model_id: model(model_id) for model_id in "abc"}, weeks=12)
    tags = [
        ("Reasoning",) if i % 5 == 4 else ("Geopolitics",) if i % 3 == 0 else ("Sports",)
        for i in range(count)
    ]
    outcomes = [chance.randrange(2) for _ in range(count)]
    scores_by_model: dict[str, dict[str, list[float]]] = {
        model_id: {name: [] for name in pools} for model_id in "abc"
    }
    for i in range(count):
        at = T0 + i * DAY + HOUR
        node.post(at, str(i), {"title": f"event {i}"}, at + 6 * HOUR, *tags[i])
        marks = {model_id: round(1 + 4 * chance.random(), 3) for model_id in "abc"}
        truth = {"marks": marks} if tags[i] == ("Reasoning",) else {"outcome": outcomes[i]}
        if i % 7 == 6:
            node.void(at + 7 * HOUR, str(i))
            continue
        node.resolve(at + 7 * HOUR, **{str(i): truth})
        pool = {"Reasoning": "reasoning", "Geopolitics": "geopolitics_brier", "Sports": "global_brier"}[
            tags[i][0]
        ]
        for model_id in "abc":
            probability = 0.5 if model_id == "c" and i % 5 == 0 else min(max(lean[model_id, i], 0.01), 0.99)
            score = (5 - marks[model_id]) / 4 if pool == "reasoning" else (probability - outcomes[i]) ** 2
            scores_by_model[model_id][pool].append(score)
    node.engine.feed(T0 + 12 * WEEK + HOUR, [])
    expected = {
        model_id: sum(
            rule["weight"] * np.mean(scores_by_model[model_id][name][-int(rule["last"]) :])
            for name, rule in pools.items()
        )
        / 0.95
        for model_id in "abc"
    }
    (checkpoint,) = node.paid()
    assert {entry.model_id: entry.key_units / 1e9 for entry in checkpoint.ranking} == pytest.approx(
        expected, abs=2e-9
    )
    order = sorted(expected, key=lambda model_id: expected[model_id])
    assert [entry.model_id for entry in checkpoint.ranking] == order
    # The benchmark and the models that are not better get nothing; the places after them stay unpaid.
    better = order[: order.index("b")]
    parts = [math.exp(1 / place) for place in range(1, 11)]
    assert {model_id: share for model_id, share in shares(checkpoint).items() if share} == pytest.approx(
        {model_id: parts[i] / sum(parts) for i, model_id in enumerate(better)}, abs=1e-8
    )


def test_the_subnet_of_numinous_scores_each_day_the_forecasts_of_that_day():
    chance, days, names = random.Random(9), 28, ("e0", "e1", "e2")
    prices = {name: {day: round(0.2 + 0.6 * chance.random(), 4) for day in range(days + 1)} for name in names}
    ends = {"e2": (22, 1)}
    lean = {
        (model_id, name, day): round(chance.random(), 4)
        for model_id in "abcd"
        for name in names
        for day in range(days)
    }

    def model(model_id: str) -> Model:
        def forecast(_data: Any, name: str) -> Any:
            day = int(name[3:])
            if model_id == "d" and day % 3 == 0:
                raise RuntimeError("down")  # two thirds of the days are less than 85 %
            if model_id == "c" and day == 25:
                raise RuntimeError("down")
            return {"forecasts": {event_id: lean[model_id, event_id, day] for event_id in names}}

        return forecast

    rules = numinous_reforecast.RULES | {"place": 3}
    node = Challenge(
        numinous_reforecast.contract(PUBKEY, rules),
        {model_id: model(model_id) for model_id in "abcd"},
        weeks=4,
    )

    def is_open(name: str, day: int) -> bool:
        return name not in ends or day < ends[name][0]

    for day in range(days):
        at = T0 + day * DAY + HOUR
        node.post(at, f"day{day}", {"prices": {name: prices[name][day] for name in names}}, at + 20 * HOUR)
        market = {
            "today": day + 1,
            "prices": {
                name: {
                    str(price_day): price
                    for price_day, price in price_by_day.items()
                    if day - 21 <= price_day <= day + 1
                }
                for name, price_by_day in prices.items()
            },
            "resolved": {name: end for name, end in ends.items() if end[0] <= day + 1},
        }
        node.resolve(at + 21 * HOUR, **{f"day{day}": market})
    node.engine.feed(T0 + 4 * WEEK + HOUR, [])
    today, means = days, {}
    for model_id in "abcd":
        latest, scored_days, asked, answered = {}, set(), 0, 0
        for name in names:
            for day in range(days):
                down = (model_id == "d" and day % 3 == 0) or (model_id == "c" and day == 25)
                if day >= today - 14 and is_open(name, day):
                    asked, answered = asked + 1, answered + (not down)
                due = (day + 7, prices[name].get(day + 7))
                when, truth = ends[name] if name in ends and ends[name][0] <= day + 7 else due
                if down or truth is None or not today - 7 < when <= today:
                    continue
                scored_days.add(day)
                probability = lean[model_id, name, day]
                latest[name] = (probability - truth) ** 2 - (prices[name][day] - truth) ** 2
        if answered / asked >= 0.85 and len(scored_days) >= 3:
            means[model_id] = sum(latest.values()) / len(latest)
    assert set(means) == set("abc")
    (checkpoint,) = node.paid()
    assert {entry.model_id: entry.key_units / 1e9 for entry in checkpoint.ranking} == pytest.approx(
        means, abs=1e-9
    )
    third = sorted(means.values())[2]
    weight = {model_id: max(third - mean, 0.0) ** 2 for model_id, mean in means.items()}
    expected = {model_id: value / sum(weight.values()) for model_id, value in weight.items() if value}
    assert {model_id: share for model_id, share in shares(checkpoint).items() if share} == pytest.approx(
        expected, abs=1e-7
    )


FILES = {
    "numerai": (numerai.CONTRACT, "id,prediction\nn1,0.25\nn2,{}\n", {"n1": 0.25, "n2": 0.5}),
    "datacrunch": (datacrunch.CONTRACT, "moon,id,prediction\n501,1,0.25\n501,2,{}\n", [[501, "1", 0.25], [501, "2", 0.5]]),
}  # fmt: skip


@pytest.mark.parametrize(("contract", "text", "plain"), FILES.values(), ids=FILES)
def test_a_file_with_a_wrong_cell_is_refused_when_it_is_handed_in(contract, text, plain):
    """If it were accepted, it would replace a good file and be refused only weeks later, when the truth comes."""

    def handed_in(cell: str) -> Any:
        def check_of(_asked: AnswerableQuestion) -> Any:
            return lambda output: check_output(output, contract.output_type, 1_000_000)

        asked = {"table": AnswerableQuestion("table", "question", "h")}
        (answer,) = answers_of(read_content(text.format(cell).encode()), asked, check_of)
        return msgspec.json.decode(answer.output)

    assert handed_in("0.5") == plain
    for cell in ("", "high", *(["1.5"] if contract is numerai.CONTRACT else [])):
        with pytest.raises(
            FileRefusedError, match=r"BAD_OUTPUT: the contract.s own check refuses it.* n?2: not"
        ):
            handed_in(cell)
