"""A witness: it asks a node for its newest note, judges the bundle as any stranger would, and signs what holds.

Reads the node's HTTP routes alone: no Kafka, no credentials. With `topics` it takes only the note from the node, and
all else from the crunch's topics (`from_topics.py`): then the node cannot show it another log than the one that it
works by, and no hidden answer has to be waited for. Writes below its own folder: `node.pub` (the node's key as the
first look found it, unless a policy names it), `notes/<leaves>` (the note with this witness's cosignature), `latest`,
and a bundle that did not hold as `refused.bundle`.

Each note must continue the last one that was signed here, so the node cannot show one history to this witness and a
shorter or another one later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from coordinator.infra.evidence.bundle_file import UNPACKED_BYTES_MAX, BundleFile
from coordinator.infra.evidence.from_topics import FromTopics
from coordinator.infra.evidence.recompute import ROUNDING
from coordinator.infra.evidence.verdict import verdict
from coordinator.infra.whole_file import write_whole
from coordinator.streams.audit.facts import ChainBrokenError, broken
from coordinator.streams.evidence.bundle import MANIFEST, NOTE, decode_manifest
from coordinator.streams.evidence.bundle_judging import Trust
from coordinator.streams.evidence.notes import Note
from coordinator.streams.log.errors import UNREADABLE_JSON, OperatorError, WorldError
from coordinator.streams.net.outbound import http_client
from coordinator.streams.signing.note_keys import NoteError, SignerKey, VerifierKey

ANSWER_BYTES_MAX = 1024 * 1024
PIECE_BYTES = 1024 * 1024
CONNECT_SECONDS_MAX = 30.0
BUNDLE_SECONDS_MAX = 3600.0
"""Until the node has made a bundle that nobody asked for before."""
NODE_KEY, LATEST, NOTES, REFUSED = "node.pub", "latest", "notes", "refused.bundle"
OnStep = Callable[[str, str], None]


class ListedNote(msgspec.Struct, frozen=True):
    """What is read of a note in the node's list."""

    checkpoint_ids: list[str]
    leaves: int
    note: str
    bundle_from: str | None = None


class Listed(msgspec.Struct, frozen=True):
    """What is read of `GET /reports/evidence`."""

    public_key: str
    notes: list[ListedNote]


