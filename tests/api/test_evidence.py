"""The evidence for a stranger, over HTTP: notes and tiles as files, a valid bundle, and no answer before its time."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from tests.explained import MemoryAppends
from tests.infra.evidence.bundles import MemorySource, checkpoints_of, whole_log
from tests.infra.evidence.questioned import questioned_log
from tests.logs import fold_into, not_folded

from coordinator.api import evidence, proofs
from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.api.evidence_loop import EvidenceLoop
from coordinator.api.monitor import Monitor
from coordinator.api.times import zulu
from coordinator.api.watches import Watches
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.evidence import bundle_cache
from coordinator.infra.evidence.bundle_cache import BundleCache
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.proving import write_proof
from coordinator.infra.evidence.signing_keys import signing_key, signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.projections.explaining.explainer import Explainer
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.projections.views.evidence import Evidence
from coordinator.projections.views.hidden_answers import hidden_until
from coordinator.streams.audit.explain.recomputing import explain_again
from coordinator.streams.engine import MemoryLog
from coordinator.streams.events import InputReceived, RoundOpened, RoundScored, ScopeAnswered
from coordinator.streams.evidence.bundle_judging import Trust, judge_bundle
from coordinator.streams.evidence.merkle import root
from coordinator.streams.evidence.notes import Note
from coordinator.streams.evidence.prediction_proof import proved
from coordinator.streams.evidence.tiles import subtrees_of
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS


class Source(MemorySource):
    """Counts how often the log is opened, and may have no broker."""

    opened, broken = 0, False

    async def decisions(self, topic):
        if topic == "commands":
            Source.opened += 1
        if Source.broken:
            raise WorldError("Kafka does not answer")
        async for decision in super().decisions(topic):
            yield decision


def folded(topics):
    """A log in the form that `fold_into` needs."""
    return SimpleNamespace(
        records={topic: list(topics.get(topic, ())) for topic in TOPICS}, crunch_id="btc-up"
    )


def scored_predictions():
    return [
        prediction_id(event.data.input_id, event.data.scope_key, entry.model_id)
        for event in whole_log().events("scores")[:40]
        if isinstance(event, RoundScored)
        for entry in event.data.entries()
        if entry.status == "SCORED"
    ]


@pytest.fixture
async def node(tmp_path):
    async with node_of(whole_log(), tmp_path) as evidence_node:
        yield evidence_node


@asynccontextmanager
async def node_of(log, tmp_path):
    Source.opened, Source.broken = 0, False
    settings = Settings(crunch_id="btc-up", data_dir=tmp_path)
    read = open_read_models(tmp_path, "cluster", "btc-up")
    projector = Projector(settings, read)
    fold_into(projector.folder, folded(log.topics))
    projector._started = True
    loop = EvidenceLoop(settings, read.evidence)
    loop.files = TreeFiles(tmp_path, signing_keys(settings))
    while await loop.look():
        pass
    await loop.let_go()
    monitor = Monitor(projector, None, lambda: 0, Watches(evidence=loop))
    bundles = BundleCache(settings, lambda: Source(log))
    explainer = Explainer(MemoryAppends(log), lambda facts: explain_again(facts, ContractShelf()))
    app = create_app(
        settings, Sender(projector, None), monitor=monitor, beside=BesideReadModels(bundles, explainer)
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        yield SimpleNamespace(
            client=client, read=read, loop=loop, bundles=bundles, ids=checkpoints_of(log), settings=settings
        )
    read.close()


async def test_each_checkpoint_has_its_note_and_the_latest_is_the_log_s_file(node):
    told = (await node.client.get("/reports/evidence")).json()
    assert [checkpoint_id for note in told["notes"] for checkpoint_id in note["checkpoint_ids"]] == node.ids[
        ::-1
    ]
    key = signing_key(node.settings).verifier
    assert (told["origin"], told["public_key"]) == (key.name, str(key))
    newest = (await node.client.get("/evidence/checkpoint")).text
    assert newest == told["notes"][0]["note"]
    note = Note.parse(newest.encode())
    assert (note.signed_by([key]), note.checkpoint.size) == ([key], told["notes"][0]["leaves"])


async def test_the_served_tiles_lead_to_the_signed_root(node):
    newest = Note.parse((await node.client.get("/evidence/checkpoint")).content).checkpoint
    folder = node.loop.files.folder
    served = {}
    for path in (folder / "tile").rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            answer = await node.client.get(f"/evidence/{name}")
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            served[name] = answer.content
    assert root(subtrees_of(served.__getitem__, newest.size), newest.size) == newest.root


@pytest.mark.parametrize(
    "path",
    ["0/999", "x/000", "0/../../key", "0/%2e%2e/%2e%2e/key", "../key", "0/000.p/1/", "64/000"],
)
async def test_nothing_but_a_tile_is_served_as_one(node, path):
    answer = await node.client.get(f"/evidence/tile/{path}")
    assert answer.status_code == 404
    assert b"PRIVATE" not in answer.content


async def test_a_bundle_is_made_once_and_is_valid(node, tmp_path):
    wanted = node.ids[0]
    answers = await asyncio.gather(
        *(node.client.get(f"/reports/checkpoints/{wanted}/bundle") for _ in range(3))
    )
    assert {answer.status_code for answer in answers} <= {200, 503}
    answer = await node.client.get(f"/reports/checkpoints/{wanted}/bundle")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert Source.opened == 1
    path = tmp_path / "served.bundle"
    path.write_bytes(answer.content)
    *_, judged = judge_bundle(BundleFile(path), Trust((signing_key(node.settings).verifier,)))
    assert judged.manifest.checkpoint_id == wanted


async def test_only_the_latest_few_are_kept(node, monkeypatch):
    monkeypatch.setattr(bundle_cache, "KEPT_MAX", 2)
    for wanted in node.ids:
        assert (await node.client.get(f"/reports/checkpoints/{wanted}/bundle")).status_code == 200
    ids_on_disk = {path.stem for path in node.bundles.folder.glob("*.bundle")}
    assert (len(node.ids), ids_on_disk) == (3, set(node.ids[1:]))


async def test_an_unknown_checkpoint_has_no_bundle(node):
    answer = await node.client.get("/reports/checkpoints/ckp_unknown/bundle")
    assert answer.status_code == 404
    assert "no signed note" in answer.json()["detail"]


def over(node, read, **state):
    """An application with the node's tree over other read models."""
    app = FastAPI()
    app.state.sender = Sender(Projector(node.settings, read), None)
    app.state.monitor = SimpleNamespace(evidence=node.loop)
    for name, part in state.items():
        setattr(app.state, name, part)
    return app


