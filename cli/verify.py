"""`coordinator verify`: a bundle judged offline, by who trusts nobody. Needs no Kafka, no Java, no network.

Reads the file alone; writes nothing. Steps come in the order of trust: the file, the note, the tree, the log, then
everything computed again; the first that does not hold ends it with its name and the figure.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from rich.text import Text

from coordinator.cli.shared import JsonOption, print_json, time_text
from coordinator.cli.terminal import Console
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.key import known_keys
from coordinator.infra.evidence.recompute import recompute
from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.evidence.bundle import BundleRefusedError
from coordinator.streams.evidence.judging import Judged, judge_bundle
from coordinator.streams.evidence.notes import NOTE_BYTES_MAX, NoteError, VerifierKey
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
    minutes: Annotated[
        float, typer.Option(min=0.01, help="The most that computing everything again may take.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Judge a bundle without its node: is the payout right, and if not, at which step and figure? Exit 1: not.

    Everything is computed again: truths from records, scores from answers and truth by the contract in the bundle,
    snapshots, ranking, emission. The contract's code runs in a process without network and files.

    Example: [bold]coordinator verify june.bundle --policy keys.txt --earlier may.note[/bold]
    """
    began = monotonic()
    if not file.is_file():
        raise OperatorError(f"there is no file {file}")
    keys = [] if policy is None else known_keys(policy)
    note = None if earlier is None else _read_note(earlier)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    done: list[dict[str, str]] = []
    failed, reason = "", ""
    with console.status("reading the bundle"):
        try:
            for step, said in _steps(file, keys, note, minutes * 60):
                done.append({"step": step, "said": said})
                console.print(Text("  ok ", style="green"), Text(f"{step:<12}"), Text(said))
        except ChainBrokenError as error:
            failed, reason = error.step, error.reason
            console.print(Text("FAIL ", style="bold red"), Text(f"{failed:<12}"), Text(reason))
    seconds = monotonic() - began
    verdict = f"{failed} does not hold" if failed else "everything holds"
    console.print(f"verify: {verdict} ({seconds:.1f} s)")
    if as_json:
        result: dict[str, Any] = {"ok": not failed, "steps": done, "failed_step": failed, "reason": reason}
        print_json(result | {"seconds": round(seconds, 3)})
    raise typer.Exit(EXIT_BROKEN if failed else 0)


def _steps(
    file: Path, keys: list[VerifierKey], earlier: bytes | None, seconds_max: float
) -> Iterator[tuple[str, str]]:
    with file.open("rb") as content:
        is_proof = content.read(len(HEADER)) == HEADER.encode()
    if is_proof:
        yield from _proof_steps(file, keys)
        return
    try:
        members = BundleFile(file)
    except BundleRefusedError as error:
        broken("bundle", str(error))
    for step in judge_bundle(members, keys, earlier):
        if isinstance(step, Judged):
            yield "versions", _differences(step.manifest.versions)
        else:
            yield step
    yield from recompute(file, seconds_max)


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


def _differences(versions: dict[str, str]) -> str:
    """Which libraries are others here than at the node."""
    others = []
    for name, there in sorted(versions.items()):
        try:
            here = platform.python_version() if name == "python" else importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "none"
        if here != there:
            others.append(f"{name} {here} here, {there} there")
    return "; ".join(others) or f"all {len(versions)} that matter are those of the node"


def _read_note(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(NOTE_BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error
