"""Which store of blobs a node has, by its settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from coordinator.infra.blobs.folder import FOLDER, BlobFolder
from coordinator.infra.blobs.object_store import ObjectStore
from coordinator.streams.setting_types import revealed
from coordinator.streams.settings import Settings

FILE_SCHEMES = ("file", "local")


def store_of(settings: Settings) -> BlobFolder | ObjectStore:
    """`blobs/` of the data directory; with BLOBS_URL the folder or the object store that it names.

    Raises OperatorError where what an object store needs is not installed.
    """
    url = str(revealed(settings.blobs_url))
    if not url:
        return BlobFolder(settings.data_dir / FOLDER)
    parts = urlsplit(url)
    # A folder is written by ourselves: fsspec's own way to files has no fsync, and leaves half a file after a crash.
    if parts.scheme in FILE_SCHEMES:
        return BlobFolder(Path(unquote(parts.path)))
    return ObjectStore(url)


def is_shared(settings: Settings) -> bool:
    """Whether processes with data directories of their own have one store."""
    return bool(revealed(settings.blobs_url))
