"""Keys of the API: who may read, settle, administrate, or submit a model's answers.

An entry is `ID SCOPE SHA256`, and for a key that submits `ID submit SHA256 MODEL CRUNCHER`: which model it answers for,
and whose that is. One a line, `#` begins a remark: no file of the node holds the key itself. A key is `ID.SECRET`, the
secret 256 random bits, so that a plain SHA-256 of the whole key cannot be guessed back. The id finds the entry, the
hash is compared in constant time, and an unknown id is compared too.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from coordinator.streams.log.errors import OperatorError

FILE_BYTES_MAX = 1_000_000
ENTRIES_MAX = 1_000
KEY_CHARS_MAX = 200
_ENTRY = re.compile(
    r"(?P<id>[A-Za-z0-9_-]{1,64})\s+(?P<scope>\w+)\s+(?P<hash>[0-9a-f]{64})"
    r"(\s+(?P<model>\S{1,200})\s+(?P<cruncher>\S{1,200}))?"
)
_NOBODY = "0" * 64


class Scope(enum.IntEnum):
    """What a caller may do; each includes those before it. SUBMIT is not in this order: it includes READ, and no
    other scope includes it, because its key says for which model it answers.
    """

    NONE = 0
    READ = 1
    SETTLE = 2
    ADMIN = 3
    SUBMIT = 4

    def includes(self, needed: Scope) -> bool:
        """Whether a caller with this scope may do what needs the other scope."""
        if Scope.SUBMIT in (self, needed):
            return self is needed or (self is Scope.SUBMIT and needed <= Scope.READ)
        return self >= needed


SCOPES = {scope.name.lower(): scope for scope in Scope if scope is not Scope.NONE}
"""By their names."""


class Entry(msgspec.Struct, frozen=True):
    """One key: its public id, what it may do, and the hash (hex) of the whole key; and of a key that submits, its
    model and cruncher.
    """

    key_id: str
    scope: Scope
    sha256: str
    model_id: str = ""
    cruncher_id: str = ""


class KeyRing:
    """The keys that are known."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_id = {entry.key_id: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._by_id)

    def entries(self) -> list[Entry]:
        """All of them, in the order of their naming."""
        return list(self._by_id.values())

    def scope_of(self, key: str) -> Scope:
        """The scope of this key; NONE for a key that is not known."""
        entry = self.entry_of(key)
        return Scope.NONE if entry is None else entry.scope

    def entry_of(self, key: str) -> Entry | None:
        """The entry of this key; None for a key that is not known."""
        if len(key) > KEY_CHARS_MAX or not key.isascii():
            return None
        entry = self._by_id.get(key.partition(".")[0])
        same = hmac.compare_digest(hash_of(key), entry.sha256 if entry else _NOBODY)
        return entry if same else None


def hash_of(key: str) -> str:
    """SHA-256 (hex) of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_entry(
    key_id: str, scope: Scope, secret: str, model_id: str = "", cruncher_id: str = ""
) -> tuple[str, str]:
    """(the key to hand out, the line to keep). `secret` is random: 32 bytes as URL-safe text. A key that submits names
    its model and cruncher.
    """
    key = f"{key_id}.{secret}"
    whose = f" {model_id} {cruncher_id}" if scope is Scope.SUBMIT else ""
    return key, f"{key_id} {scope.name.lower()} {hash_of(key)}{whose}"


def parse_entries(text: str, where: str) -> list[Entry]:
    """The entries of a text with one a line (or `;`). Raises OperatorError naming `where` and the line, never its text:
    somebody may have put a key there.
    """
    entry_of: dict[str, Entry] = {}
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        entry_text = line.partition("#")[0].strip()
        if not entry_text:
            continue
        match = _ENTRY.fullmatch(entry_text)
        scope = SCOPES.get(match["scope"]) if match else None
        if match is None or scope is None or (scope is Scope.SUBMIT) is (match["model"] is None):
            raise OperatorError(
                f"{where}, line {number}: an entry is ID SCOPE SHA256 with scope read, settle or admin, or ID submit "
                "SHA256 MODEL CRUNCHER; `coordinator keys make` prints one"
            )
        if match["id"] in entry_of:
            raise OperatorError(f"{where}, line {number}: the id {match['id']} occurs twice")
        entry_of[match["id"]] = Entry(
            match["id"], scope, match["hash"], match["model"] or "", match["cruncher"] or ""
        )
        if len(entry_of) > ENTRIES_MAX:
            raise OperatorError(f"{where} holds more than {ENTRIES_MAX} keys")
    return list(entry_of.values())


def read_key_ring(entries: str, file: str) -> KeyRing:
    """The keys of API_KEYS and of the file that API_KEYS_FILE names. Raises OperatorError."""
    entries_found = parse_entries(entries, "API_KEYS")
    if file:
        try:
            with Path(file).open("rb") as opened:
                raw = opened.read(FILE_BYTES_MAX + 1)
            if len(raw) > FILE_BYTES_MAX:
                raise OperatorError(f"API_KEYS_FILE={file} is longer than {FILE_BYTES_MAX} bytes")
            entries_found += parse_entries(raw.decode(), f"API_KEYS_FILE={file}")
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"API_KEYS_FILE={file} cannot be read: {error}") from error
    if len({entry.key_id for entry in entries_found}) != len(entries_found):
        raise OperatorError("API_KEYS and API_KEYS_FILE name the same id")
    return KeyRing(entries_found)
