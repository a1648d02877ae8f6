"""The application over a projector that is fed from memory, with a scripted stage behind its command port."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
from tests.explained import explainer_over
from tests.infra.evidence.noted import noted_loop
from tests.logs import busy_log, fold_into
from tests.planned import keep_plan
from tests.shadowed import shadowed_loop

from coordinator.api.access import Rules
from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing, Scope, make_entry, parse_entries
from coordinator.api.monitor import Monitor
from coordinator.api.watches import Watches
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import BindPayees
from coordinator.streams.settings import Settings


class ScriptedStage:
    """A command port that answers as the checkpoint stage would: `script(command, offset)` returns its events.

    None means that the stage does not answer.
    """

    def __init__(self, projector, log):
        self.projector, self.log, self.sent, self.bound = projector, log, [], []
        self.script = lambda _command, _offset: []

    async def send(self, command):
        if isinstance(command, BindPayees):  # sent before a confirm, and decided beside it
            self.bound.append(command)
            return -1
        offset = len(self.sent)
        self.sent.append(command)
        events = self.script(command, offset)
        if events is not None:
            self.log.append("checkpoints", *events, upto={"commands": (offset, 0)})
            await self.projector.take(
                "checkpoints",
                [(len(self.log.records["checkpoints"]) - 1, self.log.records["checkpoints"][-1])],
            )
        return offset


@pytest.fixture
def log():
    return busy_log()


def parts_of(settings, read, log):
    """The parts for an application over read models: `.settings`, `.stage`, `.projector`, `.read`."""
    projector = Projector(settings, read)
    projector._started = True
    return SimpleNamespace(
        settings=settings, read=read, projector=projector, stage=ScriptedStage(projector, log)
    )


@contextmanager
def parts_over(folder, log):
    """As `parts_of`, with read models of their own."""
    read = open_read_models(folder, "cluster", log.crunch_id)
    parts = parts_of(Settings(data_dir=folder), read, log)
    fold_into(parts.projector.folder, log, commit_every=100)
    yield parts
    read.close()


def _plain(projection):
    """The fields of a read model that a test may have set."""
    return {name: field for name, field in vars(projection).items() if isinstance(field, int | float | str)}


class FoldedLog:
    """Read models over a log. To open and fold them costs more than most tests, so the next test of an equal log has
    them again, as a node that was started again would, unless a test has changed them.
    """

    def __init__(self, folder, log):
        self._log = self._content(log)
        self.read = open_read_models(folder, "cluster", log.crunch_id)
        fold_into(Folder(self.read.all()), log, commit_every=100)
        self._state = self._now()

    @staticmethod
    def _content(log):
        return log.crunch_id, {topic: list(records) for topic, records in log.records.items()}

    def _now(self):
        return [
            (store.state_hash, dict(store.positions), store.horizon, store.database.damage, plain_fields)
            for projection in self.read.all()
            for store, plain_fields in [(projection.store, _plain(projection))]
        ]

    def is_of(self, log):
        """Whether they are still those of this log."""
        return self._content(log) == self._log and self._now() == self._state


@pytest.fixture(scope="module")
def folded_log():
    """The one `FoldedLog` that there is, or none."""
    folded = []
    yield folded
    for each in folded:
        each.read.close()


@pytest.fixture
def folded_here(tmp_path, log):
    """`parts` for a test of what a projector knows of the events that it has folded itself."""
    with parts_over(tmp_path, log) as node_parts:
        yield node_parts


@pytest.fixture
def parts(request, tmp_path, tmp_path_factory, log, folded_log):
    if "folded_here" in request.fixturenames:
        return request.getfixturevalue("folded_here")
    if not (folded_log and folded_log[0].is_of(log)):
        while folded_log:
            folded_log.pop().read.close()
        folded_log.append(FoldedLog(tmp_path_factory.mktemp("folded"), log))
    return parts_of(Settings(data_dir=tmp_path), folded_log[0].read, log)


@pytest.fixture
async def api(parts):
    """`.get(path)`, `.client`, `.stage` and `.projector` over `log` as it was when the test began."""
    projector, stage = parts.projector, parts.stage
    sender = Sender(projector, stage, wait_seconds=0.2, now_ms=lambda: 1, nonce=lambda: "n")
    key, entry = make_entry("tests", Scope.ADMIN, "s" * 43)
    rules = Rules(KeyRing(parse_entries(entry, "tests")))
    monitor = Monitor(
        projector,
        stage,
        wall_ms,
        Watches(evidence=noted_loop(projector), shadow=shadowed_loop(parts.settings.data_dir)),
    )
    explainer = explainer_over(stage.log)
    keep_plan(parts.settings.data_dir)
    app = create_app(
        parts.settings, sender, rules=rules, monitor=monitor, beside=BesideReadModels(explainer=explainer)
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://node", headers={"X-API-Key": key}
    ) as client:

        async def get(path, code=200, **params):
            answer = await client.get(path, params=params or None)
            assert answer.status_code == code, answer.text
            return answer.json()

        yield SimpleNamespace(
            client=client, get=get, stage=stage, projector=projector, read=parts.read, monitor=monitor
        )
