"""Judges a run: which rules must hold whatever the faults were, and what breaks them.

Reads the log of the run, and what the simulated world knows. Emits nothing: it gives a finding for each broken rule.

- `log_rules.py` has the rules that need the log alone. They are checked by the means with which a node checks itself.
- `plain_arithmetic.py` has the money once more, without any of the node's functions.
- `world_rules.py` has the rules that need the world, too: what it delivered, answered and did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from coordinator.streams.simulation import log_rules, world_rules
from coordinator.streams.simulation.plain_arithmetic import plain_arithmetic
from coordinator.streams.simulation.playing import Challenge, Outcome

Rule = Callable[[Outcome, Challenge], Iterator[str]]
"""Gives a text for each place where the rule is broken."""

RULES: dict[str, Rule] = {
    "ids come once": log_rules.ids_come_once,
    "only what the owner wrote counts": log_rules.only_the_owner_counts,
    "lifecycles": log_rules.lifecycles,
    "derived topics are those of an undisturbed run": log_rules.derived_topics,
    "recorded states are what the events before them make": log_rules.states,
    "checkpoints are decided of what stands before them": log_rules.checkpoints_again,
    "the sums add up": log_rules.sums,
    "charges, means, ranks and shares are those of plain arithmetic": plain_arithmetic,
    "each checkpoint can be computed again": log_rules.audit,
    "what a correction owes is offered once": log_rules.credits_once,
    "rules hold from the end of a period": log_rules.rules_from_a_boundary,
    "the feed has what the world gave": world_rules.feed_is_complete,
    "answers are the models' own": world_rules.answers_were_given,
    "nobody pays for another's fault": world_rules.blame,
    "nothing stays open": world_rules.nothing_stays_open,
    "every checkpoint is paid": world_rules.checkpoints_are_paid,
    "every command is decided": world_rules.commands_are_decided,
    "garbage is set aside": world_rules.garbage_is_set_aside,
    "faults behind the facts change nothing": world_rules.as_without_faults,
}


class Finding(msgspec.Struct, frozen=True):
    """A broken rule, and the first place where it is broken."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def judge(outcome: Outcome, challenge: Challenge) -> list[Finding]:
    """The broken rules, with one finding for each; empty if all hold."""
    findings: list[Finding] = [Finding("no process ends by a bug", bug) for bug in outcome.bugs[:1]]
    for name, rule in RULES.items():
        text = next(rule(outcome, challenge), None)
        if text is not None:
            findings.append(Finding(name, text))
    return findings
