"""Access: who may call what, how often, with how much; and the headers of every answer."""

from __future__ import annotations

import httpx
import pytest
from tests.api.conftest import parts_over
from tests.logs import busy_log
from tests.waiting import limit

from coordinator.api.access import BODY_BYTES_MAX, HEADERS, Rules, key_of, scope_needed
from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing, Scope, hash_of, make_entry, parse_entries, read_key_ring
from coordinator.api.problems import MEDIA_TYPE
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.setting_checks import networks_of
from coordinator.streams.settings import Settings

INSIDE, OUTSIDE = "127.0.0.1", "203.0.113.9"
KEYS = {scope: make_entry(f"k{scope.value}", scope, "s" * 43, "m1", "c1") for scope in Scope if scope}
CONFIRM = "/reports/checkpoints/none/confirm"
RELEASE = "/reports/checkpoints/none/release"
OPEN = "open"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """One folder for all clients, because nothing is written there."""
    with parts_over(tmp_path_factory.mktemp("doors"), busy_log()) as node_parts:
        yield node_parts


@pytest.fixture
def door(parts):
    """`door(host, key, reads=..., rate=...)` returns a client of the real application that calls from that address."""
    ring = KeyRing(parse_entries("\n".join(line for _, line in KEYS.values()), "test"))

    def client(
        host: str = OUTSIDE,
        scope: Scope | None = None,
        *,
        closed: bool = False,
        rate: int = 0,
        keyless: bool = True,
        proxies: str = "",
        hosts: tuple[str, ...] = (),
        **headers: str,
    ) -> httpx.AsyncClient:
        rules = Rules(
            ring,
            reads_need_key=closed,
            trusted=networks_of("API_TRUSTED_NETWORKS", "127.0.0.0/8,::1/128"),
            settle_without_key=keyless,
            proxies=networks_of("API_TRUSTED_PROXIES", proxies),
            hosts=hosts,
            requests_per_second=rate,
        )
        app = create_app(Settings(), Sender(parts.projector, parts.stage), rules=rules)
        transport = httpx.ASGITransport(app, client=(host, 1234))
        if scope is not None:
            headers["X-API-Key"] = KEYS[scope][0]
        return httpx.AsyncClient(transport=transport, base_url="http://node", headers=headers)

    return client


async def refused(api_client: httpx.AsyncClient, reason: str) -> float:
    text = (await api_client.get("/metrics")).text
    line = next(
        sample
        for sample in text.splitlines()
        if sample.startswith(f'coordinator_api_refused_total{{reason="{reason}"')
    )
    return float(line.rsplit(" ", 1)[1])


