"""`coordinator verify`: a bundle judged offline, by who trusts nobody. Needs no Kafka, no Java, no network.

Reads the file alone; writes nothing. Steps come in the order of trust: the file, the note, the tree, the log, then
everything computed again; the first that does not hold ends it with its name and the figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from coordinator.cli.shared import JsonOption, print_json, time_text
from coordinator.cli.terminal import Console
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.key import known_keys
from coordinator.infra.evidence.verdict import verdict
from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.evidence.bundle import MANIFEST, BundleRefusedError, decode_manifest
from coordinator.streams.evidence.judging import Trust, paid_by, topic_of
from coordinator.streams.evidence.notes import NOTE_BYTES_MAX, NoteError, VerifierKey
from coordinator.streams.evidence.participation import Part, parts_of
from coordinator.streams.evidence.prediction_proof import proved
from coordinator.streams.evidence.proof import HEADER, PROOF_BYTES_MAX
from coordinator.streams.log.errors import OperatorError

EXIT_BROKEN = 1
PREDICTIONS_SHOWN = 200


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `coordinator bundle` or `prove` wrote.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A file with a public key a line: all of them must have signed.", show_default=False
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            metavar="NOTE", help="A note of before, which the log must go on from.", show_default=False
        ),
    ] = None,
    note: Annotated[
        Path | None,
        typer.Option(
            metavar="NOTE",
            help="The same note with more signatures, as a witness keeps it.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Also list every round of the period and what this model said in it.",
            show_default=False,
        ),
    ] = "",
    minutes: Annotated[
        float, typer.Option(min=0.01, help="The most that computing everything again may take.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Judge a bundle without its node: is the payout right, and if not, at which step and figure? Exit 1: not.

    Everything is computed again: truths from records, scores from answers and truth by the contract in the bundle,
    snapshots, ranking, emission. The contract's code runs in a process without network and files.

    With --model it says what one model did in the period: these are all its rounds and all its answers.

    Example: [bold]coordinator verify june.bundle --policy keys.txt --earlier may.note[/bold]
    """
    began = monotonic()
    if not file.is_file():
        raise OperatorError(f"there is no file {file}")
    trust = Trust(
        tuple(known_keys(policy)) if policy else (),
        _read_note(earlier) if earlier else None,
        _read_note(note) if note else None,
    )
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    done: list[dict[str, str]] = []
    failed, reason = "", ""
    with console.status("reading the bundle"):
        try:
            for step, said in _steps(file, trust, minutes * 60):
                done.append({"step": step, "said": said})
                console.print(Text("  ok ", style="green"), Text(f"{step:<12}"), Text(said))
        except ChainBrokenError as error:
            failed, reason = error.step, error.reason
            console.print(Text("FAIL ", style="bold red"), Text(f"{failed:<12}"), Text(reason))
    parts = [] if failed or not model else _parts(file, model)
    if model and not failed:
        _print_parts(console, model, parts)
    seconds = monotonic() - began
    verdict = f"{failed} does not hold" if failed else "everything holds"
    console.print(f"verify: {verdict} ({seconds:.1f} s)")
    if as_json:
        result: dict[str, Any] = {"ok": not failed, "steps": done, "failed_step": failed, "reason": reason}
        of_model = {"model": model, "rounds": msgspec.to_builtins(parts)} if model else {}
        print_json(result | {"seconds": round(seconds, 3)} | of_model)
    raise typer.Exit(EXIT_BROKEN if failed else 0)


def _steps(file: Path, trust: Trust, seconds_max: float) -> Iterator[tuple[str, str]]:
    with file.open("rb") as content:
        is_proof = content.read(len(HEADER)) == HEADER.encode()
    if is_proof:
        yield from _proof_steps(file, list(trust.keys))
        return
    yield from verdict(file, trust, seconds_max)


def _parts(file: Path, model: str) -> list[Part]:
    """What a model did in the period of a bundle that holds. Raises OperatorError for a proof of single predictions."""
    try:
        bundle = BundleFile(file)
    except BundleRefusedError:
        raise OperatorError(
            "--model needs a bundle: a proof of single predictions has no whole period"
        ) from None
    checkpoint = paid_by(bundle, decode_manifest(bundle.read(MANIFEST)).checkpoint_id)
    period = (checkpoint.period_start, checkpoint.period_end)
    return parts_of(topic_of(bundle, "predictions"), topic_of(bundle, "scores"), model, *period)


def _print_parts(console: Console, model: str, parts: list[Part]) -> None:
    asked = [part for part in parts if part.asked]
    statuses = Counter(part.status for part in asked)
    counts = ", ".join(f"{statuses[status]} {status}" for status in ("SCORED", "FAILED", "ABSENT"))
    console.print(
        f"model {model}: {len(parts)} (round, scope) of the period, asked in {len(asked)} of them: {counts}. "
        "These are all: no append of the log is missing, and none is behind the note"
    )
    for part in parts[:PREDICTIONS_SHOWN]:
        ending = ", ".join(f"{name} {units}" for name, units in part.units.items()) or part.reason
        said = f"answered {part.answer}, {part.status}: {ending}" if part.asked else "was not asked"
        console.print(f"  {time_text(part.point)}  {part.input_id}/{part.scope_key}  {said}", markup=False)
    if len(parts) > PREDICTIONS_SHOWN:
        console.print(f"  and {len(parts) - PREDICTIONS_SHOWN} more; --json has all")


def _proof_steps(file: Path, keys: list[VerifierKey]) -> Iterator[tuple[str, str]]:
    """What a proof of single predictions proves; nobody can be believed by a proof alone, so keys must be given."""
    if not keys:
        raise OperatorError("a proof is judged by keys that you know: give them with --policy")
    with file.open("rb") as content:
        text = content.read(PROOF_BYTES_MAX + 1)
    try:
        predictions = proved(text, keys)
    except NoteError as error:
        broken("proof", str(error))
    yield "note", f"signed by {', '.join(key.name for key in keys)}, a tree of {predictions[0].leaves} leaves"
    for one in predictions[:PREDICTIONS_SHOWN]:
        units = ", ".join(f"{name} {number}" for name, number in one.units.items()) or one.reason
        yield (
            "prediction",
            (
                f"{one.prediction_id}: asked {time_text(one.asked_at)}, answered {one.answer}, the truth was "
                f"{one.truth}, {one.status}: {units}"
            ),
        )
    if len(predictions) > PREDICTIONS_SHOWN:
        yield "prediction", f"and {len(predictions) - PREDICTIONS_SHOWN} more of the same round"


def _read_note(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(NOTE_BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error