async def test_a_bundle_with_a_hidden_answer_is_not_returned(node, tmp_path):
    """Another node has folded all but the newest inputs: it does not know yet that their horizons have passed."""
    wanted = node.ids[0]
    end = node.loop.files.batch_of(wanted).runs["predictions"].end
    assert hidden_until(node.read.predictions, end) is None
    records = {**whole_log().topics, "inputs": whole_log().topics["inputs"][:4]}
    read = open_read_models(tmp_path / "behind", "cluster", "btc-up")
    fold_into(Projector(node.settings, read).folder, folded(records))
    assert hidden_until(read.predictions, -1) is None
    until = hidden_until(read.predictions, end)
    assert until is not None
    app = over(node, read, bundles=node.bundles)
    app.router.routes += evidence.router().routes
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        answer = await client.get(f"/reports/checkpoints/{wanted}/bundle")
        notes = (await client.get("/reports/evidence")).json()["notes"]
    assert answer.status_code == 409
    assert zulu(until) in answer.json()["detail"]
    assert notes[-1]["bundle_from"] == zulu(until)
    assert Source.opened == 0
    read.close()


async def test_a_broker_that_does_not_answer_leaves_no_half_bundle(node):
    Source.broken = True
    with pytest.raises(WorldError):
        await node.bundles.make(node.ids[0])
    assert list(node.bundles.folder.iterdir()) == []
    Source.broken = False
    assert (await node.client.get(f"/reports/checkpoints/{node.ids[0]}/bundle")).status_code == 200


