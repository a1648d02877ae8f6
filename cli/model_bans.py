"""`coordinator models ban|readmit ID`: the operator's word on who may take part, as a command in the log.

The predict worker decides it; this waits for that decision, so that what it prints is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.own_kafka import node_log, refuse_undecided
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_done, reason_words, run
from coordinator.infra.log.commands import send_command
from coordinator.infra.log.models_state import ModelsLog
from coordinator.streams import events as ev
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import content_id
from coordinator.streams.log.reasons import printable
from coordinator.streams.settings import Settings

DECIDED_SECONDS_MAX = 15.0
SHOWN_MAX = 5
ALIKE_MIN = 0.6

ModelId = Annotated[str, typer.Argument(metavar="ID", help="The model's id, as `/reports/models` shows it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the model's owner and for the log.")]


def ban(
    model_id: ModelId,
    reason: Reason,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a model off the roster until it is readmitted, whatever the orchestrator reports.

    From the next round on it is no longer asked. It keeps what it earned before. The ban is an event in the log. A
    model that has left can be banned too: it stays off when it comes back.

    Example: [bold]coordinator models ban 17 --reason "copies model 3"[/bold]
    """
    _ban_or_readmit(model_id, reason, kafka, data_dir, as_json=as_json, lift=False)


def readmit(
    model_id: ModelId,
    reason: Reason,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift a model's ban; it is asked again as soon as it runs.

    Example: [bold]coordinator models readmit 17 --reason "cleared by its owner"[/bold]
    """
    _ban_or_readmit(model_id, reason, kafka, data_dir, as_json=as_json, lift=True)


def nearest(wanted: str, names: Mapping[str, str]) -> str:
    """`; nearest: 17 (trend), ...`: the models (id -> name) whose id or name is like `wanted`, else some of all."""
    if not names:
        return "; none was yet"
    alike = {
        model_id: max(
            SequenceMatcher(None, wanted.lower(), text.lower()).ratio() for text in (model_id, name)
        )
        for model_id, name in names.items()
    }
    similar = (model_id for model_id in alike if alike[model_id] >= ALIKE_MIN)
    best = sorted(similar, key=lambda model_id: (-alike[model_id], model_id))
    shown = (best or sorted(names))[:SHOWN_MAX]
    more = "" if best or len(names) <= SHOWN_MAX else f" and {len(names) - SHOWN_MAX:,} more"
    names_shown = ", ".join(f"{model_id} ({printable(names[model_id])})" for model_id in shown)
    return f"; {'nearest' if best else 'known'}: {names_shown}{more}"


def _ban_or_readmit(
    model_id: str, reason: str, kafka: str | None, data_dir: Path | None, *, as_json: bool, lift: bool
) -> None:
    reason = reason_words(reason)
    settings, _ = node_log(data_dir, kafka)
    changed = run(_decide(settings, model_id, reason, lift=lift))
    if changed:
        text = f"model {model_id} is {'readmitted' if lift else 'banned'}: {reason}"
    else:
        text = f"model {model_id} is {'not banned' if lift else 'banned already'}; nothing changes"
    print_done(text, {"model_id": model_id, "banned": not lift, "changed": changed}, as_json=as_json)


async def _decide(settings: Settings, model_id: str, reason: str, *, lift: bool) -> bool:
    """Ban or readmit. False where that is so already, and nothing was sent. Raises OperatorError."""
    async with ModelsLog(settings) as log:
        await log.read()
        banned = log.models.banned
        if model_id not in log.names and model_id not in banned:
            raise OperatorError(
                f"this node has never seen a model {model_id!r}{nearest(model_id, log.names)}"
            )
        if (model_id in banned) is not lift:
            return False
        at = wall_ms()
        the_id = content_id("cmd", "readmit" if lift else "ban", model_id, reason, str(at))
        command: Any = (
            ev.ReadmitModel(id=the_id, at=at, data=ev.ReadmitModelData(model_id=model_id, reason=reason))
            if lift
            else ev.BanModel(id=the_id, at=at, data=ev.BanModelData(model_id=model_id, reason=reason))
        )
        offset = await send_command(settings.kafka_bootstrap, settings.crunch_id, command)
        refuse_undecided(settings, offset)
        await log.until_decided(offset, "predict", DECIDED_SECONDS_MAX)
    return True
