"""Models behind TLS, as production has them: an orchestrator's list, and gRPC servers that ask for certificates.

`secure` is mutual TLS to each model, whose every answer carries a delegation signed by its wallet. `gateway` is plain
TLS to a gateway, whose every call must carry a token signed by the coordinator's key. Both check what production
checks, but for what is on the chain. The model behind is a stub: its answer is not what these tests are about.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import base58
import grpc
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from model_runner_client.grpc.generated import commons_pb2, dynamic_subclass_pb2, dynamic_subclass_pb2_grpc
from tests.broker.certificates import Authority
from websockets.asyncio.server import ServerConnection, serve

from coordinator.infra.models.host import variants

TOKEN_SECONDS_MAX = 30
Headers = list[tuple[str, str]]
Gate = Callable[[Mapping[str, str]], tuple[str, Headers]]
"""A call's metadata -> (why it is refused, or ""; the headers of its answer)."""


class Wallet:
    """A cruncher's wallet on the chain: an Ed25519 key."""

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        self.pubkey = base58.b58encode(self._key.public_key().public_bytes_raw()).decode()

    def delegates(self, model_id: str, hotkey: str, certificate_key: bytes) -> Headers:
        """The headers by which it lets a server with this key speak for its model."""
        message = json.dumps(
            {
                "cert_pub": base64.b64encode(certificate_key).decode(),
                "model_id": model_id,
                "hotkey": hotkey,
                "expires_at": int(time.time()) + 3600,
            }
        ).encode()
        return [
            ("x-server-auth-message", base64.b64encode(message).decode()),
            ("x-server-auth-signature", base64.b64encode(self._key.sign(message)).decode()),
            ("x-server-wallet-pubkey", self.pubkey),
        ]


class StubModel(dynamic_subclass_pb2_grpc.DynamicSubclassServiceServicer):
    """Answers every call with {"value": 0.25}, if its gate lets the call through."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.calls: list[str] = []

    def _enter(self, context: Any) -> None:
        refused, headers = self._gate({pair.key: pair.value for pair in context.invocation_metadata()})
        context.send_initial_metadata(headers)
        if refused:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, refused)

    def Setup(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        self._enter(context)
        return dynamic_subclass_pb2.SetupResponse(status=commons_pb2.Status(code="SUCCESS"))

    def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._enter(context)
        self.calls.append(request.methodName)
        answer = None if request.methodName == "tick" else {"value": 0.25}
        return dynamic_subclass_pb2.CallResponse(
            status=commons_pb2.Status(code="SUCCESS"), methodResponse=variants.encode(answer)
        )


def open_server(model: StubModel, certificate: Path, key: Path, client_ca: Path | None) -> tuple[Any, int]:
    """(server, port) behind TLS; with `client_ca` a client needs a certificate of that authority."""
    server = grpc.server(ThreadPoolExecutor(max_workers=3), options=[("grpc.so_reuseport", 0)])
    dynamic_subclass_pb2_grpc.add_DynamicSubclassServiceServicer_to_server(model, server)
    healthy = health.HealthServicer()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def secure_model(
    authority: Authority, model_id: str, signs: Wallet, named: str, hotkey: str
) -> tuple[StubModel, Any, dict[str, Any]]:
    """(model, server, state on the wire): the list names the wallet `named`, the server has a delegation of `signs`."""
    certificate, key = authority.issue(
        f"model-{model_id}", host=f"model-node-{model_id}.crunchdao.internal", rsa_key=True
    )
    private = load_pem_private_key(key.read_bytes(), None)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    headers = signs.delegates(model_id, hotkey, public)
    model = StubModel(lambda _metadata: ("", headers))
    server, port = open_server(model, certificate, key, authority.file)
    return model, server, on_wire(model_id, port, named, hotkey)


def token_gate(known_key: bytes) -> Gate:
    """Lets a call through that carries a fresh token, for the model behind, signed by the key that is known."""

    def gate(metadata: Mapping[str, str]) -> tuple[str, Headers]:
        message = base64.b64decode(metadata.get("x-gateway-auth-message", ""))
        key = base64.b64decode(metadata.get("x-gateway-auth-pubkey", ""))
        if key != known_key:
            return "this key is not registered", []
        public = load_der_public_key(key)
        assert isinstance(public, rsa.RSAPublicKey)
        signature = base64.b64decode(metadata["x-gateway-auth-signature"])
        try:
            public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "the signature is not this key's", []
        if abs(time.time() - json.loads(message)["timestamp"]) > TOKEN_SECONDS_MAX:
            return "the token is old", []
        return "", []

    return gate


def on_wire(model_id: str, port: int, wallet: str = "", hotkey: str = "") -> dict[str, Any]:
    """A RUNNING model in an orchestrator's list."""
    infos = {
        "model_name": model_id,
        "cruncher_id": wallet,
        "cruncher_name": model_id,
        "cruncher_wallet_pubkey": wallet or None,
        "cruncher_hotkey": hotkey or None,
    }
    return {
        "deployment_id": f"{model_id}_20261125_130000_000",
        "model_id": model_id,
        "state": "RUNNING",
        "ip": "127.0.0.1",
        "port": port,
        "infos": infos,
    }


@asynccontextmanager
async def orchestrator(*states: dict[str, Any]) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """(port, the failures reported to it): sends these models as its first list, and no more."""
    reports: list[dict[str, Any]] = []

    async def talk(connection: ServerConnection) -> None:
        await connection.send(msgspec.json.encode({"event": "init", "data": states}).decode())
        async for text in connection:
            reports.extend(json.loads(text)["data"])

    async with serve(talk, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1], reports
