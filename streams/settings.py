"""Settings: one frozen object, read once from the environment at the edge of a process.

The names of the variables are the seed's: a field's name in capitals. Durations carry their unit. Bounds are at the
field, texts are checked by `setting_checks.py`, and what holds between fields is checked last. Nothing in
the core reads this: what decisions depend on goes into the log as CrunchConfigured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from coordinator.streams.durations import DAY_SECONDS, YEAR_SECONDS
from coordinator.streams.granularity import GRANULARITIES_MS
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.setting_checks import (
    FAR_FUTURE_MS,
    PORT_MAX,
    check_bootstrap,
    check_choice,
    check_class,
    check_contracts,
    check_crunch_id,
    check_hosts,
    check_secret,
    check_signing_secret,
    check_store,
    check_text,
    host_port,
    is_private,
    networks_of,
    url_host,
)
from coordinator.streams.setting_types import (
    Host,
    Moment,
    Name,
    Networks,
    Number,
    SecretUrl,
    Subjects,
    Whole,
    held_by,
    revealed,
)


class Settings(BaseSettings):
    """What a process of the node needs to know from its operator.

    Made by keywords alone (`read_settings` reads the environment). Raises OperatorError naming the variable that is
    wrong and what it may be; nothing of a secret is ever part of a message or of its `repr`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    crunch_id: Annotated[str, held_by(check_crunch_id)] = "btc-up"
    """Names the crunch: the prefix of its topics on the broker, in the API's title and in notes about the log."""
    kafka_bootstrap: Annotated[str, held_by(check_bootstrap)] = "127.0.0.1:9092"
    """HOST:PORT of a broker, or several with commas. If it is not set, `coordinator up` starts its own broker."""
    data_dir: Path = Path("coordinator-data")
    """Folder of the topics (of an own broker), read models, applied contracts, logs and keys."""
    blobs_url: Annotated[SecretStr, held_by(check_store, may_be_empty=True)] = SecretStr("")
    """Where large tables and answers are stored: `file:///FOLDER`, or an object store that fsspec supports, such as
    `s3://BUCKET/PREFIX`. All workers must use the same. Empty: `blobs/` of the data directory. May contain a key."""
    contract: Annotated[str, held_by(check_contracts)] = "coordinator.streams.contract:CrunchContract"
    """`module:attribute` of a CrunchContract (class or instance), or several with commas; the last one is current."""

    feed_source: Name = "binance"
    """The source of the records: `coordinator feeds list` names the sources."""
    feed_subjects: Subjects = ("BTCUSDT",)
    """The subjects that are taken from the source, with commas."""
    feed_kind: Name = "candle"
    """Kind of the records: candle, tick, depth or funding, if the source has it. If it is not set, `pyth` uses tick."""
    feed_granularity: Annotated[str, held_by(partial(check_choice, choices=GRANULARITIES_MS))] = "1m"
    """The time between records. If it is not set, kinds other than candle use 1s."""
    feed_candles_file: str = ""
    """File of candles to replay; `{subject}` in it is replaced by the subject."""
    feed_columns: str = ""
    """The columns of that file, if its header does not name them: `time=NAME,open=2,...`"""
    feed_stamp: Literal["open", "close"] = "open"
    """What the times in that file mean: the `open` or the `close` of a candle."""
    feed_any_price: bool = False
    """Prices in that file may be zero or negative, for example for power or spreads."""
    feed_seed: Whole = Field(1, ge=-(2**63), le=2**63 - 1)
    """Chooses the market of the source `generated`: the same seed gives the same prices."""
    replay_from_ms: Moment | None = Field(None, ge=0, le=FAR_FUTURE_MS)
    """The replay begins at this time."""
    replay_until_ms: Moment | None = Field(None, ge=0, le=FAR_FUTURE_MS)
    """The replay ends at this time, and so does the feed."""
    replay_days: Number = Field(0.0, ge=0, le=3_660)
    """The number of days that a new node replays before it goes live. Replayed time is a rehearsal."""
    replay_speed: Number = Field(0.0, ge=0, le=1e9)
    """Speed of the replay: 0 is as fast as possible; 60 replays an hour in a minute."""
    replay_models_min: Whole = Field(0, ge=0, le=10_000)
    """A replay waits until it has seen this many models before it sends the first record."""

    clock_ahead_seconds_max: Number = Field(120.0, ge=10, le=3600)
    """How far this machine's clock may be ahead of the time that sources confirm. Beyond that, time stands still."""
    ntp_server: Annotated[str, held_by(partial(host_port, port=123), may_be_empty=True)] = ""
    """HOST or HOST:PORT of a time server that confirms the time too. Empty: none is asked."""

    snapshot_interval_seconds: Whole = Field(3600, ge=1, le=YEAR_SECONDS)
    """Length of a snapshot period. At its end scores are summed and windows move on."""
    checkpoint_interval_seconds: Whole = Field(604_800, ge=1, le=YEAR_SECONDS)
    """Length of a checkpoint period. At its end an emission is offered. A multiple of the snapshot interval."""
    checkpoint_offset_seconds: Whole = Field(0, ge=0, le=YEAR_SECONDS)
    """Periods begin at multiples of the interval since Thursday 1970-01-01 00:00 UTC, plus this offset. For weeks that
    begin on a Monday it is 345600 (four days)."""
    settle_rehearsals: bool = False
    """Whether checkpoints over replayed time may be settled too, as in the demo."""
    wallets_file: str = ""
    """CSV file `model_id,wallet`: the wallets of models. It takes precedence over the orchestrator's wallets."""

    model_runner_node_host: Host = "127.0.0.1"
    """Host of the orchestrator that names the models."""
    model_runner_node_port: Whole = Field(9091, ge=1, le=PORT_MAX)
    """The orchestrator's port."""
    model_runner_node_token: Annotated[SecretStr, held_by(check_secret)] = SecretStr("")
    """A secret that the local model host knows too. The host then accepts reports of failures only with it."""
    model_runner_timeout_seconds: Number = Field(60.0, ge=0.001, le=3_600)
    """The longest time of one call, even if the deadline allows more."""
    secure_cert_dir: str = ""
    """Folder with ca.crt, tls.crt and tls.key: mutual TLS to each model."""
    gateway_cert_dir: str = ""
    """Folder with key.pem: TLS to a gateway in front of the models."""
    model_base_classname: Annotated[str, held_by(check_class)] = (
        "coordinator.scaffolds.challenge.tracker.TrackerBase"
    )
    """Full name of the base class of models, as the orchestrator gets it."""

    api_host: Host = "127.0.0.1"
    """The address on which the API and the page listen. The default is only this machine."""
    api_port: Whole = Field(8000, ge=0, le=PORT_MAX)
    """Port of the API and the page; 0 takes any free one."""
    api_keys: str = ""
    """Entries `ID SCOPE SHA256`, separated by `;`: hashes, not keys. `coordinator keys make` prints one."""
    api_keys_file: str = ""
    """A file with the same entries, one on each line."""
    api_reads: Literal["open", "keys"] = "open"
    """`open`, or `keys` if reading needs a key too."""
    api_trusted_networks: Networks = "127.0.0.0/8,::1/128"
    """Networks without a rate limit, which may read even with API_READS=keys. They may settle without a key only with
    API_SETTLE_WITHOUT_KEY=true.
    """
    api_settle_without_key: bool = False
    """Callers from API_TRUSTED_NETWORKS, which must be private, may settle without a key. The web app sends no key."""
    api_trusted_proxies: Networks = ""
    """Networks of proxies whose X-Forwarded-For is believed. It is ignored from all others."""
    api_allowed_hosts: Annotated[str, held_by(check_hosts)] = ""
    """Host names for which the API answers, besides addresses, names without a dot and localhost; `*` is any."""
    api_requests_per_second: Whole = Field(50, ge=0, le=1_000_000)
    """The most requests that one address outside the trusted networks may send; 0 is no limit."""
    api_routes_dir: str = ""
    """Folder of `.py` files with routes of the operator's own; a rendered node's is its `api/`."""

    health_file: str = ""
    """A worker touches this file every two seconds while it works; a container's health check looks at its age."""

    chain: Literal["", "solana", "fake"] = ""
    """The chain to watch: empty (none), `solana`, or `fake` (rehearsals only)."""
    chain_poll_seconds: Number = Field(15.0, ge=0.1, le=DAY_SECONDS)
    """Time between two looks at the chain."""
    solana_rpc_url: SecretUrl = SecretStr("")
    """URL of the Solana RPC node. It may contain a key: only its host is ever logged."""
    solana_finalized_is_claimable: bool = False
    """Whether a final transaction makes prizes claimable. Only the operator knows this; the node cannot see it."""
    webhook_url: SecretUrl = SecretStr("")
    """URL to which alerts are sent, such as a broken invariant or an unpaid checkpoint. It may contain a key."""
    webhook_secret: Annotated[SecretStr, held_by(check_signing_secret, may_be_empty=True)] = SecretStr("")
    """Signs these messages, as Standard Webhooks defines it: `whsec_` and the base64 of 24 to 64 bytes."""
    evidence_key: Annotated[SecretStr, held_by(check_secret, may_be_empty=True)] = SecretStr("")
    """Key that signs notes about the log, `PRIVATE+KEY+coordinator/<crunch>+..`. Empty: the key in the data directory,
    which the first start makes."""
    monitor_seconds: Number = Field(5.0, ge=0.1, le=3_600)
    """Time between two checks of the invariants and alerts."""
    replay_check_seconds: Number = Field(3600.0, ge=0, le=YEAR_SECONDS)
    """Time between two checks that rebuild a read model from the log and compare it; 0 never."""
    past_days: Whole = Field(0, ge=0, le=36_600)
    """The number of days before the newest event for which the read models hold rounds, records and the past. Older
    data is deleted from them, never from the log. 0: nothing is deleted."""
    scrub_mb_per_minute: Number = Field(60.0, ge=0, le=100_000)
    """Speed at which the topics and their blobs are read again, to find what the disk has altered; 0 never."""
    feed_stall_alert_seconds: Number = Field(300.0, ge=1, le=YEAR_SECONDS)
    """A feed or a subject that sends nothing for this time raises an alert."""
    price_jump_alert_factor: Number = Field(2.0, ge=1.001, le=1e12)
    """A price that is this many times the one before, or this fraction of it, is accepted and raises an alert."""
    price_jump_told_seconds: Number = Field(3600.0, ge=1, le=YEAR_SECONDS)
    """How long such a price stays an alert."""
    lag_alert_records: Whole = Field(20_000, ge=1, le=10**12)
    """An alert is raised if this many records wait to be folded for 30 s."""
    unpaid_alert_seconds: Number = Field(172_800.0, ge=1, le=YEAR_SECONDS)
    """A checkpoint that is unpaid for this time raises an alert."""

    session_timeout_seconds: Number = Field(10.0, ge=1, le=1_800)
    """If Kafka has not heard from a worker for this time, its standby takes over."""
    heartbeat_seconds: Number = Field(1.0, ge=0.1, le=600)
    """Time between two heartbeats of a worker to Kafka. A standby learns with its heartbeat that it has a stage. It
    must be less than the session timeout, preferably a fifth of it."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refused(error) from None  # its own text shows what was given, which may be a secret

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature, and so are the three below
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords alone: which environment is read, says whoever calls `read_settings`."""
        return (init_settings,)

    def changed(self, **changes: Any) -> Settings:
        """The same settings with `changes`, checked again. Raises OperatorError."""
        return Settings(**(dict(self) | changes))

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        for name, value in self:
            if isinstance(text := revealed(value), (str, Path)):
                check_text(name.upper(), str(text))
        return self

    @model_validator(mode="after")
    def _check_intervals(self) -> Self:
        snapshot, checkpoint = self.snapshot_interval_seconds, self.checkpoint_interval_seconds
        if checkpoint % snapshot:
            raise OperatorError(
                f"SNAPSHOT_INTERVAL_SECONDS ({snapshot}) must divide CHECKPOINT_INTERVAL_SECONDS ({checkpoint})"
            )
        offset = self.checkpoint_offset_seconds
        if offset % snapshot or offset >= checkpoint:
            raise OperatorError(
                f"CHECKPOINT_OFFSET_SECONDS ({offset}) must be a multiple of SNAPSHOT_INTERVAL_SECONDS ({snapshot}) "
                f"below CHECKPOINT_INTERVAL_SECONDS ({checkpoint}); for weeks that begin on a Monday it is 345600"
            )
        since, until = self.replay_from_ms, self.replay_until_ms
        if since is not None and until is not None and until <= since:
            raise OperatorError(f"REPLAY_UNTIL_MS ({until}) must be after REPLAY_FROM_MS ({since})")
        if self.heartbeat_seconds >= self.session_timeout_seconds:
            raise OperatorError(
                f"HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be less than "
                f"SESSION_TIMEOUT_SECONDS ({self.session_timeout_seconds:g}), better a fifth of it"
            )
        return self

    @model_validator(mode="after")
    def _check_who_settles(self) -> Self:
        trusted = networks_of("API_TRUSTED_NETWORKS", self.api_trusted_networks)
        public = [str(network) for network in trusted if not is_private(network)]
        if self.api_settle_without_key and public:
            raise OperatorError(
                "API_SETTLE_WITHOUT_KEY would let the internet settle: API_TRUSTED_NETWORKS contains "
                f"{', '.join(public)}, "
                "which is not a private network; give private networks or single addresses"
            )
        if self.secure_cert_dir and self.gateway_cert_dir:
            raise OperatorError(
                "SECURE_CERT_DIR and GATEWAY_CERT_DIR are both set: set only the one that your models use"
            )
        if self.chain == "fake" and not self.settle_rehearsals:
            raise OperatorError(
                "CHAIN=fake pays nobody and settles rehearsals only: it needs SETTLE_REHEARSALS=true"
            )
        if self.chain == "solana" and not self.solana_rpc_url:
            raise OperatorError("CHAIN=solana needs SOLANA_RPC_URL")
        return self


