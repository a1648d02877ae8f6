"""The pages of what the node tells its operator: alerts, and messages that end a command. Read out of the source.

A message is listed as it is told, with `{what}` where something is filled in. One whose text the code does not hold in
one place (another function makes it) cannot be listed; a test holds that those are few.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import get_args

from coordinator.api.invariant_shapes import AlertKind
from documentation.markdown import MADE, code, table
from documentation.parsed_code import calls, modules, sorted_calls, text_of

ERRORS = {
    "OperatorError": "2",
    "ContractError": "2",
    "WrongLogError": "2",
    "TruncatedTopicError": "2",
    "WorldError": "3",
    "RefusedError": "3",
    "NodeRefusedError": "1",
}
WITNESS = "cli/witness.py"
ALERTS = f"""\
# Alerts

What a person should know now. Until it is over, an alert is in `/healthz`, in `coordinator doctor`, on the page and in
the metric `coordinator_alerts`, and the webhook reports it. [Alerts and invariants](../how-to/alerts.md) describes
this, and the [runbook](../runbook/index.md) says how to end each alert.

{MADE}"""
MESSAGES = f"""\
# Messages

If a command or a worker ends because something is wrong, it prints `error: ` and one of these messages. With exit code
1 the node refused what you asked for. With 2 you must change something, and the message says what. With 3 something
outside did not answer: try again, or check what the message names. `coordinator plan` ends with 1 for each of these. A
message whose text another function makes is not listed here.

{MADE}"""


def told_alerts() -> list[tuple[str, str, str]]:
    """`(kind, name, text)` of every alert in the code, as a node tells it; a witness is no node (how-to/verify.md)."""
    alerts_told = []
    for path, tree, _ in modules():
        if path == WITNESS:
            continue
        for name, call in calls(tree):
            if name == "Alert" and len(call.args) >= 3 and isinstance(call.args[0], ast.Constant):  # noqa: PLR2004
                texts = [text_of(argument) or _named(argument) for argument in call.args[:3]]
                alerts_told.append((texts[0], texts[1], texts[2]))
    return sorted(alerts_told, key=lambda alert: (get_args(AlertKind).index(alert[0]), alert[1], alert[2]))


def alerts() -> str:
    """The page of the alerts."""
    rows = [(code(kind), code(name), _told(text)) for kind, name, text in told_alerts()]
    return "\n".join([ALERTS, table(("kind", "name", "what it says"), rows)])


def raised() -> Iterator[tuple[str, str, str | None]]:
    """`(module, error, text)` of every error that ends a command; the text is None where the code does not hold it."""
    for path, tree, _ in modules():
        for node in sorted_calls(tree):
            match node.func:
                case ast.Name(id=name) if name in ERRORS:
                    yield path, name, text_of(node.args[0]) if node.args else None


def messages() -> str:
    """The page of the messages."""
    errors = list(raised())
    parts = [MESSAGES]
    for path in dict.fromkeys(path for path, _, _ in errors):
        rows = dict.fromkeys(
            (ERRORS[error], _told(text))
            for where, error, text in errors
            if where == path and text is not None and _says_something(text)
        )
        if rows:
            parts += [f"## {path}\n", table(("exit code", "message"), rows)]
    return "\n".join(parts)


def _says_something(text: str) -> bool:
    outside = "".join(part.partition("}")[2] or part for part in text.split("{"))
    return any(letter.isalpha() for letter in outside)


def _told(text: str) -> str:
    return code(" ".join(text.split()))


def _named(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"{{{name.strip('_')}}}"
        case _:
            return "{..}"
