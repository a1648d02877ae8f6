"""A source's options: texts, as in `FEED_OPT_*`, converted to what the source needs.

Pure. `options_from` takes the variables of one source from an environment: `FEED_OPT_REST_URL=...` is the option
`rest_url`, and Pyth's own `PYTH_API_KEY` and `PYTH_HERMES_URL` are `api_key` and `hermes_url`. A wrong option is the
operator's fault, and the message says what to change; a message never holds a secret.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.setting_checks import check_secret

PREFIX = "FEED_OPT_"
_OWN_VARIABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "pyth": MappingProxyType(
            {
                "PYTH_API_KEY": "api_key",
                "PYTH_HERMES_URL": "hermes_url",
                "PYTH_BENCHMARKS_URL": "benchmarks_url",
                "PYTH_HISTORY_URL": "history_url",
            }
        )
    }
)
_SETTINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "candles": MappingProxyType(
            {
                "path": "FEED_CANDLES_FILE",
                "columns": "FEED_COLUMNS",
                "stamp": "FEED_STAMP",
                "any_price": "FEED_ANY_PRICE",
            }
        ),
        "generated": MappingProxyType({"seed": "FEED_SEED"}),
    }
)
"""Source -> option -> the setting that it is taken from, in place of FEED_OPT_*."""


def options_from(environ: Mapping[str, str], source: str) -> dict[str, str]:
    """The options of `source` in an environment. `FEED_OPT_*` overrides a source's own variables."""
    own = _OWN_VARIABLES.get(source, {})
    options = {option: environ[variable] for variable, option in own.items() if environ.get(variable)}
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and text:
            options[variable.removeprefix(PREFIX).lower()] = text
    return options


def variable_of(source: str, option: str) -> str:
    """The variable that an operator sets for an option; messages begin with it."""
    own = [variable for variable, name in _OWN_VARIABLES.get(source, {}).items() if name == option]
    return " or ".join([_SETTINGS.get(source, {}).get(option, f"{PREFIX}{option.upper()}"), *own])


class Options:
    """The options of one source. Raises OperatorError for an option that the source does not have."""

    def __init__(self, source: str, texts: Mapping[str, str], option_names: Collection[str]) -> None:
        self._source = source
        self._texts = texts
        unknown = sorted(set(texts) - set(option_names))
        if unknown:
            raise OperatorError(
                f"{variable_of(source, unknown[0])}: feed source {source!r} has no option {unknown[0]}; "
                f"it has {', '.join(option_names)}"
            )

    def text(self, name: str, default: str = "") -> str:
        """The option's text without surrounding blanks."""
        return self._texts.get(name, default).strip()

    def whole(self, name: str, default: int, least: int | None = None) -> int:
        """A whole number. Raises OperatorError."""
        text = self.text(name, str(default))
        try:
            number = int(_plain(text))
        except ValueError:
            raise self.wrong(name, "give a whole number") from None
        if least is not None and number < least:
            raise self.wrong(name, f"give at least {least}")
        return number

    def seconds(self, name: str, default: float) -> float:
        """A positive, finite number of seconds. Raises OperatorError."""
        return self.positive(name, default, "a positive number of seconds")

    def positive(self, name: str, default: float, what: str) -> float:
        """A positive, finite number; `what` describes it in a message. Raises OperatorError."""
        text = self.text(name, str(default))
        try:
            number = float(_plain(text))
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise self.wrong(name, f"give {what}")
        return number

    def secret(self, name: str) -> str:
        """A secret that is sent in a header. Raises OperatorError, without the secret."""
        check_secret(variable_of(self._source, name), self.text(name))
        return self.text(name)

    def yes(self, name: str) -> bool:
        """`true` or `false`; `false` is the default. Raises OperatorError."""
        text = self.text(name, "false").lower()
        if text not in ("true", "false"):
            raise self.wrong(name, "give true or false")
        return text == "true"

    def wrong(self, name: str, advice: str) -> OperatorError:
        """The error for an option that cannot be used."""
        variable = variable_of(self._source, name)
        return OperatorError(
            f"{variable}: feed source {self._source!r}: {name} is {self.text(name)[:200]!r}; {advice}"
        )


def _plain(text: str) -> str:
    """`text`, if it is ASCII without underscores: Python also accepts 1_000 and Arabic digits. Raises ValueError."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return text