EMPTY_SAYS_SOMETHING = frozenset(("API_TRUSTED_NETWORKS",))
"""Set and empty means nobody. Any other variable that is empty is as good as not set."""
_SOURCE_URL = re.compile(r"(FEED_OPT|PYTH)_(\w+_)?URL")
"""Variables of a feed source that hold an address."""
_MAY_BE = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_OUT_OF_BOUNDS = ("greater_than_equal", "less_than_equal", "finite_number")


class _Variables(EnvSettingsSource):
    """The library's reading of environment variables, of a mapping that is handed in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings, case_sensitive=False)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name.lower(): text
            for name, text in self._environ.items()
            if name.isupper() and (text or name in EMPTY_SAYS_SOMETHING)
        }


def read_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from environment variables named like the fields in capitals; overrides that are not None win.

    What is not said about the feed follows from what is: Pyth streams ticks, and whatever is no candle comes as `1s`.

    Raises OperatorError naming the variable whose value cannot be read.
    """
    fields = _Variables(environ)()
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
    """The same settings as environment variables, secrets too: how a supervisor hands them to its children."""
    return {
        name.upper(): ",".join(value) if isinstance(value, tuple) else str(revealed(value))
        for name, value in settings
        if value is not None
    }


def bounds_of(name: str) -> tuple[float, float] | None:
    """The least and the most that a setting may be; None for one that is no number."""
    marks = Settings.model_fields[name].metadata
    low = next((mark.ge for mark in marks if hasattr(mark, "ge")), None)
    high = next((mark.le for mark in marks if hasattr(mark, "le")), None)
    return None if low is None or high is None else (low, high)


def _refused(error: ValidationError) -> OperatorError:
    """The first fault in the operator's words: the variable, what was given (unless secret), and what it may be."""
    fault = error.errors(include_url=False)[0]
    name, value = str(fault["loc"][0]), str(fault["input"])[:200]
    variable = name.upper()
    field = Settings.model_fields.get(name)
    if field is None:
        return OperatorError(f"{variable} is not a setting")
    if fault["type"] in _OUT_OF_BOUNDS and (bounds := bounds_of(name)) is not None:
        low, high = (str(int(bound)) if bound == int(bound) else f"{bound:g}" for bound in bounds)
        return OperatorError(f"{variable}={value} must be a number between {low} and {high}")
    if fault["type"] == "literal_error":
        return OperatorError(
            f"{variable}={value!r} is unknown: choose {fault['ctx']['expected']}. {field.description or ''}"
        )
    may_be = _MAY_BE.get(fault["type"].partition("_")[0], "a text")
    shown = "" if field.annotation is SecretStr else f"={value!r}"
    return OperatorError(f"{variable}{shown} cannot be read: it must be {may_be}")
