"""A node's settings as a text that may leave the machine: no secret, and nothing that is of the machine alone.

Only what differs from the default is in it: another version has defaults of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr

from coordinator.streams.settings import Settings, environment

OF_THE_MACHINE = frozenset(
    (
        *("data_dir", "kafka_bootstrap", "health_file", "api_host", "model_runner_node_host"),
        *("wallets_file", "feed_candles_file", "secure_cert_dir", "gateway_cert_dir"),
        *("api_keys_file", "api_routes_dir"),
    )
)
"""They name a file, a folder or an address of the machine that the node was on."""
KEYS = frozenset(("api_keys",))
"""Settings that are no `SecretStr`, since they are hashes. The new owner of the file needs them no more than the keys.
"""
_BESIDE = re.compile(r"KAFKA_(SASL|SSL)_\w+|FEED_OPT_\w+|PYTH_\w+|COORDINATOR_KEY|(\w+_)?PROXY")
"""Variables beside the settings that may hold a secret, or a URL with one."""
HEAD = """\
# Settings of the node of {crunch_id}, without secrets: a `.env` for the folder that `coordinator up` runs in.
"""


def is_secret(name: str) -> bool:
    """Whether a setting is left out of every file that leaves the machine."""
    return Settings.model_fields[name].annotation is SecretStr or name in KEYS


def secrets_set(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The names of the variables that are set and must be brought along by hand."""
    ours = [name.upper() for name, text in environment(settings).items() if is_secret(name.lower()) and text]
    beside = [name for name, text in environ.items() if text and _BESIDE.fullmatch(name)]
    return sorted({*ours, *beside})


def machine_set(settings: Settings) -> list[str]:
    """The names of the settings that name a place of this machine, where they are not the default."""
    return sorted(name.upper() for name in OF_THE_MACHINE if name in _changed(settings))


def settings_text(settings: Settings) -> str:
    """Lines `VARIABLE=value`, those of the machine as comments."""
    lines = [HEAD.format(crunch_id=settings.crunch_id)]
    lines.append(f"CRUNCH_ID={quoted(settings.crunch_id)}\n")
    for name, text in _changed(settings).items():
        if name != "crunch_id":
            comment = "# of the old machine: #" if name in OF_THE_MACHINE else ""
            lines.append(f"{comment}{name.upper()}={quoted(text)}\n")
    return "".join(lines)


def quoted(text: str) -> str:
    """A value as `.env` has it."""
    if re.fullmatch(r"[A-Za-z0-9_.,:/+-]*", text):
        return text
    return '"' + re.sub(r'[\\"$]', r"\\\g<0>", text) + '"'


def _changed(settings: Settings) -> dict[str, str]:
    """Setting -> its text, of those that are no secret and not the default."""
    defaults = environment(Settings())
    return {
        name.lower(): text
        for name, text in environment(settings).items()
        if not is_secret(name.lower()) and text != defaults.get(name)
    }