async def test_a_prediction_s_proof_is_the_one_that_the_command_writes(node, tmp_path):
    wanted = scored_predictions()[0]
    answer = await node.client.get(f"/reports/predictions/{wanted}/proof")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    key = signing_key(node.settings).verifier
    (proved_prediction,) = proved(answer.content, [key], wanted)
    assert (proved_prediction.prediction_id, proved_prediction.status) == (wanted, "SCORED")
    path = tmp_path / "proof.txt"
    await write_proof(node.settings, Source(whole_log()), wanted, path)
    assert proved(path.read_bytes(), [key], wanted) == [proved_prediction]
    unknown = await node.client.get("/reports/predictions/inp/BTCUSDT/1/60s/nobody/proof")
    assert (unknown.status_code, "no prediction" in unknown.json()["detail"]) == (404, True)
    input_id, scope_key, _ = wanted.rsplit("/", 2)
    nobody = await node.client.get(f"/reports/predictions/{input_id}/{scope_key}/nobody/proof")
    assert (nobody.status_code, "no signed note commits" in nobody.json()["detail"]) == (404, True)


async def test_answers_to_posted_questions_are_proved_and_explained_by_their_own_ids(tmp_path):
    """Asked again, handed in, void, corrected: the id of each answer is that of its round."""
    log = questioned_log()
    rosters = {
        event.data.input_id: event.data.roster
        for event in log.events("predictions")
        if isinstance(event, RoundOpened)
    }
    wanted = {
        prediction_id(event.data.input_id, event.data.scope_key, answer.model_id): bytes(
            answer.output
        ).decode()
        for event in log.events("predictions")
        if isinstance(event, ScopeAnswered)
        for answer in event.data.entries(rosters[event.data.input_id])
    }
    assert sum("~2/" in name for name in wanted) == 1
    assert sum("~s" in name for name in wanted) == 2
    async with node_of(log, tmp_path) as node:
        key = signing_key(node.settings).verifier
        for name, output in wanted.items():
            path = quote(name, safe="/~")
            answer = await node.client.get(f"/reports/predictions/{path}/proof")
            assert answer.status_code == 200, (name, answer.text)
            assert {
                proved_prediction.answer for proved_prediction in proved(answer.content, [key], name)
            } == {output}
            explained = await node.client.get(f"/reports/explain/predictions/{path}")
            assert explained.status_code == 200, (name, explained.text)
            assert explained.json()["id"] == name
            steps = {step["name"]: step for step in explained.json()["steps"]}
            assert {"truth", "answer"} <= set(steps)
            took_its_place = output == '{"value":0.9}' or name.endswith("/again/question/slow")
            assert ("score" in steps) is not took_its_place
            if "corrected/question/slow" in name:
                assert "937500000" in str(steps["score"]["result"])


async def test_a_proof_with_a_hidden_answer_is_not_returned(node, tmp_path):
    """As for the bundle: another node does not know yet that the horizons have passed."""
    log = whole_log()
    input_id, scope_key, model = scored_predictions()[-1].rsplit("/", 2)
    received = next(
        offset
        for offset, decision in enumerate(MemoryLog(log.topics).decisions("inputs"))
        for event in decision.events
        if isinstance(event, InputReceived) and event.data.input_id == input_id
    )
    records = {**log.topics, "inputs": log.topics["inputs"][: received + 2]}
    read = open_read_models(tmp_path / "behind", "cluster", "btc-up")
    fold_into(Projector(node.settings, read).folder, folded(records))
    app = over(node, read, explainer=SimpleNamespace(appends=MemoryAppends(log)))
    app.router.routes += proofs.router().routes
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        answer = await client.get(f"/reports/predictions/{input_id}/{scope_key}/{model}/proof")
    assert answer.status_code == 409, answer.text
    assert "hidden until 2" in answer.json()["detail"]
    assert b"tlog-proof" not in answer.content
    read.close()