CASES = [
    # host, scope of the key, reads closed, method, path, expected: OPEN or the status
    (OUTSIDE, None, False, "GET", "/reports/models", OPEN),
    (OUTSIDE, None, True, "GET", "/reports/models", 401),
    (INSIDE, None, True, "GET", "/reports/models", OPEN),
    (OUTSIDE, Scope.READ, True, "GET", "/reports/models", OPEN),
    (OUTSIDE, None, True, "GET", "/healthz", OPEN),
    (OUTSIDE, None, True, "GET", "/metrics", 401),
    (OUTSIDE, None, True, "GET", "/reports/leaderboard", 401),
    (OUTSIDE, None, True, "GET", "/own/rules", 401),
    (OUTSIDE, None, False, "POST", CONFIRM, 401),
    (OUTSIDE, Scope.READ, False, "POST", CONFIRM, 403),
    (OUTSIDE, Scope.SETTLE, False, "POST", CONFIRM, OPEN),
    (OUTSIDE, Scope.ADMIN, False, "POST", CONFIRM, OPEN),
    (INSIDE, None, False, "POST", CONFIRM, OPEN),
    (INSIDE, None, False, "POST", RELEASE, 401),
    (INSIDE, Scope.SETTLE, False, "POST", RELEASE, 403),
    (INSIDE, Scope.ADMIN, False, "POST", RELEASE, OPEN),
    (INSIDE, Scope.READ, False, "POST", CONFIRM, 403),
    (INSIDE, None, False, "DELETE", "/reports/models", 401),
    (INSIDE, None, False, "POST", CONFIRM + "/more", 401),
    (INSIDE, None, False, "POST", "//reports/checkpoints/a/confirm", 401),
    ("::ffff:127.0.0.1", None, False, "POST", CONFIRM, OPEN),
    ("no address", None, False, "POST", CONFIRM, 401),
    (INSIDE, None, False, "POST", "/rounds", 401),
    (INSIDE, Scope.SETTLE, False, "POST", "/rounds", 403),
    (INSIDE, Scope.SUBMIT, False, "POST", "/rounds", 403),
    (INSIDE, Scope.SUBMIT, False, "POST", "/rounds/w/resolve", 403),
    (INSIDE, Scope.SUBMIT, False, "POST", "/rounds/w/void", 403),
    (INSIDE, Scope.SUBMIT, False, "POST", "/stakes", 403),
    (INSIDE, Scope.SUBMIT, False, "POST", CONFIRM, 403),
    (OUTSIDE, Scope.SUBMIT, True, "GET", "/reports/models", OPEN),
    (INSIDE, None, False, "POST", "/rounds/w/answers", 401),
    (INSIDE, Scope.ADMIN, False, "POST", "/rounds/w/answers", 403),
    (OUTSIDE, Scope.SUBMIT, False, "POST", "/rounds/w/answers", OPEN),
    (OUTSIDE, Scope.ADMIN, False, "POST", "/rounds", OPEN),
]


@pytest.mark.parametrize(("host", "scope", "closed", "method", "path", "expected"), CASES)
async def test_access_is_as_the_table_says(door, host, scope, closed, method, path, expected):
    async with door(host, scope, closed=closed) as client:
        answer = await client.request(method, path, json={"tx_hash": "x"} if method == "POST" else None)
    if expected == OPEN:
        assert answer.status_code not in (401, 403, 429)
    else:
        assert answer.status_code == expected
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["status"] == expected
        assert ("www-authenticate" in answer.headers) == (expected == 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "k3.wrong"},
        {"X-API-Key": "nobody." + "s" * 43},
        {"X-API-Key": "k3." + "s" * 42},
        {"X-API-Key": ""},
        {"X-API-Key": "k3." + "s" * 10_000},
        {"Authorization": "Bearer nope"},
    ],
)
async def test_a_wrong_key_is_refused_even_where_none_is_needed_and_is_not_repeated(door, headers):
    async with door(INSIDE, **headers) as client:
        answer = await client.get("/reports/models")
    assert answer.status_code == 401
    sent = next(iter(headers.values()))
    assert not sent or sent not in answer.text


async def test_a_bearer_token_is_a_key_and_a_query_parameter_is_none(door):
    key = KEYS[Scope.READ][0]
    async with door(OUTSIDE, closed=True) as client:
        assert (
            await client.get("/reports/models", headers={"Authorization": f"Bearer {key}"})
        ).status_code == 200
        assert (await client.get(f"/reports/models?api_key={key}&X-API-Key={key}")).status_code == 401


async def test_a_page_in_a_browser_may_not_settle_without_a_key(door):
    """Any page on the operator's screen can make the browser send this request from a trusted address."""
    async with door(INSIDE, Origin="http://evil.example") as client:
        assert (await client.post(CONFIRM, json={"tx_hash": "x"})).status_code == 403
        before = await refused(client, "origin")
        await client.patch("/reports/checkpoints/none/status", json={"status": "CLAIMABLE"})
        assert await refused(client, "origin") == before + 1


async def test_callers_above_the_rate_must_wait_and_are_counted_and_trusted_ones_need_not(door):
    async with door(OUTSIDE, rate=5) as client:
        statuses = [(await client.get("/healthz")).status_code for _ in range(20)]
        assert statuses.count(429) >= 5  # at most two windows of five were open meanwhile
        assert statuses[:5] == [200] * 5 or 503 in statuses[:5]
        late = await client.get("/healthz")
        if late.status_code == 429:
            assert late.headers["retry-after"] == "1"
    async with door(INSIDE, rate=1) as client:
        assert 429 not in [(await client.get("/healthz")).status_code for _ in range(10)]
        assert await refused(client, "rate") == 0


