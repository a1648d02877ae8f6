"""The operator's own routes: mounted where none of ours is, and never in place of one. A broken file stops the start."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.waiting import LIMIT_SECONDS

from coordinator.api.commands import Sender
from coordinator.api.own_routes import FILES_MAX, load_own_routes, mount_own_routes
from coordinator.streams.log.errors import OperatorError

RULES = """
from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter()


class Rules(BaseModel):
    text: str


@router.get("")
def rules() -> Rules:
    return Rules(text="be right")
"""
OURS = ("/healthz", "/reports/leaderboard", "/reports/checkpoints")


@pytest.fixture
def node(tmp_path):
    folder = tmp_path / "api"
    folder.mkdir()
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> str:
        return "ours"

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text)

    return SimpleNamespace(
        app=app,
        folder=folder,
        write=write,
        mount=lambda: mount_own_routes(app, load_own_routes(str(folder))),
        client=TestClient(app),
    )


def test_a_file_with_a_router_is_served_under_its_name_and_is_in_the_openapi(node):
    node.write("rules.py", RULES)
    node.write("_shared.py", "1 / 0")
    node.write("notes.txt", "no routes")
    node.mount()
    assert node.client.get("/own/rules").json() == {"text": "be right"}
    assert "/own/rules" in node.app.openapi()["paths"]


def test_without_a_folder_there_are_no_own_routes(node):
    assert load_own_routes("") == []
    assert load_own_routes(str(node.folder / "none")) == []
    assert load_own_routes(str(node.folder)) == []


def test_a_route_named_like_ours_shadows_nothing(node):
    node.write("a.py", RULES.replace('router.get("")', 'router.get("/healthz")'))
    node.mount()
    assert node.client.get("/healthz").json() == "ours"
    assert node.client.get("/own/a/healthz").json() == {"text": "be right"}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("broken.py", "x = 1\ny = x / 0\n", r"ZeroDivisionError.*broken\.py:2\)"),
        ("broken.py", "def f(:\n", r"SyntaxError.*broken\.py:1\)"),
        ("broken.py", "import no_such_module\n", r"no_such_module.*broken\.py:1\)"),
        ("broken.py", "import sys\nsys.exit(3)\n", r"SystemExit.*broken\.py:2\)"),
        ("empty.py", "", r"empty\.py:1: `router` must be a fastapi\.APIRouter, it is none"),
        ("other.py", "router = 5\n", r"it is a int"),
        ("Rules-2.py", RULES, r"the file's name becomes the path"),
        ("write.py", RULES.replace("router.get", "router.post"), r"write\.py:\d+: POST  would write"),
        (
            "socket.py",
            "from fastapi import APIRouter\nrouter = APIRouter()\n\n@router.websocket('/w')\nasync def w(s): ...\n",
            r"socket\.py:4: /w is a APIWebSocketRoute",
        ),
    ],
)
def test_an_unusable_file_stops_the_start_and_names_the_line(node, name, text, complaint):
    node.write(name, text)
    with pytest.raises(OperatorError, match=complaint):
        node.mount()


def test_too_many_files_are_refused(node):
    for number in range(FILES_MAX + 1):
        node.write(f"r{number}.py", RULES)
    with pytest.raises(OperatorError, match="the limit is"):
        node.mount()


async def test_the_report_api_serves_them(api, tmp_path):
    """Through `create_app` itself."""
    folder = tmp_path / "api"
    folder.mkdir()
    (folder / "rules.py").write_text(RULES)
    from coordinator.api.app import create_app
    from coordinator.streams.settings import Settings

    own = load_own_routes(str(folder))
    app = create_app(Settings(), Sender(api.projector, api.stage), own_routes=own)
    client = TestClient(app)
    assert client.get("/own/rules").json() == {"text": "be right"}
    assert client.get("/reports/models").status_code == 200


def test_the_report_worker_ends_with_the_line_of_a_broken_file(tmp_path):
    """The real worker: exit code 2 and one line, before it needs anything else."""
    folder = tmp_path / "api"
    folder.mkdir()
    (folder / "rules.py").write_text("import fastapi\n\nrouter = fastapi.Router()\n")
    done = subprocess.run(
        [sys.executable, "-Im", "coordinator.cli.main", "worker", "report"],
        cwd=tmp_path,
        env=os.environ | {"API_ROUTES_DIR": str(folder), "API_PORT": "0", "KAFKA_BOOTSTRAP": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "rules.py:3" in done.stderr
