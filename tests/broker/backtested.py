"""A backtest of the example models beside a node that ran them: the results of both, figure by figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from coordinator.cli.up_plan import example_models
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.models.host.model_folder import read_models
from coordinator.streams.backtest.instants import from_file
from coordinator.streams.backtest.run import Plan, run_backtest
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.settings import Settings

Events = dict[str, list[dict[str, Any]]]
"""topic -> its events as plain JSON."""


def backtested(settings: Settings, work_dir: Path) -> Events:
    """The events of a backtest over the settings' file of candles."""
    events_by_topic: Events = {}

    def take(decision: Decision) -> None:
        events = events_by_topic.setdefault(decision.topic, [])
        events.extend(json.loads(encode_event(event)) for event in decision.events)

    shelf = load_contracts(settings.contract)
    plan = Plan(
        read_models(example_models()),
        shelf.current,
        shelf.current_hash,
        settings,
        settings.model_base_classname,
    )
    refused: list[str] = []
    run_backtest(plan, from_file(settings, refused.append), work_dir, on_decision=take)
    assert refused == []
    return events_by_topic


def figures(events: Events) -> dict[str, dict[str, Any]]:
    """table -> name of a figure -> the figure, for every answer, score, snapshot and checkpoint."""
    by_topic: dict[str, dict[str, Any]] = {
        name: {} for name in ("predictions", "scores", "snapshots", "checkpoints")
    }
    rosters: dict[str, list[str]] = {}
    for event in events["predictions"]:
        data = event["data"]
        if event["kind"] == "RoundOpened":
            rosters[data["input_id"]] = [asked["model_id"] for asked in data["roster"]]
        elif event["kind"] == "ScopeAnswered":
            for index, output in zip(data["models"], data["outputs"], strict=True):
                name = f"{data['input_id']}/{data['scope_key']}/{rosters[data['input_id']][index]}"
                by_topic["predictions"][name] = output
    for event in events["scores"]:
        if event["kind"] == "RoundScored":
            data = event["data"]
            for index, model_id in enumerate(data["models"]):
                name = f"{data['input_id']}/{data['scope_key']}/{model_id}"
                by_topic["scores"][name] = {field: units[index] for field, units in data["units"].items()}
    for event in events["snapshots"]:
        if event["kind"] == "SnapshotTaken":
            data = event["data"]
            by_topic["snapshots"][data["snapshot_id"]] = {
                name: value for name, value in data.items() if name != "contract_hash"
            }
    for event in events["checkpoints"]:
        if event["kind"] == "CheckpointOpened":
            data = event["data"]
            by_topic["checkpoints"][data["checkpoint_id"]] = data
    return by_topic


def differences(
    node: Events, backtest: Events, added: AbstractSet[str] = frozenset()
) -> tuple[Counter[str], list[str]]:
    """(how many figures of each table were compared, those that differ or that one of both lacks). `added`: models of
    the backtest alone, which never score.
    """
    compared: Counter[str] = Counter()
    differing: list[str] = []
    ours, theirs = figures(backtest), figures(node)
    of_added = {
        table: [name for name in named if not added.isdisjoint(name.split("/"))]
        for table, named in ours.items()
    }
    starts = [ours["snapshots"][name]["period_start"] for name in of_added["snapshots"]]
    for figure in ours["checkpoints"].values():
        figure["unranked"] = [model_id for model_id in figure["unranked"] if model_id not in added]
        figure["unranked_reasons"] = {
            model_id: reason
            for model_id, reason in figure["unranked_reasons"].items()
            if model_id not in added
        }
        figure["snapshot_count"] -= sum(
            figure["period_start"] <= start < figure["period_end"] for start in starts
        )
    for table, names in of_added.items():
        for name in names:
            del ours[table][name]
    for table, expected in theirs.items():
        for name in expected.keys() | ours[table].keys():
            compared[table] += 1
            if expected.get(name) != ours[table].get(name):
                differing.append(
                    f"{table} {name}: {expected.get(name)} at the node, {ours[table].get(name)} here"
                )
    return compared, differing
