"""What an operator sets wrong ends the start of every process that would use it: one line, with the variable's name.

A table of variables, and what is wrong with each; the form of a setting is refused by all, a file or an option by those
that use it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import forked
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.cli.start_checks import check_start
from coordinator.cli.up_plan import UpOptions, make_plan
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Moment, Settings, read_settings
from coordinator.streams.topology import WORKERS

FORMS = {
    "CRUNCH_ID": ("../x", "btc up"),
    "KAFKA_BOOTSTRAP": ("localhost", "kafka://h:9092", "h:0", ":9092"),
    "CONTRACT": ("contracts", "a b:C", "../x:C", "m:C,", "m:"),
    "FEED_SOURCE": ("../binance", "a b"),
    "FEED_KIND": ("../", "can dle"),
    "FEED_GRANULARITY": ("0m", "7m", "../", "1M", "-1m", "60"),
    "FEED_SUBJECTS": ("BTC;ETH", ","),
    "FEED_STAMP": ("middle",),
    "FEED_ANY_PRICE": ("maybe",),
    "FEED_SEED": ("x", "1.5"),
    "FEED_OPT_REST_URL": ("example.org", "http://", "http://h:99999", "http://h o/", "http://a..b", "https//h"),
    "FEED_OPT_WEBSOCKET_URL": ("stream.example.org:9443", "wss://"),
    "PYTH_HERMES_URL": ("nowhere", "https://h:port/"),
    "PYTH_BENCHMARKS_URL": ("//h", "https://"),
    "PYTH_HISTORY_URL": ("x",),
    "NTP_SERVER": ("ntp://pool.ntp.org", "pool.ntp.org:0", "pool.ntp.org:70000", "h:", "a b", "[::1", "pool..org", "h:x"),
    "REPLAY_FROM_MS": ("1677628800", "-1", "soon"),
    "REPLAY_DAYS": ("nan", "-1", "9e9"),
    "SNAPSHOT_INTERVAL_SECONDS": ("11", "0", "1.5"),
    "MODEL_RUNNER_NODE_HOST": ("http://h", "h:9"),
    "MODEL_RUNNER_NODE_PORT": ("0", "70000", "x"),
    "MODEL_RUNNER_NODE_TOKEN": ("a secret", "schlüssel", "x\ny"),
    "MODEL_BASE_CLASSNAME": ("TrackerBase", "../x.Y", "a.b c", "a..b", "1a.b"),
    "API_HOST": ("http://0.0.0.0", "h:1"),
    "API_READS": ("closed",),
    "API_TRUSTED_NETWORKS": ("all",),
    "API_ALLOWED_HOSTS": ("http://h",),
    "CHAIN": ("ethereum",),
    "SOLANA_RPC_URL": ("h", "ftp://h"),
    "WEBHOOK_URL": ("h", "ftp://h"),
    "WEBHOOK_SECRET": ("line\n", "hush", "whsec_", "whsec_c2hvcnQ=", f"whsec_{'YWJj' * 22}", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "whsec_é"),
    "EVIDENCE_KEY": ("a key", "x\ny"),
    "BLOBS_URL": ("blobs", "file://host/blobs", "file:///", "s3://a b", "://x"),
    "DATA_DIR": ("a\nb",),
    "WALLETS_FILE": ("a\tb",),
    "HEALTH_FILE": ("a\x1bb",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, texts in FORMS.items() for text in texts]
)
def test_a_wrong_form_is_refused_by_name_wherever_settings_are_read(variable, text):
    with pytest.raises(OperatorError, match=variable) as refused:
        read_settings({variable: text})
    assert "\n" not in str(refused.value)


def test_every_setting_that_is_a_text_has_been_thought_of():
    numbers_and_lists = (int, float, bool, Path, tuple[str, ...], Moment | None)
    texts = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if field.annotation not in numbers_and_lists
    }
    by_file = {
        "FEED_CANDLES_FILE",
        "FEED_COLUMNS",
        "SECURE_CERT_DIR",
        "GATEWAY_CERT_DIR",
        "API_KEYS",
        "API_KEYS_FILE",
    }
    networks = {"API_TRUSTED_PROXIES", "API_ROUTES_DIR"}
    assert texts - set(FORMS) == by_file | networks


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NTP_SERVER", "pool.ntp.org"),
        ("NTP_SERVER", "10.0.0.1:123"),
        ("NTP_SERVER", "[::1]:123"),
        ("NTP_SERVER", "::1"),
        ("FEED_OPT_REST_URL", "https://user:key@h:8443/path?x=1"),
        ("FEED_OPT_SOMEWHERE_URL", "nats://h"),
        ("CONTRACT", "runtime_definitions.contracts:CONTRACT,old.rules:Contract"),
        ("MODEL_RUNNER_NODE_TOKEN", "aZ09_-+/="),
    ],
)
def test_what_is_right_is_taken(variable, text):
    read_settings({variable: text})


USED = {
    # variable, what it is, of whom, what is said
    "a source that is unknown": ({"FEED_SOURCE": "oracle"}, "feed", "FEED_SOURCE.*choose from"),
    "a source's scheme": ({"FEED_OPT_REST_URL": "ws://h"}, "feed", "FEED_OPT_REST_URL must be an http or https URL"),
    "a socket's scheme": ({"FEED_OPT_WEBSOCKET_URL": "https://h"}, "feed", "FEED_OPT_WEBSOCKET_URL must be a ws or wss"),
    "Pyth's own": ({"FEED_SOURCE": "pyth", "PYTH_HERMES_URL": "ws://h"}, "feed", "PYTH_HERMES_URL must be"),
    "Pyth's key": ({"FEED_SOURCE": "pyth", "PYTH_API_KEY": "ä b"}, "feed", "PYTH_API_KEY holds spaces"),
    "an option nobody has": ({"FEED_OPT_SPEED": "9"}, "feed", "FEED_OPT_SPEED.*it has rest_url"),
    "a kind": ({"FEED_KIND": "news"}, "feed", "FEED_KIND: binance delivers no news; it has candle"),
    "a granularity": ({"FEED_GRANULARITY": "5s"}, "feed", "FEED_GRANULARITY: binance delivers no candle of 5s"),
    "attempts": ({"FEED_OPT_ATTEMPTS": "0"}, "feed", "FEED_OPT_ATTEMPTS.*at least 1"),
    "attempts in another script": ({"FEED_OPT_ATTEMPTS": "٣"}, "feed", "FEED_OPT_ATTEMPTS.*whole number"),
    "seconds": ({"FEED_OPT_PING_SECONDS": "inf"}, "feed", "FEED_OPT_PING_SECONDS.*positive"),
    "no such candles": ({"FEED_CANDLES_FILE": "{subject}.csv"}, "feed", "FEED_CANDLES_FILE.*BTCUSDT.csv.*no such file"),
    "columns": ({"FEED_CANDLES_FILE": "here.csv", "FEED_COLUMNS": "when"}, "feed", "FEED_COLUMNS.*NAME=COLUMN"),
    "a proxy": ({"HTTPS_PROXY": "ftp://p"}, "feed", "HTTPS_PROXY cannot be used as a proxy"),
    "certificates": ({"SSL_CERT_FILE": "none.pem"}, "feed", "SSL_CERT_FILE=none.pem"),
    "no certificates of models": ({"SECURE_CERT_DIR": "none"}, "predict", "SECURE_CERT_DIR=none: ca.crt cannot be read"),
    "no key of a gateway": ({"GATEWAY_CERT_DIR": "none"}, "predict", "GATEWAY_CERT_DIR=none: key.pem cannot be read"),
    "no wallets": ({"WALLETS_FILE": "none.csv"}, "report", "WALLETS_FILE: none.csv: there is no such file"),
    "a folder of wallets": ({"WALLETS_FILE": "."}, "report", "WALLETS_FILE: .* is a folder"),
    "keys": ({"API_KEYS": "me"}, "report", "API_KEYS"),
    "no keys": ({"API_KEYS_FILE": "none"}, "report", "API_KEYS_FILE=none"),
    "no routes": ({"API_ROUTES_DIR": "none"}, "report", "API_ROUTES_DIR: none is not a folder"),
    "Kafka's protocol": ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "score", "KAFKA_SECURITY_PROTOCOL=TLS: choose"),
    "Kafka's certificates": (
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": "none"}, "score", "KAFKA_SSL_CA_FILE=none",
    ),
    "Kafka's password": (
        {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_PASSWORD_FILE": "none"}, "score", "KAFKA_SASL_PASSWORD_FILE",
    ),
    "a file for a folder": ({"DATA_DIR": "here.csv"}, "checkpoint", "DATA_DIR: here.csv is not a folder"),
    "nowhere to be healthy": ({"HEALTH_FILE": "none/alive"}, "checkpoint", "HEALTH_FILE: the folder of"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize(("environ", "worker", "message"), USED.values(), ids=USED)
def test_what_a_worker_uses_is_looked_at_before_it_starts(folder, environ, worker, message):
    with pytest.raises(OperatorError, match=message) as refused:
        check_start(read_settings(environ), environ, (worker,))
    assert "\n" not in str(refused.value)
    with pytest.raises(OperatorError, match=message):
        check_start(read_settings(environ), environ)


def test_a_worker_does_not_ask_for_what_others_use(folder):
    others = {
        "WALLETS_FILE": "none.csv",
        "FEED_SOURCE": "oracle",
        "SECURE_CERT_DIR": "none",
        "API_KEYS": "me",
    }
    for worker in ("score", "checkpoint"):
        check_start(read_settings(others), others, (worker,))


def test_by_default_nothing_is_wrong(folder):
    check_start(read_settings({}), {})


def test_a_key_in_an_address_is_never_said(folder):
    for environ in ({"FEED_OPT_REST_URL": "ftp://h/secret"}, {"FEED_OPT_REST_URL": "secret"}):
        with pytest.raises(OperatorError) as refused:
            check_start(read_settings(environ), environ)
        assert "secret" not in str(refused.value)


def test_up_refuses_before_anything_is_started(folder, monkeypatch):
    monkeypatch.setenv("FEED_OPT_REST_URL", "ws://h")
    with pytest.raises(OperatorError, match="FEED_OPT_REST_URL must be"):
        make_plan(UpOptions(data_dir=folder / "node"))
    assert not (folder / "node").exists()


@pytest.mark.parametrize("command", ["preflight", "doctor", "up"])
@pytest.mark.parametrize(
    ("variable", "text"),
    [("NTP_SERVER", "ntp://x"), ("FEED_OPT_ATTEMPTS", "none"), ("WALLETS_FILE", "none.csv")],
)
def test_a_command_ends_with_2_and_the_variables_name(folder, monkeypatch, command, variable, text):
    monkeypatch.setenv(variable, text)
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert variable in result.stderr


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_ends_with_2_and_the_variables_name(folder, name):
    done = forked.run(["worker", name], env={"FEED_GRANULARITY": "0m", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 2
    assert "FEED_GRANULARITY='0m' is unknown: choose one of 1s" in done.stderr + done.stdout
