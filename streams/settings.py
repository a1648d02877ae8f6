"""Settings: one frozen object, read once from the environment at the edge of a process.

The names of the variables are the seed's. Durations carry their unit. Nothing in the core reads this:
what decisions depend on goes into the log as CrunchConfigured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordinator.streams.granularity import GRANULARITIES_MS
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.setting_checks import (
    BOUNDS,
    check_bootstrap,
    check_choice,
    check_class,
    check_contracts,
    check_host,
    check_moment,
    check_name,
    check_number,
    check_secret,
    check_signing_secret,
    check_subjects,
    check_text,
    host_port,
    http_host,
    is_private,
    networks_of,
    url_host,
)

CRUNCH_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
CRUNCH_ID_CHARS_MAX = 100
"""A topic's name may have 249: ours add a stream's."""
CHAINS = ("", "solana", "fake")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the node needs to know from its operator."""

    crunch_id: str = "btc-up"
    kafka_bootstrap: str = "127.0.0.1:9092"
    data_dir: Path = Path("coordinator-data")
    contract: str = "coordinator.streams.contract:CrunchContract"
    """`module:attribute` of a CrunchContract (class or instance), or a comma list, the last one current."""

    feed_source: str = "binance"
    feed_subjects: tuple[str, ...] = ("BTCUSDT",)
    feed_kind: str = "candle"
    feed_granularity: str = "1m"
    feed_candles_file: str = ""
    """Candles to replay; `{subject}` in it stands for the subject."""
    feed_columns: str = ""
    """Which column of that file is which, where its header does not say it: `time=NAME,open=2,...`"""
    feed_stamp: str = "open"
    """Which end of a candle the times in that file are: `open` or `close`."""
    feed_any_price: bool = False
    """Prices in that file may be zero or negative, as those of power or spreads are."""
    feed_seed: int = 1
    replay_from_ms: int | None = None
    replay_until_ms: int | None = None
    replay_days: float = 0.0
    """A node that has not been live yet first replays so many days; its time is then a rehearsal."""
    replay_speed: float = 0.0
    """0 is as fast as the stages allow; 60 replays an hour in a minute."""
    replay_models_min: int = 0
    """A replay waits for this many models to be seen before it sends the first record."""

    clock_ahead_seconds_max: float = 120.0
    """How far this machine's clock may run ahead of what sources confirm before time stands and waits for them."""
    ntp_server: str = ""
    """HOST or HOST:PORT that is asked for the time too; nobody is asked unless it is set."""

    snapshot_interval_seconds: int = 3600
    checkpoint_interval_seconds: int = 604_800
    checkpoint_offset_seconds: int = 0
    """Periods begin at multiples of the interval since Thursday 1970-01-01 00:00 UTC, plus this: with weeks, 345600
    (four days) is a Monday."""
    settle_rehearsals: bool = False
    wallets_file: str = ""
    """CSV `model_id,wallet`: where models are paid to, over what the orchestrator tells."""

    model_runner_node_host: str = "127.0.0.1"
    model_runner_node_port: int = 9091
    model_runner_node_token: str = ""
    """A secret that a model host of ours knows too: it then takes reports of failures from nobody else."""
    model_runner_timeout_seconds: float = 60.0
    """The most that one call may take, whatever the deadline still allows."""
    secure_cert_dir: str = ""
    """Folder with ca.crt, tls.crt and tls.key: mutual TLS to each model."""
    gateway_cert_dir: str = ""
    """Folder with key.pem: TLS to a gateway that stands before the models."""
    model_base_classname: str = "coordinator.scaffolds.challenge.tracker.TrackerBase"

    api_host: str = "127.0.0.1"
    api_port: int = 8000
    api_keys: str = ""
    """Entries `ID SCOPE SHA256`, joined by `;`: hashes, no keys. `coordinator keys make` prints one."""
    api_keys_file: str = ""
    """The same, one a line."""
    api_reads: str = "open"
    """`open`, or `keys`: then reading needs a key too."""
    api_trusted_networks: str = "127.0.0.0/8,::1/128"
    """Whose calls are not counted by the rate limit, and may read where API_READS=keys. They may settle without a key
    only where API_SETTLE_WITHOUT_KEY says so."""
    api_settle_without_key: bool = False
    """The web app sends no key: with this, whoever calls from API_TRUSTED_NETWORKS may settle. They must be private."""
    api_trusted_proxies: str = ""
    """Networks of proxies whose X-Forwarded-For is believed; of anybody else it is not."""
    api_allowed_hosts: str = ""
    """Host names that the API answers to, besides addresses, names without a dot and localhost; `*` is any."""
    api_requests_per_second: int = 50
    """The most that one address outside of the trusted networks may ask; 0 is no limit."""
    api_routes_dir: str = ""
    """Folder of `.py` files with routes of the operator's own; a rendered node's is its `api/`."""

    health_file: str = ""
    """A worker touches this file every two seconds while it works; a container's health check looks at its age."""

    chain: str = ""
    """How the chain is watched: empty (not at all), `solana`, or `fake` (rehearsals only)."""
    chain_poll_seconds: float = 15.0
    solana_rpc_url: str = ""
    """May hold a key: only its host is ever logged."""
    solana_finalized_is_claimable: bool = False
    """The operator's word that a final transaction makes prizes claimable; the node cannot see it."""
    webhook_url: str = ""
    """Told of broken invariants, a stalled feed, lag, a checkpoint unpaid or withheld. May hold a key."""
    webhook_secret: str = ""
    """Signs what is posted, as Standard Webhooks says: `whsec_` and the base64 of 24 to 64 bytes."""
    monitor_seconds: float = 5.0
    replay_check_seconds: float = 3600.0
    """One read model is rebuilt from the log and compared every so often; 0 never."""
    scrub_mb_per_minute: float = 60.0
    """How fast the topics are read again for what the disk has altered; 0 never."""
    feed_stall_alert_seconds: float = 300.0
    price_jump_alert_factor: float = 2.0
    """A price that is so many times the one before it, or its part, is believed and is an alert."""
    lag_alert_records: int = 20_000
    unpaid_alert_seconds: float = 172_800.0

    session_timeout_seconds: float = 10.0
    heartbeat_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not CRUNCH_ID.fullmatch(self.crunch_id) or len(self.crunch_id) > CRUNCH_ID_CHARS_MAX:
            message = (
                f"CRUNCH_ID {self.crunch_id[:80]!r} must be lower-case words joined by '-', e.g. btc-up, "
                f"at most {CRUNCH_ID_CHARS_MAX} letters"
            )
            raise OperatorError(message)
        for name in self.__struct_fields__:
            if isinstance(text := getattr(self, name), (str, Path)):
                check_text(name.upper(), str(text))
        check_contracts("CONTRACT", self.contract)
        check_class("MODEL_BASE_CLASSNAME", self.model_base_classname)
        check_secret("MODEL_RUNNER_NODE_TOKEN", self.model_runner_node_token)
        if self.webhook_secret:
            check_signing_secret("WEBHOOK_SECRET", self.webhook_secret)
        self._check_numbers()
        self._check_addresses()
        self._check_feed()
        if self.checkpoint_interval_seconds % self.snapshot_interval_seconds:
            message = (
                f"SNAPSHOT_INTERVAL_SECONDS ({self.snapshot_interval_seconds}) must divide "
                f"CHECKPOINT_INTERVAL_SECONDS ({self.checkpoint_interval_seconds})"
            )
            raise OperatorError(message)
        if (
            self.checkpoint_offset_seconds % self.snapshot_interval_seconds
            or self.checkpoint_offset_seconds >= self.checkpoint_interval_seconds
        ):
            message = (
                f"CHECKPOINT_OFFSET_SECONDS ({self.checkpoint_offset_seconds}) must be a multiple of "
                f"SNAPSHOT_INTERVAL_SECONDS ({self.snapshot_interval_seconds}) below CHECKPOINT_INTERVAL_SECONDS "
                f"({self.checkpoint_interval_seconds}); for weeks that begin on a Monday it is 345600"
            )
            raise OperatorError(message)
        if self.secure_cert_dir and self.gateway_cert_dir:
            message = (
                "SECURE_CERT_DIR and GATEWAY_CERT_DIR exclude each other: set the one your models are behind"
            )
            raise OperatorError(message)
        check_choice("API_READS", self.api_reads, ("open", "keys"))
        if self.chain not in CHAINS:
            message = f"CHAIN={self.chain!r} is unknown; leave it empty or choose {' or '.join(CHAINS[1:])}"
            raise OperatorError(message)
        if self.chain == "fake" and not self.settle_rehearsals:
            message = "CHAIN=fake pays nobody and settles rehearsals only: it needs SETTLE_REHEARSALS=true"
            raise OperatorError(message)
        if self.chain == "solana" and not self.solana_rpc_url:
            message = "CHAIN=solana needs SOLANA_RPC_URL"
            raise OperatorError(message)

    def _check_numbers(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None:
                check_number(name.upper(), value, low, high)
        for name in ("replay_from_ms", "replay_until_ms"):
            if (moment := getattr(self, name)) is not None:
                check_moment(name.upper(), moment)
        since, until = self.replay_from_ms, self.replay_until_ms
        if since is not None and until is not None and until <= since:
            raise OperatorError(f"REPLAY_UNTIL_MS ({until}) must be after REPLAY_FROM_MS ({since})")
        if self.heartbeat_seconds >= self.session_timeout_seconds:
            message = (
                f"HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be less than "
                f"SESSION_TIMEOUT_SECONDS ({self.session_timeout_seconds:g}), better a fifth of it"
            )
            raise OperatorError(message)

    def _check_addresses(self) -> None:
        check_bootstrap("KAFKA_BOOTSTRAP", self.kafka_bootstrap)
        check_host("API_HOST", self.api_host)
        check_host("MODEL_RUNNER_NODE_HOST", self.model_runner_node_host)
        for variable, url in (("SOLANA_RPC_URL", self.solana_rpc_url), ("WEBHOOK_URL", self.webhook_url)):
            if url:
                http_host(variable, url)
        if self.ntp_server:
            host_port("NTP_SERVER", self.ntp_server, 123)
        networks_of("API_TRUSTED_PROXIES", self.api_trusted_proxies)
        trusted = networks_of("API_TRUSTED_NETWORKS", self.api_trusted_networks)
        public = [str(one) for one in trusted if not is_private(one)]
        if self.api_settle_without_key and public:
            message = (
                f"API_SETTLE_WITHOUT_KEY would let the internet settle: API_TRUSTED_NETWORKS has {', '.join(public)}, "
                "which is no private network; name private ones or single addresses"
            )
            raise OperatorError(message)
        for host in filter(None, (one.strip() for one in self.api_allowed_hosts.split(","))):
            if host != "*":
                check_host("API_ALLOWED_HOSTS", host)

    def _check_feed(self) -> None:
        if self.feed_stamp not in ("open", "close"):
            message = f"FEED_STAMP={self.feed_stamp!r}: say which end of a candle its time is, open or close"
            raise OperatorError(message)
        if not self.feed_subjects:
            message = "FEED_SUBJECTS is empty; name at least one, e.g. FEED_SUBJECTS=BTCUSDT"
            raise OperatorError(message)
        check_subjects("FEED_SUBJECTS", self.feed_subjects)
        check_name("FEED_SOURCE", self.feed_source)
        check_name("FEED_KIND", self.feed_kind)
        check_choice("FEED_GRANULARITY", self.feed_granularity, GRANULARITIES_MS)


EMPTY_SAYS_SOMETHING = frozenset(("API_TRUSTED_NETWORKS",))
"""Set and empty means nobody. Any other variable that is empty is as good as not set."""
_SOURCE_URL = re.compile(r"(FEED_OPT|PYTH)_(\w+_)?URL")
"""Variables of a feed source that hold an address."""
_MAY_BE = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_VARIABLES: dict[str, str] = {name.upper(): name for name in Settings.__struct_fields__}


def read_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from environment variables named like the fields in capitals; overrides that are not None win.

    What is not said about the feed follows from what is: Pyth streams ticks, and whatever is no candle comes as `1s`.

    Raises OperatorError naming the variable whose value cannot be read.
    """
    fields: dict[str, Any] = {}
    for variable, name in _VARIABLES.items():
        text = environ.get(variable)
        if text or (text == "" and variable in EMPTY_SAYS_SOMETHING):
            fields[name] = _parse(variable, name, str(text))
    for variable, text in environ.items():
        if _SOURCE_URL.fullmatch(variable) and text.strip():
            url_host(variable, text.strip())  # which schemes it may have, the source itself says
    fields.update({name: value for name, value in overrides.items() if value is not None})
    if "feed_kind" not in fields and "feed_granularity" not in fields and fields.get("feed_source") == "pyth":
        fields["feed_kind"] = "tick"  # what Pyth streams; its candles are asked for once they have closed
    if fields.get("feed_kind", "candle") != "candle":
        fields.setdefault("feed_granularity", "1s")
    return Settings(**fields)


def environment(settings: Settings) -> dict[str, str]:
    """The same settings as environment variables: how a supervisor hands them to its children."""
    out: dict[str, str] = {}
    for variable, name in _VARIABLES.items():
        value = getattr(settings, name)
        if value is not None:
            out[variable] = ",".join(value) if isinstance(value, tuple) else str(value)
    return out


def _parse(variable: str, name: str, text: str) -> Any:
    wanted = Settings.__annotations__[name]
    try:
        if name == "feed_subjects":
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if name == "data_dir":
            return Path(text)
        if "bool" in wanted:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if "int" in wanted or "float" in wanted:
            if (
                not text.isascii() or "_" in text
            ):  # Python reads more than people mean: "604_800", Arabic digits
                raise ValueError(text)
            return int(text) if "int" in wanted else float(text)
    except (ValueError, KeyError):
        may_be = next(said for word, said in _MAY_BE.items() if word in wanted)
        message = f"{variable}={text[:200]!r} cannot be read: it must be {may_be}"
        raise OperatorError(message) from None
    return text
