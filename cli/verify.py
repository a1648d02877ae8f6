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
from coordinator.infra.evidence.recompute import ROUNDING
from coordinator.infra.evidence.signing_keys import known_keys
from coordinator.infra.evidence.verdict import verdict
from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.durations import YEAR_SECONDS
from coordinator.streams.evidence.bundle import MANIFEST, decode_manifest
from coordinator.streams.evidence.bundle_judging import Trust
from coordinator.streams.evidence.notes import NOTE_BYTES_MAX
from coordinator.streams.evidence.participation import Part, Participation
from coordinator.streams.evidence.prediction_proof import proved
from coordinator.streams.evidence.proof import HEADER, PROOF_BYTES_MAX
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.signing.note_keys import NoteError, VerifierKey

ZIP_HEAD = b"PK"
EXIT_BROKEN = 1
EXIT_ROUNDING = 4
PREDICTIONS_SHOWN = 200


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `coordinator bundle` or `prove` wrote.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A file with one public key per line. All of these keys must have signed.",
            show_default=False,
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            metavar="NOTE", help="An earlier note. The log must continue from it.", show_default=False
        ),
    ] = None,
    note: Annotated[
        Path | None,
        typer.Option(
            metavar="NOTE",
            help="The same note with more signatures, as a witness saves it.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Also list every round of the period and this model's answer in it.",
            show_default=False,
        ),
    ] = "",
    minutes: Annotated[
        float,
        typer.Option(min=0.01, max=YEAR_SECONDS / 60, help="Time limit for computing everything again."),
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle without its node: is the payout right? If not (exit code 1), the step and the figure are named.

    Everything is computed again: truths from records, scores from answers and truth by the contract in the bundle,
    snapshots, ranking, emission. The contract's code runs in a process without network and files. In a bundle of the
    whole log every earlier payout is checked too, oldest first. A shorter bundle says where it begins.

    Exit codes: 0 all is equal; 4 all holds, but figures differ by one unit of rounding, as another processor's exp
    gives it: the last line says how many, how close the ranking is, and whom it favours; 1 something is different.

    With --model it also lists all rounds of the period and all answers of one model.

    Example: [bold]coordinator verify june.bundle --policy keys.txt --earlier may.note[/bold]
    """
    began = monotonic()
    _check_kind(file)
    trust = Trust(
        tuple(known_keys(policy)) if policy else (),
        _read_note(earlier) if earlier else None,
        _read_note(note) if note else None,
    )
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    participation = Participation(model) if model else None
    done: list[dict[str, str]] = []
    failed, reason = "", ""
    with console.status("reading the bundle"):
        try:
            for step, result_text in _steps(file, trust, minutes * 60, participation):
                done.append({"step": step, "said": result_text})
                console.print(Text("  ok ", style="green"), Text(f"{step:<12}"), Text(result_text))
        except ChainBrokenError as error:
            failed, reason = error.step, error.reason
            console.print(Text("FAIL ", style="bold red"), Text(f"{failed:<12}"), Text(reason))
    parts: list[Part] = []
    if participation is not None and not failed:
        parts = participation.parts(decode_manifest(BundleFile(file).read(MANIFEST)).checkpoint_id)
        _print_parts(console, model, parts)
    rounded = any(step["step"] == ROUNDING for step in done)
    seconds = monotonic() - began
    equal = "everything holds" + (", but for one unit of rounding" if rounded else "")
    verdict = f"{failed} does not hold" if failed else equal
    console.print(f"verify: {verdict} ({seconds:.1f} s)")
    if as_json:
        result: dict[str, Any] = {"ok": not failed, "steps": done, "failed_step": failed, "reason": reason}
        result["verdict"] = "different" if failed else "rounding" if rounded else "equal"
        of_model = {"model": model, "rounds": msgspec.to_builtins(parts)} if model else {}
        print_json(result | {"seconds": round(seconds, 3)} | of_model)
    raise typer.Exit(EXIT_BROKEN if failed else EXIT_ROUNDING if rounded else 0)


def _check_kind(file: Path) -> None:
    """Raises OperatorError for what is neither a bundle, whole or damaged, nor a proof."""
    wanted = "name a file that `coordinator bundle` or `coordinator prove` wrote"
    try:
        with file.open("rb") as content:
            head = content.read(len(HEADER))
    except FileNotFoundError:
        raise OperatorError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise OperatorError(f"{file} is a folder: {wanted}") from None
    if not head.startswith(ZIP_HEAD) and head != HEADER.encode():
        raise OperatorError(f"{file} is neither a bundle nor a proof: {wanted}")


def _steps(
    file: Path, trust: Trust, seconds_max: float, participation: Participation | None
) -> Iterator[tuple[str, str]]:
    with file.open("rb") as content:
        is_proof = content.read(len(HEADER)) == HEADER.encode()
    if is_proof:
        if participation is not None:
            raise OperatorError("--model needs a bundle: a proof does not hold a whole period")
        yield from _proof_steps(file, list(trust.keys))
        return
    yield from verdict(file, trust, seconds_max, None if participation is None else participation.take)


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
        text = f"answered {part.answer}, {part.status}: {ending}" if part.asked else "was not asked"
        text += "".join(f"; not counted: {answer} in {name}" for name, answer in part.other_answers.items())
        text += "; by a corrected truth" if part.corrected else ""
        console.print(f"  {time_text(part.point)}  {part.input_id}/{part.scope_key}  {text}", markup=False)
    if len(parts) > PREDICTIONS_SHOWN:
        console.print(f"  and {len(parts) - PREDICTIONS_SHOWN} more; --json has all")


def _proof_steps(file: Path, keys: list[VerifierKey]) -> Iterator[tuple[str, str]]:
    """What a proof of single predictions proves; nobody can be believed by a proof alone, so keys must be given."""
    if not keys:
        raise OperatorError("a proof is checked with keys that you trust: give them with --policy")
    with file.open("rb") as content:
        text = content.read(PROOF_BYTES_MAX + 1)
    try:
        predictions = proved(text, keys)
    except NoteError as error:
        broken("proof", str(error))
    yield "note", f"signed by {', '.join(key.name for key in keys)}, a tree of {predictions[0].leaves} leaves"
    for prediction in predictions[:PREDICTIONS_SHOWN]:
        units = (
            ", ".join(f"{name} {number}" for name, number in prediction.units.items()) or prediction.reason
        )
        yield (
            "prediction",
            (
                f"{prediction.prediction_id}: asked {time_text(prediction.asked_at)}, answered {prediction.answer}, "
                f"the {'corrected ' if prediction.revision else ''}truth was {prediction.truth}, "
                f"{prediction.status}: {units}"
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
