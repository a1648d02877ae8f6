r"""The values of a `.env`, as `docker compose` reads them: one file serves the containers and every command.

Pure. A value in single quotes is taken literally. In double quotes `\n`, `\"`, `\\` and `\$` are escapes. In these
and in a plain value `$NAME`, `${NAME}` and `${NAME:-default}` are replaced, and `$$` is a dollar. A plain value ends
before ` #`. Where compose would drop or blank a value with a warning, the line is refused: an unset name, words behind
a closing quote.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping

LITERAL = "put the value in single quotes if it is meant as it stands: NAME='...'"

_LINE = re.compile(
    r"""[^\S\n]*(?:export[^\S\n]+)?(?P<name>[A-Za-z0-9_.]+)[^\S\n]*=[^\S\n]*+
        (?: '(?P<single>(?:\\.|[^'\\])*)'(?P<after_single>[^\n]*)
          | "(?P<double>(?:\\.|[^"\\])*)"(?P<after_double>[^\n]*)
          | (?P<plain>(?!['"])[^\n]*) )(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_NO_LINE = re.compile(r"[^\S\n]*(?:\#[^\n]*)?(?:\n|\Z)")
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}
_GO_ESCAPES = "abcfv0"
_DOLLAR = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?::?-(?P<default>[^${}]*))?\}|(?P<odd>\{))",
    re.ASCII,
)


def read_values(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Name -> value. `$NAME` is taken from `environ`, else from a line above. Raises ValueError naming the line."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    values: dict[str, str] = {}
    defined = ChainMap(dict(environ), values)
    at, number, counted = 0, 1, 0
    while at < len(text):
        if (nothing := _NO_LINE.match(text, at)) is not None:
            at = nothing.end()
            continue
        number, counted = number + text.count("\n", counted, at), at
        line = _LINE.match(text, at)
        after = line and (line["after_single"] or line["after_double"] or "").strip()
        if line is None or (after and not after.startswith("#")):
            raise ValueError(f"line {number}: cannot be read; write KEY=VALUE")
        try:
            values[line["name"]] = _value(line, defined)
        except ValueError as error:
            raise ValueError(f"line {number}: {line['name']} {error}; {LITERAL}") from None
        at = line.end()
    return values


def _value(line: re.Match[str], defined: Mapping[str, str]) -> str:
    if (single := line["single"]) is not None:
        return _PAIR.sub(lambda pair: "'" if pair[1] == "'" else pair[0], single)
    if (double := line["double"]) is not None:
        return _replaced(_PAIR.sub(_unescaped, double), defined)
    return _replaced(line["plain"].partition(" #")[0].rstrip(), defined)


def _unescaped(pair: re.Match[str]) -> str:
    if pair[1] in _GO_ESCAPES:
        raise ValueError(f"has the escape {pair[0]}")
    return _ESCAPES.get(pair[1], pair[0])


def _replaced(text: str, defined: Mapping[str, str]) -> str:
    def one(dollar: re.Match[str]) -> str:
        if dollar["dollar"]:
            return "$"
        if dollar["odd"]:
            raise ValueError("has ${ without a name, or with more than :-default behind it")
        name, default = dollar["name"] or dollar["braced"], dollar["default"]
        value = defined.get(name)
        if default is not None:
            unset_only = not dollar[0].startswith(f"${{{name}:")
            return default if value is None or (not value and not unset_only) else value
        if value is None:
            raise ValueError(f"has ${name}, which nothing sets")
        return value

    return _DOLLAR.sub(one, text)
