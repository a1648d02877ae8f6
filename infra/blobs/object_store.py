"""Bytes that the log only names, in an object store: whatever `fsspec` has a way to (`s3://`, `gs://`, `az://`, ..).

An object is named by the SHA-256 of what is in it, below the prefix that BLOBS_URL says. Each reading compares its size
and hash with what the log says. Credentials come from where the store's own library looks for them. No blob is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import stamina

from coordinator.infra.blobs.content import (
    GIVEN_UP,
    check_name,
    check_size,
    checked,
    name_of,
    place_of_note,
)
from coordinator.streams.events import Blob
from coordinator.streams.log.errors import BlobLostError, OperatorError, WorldError

ATTEMPTS = 4
CALL_SECONDS_MAX = 15.0
"""For one request, and a second more for each megabyte of it. By itself the library of S3 asks a server that takes a
request and says nothing for ten minutes, and a round's answers would wait for it.
"""
_Done = TypeVar("_Done")


class ObjectStore:
    """The `Blobs` of an object store. Blocking; each call is tried ATTEMPTS times, for about half a minute in all."""

    def __init__(self, url: str) -> None:
        """Raises OperatorError where fsspec, or what it needs for this kind of URL, is not installed."""
        try:
            import fsspec  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise OperatorError(
                "BLOBS_URL needs fsspec: install coordinator-node[blobs], and what fsspec needs for this store"
            ) from None
        self._scheme = url.partition("://")[0]
        try:
            self._files, self._prefix = fsspec.core.url_to_fs(url.rstrip("/"), skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise OperatorError(f"BLOBS_URL: fsspec cannot open {self._scheme}://: {error}") from error

    def put(self, content: bytes) -> str:
        """Stores `content` and returns its SHA-256 once it is in the store. An object that exists is written again, so
        that an altered one is repaired. A note that it was given up is left to the scrub: it would be one more request
        for each blob. Raises OperatorError (too many bytes, refused), WorldError.
        """
        sha256 = name_of(content)
        self._put(sha256, content)
        return sha256

    def read(self, blob: Blob) -> bytes:
        """The bytes of a blob. Raises BlobLostError, which names it, if they are missing or altered; WorldError where
        the store does not say, refuses who asks, or has no such bucket: keys end, and a round must wait then.
        """
        # One byte more than it may have: a larger object is seen as altered, and not read whole.
        content = self._of(
            blob, lambda path: self._call("cat_file", path, start=0, end=blob.bytes + 1, size=blob.bytes)
        )
        return checked(blob, bytes(content))

    def look(self, blob: Blob) -> None:
        """Ask only for the blob's size: an object store compares checksums by itself, and reading an object costs
        money. Raises as `read`.
        """
        size_bytes = self._of(blob, lambda path: self._call("size", path))
        if size_bytes is not None:  # some kinds of store do not tell it
            check_size(blob, size_bytes)

    def give_up(self, sha256: str, reason: str) -> None:
        """Note that nobody has this blob any more. Raises OperatorError, also where the store has it; WorldError."""
        note = place_of_note(sha256)
        with suppress(FileNotFoundError, PermissionError):
            path = self._path(sha256)
            size = self._tried(lambda: self._call("size", path)) or 0
            if name_of(bytes(self._tried(lambda: self._call("cat_file", path, size=size)))) == sha256:
                raise OperatorError(
                    f"the {self._scheme} store has {sha256}, and it is complete: nothing is lost"
                )
        self._put(note, reason.encode())

    def given_up(self, sha256: str) -> str:
        """The reason that `give_up` noted, or "". Raises WorldError."""
        try:
            note = self._path(place_of_note(sha256))
            return bytes(self._tried(lambda: self._call("cat_file", note))).decode("utf-8", "replace").strip()
        except (FileNotFoundError, PermissionError, OperatorError):
            return ""

    def notes(self) -> set[str]:
        """The names of the blobs that are given up, none where the store does not list them."""
        folder = self._path(GIVEN_UP)
        self._files.invalidate_cache(folder)  # another process writes the notes
        try:
            return {
                path.rpartition("/")[2]
                for path in self._tried(lambda: self._call("ls", folder, detail=False))
            }
        except (FileNotFoundError, PermissionError, WorldError):
            return set()  # where it is out of reach, the first look at a blob says so

    def take_back(self, sha256: str) -> None:
        """Remove the note, if there is one: the blob is back. Raises OperatorError, WorldError."""
        note = place_of_note(sha256)
        try:
            self._tried(lambda: self._call("rm_file", self._path(note)))
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise OperatorError(
                f"{note} in the {self._scheme} store cannot be removed: {_said(error)}"
            ) from error

    def _put(self, name: str, content: bytes) -> None:
        try:
            self._tried(lambda: self._call("pipe_file", self._path(name), content, size=len(content)))
        except FileNotFoundError as error:
            raise OperatorError(
                f"BLOBS_URL: the {self._scheme} store has no such place: make the bucket first"
            ) from error
        except PermissionError as error:
            raise OperatorError(
                f"BLOBS_URL: the {self._scheme} store refuses to write: {_said(error)}"
            ) from error

    def _of(self, blob: Blob, ask: Callable[[str], _Done]) -> _Done:
        name = check_name(blob)
        try:
            return self._tried(lambda: ask(self._path(name)))
        except FileNotFoundError as error:
            if _is_bucket_gone(error):
                raise WorldError(f"BLOBS_URL: the {self._scheme} store has no such bucket") from error
            raise BlobLostError(f"blob {name} is missing") from None
        except PermissionError as error:
            raise WorldError(
                f"the {self._scheme} store of blobs refuses who asks for {name}: check the credentials, and the right "
                "to read and to list"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _call(self, method: str, *arguments: Any, size: int = 0, **options: Any) -> Any:
        """A method of the store's, which a server that says nothing does not hold up."""
        if not self._files.async_impl:
            return getattr(self._files, method)(*arguments, **options)
        from fsspec.asyn import sync  # noqa: PLC0415 - an optional extra

        seconds_max = CALL_SECONDS_MAX + size / 1e6
        return sync(
            self._files.loop, getattr(self._files, f"_{method}"), *arguments, timeout=seconds_max, **options
        )

    def _tried(self, work: Callable[[], _Done]) -> _Done:
        try:
            for attempt in stamina.retry_context(on=_is_passing, attempts=ATTEMPTS, timeout=30.0):
                with attempt:
                    return work()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each store's library has errors of its own
            raise WorldError(f"the {self._scheme} store of blobs does not answer: {_said(error)}") from error
        raise AssertionError  # the loop returns or raises


def _is_passing(error: Exception) -> bool:
    return not isinstance(error, (FileNotFoundError, PermissionError))


def _is_bucket_gone(error: BaseException) -> bool:
    """S3 tells a bucket that is gone from an object that is; fsspec makes the same error of both."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _said(error: Exception) -> str:
    """The kind of an error. Its text may hold the URL, and so a key."""
    return type(error).__name__
