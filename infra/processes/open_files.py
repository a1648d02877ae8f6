"""How many files and sockets a process may have open: a node needs more than some shells allow."""

from __future__ import annotations

import resource

OPEN_FILES_WANTED = 4096
"""Kafka has three files a segment, the read models 64 each, the API a socket a caller."""


def allow_open_files() -> int:
    """Raise this process's limit, which its children inherit, as far as it may be raised; what it then is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(OPEN_FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return limit
    return OPEN_FILES_WANTED if soft == resource.RLIM_INFINITY else soft


def too_few_open_files(allowed: int) -> str:
    """What to tell the operator."""
    return (
        f"{allowed} open files are allowed, {OPEN_FILES_WANTED} are wanted: with fewer a node falls after hours "
        f"(ulimit -n {OPEN_FILES_WANTED}, or LimitNOFILE= of its service)"
    )