async def test_what_is_in_the_tree_leaves_the_read_model_and_its_hash_stays(node, tmp_path):
    store = node.read.evidence.store
    whole = open_read_models(tmp_path / "whole", "cluster", "btc-up").evidence
    fold_into(Folder([whole]), folded(whole_log().topics))
    assert sum(1 for _ in store.scan(b"")) < 0.2 * sum(1 for _ in whole.store.scan(b""))
    assert whole.store.state_hash == store.state_hash == store.recompute_hash()
    assert list(node.read.evidence.rows("checkpoints", -1)) == list(whole.rows("checkpoints", -1))
    assert whole.notes() == Evidence(store).notes()
    assert whole._leaves == Evidence(store)._leaves
    whole.store.close()


async def noted(settings, read):
    """A loop that has taken in all that is folded, as a node's does; and the notes of its tree."""
    loop = EvidenceLoop(settings, read.evidence)
    loop.files = TreeFiles(settings.data_dir, signing_keys(settings))
    while await loop.look():
        pass
    await loop.let_go()
    return loop, [loop.files.note(batch) for batch in loop.files.batches()]


async def test_a_tree_whose_files_are_lost_is_made_again_from_the_log(tmp_path):
    """Its rows have left, so the projection is set aside at the next start, and folded again."""
    async with node_of(whole_log(), tmp_path) as node:
        _, notes = await noted(node.settings, node.read)
        for folder in ("tile", "batches", "notes"):
            shutil.rmtree(node.loop.files.folder / folder)
        _, none = await noted(node.settings, node.read)
        assert (len(notes), none) == (3, [])
        assert "the files of the tree are gone" in node.read.evidence.store.damage
    rebuilt = open_read_models(tmp_path, "cluster", "btc-up")
    assert "the files of the tree are gone" in rebuilt.evidence.store.set_aside
    fold_into(Projector(node.settings, rebuilt).folder, folded(whole_log().topics))
    assert (await noted(node.settings, rebuilt))[1] == notes
    rebuilt.close()


async def test_a_node_that_lets_rows_go_as_it_reads_and_is_started_again_makes_the_same_tree(node, tmp_path):
    log, rng = folded(whole_log().topics), random.Random(1)
    settings, starts = Settings(crunch_id="btc-up", data_dir=tmp_path / "again"), 0
    key = signing_keys(node.settings)
    shutil.copytree(
        tmp_path / "evidence", settings.data_dir / "evidence", ignore=lambda *_: ["tile", "batches", "notes"]
    )
    while True:
        read = open_read_models(settings.data_dir, "cluster", "btc-up")
        folder = Projector(settings, read).folder
        left = not_folded(folder, log)
        if not left:
            break
        rng.shuffle(left)
        fold_into(folder, log, left[:90], commit_every=20)
        _, notes = await noted(settings, read)
        starts += 1
        read.close()
    assert starts > 5
    assert read.evidence.store.recompute_hash() == node.read.evidence.store.state_hash
    assert (key.signer({}).verifier, notes) == (
        signing_key(settings).verifier,
        (await noted(node.settings, node.read))[1],
    )
    read.close()


async def test_a_node_without_evidence_says_so(node):
    node.loop.files = None
    for path in (
        f"/reports/predictions/{scored_predictions()[0]}/proof",
        "/reports/evidence",
        "/evidence/checkpoint",
        f"/reports/checkpoints/{node.ids[0]}/bundle",
    ):
        assert (await node.client.get(path)).status_code == 404
