"""`/rules`: the rules in force, of the contract that the log names, without scripts or content from elsewhere."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.logs import LogBuilder

from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.infra.rules import circumstances
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.rules import rules_of
from coordinator.streams.log.errors import WorldError


def asked_of(parts, making):
    app = create_app(
        parts.settings,
        Sender(parts.projector, parts.stage),
        beside=BesideReadModels(rules_of_terms=making),
    )
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://node")


async def test_it_shows_the_rules_of_the_contract_in_force(parts):
    asked = []

    def making(terms):
        asked.append(terms)
        return rules_of(CrunchContract(deadline_seconds=7), circumstances("btc-up", terms))

    async with asked_of(parts, making) as client:
        answer = await client.get("/rules")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert "You have 7 seconds" in answer.text
        terms = parts.read.leaderboard.terms_now
        assert asked == [terms]
        assert terms.contract_hash[:12] in answer.text
        assert f"<code>{terms.subjects[0]}</code>" in answer.text
        loaded = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
        for address in loaded:
            assert (await client.get(address)).status_code == 200, address
        assert not re.search(r"<script|style=", answer.text)
        assert (await client.get("/rules")).text == answer.text
        assert asked == [terms]
        assert 'href: "/rules"' in (await client.get("/page/rules.js")).text


async def test_an_unavailable_contract_is_503_with_the_reason(parts):
    def making(_terms):
        raise WorldError("Kafka is silent")

    async with asked_of(parts, making) as client:
        answer = await client.get("/rules")
        assert (answer.status_code, answer.json()["detail"]) == (503, "Kafka is silent")


class TestBeforeTheBeginning:
    @pytest.fixture
    def log(self):
        return LogBuilder()

    async def test_there_are_no_rules_yet(self, parts):
        async with asked_of(parts, lambda _terms: []) as client:
            answer = await client.get("/rules")
            assert answer.status_code == 404
            assert "no rules yet" in answer.json()["detail"]
