"""Makes a checkpoint's bundle from a crunch's topics for a witness, who has no key of the node and writes no record.

Reads the topics as `coordinator bundle` does: by offset, in no group, without a commit, so credentials that may only
read are enough. The tree is built again each time, in a folder that is then removed: of an earlier run only the signed
notes are trusted. The new note is signed by a temporary key that proves nothing; the node's note is compared with it
(`Trust.note`).
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.evidence.bundling import KafkaSource, NotInLogError, OnRead, write_bundle
from coordinator.infra.evidence.signing_keys import origin_of
from coordinator.streams.audit.facts import broken
from coordinator.streams.evidence.bundle_judging import ORIGIN
from coordinator.streams.evidence.notes import Note
from coordinator.streams.log.errors import LogError
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import NoteError, SignerKey


class FromTopics:
    """`settings` say where Kafka is. `reading` is entered for each bundle and gives the function that gets the
    progress.
    """

    def __init__(self, settings: Settings, reading: Callable[[], AbstractContextManager[OnRead]]) -> None:
        self._settings = settings
        self._reading = reading

    async def write(self, note: str, checkpoint_id: str, path: Path) -> None:
        """The bundle of the checkpoint that a node's note was made for, about the crunch that the note names.

        Raises ChainBrokenError: the topics do not hold what the node says, or are no log. WorldError: Kafka does not
        answer, OperatorError: it has no such topics.
        """
        try:
            origin = Note.parse(note.encode()).checkpoint.origin
        except NoteError as error:
            broken("note", str(error))
        if not origin.startswith(ORIGIN):
            broken("note", f"it is about {origin[:200]!r}, which is no crunch")
        crunch_id = origin.removeprefix(ORIGIN)
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix="tree-") as folder,
            self._reading() as on_read,
        ):
            key = SignerKey(origin_of(crunch_id), secrets.token_bytes(32))
            settings = self._settings.changed(
                crunch_id=crunch_id, data_dir=Path(folder), evidence_key=key.secret_text().strip()
            )
            source = KafkaSource(settings.kafka_bootstrap, crunch_id, on_read)
            try:
                await write_bundle(
                    settings, source, checkpoint_id, path, store_of(self._settings), whole=True
                )
            except NotInLogError as error:
                broken("checkpoint", str(error))
            except LogError as error:
                broken("log", str(error))
