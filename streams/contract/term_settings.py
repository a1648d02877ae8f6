"""The settings of a node that are part of its terms. A change of one is a change of rules, and is applied as one.

Pure. The terms in the log come before the settings of a start, so a node goes on with those that were applied.
"""

from __future__ import annotations

from typing import Any

from coordinator.streams.events import Terms, TermSettings
from coordinator.streams.settings import Settings

MS = 1000
TERM_SETTINGS = TermSettings.__struct_fields__


def settings_of(terms: Terms) -> TermSettings:
    """The settings of the node that these terms were made with."""
    return TermSettings(
        feed_source=terms.feed.source,
        feed_kind=terms.feed.kind,
        feed_granularity=terms.feed.granularity,
        feed_subjects=list(terms.subjects),
        snapshot_interval_seconds=terms.snapshot_interval_ms // MS,
        checkpoint_interval_seconds=terms.checkpoint_interval_ms // MS,
        checkpoint_offset_seconds=terms.checkpoint_offset_ms // MS,
    )


def term_settings(settings: Settings) -> TermSettings:
    """Those of the node's settings that are part of the terms."""
    values = {name: getattr(settings, name) for name in TERM_SETTINGS}
    return TermSettings(**values | {"feed_subjects": list(settings.feed_subjects)})


def with_term_settings(settings: Settings, told: TermSettings) -> Settings:
    """The node's settings with these in place of its own. Raises OperatorError for settings that contradict."""
    values = {name: getattr(told, name) for name in TERM_SETTINGS}
    return settings.changed(**values | {"feed_subjects": tuple(told.feed_subjects)})


def settings_differ(held: TermSettings, wanted: TermSettings) -> list[str]:
    """In words, each setting that differs, by the name of its variable."""

    def text(value: Any) -> str:
        return ",".join(value) if isinstance(value, list) else str(value)

    return [
        f"{name.upper()} {text(getattr(held, name))} -> {text(getattr(wanted, name))}"
        for name in TERM_SETTINGS
        if getattr(held, name) != getattr(wanted, name)
    ]
