"""`coordinator verify-e2e` from its command line, at an API that is not as it should be: which step, and why."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stamina
from typer.testing import CliRunner

from coordinator.cli import verify_e2e as verify_e2e_module
from coordinator.cli.main import app

COUNTS = {
    "feed_records": 9,
    "inputs": {"received": 8, "resolved": 7},
    "predictions": {"pending": 0, "scored": 49, "failed": 0, "absent": 0},
    "snapshots": 7,
}
HEALTH = {"status": "ok", "crunch_id": "btc-up", "lag": {"feeds": 0}, "clock_ts": "2023-03-01T00:00:00Z"}
HONEST = {
    "/healthz": (200, HEALTH),
    "/reports/models": (200, [{"model_name": "trend", "state": "RUNNING"}]),
    "/reports/checkpoints": (200, []),
    "/reports/summary": (200, COUNTS),
}


@pytest.fixture
def serve():
    """A function that serves answers by path on a local socket, and gives the address."""
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = answers.get(self.path, (404, {}))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def one_look(monkeypatch):
    """The time is over once it has looked: on a busy machine a limit of a second ends a step before the one it is about."""

    async def until(look, waiting):
        answer = await look()
        if isinstance(answer, str):
            return answer
        waiting(*answer)
        raise TimeoutError

    monkeypatch.setattr(verify_e2e_module, "_until", until)


def verified(address, monkeypatch, tmp_path, timeout="30"):
    monkeypatch.chdir(tmp_path)
    for name in ("CRUNCH_ID", "KAFKA_BOOTSTRAP", "CONTRACT"):
        monkeypatch.delenv(name, raising=False)
    command = ["verify-e2e", "--json", "--timeout", timeout, "--api", address, "--kafka", "127.0.0.1:1"]
    done = CliRunner().invoke(app, command)
    return done.exit_code, json.loads(done.stdout)


def counting(**changes):
    return HONEST | {"/reports/summary": (200, COUNTS | changes)}


@pytest.mark.parametrize(
    ("answers", "step", "reason"),
    [
        ({}, "health", "the API is of crunch None"),
        ({"/healthz": (200, HEALTH | {"crunch_id": "other"})}, "health", "of crunch other, not of btc-up"),
        ({"/healthz": (503, HEALTH | {"status": "stalled"})}, "health", "/healthz says stalled"),
        (
            HONEST | {"/reports/models": (200, [{"model_name": "a", "state": "STOPPED"}])},
            "models",
            "none of 1",
        ),
        (counting(feed_records=0), "feed", "no feed record yet"),
        (counting(inputs={"received": 0, "resolved": 0}), "input", "no input yet, of 9 feed records"),
        (
            counting(predictions=dict.fromkeys(COUNTS["predictions"], 0)),
            "predictions",
            "no prediction yet, of 8 inputs",
        ),
        (counting(predictions=COUNTS["predictions"] | {"scored": 0, "pending": 7}), "scores", "no score yet"),
        (counting(snapshots=0), "snapshots", "no snapshot yet; 49 predictions scored"),
        (HONEST, "checkpoint", "its period is not over: 7 snapshots, the clock is 2023-03-01"),
    ],
)
def test_the_step_that_is_not_reached_is_named(answers, step, reason, serve, one_look, monkeypatch, tmp_path):
    code, result = verified(serve(answers), monkeypatch, tmp_path)
    assert code == 1
    assert (result["ok"], result["failed_step"]) == (False, step)
    assert reason in result["reason"]


def test_nobody_at_the_address_is_said_when_the_time_is_over(monkeypatch, tmp_path):
    code, result = verified("http://127.0.0.1:1", monkeypatch, tmp_path, timeout="3")
    assert code == 1
    assert result["failed_step"] == "health"
    assert "not within 3 s" in result["reason"]
    assert "gives no answer to /healthz" in result["reason"]


def test_a_checkpoint_without_a_kafka_that_answers_ends_at_the_feed(serve, monkeypatch, tmp_path):
    offered = {"/reports/checkpoints": (200, [{"id": "ckp_1", "period_end": "2023-03-01T00:00:00Z"}])}
    with stamina.set_testing(testing=True):  # one attempt, not ten seconds of them
        code, result = verified(serve(HONEST | offered), monkeypatch, tmp_path)
    assert code == 1
    assert result["failed_step"] == "feed"
    assert "127.0.0.1:1" in result["reason"]
