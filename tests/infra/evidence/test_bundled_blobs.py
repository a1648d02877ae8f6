"""A bundle contains the large answers of its log, and names one that is missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.bundles import bundle_of, whole_log
from tests.infra.evidence.test_bundle import judged
from tests.infra.evidence.test_hostile_bundles import written as zipped
from tests.streams.audit.test_mutations import parts_of, written

from coordinator.infra.blobs.folder import BlobFolder
from coordinator.streams import large_answers
from coordinator.streams.engine import MemoryLog
from coordinator.streams.events import RosterEntry, RoundOpened, ScopeAnswered, answers_in_columns


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a log in which every answer is large."""
    folder = tmp_path_factory.mktemp("blobs")
    store, rosters = BlobFolder(folder / "node" / "blobs"), dict[str, list[RosterEntry]]()
    parts = parts_of(whole_log(), "predictions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_answers, "ANSWER_BYTES_MAX", len(b"null"))
        for events, *_ in parts:
            for place, event in enumerate(events):
                if isinstance(event, RoundOpened):
                    rosters[event.data.input_id] = event.data.roster
                elif isinstance(event, ScopeAnswered):
                    roster = rosters[event.data.input_id]
                    entries = large_answers.set_aside(event.data.entries(roster), store.put)
                    columns = answers_in_columns(roster, entries)
                    data = msgspec.structs.replace(event.data, **columns)
                    events[place] = msgspec.structs.replace(event, data=data)
    log: MemoryLog = written(whole_log(), "predictions", parts, redone=False)
    return bundle_of(folder, log)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_of_large_answers_passes(bundle):
    assert len([name for name in members_of(bundle) if name.startswith("blob/")]) > 3
    code, output = judged(bundle)
    assert code == 0, output


@pytest.mark.parametrize("altered", [False, True])
def test_a_lost_answer_is_named_at_the_scores(bundle, tmp_path, altered):
    members = members_of(bundle)
    names = sorted(name for name in members if name.startswith("blob/"))
    for name in names:
        held = members.pop(name)
        if altered:
            members[name] = held.replace(b"0", b"1").replace(b"-", b"+")
    code, output = judged(zipped(tmp_path / "b", members))
    assert code == 1
    assert "scores" in output
    assert any(f"blob {name.removeprefix('blob/')} is" in output.replace("\n", " ") for name in names), output
