"""The limits of an answer before it is decoded: a few bytes on the wire can become gigabytes of objects."""

from __future__ import annotations

BYTES_PER_RECORDED = 4
BYTES_SPARE = 1024
"""On the wire an answer has spaces, escapes and fields that are not recorded, so it may be larger than its record."""


def answer_bytes_max(output_max_bytes: int) -> int:
    """How many bytes an answer may have on the wire if its record may have `output_max_bytes`."""
    return BYTES_PER_RECORDED * output_max_bytes + BYTES_SPARE


def answer_size_fault(data: bytes, output_max_bytes: int) -> str:
    """Why an answer is too big to be decoded; "" if it is not.

    A record has at most `output_max_bytes` bytes, and so no more commas and brackets than that. An answer with more of
    them cannot be recorded, and would take much memory.
    """
    if len(data) <= output_max_bytes:
        return ""
    most = answer_bytes_max(output_max_bytes)
    if len(data) > most:
        return f"{len(data)} bytes on the wire, more than {most}"
    elements = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if elements > output_max_bytes:
        return f"{elements} elements, more than output_max_bytes ({output_max_bytes}) can hold"
    return ""
