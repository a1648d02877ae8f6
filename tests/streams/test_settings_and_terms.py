"""Settings read from the environment, and the periods that terms define."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st
from tests.streams.build import DAY, HOUR, MINUTE, T0, configured

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import TermsInForce, make_terms
from coordinator.streams.events import CrunchConfigured
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import checkpoint_id, feed_record_id, input_id, prediction_id, snapshot_id
from coordinator.streams.settings import Moment, Settings, bounds_of, environment, read_settings

READ = {
    "CRUNCH_ID": ("eth-down", "crunch_id", "eth-down"),
    "FEED_SUBJECTS": (" BTCUSDT, ETHUSDT ,", "feed_subjects", ("BTCUSDT", "ETHUSDT")),
    "FEED_SOURCE": ("pyth", "feed_source", "pyth"),
    "FEED_KIND": ("tick", "feed_kind", "tick"),
    "FEED_GRANULARITY": ("5m", "feed_granularity", "5m"),
    "CHECKPOINT_INTERVAL_SECONDS": ("21600", "checkpoint_interval_seconds", 21600),
    "MODEL_RUNNER_NODE_HOST": ("model-orchestrator", "model_runner_node_host", "model-orchestrator"),
    "MODEL_RUNNER_NODE_PORT": ("9999", "model_runner_node_port", 9999),
    "MODEL_BASE_CLASSNAME": ("cruncher.ModelBaseClass", "model_base_classname", "cruncher.ModelBaseClass"),
    "DATA_DIR": ("/srv/x", "data_dir", Path("/srv/x")),
    "REPLAY_SPEED": ("60.5", "replay_speed", 60.5),
    "REPLAY_FROM_MS": (str(T0), "replay_from_ms", T0),
    "SETTLE_REHEARSALS": ("true", "settle_rehearsals", True),
}


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"), [(name, *case) for name, case in READ.items()]
)
def test_a_variable_is_read_by_its_name(variable, text, name, value):
    settings = read_settings({variable: text})
    assert getattr(settings, name) == value
    assert getattr(read_settings({variable: ""}), name) == getattr(Settings(), name)  # empty is unset
    assert read_settings(environment(settings)) == settings


def test_an_empty_list_of_trusted_proxies_is_not_the_default():
    """An empty variable counts as unset for all others. Here it matters to a node behind a proxy on the same machine."""
    nobody = read_settings({"API_TRUSTED_NETWORKS": ""})
    assert nobody.api_trusted_networks == ""
    assert read_settings(environment(nobody)) == nobody
    assert read_settings({}).api_trusted_networks == "127.0.0.0/8,::1/128"


@pytest.mark.parametrize(
    ("variables", "kind", "granularity"),
    [
        ({}, "candle", "1m"),
        ({"FEED_SOURCE": "pyth"}, "tick", "1s"),
        ({"FEED_SOURCE": "pyth", "FEED_KIND": "candle"}, "candle", "1m"),
        ({"FEED_SOURCE": "pyth", "FEED_GRANULARITY": "5m"}, "candle", "5m"),
        ({"FEED_SOURCE": "binance", "FEED_KIND": "depth"}, "depth", "1s"),
        ({"FEED_SOURCE": "binance", "FEED_KIND": "funding", "FEED_GRANULARITY": "8h"}, "funding", "8h"),
    ],
)
def test_settings_of_a_feed_that_are_not_set_follow_from_those_that_are(variables, kind, granularity):
    settings = read_settings(variables)
    assert (settings.feed_kind, settings.feed_granularity) == (kind, granularity)
    assert read_settings(environment(settings)) == settings


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES"])
def test_yes(text):
    assert read_settings({"SETTLE_REHEARSALS": text}).settle_rehearsals is True


@pytest.mark.parametrize("text", ["false", "0", "no"])
def test_no(text):
    assert read_settings({"SETTLE_REHEARSALS": text}).settle_rehearsals is False


WRONG = {
    "not divisible": ({"SNAPSHOT_INTERVAL_SECONDS": "7", "CHECKPOINT_INTERVAL_SECONDS": "60"}, r"SNAPSHOT.*must divide"),
    "the snapshot longer": (
        {"SNAPSHOT_INTERVAL_SECONDS": "7200", "CHECKPOINT_INTERVAL_SECONDS": "3600"}, r"\(7200\) must divide",
    ),
    "no interval": ({"SNAPSHOT_INTERVAL_SECONDS": "0"}, "SNAPSHOT_INTERVAL_SECONDS=0 must be a number between 1"),
    "a negative interval": ({"CHECKPOINT_INTERVAL_SECONDS": "-3600"}, "CHECKPOINT_INTERVAL_SECONDS=-3600 must be"),
    "an interval in words": ({"SNAPSHOT_INTERVAL_SECONDS": "an hour"}, "SNAPSHOT_INTERVAL_SECONDS='an hour'"),
    "a fraction of a second": ({"SNAPSHOT_INTERVAL_SECONDS": "1.5"}, "SNAPSHOT_INTERVAL_SECONDS='1.5'"),
    "no subject": ({"FEED_SUBJECTS": " , "}, "FEED_SUBJECTS is empty"),
    "a subject in two spellings": ({"FEED_SUBJECTS": "BTCUSDT,btcusdt"}, "FEED_SUBJECTS names a subject twice: BTCUSDT and btcusdt"),
    "a subject with and without a dash": ({"FEED_SUBJECTS": "BTC/USD,BTC-USD"}, "BTC/USD and BTC-USD are the same symbol"),
    "a subject twice": ({"FEED_SUBJECTS": "BTCUSDT,ETHUSDT,BTCUSDT"}, "FEED_SUBJECTS names a subject twice"),
    "a crunch with a blank": ({"CRUNCH_ID": "btc up"}, "CRUNCH_ID 'btc up'"),
    "a crunch that climbs": ({"CRUNCH_ID": "../x"}, "CRUNCH_ID"),
    "a crunch in capitals": ({"CRUNCH_ID": "BTC"}, "CRUNCH_ID"),
    "a crunch that ends in a dash": ({"CRUNCH_ID": "btc-"}, "CRUNCH_ID"),
    "two kinds of certificates": (
        {"SECURE_CERT_DIR": "a", "GATEWAY_CERT_DIR": "b"}, "SECURE_CERT_DIR and GATEWAY_CERT_DIR are both set",
    ),
    "no time for a call": ({"MODEL_RUNNER_TIMEOUT_SECONDS": "0"}, "MODEL_RUNNER_TIMEOUT_SECONDS=0 must be a number between 0.001 and 3600"),
    "a port in words": ({"API_PORT": "http"}, "API_PORT='http'"),
    "maybe": ({"SETTLE_REHEARSALS": "maybe"}, "SETTLE_REHEARSALS='maybe'"),
    "digits of another script": ({"API_PORT": "٨٠٠٠"}, "API_PORT"),
    "a number with underscores": ({"CHECKPOINT_INTERVAL_SECONDS": "604_800"}, "CHECKPOINT_INTERVAL_SECONDS"),
    "a crunch of 300 letters": ({"CRUNCH_ID": "a" * 300}, "CRUNCH_ID .* at most 100 letters"),
    "subjects by semicolons": ({"FEED_SUBJECTS": "BTCUSDT;ETHUSDT"}, "FEED_SUBJECTS.*join several by commas"),
    "subjects by lines": ({"FEED_SUBJECTS": "BTCUSDT\nETHUSDT"}, "FEED_SUBJECTS.*join several by commas"),
    "subjects as a list": ({"FEED_SUBJECTS": '["BTCUSDT","ETHUSDT"]'}, "FEED_SUBJECTS.*join several by commas"),
    "a heartbeat as long as the session": (
        {"HEARTBEAT_SECONDS": "10", "SESSION_TIMEOUT_SECONDS": "10"}, r"HEARTBEAT_SECONDS \(10\) must be less than",
    ),
    "seconds for a start": ({"REPLAY_FROM_MS": "1677628800"}, "REPLAY_FROM_MS=1677628800 .* milliseconds"),
    "a scheme for Kafka": ({"KAFKA_BOOTSTRAP": "kafka://localhost:9092"}, "KAFKA_BOOTSTRAP.*HOST:PORT"),
    "no port for Kafka": ({"KAFKA_BOOTSTRAP": "localhost"}, "KAFKA_BOOTSTRAP.*HOST:PORT"),
    "a host that is a URL": ({"API_HOST": "http://0.0.0.0"}, "API_HOST='http://0.0.0.0' is not a host"),
    "a webhook without a host": ({"WEBHOOK_URL": "http://:80/x"}, "WEBHOOK_URL must be an http or https URL"),
    "a webhook whose host has an empty label": ({"WEBHOOK_URL": "https://a..b/x"}, "WEBHOOK_URL.*its host is none"),
    "a webhook whose host is too long": ({"WEBHOOK_URL": f"https://{'a' * 64}.b/x"}, "WEBHOOK_URL.*its host is none"),
    "a webhook's port": ({"WEBHOOK_URL": "https://example.org:99999/x"}, "WEBHOOK_URL.*its port is not between"),
    "a webhook with a blank": ({"WEBHOOK_URL": "https://example.org/a b"}, "WEBHOOK_URL.*spaces"),
    "a chain's port": (
        {"CHAIN": "solana", "SOLANA_RPC_URL": "https://example.org:0/"}, "SOLANA_RPC_URL.*port",
    ),
    "a network that is none": ({"API_TRUSTED_NETWORKS": "10.0.0.1/8"}, "API_TRUSTED_NETWORKS"),
    "proxies that are none": ({"API_TRUSTED_PROXIES": "*"}, "API_TRUSTED_PROXIES"),
    "the internet may settle": (
        {"API_SETTLE_WITHOUT_KEY": "true", "API_TRUSTED_NETWORKS": "127.0.0.0/8,0.0.0.0/0"},
        "would let the internet settle: API_TRUSTED_NETWORKS contains 0.0.0.0/0",
    ),
    "a speed in words": ({"REPLAY_SPEED": "max"}, "REPLAY_SPEED='max'"),
}  # fmt: skip


@pytest.mark.parametrize(("environ", "message"), WRONG.values(), ids=WRONG)
def test_an_impossible_value_is_refused_in_one_line_that_names_the_variable(environ, message):
    with pytest.raises(OperatorError, match=message) as refused:
        read_settings(environ)
    assert "\n" not in str(refused.value)


NUMBERS = [
    name for name, field in Settings.model_fields.items() if field.annotation in (int, float, Moment | None)
]


def test_every_number_has_bounds_and_all_defaults_pass_the_checks():
    assert {"api_port", "replay_speed", "checkpoint_interval_seconds"} <= set(NUMBERS)
    assert None not in [bounds_of(name) for name in NUMBERS]
    assert Settings(**dict(Settings())) == Settings()


def test_settings_use_the_mapping_they_are_given_and_no_variable_of_the_process(monkeypatch):
    monkeypatch.setenv("CRUNCH_ID", "of-this-process")
    assert Settings().crunch_id == read_settings({}).crunch_id == "btc-up"


def test_a_name_that_is_no_setting_is_refused():
    with pytest.raises(OperatorError, match="CRUNCHID is not a setting"):
        Settings(crunchid="x")


def test_a_changed_setting_is_checked_like_one_at_the_start():
    assert Settings().changed(api_port=1).api_port == 1
    with pytest.raises(OperatorError, match="API_PORT=70000"):
        Settings().changed(api_port=70_000)


SECRETS = {
    "EVIDENCE_KEY": "PRIVATE+KEY+hush+hush+hush",
    "MODEL_RUNNER_NODE_TOKEN": "hush-hush",
    "WEBHOOK_SECRET": "whsec_aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoIQ==",
    "WEBHOOK_URL": "https://h/hush-hush",
    "SOLANA_RPC_URL": "https://h/hush-hush",
}


def test_a_secret_is_never_shown_but_handed_to_children():
    settings = read_settings(SECRETS)
    assert "hush" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "aHVz" not in repr(settings)
    assert SECRETS.items() <= environment(settings).items()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf", "above", "below"])
def test_a_number_that_is_invalid_or_out_of_bounds_names_its_variable(name, wrong):
    low, high = bounds_of(name)
    text = {"above": str(int(high) + 1), "below": str(int(low) - 1)}.get(wrong, wrong)
    with pytest.raises(OperatorError, match=name.upper()):
        read_settings({name.upper(): text})


def test_no_message_about_a_url_contains_it():
    """It may hold a key."""
    for url in (
        "https://h:99999/secret",
        "ftp://h/secret",
        "https://a..b/secret",
        "https://[/secret",
        "https://h/se cret",
    ):
        for variable in ("WEBHOOK_URL", "SOLANA_RPC_URL"):
            with pytest.raises(OperatorError, match=variable) as refused:
                read_settings({variable: url})
            assert "cret" not in str(refused.value)


def test_one_public_address_may_be_named_to_settle_and_any_private_network():
    settings = read_settings(
        {"API_SETTLE_WITHOUT_KEY": "true", "API_TRUSTED_NETWORKS": "203.0.113.7,10.0.0.0/8,::1/128"}
    )
    assert settings.api_settle_without_key


def test_an_argument_overrides_the_environment_and_none_does_not():
    environ = {"CRUNCH_ID": "from-env", "API_PORT": "1"}
    settings = read_settings(environ, crunch_id="given", api_port=None)
    assert (settings.crunch_id, settings.api_port) == ("given", 1)


def test_other_variables_are_ignored():
    assert read_settings({"HOME": "/x", "SNAPSHOT_INTERVAL": "5"}) == Settings()


def test_the_intervals_of_the_design():
    assert (Settings().snapshot_interval_seconds, Settings().checkpoint_interval_seconds) == (3600, 604_800)
    assert Settings().settle_rehearsals is False


# --- terms in force --------------------------------------------------------------------------------------


def in_force(*changes) -> TermsInForce:
    terms = TermsInForce()
    for change in changes:
        terms.add(configured(**change))
    return terms


def test_terms_are_in_force_from_their_time_on():
    terms = in_force({"contract_hash": "a"}, {"contract_hash": "b", "effective_from": T0})
    assert [terms.at(time).contract_hash for time in (-5, 0, T0 - 1, T0, T0 + 1)] == ["a", "a", "a", "b", "b"]


def test_the_same_terms_again_change_nothing_and_order_does_not_matter():
    first_change, two = {"contract_hash": "a"}, {"contract_hash": "b", "effective_from": T0}
    assert list(in_force(first_change, two, first_change).spans()) == list(
        in_force(two, first_change).spans()
    )
    assert not TermsInForce()


def test_without_terms_there_are_no_periods():
    with pytest.raises(LookupError):
        TermsInForce().snapshot_period(T0)


CUTS = [
    # offset from T0, snapshot period, checkpoint period (hours from T0)
    (0, (0, 1), (0, 6)),
    (HOUR - 1, (0, 1), (0, 6)),
    (HOUR, (1, 2), (0, 6)),
    (5 * HOUR + 1, (5, 6), (0, 6)),
    (
        6 * HOUR,
        (6, 10),
        (6, 24),
    ),  # cut short: the grid of the new terms is on multiples of the interval since the epoch
    (10 * HOUR, (10, 15), (6, 24)),
    (24 * HOUR, (20, 25), (24, 48)),
]


@pytest.mark.parametrize(("offset", "snapshot", "checkpoint"), CUTS)
def test_periods_are_multiples_since_the_epoch_cut_where_terms_change(offset, snapshot, checkpoint):
    later = {"effective_from": T0 + 6 * HOUR, "snapshot_interval_ms": 5 * HOUR, "checkpoint_interval_ms": DAY}
    terms = in_force({}, later)
    assert T0 % DAY == 0
    shift = T0 % (5 * HOUR)
    start, end = terms.snapshot_period(T0 + offset)
    if offset >= 6 * HOUR:
        low = max(6 * HOUR, (T0 + offset) // (5 * HOUR) * 5 * HOUR - T0)
        assert (start - T0, end - T0) == (low, (T0 + offset) // (5 * HOUR) * 5 * HOUR + 5 * HOUR - T0)
        assert shift == T0 - T0 // (5 * HOUR) * 5 * HOUR
    else:
        assert ((start - T0) // HOUR, (end - T0) // HOUR) == snapshot
    start, end = terms.checkpoint_period(T0 + offset)
    assert ((start - T0) // HOUR, (end - T0) // HOUR) == checkpoint


@property_of(st.lists(st.integers(0, 2000), max_size=4, unique=True), st.integers(0, 3000), st.randoms())
def test_every_time_is_in_one_period_and_periods_have_no_gap_between_them(changes, minute, rng):
    terms = in_force(
        {},
        *(
            {"effective_from": T0 + at * MINUTE, "snapshot_interval_ms": rng.choice([1, 7, 60]) * MINUTE}
            for at in changes
        ),
    )
    time = T0 + minute * MINUTE
    start, end = terms.snapshot_period(time)
    assert start <= time < end
    assert terms.snapshot_period(end)[0] == end
    assert terms.snapshot_period(start) == (start, end)
    assert terms.snapshot_period(end - 1) == (start, end)


# --- ids -------------------------------------------------------------------------------------------------


def test_ids_depend_on_content_alone_and_never_change():
    """They are stored, so a change of these texts is a change of the format."""
    assert feed_record_id("binance", "BTCUSDT", "candle", "1m", 5, 0) == "feed/binance/BTCUSDT/candle/1m/5/r0"
    assert input_id("BTCUSDT", T0) == f"inp/BTCUSDT/{T0}"
    assert prediction_id("inp/BTCUSDT/1", "60s", "7") == "inp/BTCUSDT/1/60s/7"
    assert snapshot_id("7", 1, 2) == "snap/7/1-2"
    assert checkpoint_id("btc-up", T0, T0 + DAY) == "ckp_dae8b7a6b74147c3869a05d3"
    assert checkpoint_id("btc-up", T0, T0 + DAY) != checkpoint_id("btc-down", T0, T0 + DAY)


def test_weeks_begin_on_a_thursday_and_with_an_offset_on_a_monday():
    monday = 1_795_392_000_000  # 2026-11-23
    week = 7 * 86_400_000
    for offset_seconds, begins in ((0, monday - 4 * 86_400_000), (345_600, monday)):
        settings = read_settings({"CHECKPOINT_OFFSET_SECONDS": str(offset_seconds)})
        in_force = TermsInForce()
        terms = make_terms(CrunchContract(), "h", settings, 0)
        in_force.add(CrunchConfigured(id="terms", at=0, data=terms))
        for moment in (0, 1, week // 2):
            assert in_force.checkpoint_period(begins + moment) == (begins, begins + week)
        assert in_force.checkpoint_period(begins - 1) == (begins - week, begins)
        assert in_force.snapshot_period(begins) == (begins, begins + 3_600_000)


@pytest.mark.parametrize("offset", ["1800", "604800", "-3600"])
def test_an_offset_that_cuts_snapshots_or_is_not_below_the_interval_is_refused_by_name(offset):
    with pytest.raises(OperatorError, match="CHECKPOINT_OFFSET_SECONDS"):
        read_settings({"CHECKPOINT_OFFSET_SECONDS": offset})
