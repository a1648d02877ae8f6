"""What bounds an answer on its way to the node, before it is decoded: a few bytes can stand for gigabytes."""

from __future__ import annotations

BYTES_PER_RECORDED = 4
BYTES_SPARE = 1024
"""An answer travels with spaces, escapes and fields that are not recorded: it may be so much larger than its record."""


def answer_bytes_max(output_max_bytes: int) -> int:
    """How many bytes an answer may have on the wire, where `output_max_bytes` of it may be recorded."""
    return BYTES_PER_RECORDED * output_max_bytes + BYTES_SPARE


def answer_size_fault(data: bytes, output_max_bytes: int) -> str:
    """Why an answer of these bytes is too big to be decoded; empty where it is not.

    What is recorded has at most `output_max_bytes` bytes, and so no more commas and brackets than that: an answer
    with more of them cannot be one.
    """
    most = answer_bytes_max(output_max_bytes)
    if len(data) > most:
        return f"{len(data)} bytes on the wire, more than {most}"
    elements = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if elements > output_max_bytes:
        return f"{elements} elements, more than output_max_bytes ({output_max_bytes}) can hold"
    return ""
