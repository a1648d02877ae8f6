"""A runbook page per alert, from the alert guide."""

from __future__ import annotations

from coordinator.api.alert_guide import GUIDES, AlertGuide

WHEN = {"page": "at once, also at night", "ticket": "on the next working day"}
COMMANDS = ("coordinator ", "make ", "docker ")


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    return {"index.md": _index()} | {f"{name}.md": _page(name, guide) for name, guide in GUIDES.items()}


def _page(name: str, guide: AlertGuide) -> str:
    kind = (
        f"kind `{name}` in `/healthz`, on the page and in the webhook"
        if "coordinator_alerts" in guide.expr
        else ""
    )
    lines = [f"# {guide.title}", "", guide.means, "", f"Act {WHEN[guide.severity]}."]
    lines += [
        "",
        f"It is the node's own alert: {kind}." if kind else "Prometheus sees it by the node's figures.",
    ]
    lines += ["", "## Look", "", *(f"    {command}" for command in guide.look)]
    lines += [
        "",
        "## End it",
        "",
        *(f"{number}. {_code(step)}" for number, step in enumerate(guide.end, start=1)),
    ]
    lines += ["", "## Its rule", "", f"    {guide.expr}", "", f"for {guide.wait}.", ""]
    return "\n".join(lines)


def _code(step: str) -> str:
    """The step with its command as code: all of it up to a comma, where it begins with one or has one after a colon."""
    before, colon, after = step.partition(": ")
    if colon and after.startswith(COMMANDS):
        return f"{before}: {_code(after)}"
    if not step.startswith(COMMANDS):
        return step
    command, comma, rest = step.partition(",")
    return f"`{command.rstrip('.')}`{comma}{rest}" if comma else f"`{command.rstrip('.')}`"


def _index() -> str:
    rows = [
        f"| [{guide.title}]({name}.md) | {guide.severity} | {guide.means} |" for name, guide in GUIDES.items()
    ]
    return "\n".join(
        [
            "# Runbook",
            "",
            "For an operator: what each alert means, and what ends it.",
            "`page`: act at once. `ticket`: on the next working day.",
            "",
            "| alert | act | means |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