async def test_one_ipv6_customer_is_counted_as_one(door):
    app_of = door("2001:db8:1:2::1", rate=2)._transport.app
    statuses = []
    for last in range(1, 12):
        transport = httpx.ASGITransport(app_of, client=(f"2001:db8:1:2::{last:x}", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            statuses.append((await client.get("/info")).status_code)
    assert 429 in statuses


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_is_refused_however_it_is_sent(door, chunked):
    big = b'{"tx_hash": "' + b"x" * BODY_BYTES_MAX + b'"}'

    async def pieces():
        for at in range(0, len(big), 10_000):
            yield big[at : at + 10_000]

    async with door(INSIDE) as client:
        answer = await client.post(
            CONFIRM, content=pieces() if chunked else big, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert await refused(client, "body") == 1


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/reports/leaderboard", "/reports/models", "/nowhere", "/metrics"]
)
async def test_every_answer_has_the_security_headers(door, path):
    async with door() as client:
        answer = await client.get(path)
    for name in HEADERS:
        assert name.decode() in answer.headers, name
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


async def test_an_unexpected_exception_is_500_without_any_detail(door, parts, monkeypatch, capsys):
    def broken(*_args):
        raise ZeroDivisionError("secret-in-a-traceback")

    monkeypatch.setattr(type(parts.read.models), "roster", broken, raising=False)
    monkeypatch.setattr(type(parts.read.feeds), "all", broken)
    async with door() as client:
        answer = await client.get("/reports/feeds")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "secret-in-a-traceback" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert answer.json()["incident"] in capsys.readouterr().out
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_wrong_parameter_is_a_problem_with_a_sentence(door):
    async with door() as client:
        answer = await client.get("/reports/predictions", params={"limit": "many"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE)
    assert "query.limit" in answer.json()["detail"]


async def test_an_unknown_path_and_a_wrong_method_are_problems(door):
    async with door(INSIDE, Scope.ADMIN) as client:
        for answer, status in (
            (await client.get("/reports/nothing"), 404),
            (await client.delete("/reports/models"), 405),
        ):
            assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)


async def test_metrics_count_by_route_template_and_not_by_path(door):
    async with door(INSIDE) as client:
        await client.get("/reports/checkpoints/some-id-of-somebody")
        await client.get("/no/such/path")
        text = (await client.get("/metrics")).text
    assert 'route="/reports/checkpoints/{checkpoint_id}",status="404"' in text
    assert "some-id-of-somebody" not in text
    assert "no/such" not in text
    assert "coordinator_lag_records" in text
    assert 'coordinator_predictions{status="scored"}' in text


async def test_ready_means_that_everything_is_folded(door, parts, monkeypatch):
    async with door() as client:
        assert (await client.get("/readyz")).status_code == 200
        monkeypatch.setitem(parts.projector._ends, "scores", 10**9)
        assert (await client.get("/readyz")).status_code == 503


async def test_the_openapi_document_describes_access_and_errors(door):
    async with door() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {} in paths["/reports/models"]["get"]["security"]
    assert {} not in paths["/reports/checkpoints/{checkpoint_id}/confirm"]["post"]["security"]
    for operations in paths.values():
        for operation in operations.values():
            assert {"401", "403", "429", "500"} <= operation["responses"].keys()


# --- pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/anything", Scope.READ),
        ("HEAD", "/readyz", Scope.NONE),
        ("POST", CONFIRM, Scope.SETTLE),
        ("PATCH", "/reports/checkpoints/a/status", Scope.SETTLE),
        ("POST", RELEASE, Scope.ADMIN),
        ("POST", "/own/x", Scope.ADMIN),
        ("POST", "/rounds", Scope.ADMIN),
        ("POST", "/rounds/a/b/answers", Scope.ADMIN),
        ("POST", "/rounds/a/answers", Scope.SUBMIT),
        ("TRACE", "/", Scope.ADMIN),
    ],
)
def test_an_unlisted_route_needs_the_highest_scope(method, path, needed):
    assert scope_needed(method, path) is needed


