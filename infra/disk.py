"""Tells a full disk from every other fault: the operator frees some space, and nothing is lost.

Two ways to know it: the system's word in an error, and a look at the file system, since whoever fails for want of room
often cannot write down why (its log lies on the same disk).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from coordinator.streams.log.errors import OperatorError, WorldError

FULL = (errno.ENOSPC, errno.EDQUOT)
WRONG_PLACES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST),
)
FULL_WORDS = tuple(os.strerror(number) for number in FULL)
"""As C libraries, Java and RocksDB say it: "No space left on device", "Disk quota exceeded"."""
LEFT_BYTES_MAX = 256 * 1024
"""Less than this is full: the last blocks are smaller than what anybody wants to write next."""


class DiskFullError(WorldError):
    """No room is left. `str()` names the place."""

    def __init__(self, place: object, detail: str = "") -> None:
        more = f" ({detail})" if detail else ""
        super().__init__(f"the disk of {place} is full: make room, nothing else is lost{more}")


def says_full(text: str) -> bool:
    """Is that what a library's or another program's words mean?"""
    return any(words in text for words in FULL_WORDS)


def full_disk_of(error: BaseException) -> DiskFullError | None:
    """The error to raise instead of an OSError that means a full disk; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    return DiskFullError(error.filename or "a file that was written", error.strerror or "")


def wrong_place_of(error: OSError) -> OperatorError | None:
    """The error to raise instead of an OSError that means a place where this process cannot write or read; None for
    any other error.
    """
    if error.errno not in WRONG_PLACES or error.filename is None:
        return None
    return OperatorError(
        f"{error.filename} cannot be used: {error.strerror}; choose another place, or give this user access"
    )


def has_no_room(folder: Path) -> bool:
    """Are no blocks, or no names of files, left on the file system of `folder`? False where nobody can look."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return False
    no_names_left = space.f_files > 0 and space.f_favail == 0  # some file systems count none
    return space.f_bavail * space.f_frsize < LEFT_BYTES_MAX or no_names_left
