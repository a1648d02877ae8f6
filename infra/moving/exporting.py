"""Writes a node's log, contracts and settings into one file, while it runs or at rest.

Reads the topics and blobs; writes the file, whole or not at all. No key of the data directory is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.from_log import read_applied
from coordinator.infra.log.cluster_state import look_at_log
from coordinator.infra.log.copy import OnProgress, write_backup
from coordinator.infra.moving.export_file import (
    CONTRACTS,
    FORMAT,
    MANIFEST,
    SETTINGS,
    Manifest,
    writing_export,
)
from coordinator.infra.moving.settings_text import machine_set, secrets_set, settings_text
from coordinator.streams.log.integrity import check_log
from coordinator.streams.settings import Settings


async def write_export(
    settings: Settings, environ: Mapping[str, str], path: Path, on_progress: OnProgress
) -> Manifest:
    """Write the export of the node with these settings to `path`. Only the names of variables are taken from `environ`.

    Raises WorldError, WrongLogError (topics are missing or incomplete), LogError (a topic has gaps).
    """
    bootstrap, crunch_id = settings.kafka_bootstrap, settings.crunch_id
    with writing_export(path) as export:
        birth_id = check_log(crunch_id, await look_at_log(bootstrap, crunch_id), None, bootstrap)
        with export.adding_log() as log_file:
            tail = await write_backup(bootstrap, crunch_id, log_file, on_progress, store_of(settings))
        archives = {
            command.data.contract_hash: bytes(command.data.archive)
            for _, command in await read_applied(bootstrap, crunch_id)
        }
        for contract_hash, content in sorted(archives.items()):
            export.put(f"{CONTRACTS}{contract_hash}", content)
        export.put(SETTINGS, settings_text(settings).encode())
        manifest = Manifest(
            format=FORMAT,
            version=version("coordinator-node"),
            crunch_id=crunch_id,
            birth_id=birth_id,
            records=tail.records,
            blobs=tail.blobs,
            sha256=tail.sha256,
            lost=tail.lost,
            secrets_left_out=secrets_set(settings, environ),
            machine_left_out=machine_set(settings),
        )
        export.put(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest
