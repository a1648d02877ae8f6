"""Blobs behind a URL: in memory, in a folder, and on a real server that can be full, slow or unreachable."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina
from tests.infra.test_blobs import CONTENT, blob_of

from coordinator.infra.blobs import content, object_store
from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.blobs.object_store import ObjectStore
from coordinator.infra.blobs.store_by_settings import is_shared, store_of
from coordinator.streams.log.errors import BlobLostError, OperatorError, WorldError
from coordinator.streams.settings import Settings, read_settings

NAME = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Objects over HTTP on this machine. `answers` are the codes with which it refuses the next requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.answers: list[int] = []
        self.asked: list[str] = []
        self.answering = threading.Event()
        self.answering.set()

    def handle_error(self, *_args: object) -> None:
        """Whoever asked may have left before the answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/bucket"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _turned_away(self) -> bool:
        self.server.asked.append(self.command)
        self.server.answering.wait()
        if not self.server.answers:
            return False
        self._say(self.server.answers.pop(0))
        return True

    def _say(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self._turned_away():
            return
        held = self.server.objects.get(self.path)
        if held is None:
            self._say(404)
        else:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            self._say(206, held[int(first) : int(last) + 1])

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._turned_away():
            return
        self.server.objects[self.path] = body
        self._say(201)

    do_POST = do_PUT  # noqa: N815 - fsspec writes with either

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.answering.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Retries without their pauses."""
    with stamina.set_testing(True, attempts=object_store.ATTEMPTS):
        yield


@pytest.fixture(params=["memory", "http"])
def store(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"memory://{tmp_path.name}/blobs/" if request.param == "memory" else server.url)


def test_a_stored_blob_is_read(store):
    assert store.put(CONTENT) == NAME
    assert store.read(blob_of(CONTENT)) == CONTENT
    assert store.put(CONTENT) == NAME


def test_a_missing_or_altered_blob_is_refused_by_its_name(server):
    store = ObjectStore(server.url)
    with pytest.raises(BlobLostError, match=f"blob {NAME} is missing"):
        store.read(blob_of(CONTENT))
    store.put(CONTENT)
    (place,) = server.objects
    for altered, complaint in (
        (CONTENT[:-1], "does not have its"),
        (CONTENT + b"x", "does not have its"),
        (b"x" + CONTENT[1:], "another SHA-256"),
    ):
        server.objects[place] = altered
        with pytest.raises(BlobLostError, match=f"blob {NAME} is altered: .*{complaint}"):
            store.read(blob_of(CONTENT))
    store.put(CONTENT)
    assert store.read(blob_of(CONTENT)) == CONTENT, "an altered one is mended by keeping it again"


def test_a_check_requests_the_size_alone(tmp_path):
    store = ObjectStore(f"memory://{tmp_path.name}/blobs")
    with pytest.raises(BlobLostError, match=f"blob {NAME} is missing"):
        store.look(blob_of(CONTENT))
    store.put(CONTENT)
    store.look(blob_of(CONTENT))
    store._files.pipe_file(store._path(NAME), CONTENT[:-1])
    with pytest.raises(BlobLostError, match=f"blob {NAME} is altered"):
        store.look(blob_of(CONTENT))


def test_a_server_with_a_temporary_error_is_asked_again(server):
    store = ObjectStore(server.url)
    store.put(CONTENT)
    server.asked.clear()
    server.answers = [503, 500]
    assert store.read(blob_of(CONTENT)) == CONTENT
    assert server.asked == ["GET"] * 3


def test_an_unreachable_server_is_not_a_lost_blob(server):
    """Otherwise a network failure would stop a round."""
    store = ObjectStore(server.url)
    server.answers = [503] * object_store.ATTEMPTS * 2
    for work in (lambda: store.read(blob_of(CONTENT)), lambda: store.put(CONTENT)):
        with pytest.raises(WorldError, match="the http store of blobs does not answer") as refused:
            work()
        assert "127.0.0.1" not in str(refused.value)


def test_a_server_that_takes_the_request_and_says_nothing_is_left_soon(server, monkeypatch):
    """Its library would ask again for ten minutes, and the answers of a round would wait for it."""
    monkeypatch.setattr(object_store, "CALL_SECONDS_MAX", 0.2)
    store = ObjectStore(server.url)
    store.put(CONTENT)
    server.answering.clear()
    for work in (
        lambda: store.put(CONTENT),
        lambda: store.read(blob_of(CONTENT)),
        lambda: store.look(blob_of(CONTENT)),
        lambda: store.given_up(NAME),
        lambda: store.give_up(NAME, "nobody has it"),
    ):
        with pytest.raises(WorldError, match="the http store of blobs does not answer"):
            work()


@pytest.mark.parametrize("code", [401, 403])
def test_a_store_that_refuses_who_asks_has_not_lost_the_blob(server, code):
    """Keys end and rights are taken away: a round must wait for them, as for a server that is down."""
    store = ObjectStore(server.url)
    store.put(CONTENT)
    server.answers = [code] * object_store.ATTEMPTS * 2
    with pytest.raises(WorldError, match="the http store of blobs"):
        store.read(blob_of(CONTENT))


class NoBucketError(Exception):
    """As botocore tells it."""

    def __init__(self) -> None:
        super().__init__("of a bucket")
        self.response = {"Error": {"Code": "NoSuchBucket"}}


class Refusing:
    """A store that answers each request with one error."""

    async_impl = False

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        self.error, self.cause = error, cause

    def cat_file(self, *_arguments: object, **_options: object) -> bytes:
        raise self.error from self.cause

    def pipe_file(self, *_arguments: object) -> None:
        raise self.error from self.cause


def test_a_bucket_that_is_not_there_is_named_and_has_not_lost_the_blob(tmp_path, monkeypatch):
    store = ObjectStore(f"memory://{tmp_path.name}/blobs")
    monkeypatch.setattr(store, "_files", Refusing(FileNotFoundError("of a bucket"), NoBucketError()))
    with pytest.raises(WorldError, match="BLOBS_URL: the memory store has no such bucket"):
        store.read(blob_of(CONTENT))
    with pytest.raises(OperatorError, match="BLOBS_URL: the memory store has no such place: make the bucket"):
        store.put(CONTENT)


def test_what_a_refusal_says_is_not_repeated(tmp_path, monkeypatch):
    store = ObjectStore(f"memory://{tmp_path.name}/blobs")
    monkeypatch.setattr(store, "_files", Refusing(PermissionError("SECRET")))
    with pytest.raises(WorldError, match="the memory store of blobs refuses") as error:
        store.read(blob_of(CONTENT))
    assert "SECRET" not in str(error.value)


def test_an_object_larger_than_the_blob_is_not_read_completely(server, monkeypatch):
    store = ObjectStore(server.url)
    store.put(CONTENT)
    (place,) = server.objects
    server.objects[place] = CONTENT * 100
    read: list[int] = []
    checked = content.checked
    monkeypatch.setattr(
        object_store, "checked", lambda blob, got: read.append(len(got)) or checked(blob, got)
    )
    with pytest.raises(BlobLostError):
        store.read(blob_of(CONTENT))
    assert read == [len(CONTENT) + 1]


def test_the_settings_choose_the_store_of_a_node(tmp_path):
    own = Settings(data_dir=tmp_path)
    assert (store_of(own).folder, is_shared(own)) == (tmp_path / "blobs", False)
    shared = own.changed(blobs_url=f"file://{tmp_path}/far%20away")
    store = store_of(shared)
    assert isinstance(store, BlobFolder)
    assert (store.folder, is_shared(shared)) == (tmp_path / "far away", True)
    assert isinstance(store_of(own.changed(blobs_url="memory://here")), ObjectStore)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("/srv/blobs", "BLOBS_URL is not a URL"),
        ("s3:/bucket", "BLOBS_URL is not a URL"),
        ("s3://secret key", "BLOBS_URL is not a URL"),
        ("file://host/folder", "BLOBS_URL names no folder"),
        ("file:///", "BLOBS_URL names no folder"),
    ],
)
def test_an_invalid_store_is_refused_and_not_repeated(url, complaint):
    with pytest.raises(OperatorError, match=complaint) as refused:
        read_settings({"BLOBS_URL": url})
    assert "secret" not in str(refused.value)


def test_a_kind_of_store_without_its_library_is_the_operators_fault(tmp_path):
    for scheme in ("nowhere", "s3"):
        with pytest.raises(OperatorError, match=f"BLOBS_URL: fsspec cannot open {scheme}://"):
            store_of(Settings(data_dir=tmp_path, blobs_url=f"{scheme}://bucket/blobs"))