def test_entries_are_hashes_with_remarks():
    _, line = make_entry("ops", Scope.SETTLE, "abc")
    assert hash_of("ops.abc") in line
    assert "ops.abc" not in line
    (entry,) = parse_entries(f"# ours\n\n{line}  # Ada\n", "x")
    assert (entry.key_id, entry.scope) == ("ops", Scope.SETTLE)
    (entry,) = parse_entries(make_entry("ada", Scope.SUBMIT, "abc", "m1", "c1")[1], "x")
    assert (entry.scope, entry.model_id, entry.cruncher_id) == (Scope.SUBMIT, "m1", "c1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ops.secret-key-itself", "line 1: an entry is ID SCOPE SHA256"),
        (f"ops none {'0' * 64}", "line 1"),
        (f"ops submit {'0' * 64}", "line 1: .*MODEL CRUNCHER"),
        (f"ops read {'0' * 64} m1 c1", "line 1"),
        (f"ops root {'0' * 64}", "line 1"),
        (f"ops read {'0' * 63}", "line 1"),
        (f"ops read {'0' * 64}\nops read {'1' * 64}", "line 2: the id ops occurs twice"),
    ],
)
def test_invalid_entries_are_named_by_line_and_not_shown(text, complaint):
    with pytest.raises(OperatorError, match=complaint) as error:
        parse_entries(text, "API_KEYS")
    assert "secret-key-itself" not in str(error.value)


def test_a_file_of_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text("\n".join(line for _, line in KEYS.values()))
    ring = read_key_ring("", str(file))
    assert [ring.scope_of(key) for key, _ in KEYS.values()] == list(KEYS)
    with pytest.raises(OperatorError, match="cannot be read"):
        read_key_ring("", str(tmp_path / "none"))
    with pytest.raises(OperatorError, match="the same id"):
        read_key_ring(KEYS[Scope.READ][1], str(file))


@pytest.mark.parametrize("text", ["localhost", "127.0.0.1/8", "10.0.0.0/33"])
def test_invalid_networks_are_refused(text):
    with pytest.raises(OperatorError, match="API_TRUSTED_NETWORKS"):
        networks_of("API_TRUSTED_NETWORKS", text)


def test_the_key_of_a_request():
    from starlette.datastructures import Headers

    assert key_of(Headers({"x-api-key": " a "})) == "a"
    assert key_of(Headers({"authorization": "bearer b"})) == "b"
    assert key_of(Headers({"authorization": "Basic b"})) is None
    assert key_of(Headers({})) is None


async def test_settling_without_a_key_must_be_allowed_explicitly(door):
    """Two adjacent lines in `.env` used to open it to the internet. Trust in a network no longer allows settling."""
    async with door(INSIDE, keyless=False) as client:
        answer = await client.post(CONFIRM, json={"tx_hash": "x"})
        assert answer.status_code == 401
        assert "API_SETTLE_WITHOUT_KEY" in answer.json()["detail"]
    async with door(INSIDE) as client:
        assert (await client.post(CONFIRM, json={"tx_hash": "x"})).status_code == 422


PASSED_ON = {
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1",
    "Via": "1.1 proxy",
}