class Witness:
    """`trusted` are the keys that the node's notes must have; with none, the key of the first look. `topics` makes the
    bundles, where they are not the node's. `exact`: sign nothing in which a figure differs by one unit of rounding.
    """

    def __init__(
        self,
        node_url: str,
        folder: Path,
        key: SignerKey,
        trusted: tuple[VerifierKey, ...] = (),
        topics: FromTopics | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self.node_url = node_url
        self._folder = folder
        self._key = key
        self._exact = exact
        self.name = key.verifier.name
        self._trusted = trusted
        self._topics = topics
        (folder / NOTES).mkdir(parents=True, exist_ok=True)

    async def look(self, now_seconds: int, seconds_max: float, on_step: OnStep) -> ListedNote | None:
        """Signs the node's latest note. None if there is no new note, or its bundle is not available yet. `now_seconds`
        (POSIX) is the time in the cosignature. Raises ChainBrokenError with the first step that fails; then nothing is
        signed. WorldError: the node does not answer. OperatorError: it is no node, or has another key than before to
        which no rotation leads.
        """
        async with http_client(self.node_url, timeout=CONNECT_SECONDS_MAX) as client:
            listed = await self._listed(client)
            newest = listed.notes[0] if listed.notes else None
            if newest is None or not newest.checkpoint_ids:
                return None
            if newest.bundle_from is not None and self._topics is None:
                return None
            earlier = self._earlier()
            if earlier is not None and Note.parse(earlier).text == _text_of(newest.note):
                return None
            bundle = self._folder / REFUSED  # until it has been seen to hold
            checkpoint_id = newest.checkpoint_ids[-1]
            if self._topics is None:
                await _download(client, checkpoint_id, bundle)
            else:
                bundle.unlink(missing_ok=True)  # of an earlier look; this one may end before there is another
                await self._topics.write(newest.note, checkpoint_id, bundle)
        trusted = self._trusted or (self._known_key(listed.public_key),)
        try:
            told = None if self._topics is None else newest.note.encode()
            for step, result in verdict(bundle, Trust(trusted, earlier, told), seconds_max):
                if step == ROUNDING and self._exact:
                    broken(ROUNDING, f"{result}; this witness signs only what is equal (--exact)")
                on_step(step, result)
        except ChainBrokenError as error:
            if error.step == "note" and not self._trusted and str(trusted[0]) != listed.public_key:
                raise self._another_key(listed.public_key) from error
            raise
        held = BundleFile(bundle)
        if decode_manifest(held.read(MANIFEST)).cut is not None:
            broken(
                "beginning",
                "the bundle leaves the past out, though the whole log was asked for: what was left out nobody has "
                "computed again",
            )
        content = held.read(NOTE) if told is None else told
        note = Note.parse(content)
        cosigned = content + self._key.sign(note.text, now_seconds).encode()
        write_whole(self._folder / NOTES / str(note.checkpoint.size), cosigned)
        write_whole(self._folder / LATEST, cosigned)
        bundle.unlink()
        return msgspec.structs.replace(newest, leaves=note.checkpoint.size, note=cosigned.decode())

    def _earlier(self) -> bytes | None:
        path = self._folder / LATEST
        return path.read_bytes() if path.exists() else None

    def _known_key(self, told: str) -> VerifierKey:
        path = self._folder / NODE_KEY
        if not path.exists():
            write_whole(path, f"{VerifierKey.parse(told)}\n".encode())
        return VerifierKey.parse(path.read_text(encoding="ascii"))

    def _another_key(self, told: str) -> OperatorError:
        return OperatorError(
            f"{self.node_url} has another key than before ({self._folder / NODE_KEY}): {told[:200]!r}, and no "
            "rotation in its log leads to this key. If the operator confirms the change, give the new key with --policy"
        )

    async def _listed(self, client: httpx.AsyncClient) -> Listed:
        try:
            async with client.stream("GET", "/reports/evidence", params={"limit": 1}) as answer:
                content = b""
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > ANSWER_BYTES_MAX:
                        raise OperatorError(
                            f"{self.node_url} answers with more than {ANSWER_BYTES_MAX} bytes"
                        )
        except httpx.HTTPError as error:
            raise WorldError(f"{self.node_url} does not answer: {type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK:
            raise WorldError(f"{self.node_url} answers {answer.status_code} to /reports/evidence")
        try:
            return msgspec.json.decode(content, type=Listed)
        except UNREADABLE_JSON as error:
            raise OperatorError(f"{self.node_url} is not a node with evidence: {error}") from error


def _text_of(note: str) -> bytes:
    try:
        return Note.parse(note.encode()).text
    except NoteError:
        return b""  # the bundle's own note is what is judged


async def _download(client: httpx.AsyncClient, checkpoint_id: str, path: Path) -> None:
    size = 0
    try:
        address = f"/reports/checkpoints/{quote(checkpoint_id, safe='')}/bundle"
        # From the first append on: what a witness signs must rest on nobody's word.
        query = {"whole": "true"}
        async with client.stream("GET", address, params=query, timeout=BUNDLE_SECONDS_MAX) as answer:
            if answer.status_code != httpx.codes.OK:
                raise WorldError(f"the node answers {answer.status_code} to {address}")
            with path.open("wb") as file:
                async for piece in answer.aiter_bytes(PIECE_BYTES):
                    size += len(piece)
                    if size > UNPACKED_BYTES_MAX:
                        raise OperatorError(
                            f"the bundle of {checkpoint_id} has more than {UNPACKED_BYTES_MAX} bytes"
                        )
                    file.write(piece)
    except httpx.HTTPError as error:
        raise WorldError(
            f"the bundle of {checkpoint_id} could not be fetched: {type(error).__name__}"
        ) from error
