"""SECURE_CERT_DIR and GATEWAY_CERT_DIR through the unmodified client, against servers that check the certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from tests.broker.certificates import Authority
from tests.infra.models.secured import (
    StubModel,
    Wallet,
    on_wire,
    open_server,
    orchestrator,
    secure_model,
    token_gate,
)
from tests.infra.models.stage import CRUNCH_ID, changes, gather_notices
from tests.waiting import limit

from coordinator.infra.models.gateway import Credentials, RunnerClientGateway
from coordinator.streams.agents.workers import _cert_dir, _gateway_key
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import ModelReply, Outcome

ASK = ("BTCUSDT", 60, 15)
MAX_BYTES = 65_536
HOTKEY = "hotkey-1"


@asynccontextmanager
async def connected(port: int, **credentials: Any) -> AsyncIterator[RunnerClientGateway]:
    gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID, credentials=Credentials(**credentials))
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def ask(gateway: RunnerClientGateway, *model_ids: str) -> dict[str, ModelReply]:
    return await gateway.call("predict", ASK, 5.0, model_ids, MAX_BYTES)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def coordinators_folder(tmp_path: Path, authority: Authority) -> Path:
    """The operator's SECURE_CERT_DIR: ca.crt, tls.crt, tls.key."""
    certificate, key = authority.issue("tls", rsa_key=True)
    assert (certificate.name, key.name) == ("tls.crt", "tls.key")
    return authority.folder


async def test_a_model_behind_mutual_tls_answers_and_one_with_a_forged_wallet_is_reported(
    authority: Authority, coordinators_folder: Path
):
    wallet, thief = Wallet(), Wallet()
    good, good_server, good_state = secure_model(authority, "good", wallet, wallet.pubkey, HOTKEY)
    forged, forged_server, forged_state = secure_model(authority, "forged", thief, wallet.pubkey, HOTKEY)
    folder = _cert_dir("SECURE_CERT_DIR", str(coordinators_folder), "ca.crt", "tls.crt", "tls.key")
    try:
        async with (
            orchestrator(forged_state, good_state) as (port, reports),
            connected(port, secure_cert_dir=folder) as gateway,
        ):
            notices = await gather_notices(
                gateway,
                lambda all_: changes(all_, "good") == ["seen"] and "failed" in changes(all_, "forged"),
            )
            assert {notice.code for notice in notices if notice.change == "failed"} == {"CONNECTION_FAILED"}
            assert [(report["model_id"], report["failure_code"]) for report in reports] == [
                ("forged", "CONNECTION_FAILED")
            ]
            replies = await ask(gateway, "good", "forged")
            assert (replies["good"].outcome, replies["good"].output) == (Outcome.OK, {"value": 0.25})
            assert replies["forged"].outcome is Outcome.ABSENT
            assert forged.calls == []
            assert good.calls == ["predict"]
    finally:
        good_server.stop(None)
        forged_server.stop(None)


async def test_a_coordinator_of_another_authority_reaches_no_model(authority: Authority, tmp_path: Path):
    other = Authority(tmp_path / "other", "another authority")
    other.issue("tls", rsa_key=True)
    (other.folder / "ca.crt").write_bytes(
        authority.file.read_bytes()
    )  # it trusts them, and they do not trust it
    wallet = Wallet()
    model, server, state = secure_model(authority, "good", wallet, wallet.pubkey, HOTKEY)
    try:
        async with (
            orchestrator(state) as (port, _),
            connected(port, secure_cert_dir=str(other.folder)) as gateway,
        ):
            await gather_notices(gateway, lambda all_: "failed" in changes(all_, "good"))
            assert (await ask(gateway, "good"))["good"].outcome is Outcome.ABSENT
            assert model.calls == []
    finally:
        server.stop(None)


async def test_models_behind_tls_are_named_as_such_if_no_certificate_is_configured(
    authority: Authority, caplog: pytest.LogCaptureFixture
):
    wallet = Wallet()
    _, server, state = secure_model(authority, "good", wallet, wallet.pubkey, HOTKEY)
    try:
        async with orchestrator(state) as (port, reports), connected(port) as gateway:
            await wait_for_text(caplog, "SECURE_CERT_DIR")
            assert "GATEWAY_CERT_DIR" in caplog.text
            assert "MODEL_BASE_CLASSNAME" not in caplog.text
            assert (gateway.notices(), reports) == ([], [])  # the operator's mistake costs the model nothing
    finally:
        server.stop(None)


async def test_a_gateway_accepts_calls_with_our_token(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(authority.file))
    certificate, key = authority.issue("gateway", rsa_key=True)
    _, ours = authority.issue("ours", rsa_key=True)
    (tmp_path / "key.pem").write_bytes(ours.read_bytes())
    public = load_pem_private_key(ours.read_bytes(), None).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    model = StubModel(token_gate(der))
    closed = StubModel(token_gate(b"another key"))
    server, port_good = open_server(model, certificate, key, None)
    closed_server, port_closed = open_server(closed, certificate, key, None)
    try:
        async with (
            orchestrator(on_wire("good", port_good), on_wire("closed", port_closed)) as (port, _),
            connected(port, gateway_key_pem=_gateway_key(str(tmp_path))) as gateway,
        ):
            await gather_notices(gateway, lambda all_: changes(all_, "good") == ["seen"])
            replies = await ask(gateway, "good", "closed")
            assert (replies["good"].outcome, replies["good"].output) == (Outcome.OK, {"value": 0.25})
            assert replies["closed"].outcome is Outcome.ABSENT
            assert closed.calls == []
    finally:
        server.stop(None)
        closed_server.stop(None)


async def test_files_without_a_certificate_or_key_are_the_operators_to_change(
    authority: Authority, tmp_path: Path
):
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("not a certificate")
    with pytest.raises(OperatorError, match="SECURE_CERT_DIR"):
        await RunnerClientGateway(
            "127.0.0.1", 1, CRUNCH_ID, credentials=Credentials(secure_cert_dir=str(tmp_path))
        ).start()
    with pytest.raises(OperatorError, match="GATEWAY_CERT_DIR"):
        await RunnerClientGateway(
            "127.0.0.1", 1, CRUNCH_ID, credentials=Credentials(gateway_key_pem=b"not a key")
        ).start()
    _, elliptic = authority.issue("elliptic")
    with pytest.raises(OperatorError, match=r"GATEWAY_CERT_DIR.*RSA"):
        await RunnerClientGateway(
            "127.0.0.1", 1, CRUNCH_ID, credentials=Credentials(gateway_key_pem=elliptic.read_bytes())
        ).start()


async def wait_for_text(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with limit():
        while text not in caplog.text:
            await asyncio.sleep(0.05)