@pytest.mark.parametrize("name", PASSED_ON)
@pytest.mark.parametrize("peer", [INSIDE, OUTSIDE])
async def test_a_call_that_a_proxy_passed_on_is_not_trusted_whatever_its_headers(door, peer, name):
    """Found by an attack: uvicorn believed the X-Forwarded-For of any caller on this machine."""
    async with door(peer, **{name: PASSED_ON[name]}) as client:
        assert (await client.post(CONFIRM, json={"tx_hash": "x"})).status_code == 401
    async with door(peer, closed=True, **{name: PASSED_ON[name]}) as client:
        assert (await client.get("/reports/models")).status_code == 401


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("127.0.0.1", 422),  # the proxy's entry: this machine
        (f"127.0.0.1, {OUTSIDE}", 401),  # the caller wrote what is left of the last entry
        (f"{OUTSIDE}, 127.0.0.1", 422),
        ("127.0.0.1, 10.1.1.1", 422),  # through another of our proxies
        ("not an address", 401),
        ("", 401),
    ],
)
async def test_a_named_proxy_is_believed_for_the_last_hop_that_is_no_proxy(door, forwarded, status):
    async with door("10.9.9.9", proxies="10.0.0.0/8", **{"X-Forwarded-For": forwarded}) as client:
        assert (await client.post(CONFIRM, json={"tx_hash": "x"})).status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("localhost", 200), ("LOCALHOST:8000", 200), ("report:8000", 200),
        ("203.0.113.7", 200), ("node.localhost", 200), ("host.docker.internal:8000", 200), ("", 200),
        ("evil.example", 421), ("evil.example:8000", 421), ("127.0.0.1.evil.example", 421), ("a b", 421),
        ("node.example", 200), ("NODE.example.:443", 200), ("sub.node.example", 421),
    ],
)  # fmt: skip
async def test_a_page_whose_name_resolves_to_this_machine_is_not_answered(door, host, status):
    """DNS rebinding: its browser sends the page's own name as Host."""
    async with door(INSIDE, hosts=("node.example",), Host=host) as client:
        answer = await client.get("/reports/models")
        assert answer.status_code == status
        assert status == 200 or "API_ALLOWED_HOSTS" in answer.json()["detail"]
        assert (await client.get("/healthz")).status_code == 200


async def test_any_host_is_allowed_if_the_operator_says_so(door):
    async with door(INSIDE, hosts=("*",), Host="evil.example") as client:
        assert (await client.get("/reports/models")).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/", "/metrics", "/docs", "/reports/models", "/reports/leaderboard", "/reports/predictions",
     "/reports/predictions.csv", "/reports/predictions.parquet", "/reports/live", "/reports/schema",
     "/reports/models?as_of=2023-03-10T00:00:00Z"],
)  # fmt: skip
async def test_head_is_answered_wherever_get_is_with_the_same_head_and_no_body(door, path):
    async with door(INSIDE) as client, limit():
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        if not path.endswith("live"):
            got = await client.get(path)
            assert got.headers["content-type"] == head.headers["content-type"]
            if "content-length" in got.headers and path != "/metrics":
                assert head.headers["content-length"] == got.headers["content-length"]


async def test_head_is_refused_on_write_routes(door):
    async with door(INSIDE) as client:
        assert (await client.head(CONFIRM)).status_code == 405


@pytest.mark.parametrize("path", ["/reports/leaderboard/", "/healthz/", "/metrics/", "/reports/models/"])
async def test_an_extra_slash_is_404_and_never_redirected_to_another_scheme(door, path):
    async with door(INSIDE, **{"X-Forwarded-Proto": "https", "Host": "node"}) as client:
        answer = await client.get(path)
        assert answer.status_code == 404
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    "path", ["leaderboard", "models", "predictions", "snapshots", "checkpoints", "feeds/tail"]
)
async def test_an_unknown_parameter_is_refused_with_similar_names(api, path):
    answer = await api.get(f"/reports/{path}", 422, strat="2023-03-01")
    assert answer["detail"] == "query: 'strat' is not a parameter of this route; did you mean 'start'?"
    await api.get(
        f"/reports/{path}", projectIds="m1", start="2023-03-01T00:00:00.000Z", end="2023-03-02T00:00:00.000Z"
    )


@pytest.mark.parametrize("name", ["start", "end", "as_of"])
async def test_seconds_in_place_of_milliseconds_are_refused(api, name):
    answer = await api.get("/reports/predictions", 422, **{name: "1677628800"})
    assert "1970-01-20" in answer["detail"]
    assert "1677628800000?" in answer["detail"]
