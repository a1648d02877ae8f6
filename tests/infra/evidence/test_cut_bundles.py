"""A bundle of an old node begins where its period looks back to. It is as small as that of a young node, and as hard to
forge.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.aged import PERIODS, REACH_PERIODS, RULES, aged_log
from tests.infra.evidence.bundles import bundle_of, checkpoints_of, computed_again
from tests.infra.evidence.test_bundle import judged
from tests.infra.evidence.test_hostile_bundles import Members, first_half, written
from tests.infra.evidence.test_mutated_bundles import framed

from coordinator.infra.evidence import bundling
from coordinator.streams.evidence.bundle import STEP_OF, decode_manifest, encode_manifest, read_frames
from coordinator.streams.evidence.cut import Cut, Plan
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.log.counting import Decision

LAST = PERIODS - 1


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The bundle of the last checkpoint."""
    return members_of(bundle_of(tmp_path_factory.mktemp("cut"), aged_log()))


def beginning_of(members: Members) -> Cut:
    cut = decode_manifest(members["manifest.json"]).cut
    assert cut is not None
    return cut


def test_a_bundle_contains_what_its_period_looks_back_to_and_lists_what_it_takes_on_trust(tmp_path: Path):
    path = bundle_of(tmp_path, aged_log())
    code, output = judged(path, "--model", "one", "--json")
    assert code == 0, output
    before = checkpoints_of(aged_log())[LAST - REACH_PERIODS - 1]
    assert f"after {before}, from states that " in output
    assert "is the word of who made the bundle" in output
    code, whole = judged(bundle_of(tmp_path, aged_log(), whole=True), "--model", "one", "--json")
    assert code == 0
    assert "beginning" not in whole
    rounds = [text[text.index('"rounds"') : text.rindex("]")] for text in (output, whole)]
    assert rounds[0] == rounds[1] != ""


def test_its_size_does_not_grow_with_the_age_of_the_log(tmp_path: Path):
    """Except for participants, rules, and one append per checkpoint with its path to the root."""

    def appends_of(number: int) -> tuple[dict[str, int], int]:
        path = bundle_of(tmp_path, aged_log(), number)
        members = members_of(path)
        counts = {
            topic: len([*read_frames(io.BytesIO(members[f"log/{topic}"]), topic)]) for topic in LEAF_TOPICS
        }
        return counts, path.stat().st_size

    young, young_bytes = appends_of(18)
    old, old_bytes = appends_of(LAST - 2)  # before `one` is back
    assert {topic: old[topic] - young[topic] for topic in LEAF_TOPICS if old[topic] != young[topic]} == {
        "checkpoints": LAST - 2 - 18
    }
    assert old_bytes - young_bytes < 600 * (LAST - 2 - 18)
    whole_bytes = bundle_of(tmp_path, aged_log(), LAST - 2, whole=True).stat().st_size
    assert whole_bytes > 2.5 * old_bytes


def test_a_verifier_can_continue_from_an_earlier_note_if_the_bundle_has_the_path_to_it(tmp_path: Path):
    notes = [members_of(bundle_of(tmp_path, aged_log(), number))["note"] for number in (2, LAST - 1)]
    path = bundle_of(tmp_path, aged_log())
    assert first_half(path, earlier=notes[1]) == ""
    assert first_half(path, earlier=notes[0]) == "history"
    (tmp_path / "old.note").write_bytes(notes[0])
    assert "take one of the whole log" in judged(path, "--earlier", str(tmp_path / "old.note"))[1]
    assert first_half(bundle_of(tmp_path, aged_log(), whole=True), earlier=notes[0]) == ""


@pytest.mark.parametrize("topic", ["feeds", "inputs", "scores", "snapshots", "models", "checkpoints"])
def test_an_append_that_the_beginning_depends_on_cannot_be_altered(cut: Members, tmp_path: Path, topic: str):
    earlier = beginning_of(cut).earlier[topic]
    frames = [*read_frames(io.BytesIO(cut[f"log/{topic}"]), topic)]
    for place in {0, len(earlier) - 1}:
        first, offset, record = frames[place]
        at = max(i for i, byte in enumerate(record) if byte in b"0123456789")
        altered = record[:at] + (b"2" if record[at : at + 1] == b"1" else b"1") + record[at + 1 :]
        changed = [*frames[:place], (first, offset, altered), *frames[place + 1 :]]
        path = written(tmp_path / "b", cut | {f"log/{topic}": framed(changed)})
        assert first_half(path) == STEP_OF[topic]


def changed(cut: Members, change: Callable[[Cut], Cut]) -> Members:
    manifest = decode_manifest(cut["manifest.json"])
    assert manifest.cut is not None
    altered = msgspec.structs.replace(manifest, cut=change(manifest.cut))
    return cut | {"manifest.json": encode_manifest(altered)}


def with_batch(**changes: object) -> Callable[[Cut], Cut]:
    return lambda cut: msgspec.structs.replace(cut, batch=msgspec.structs.replace(cut.batch, **changes))


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (with_batch(runs={}), "bundle"),
        (with_batch(checkpoint_ids=[]), "bundle"),
        (with_batch(size=0), "tree"),
        (with_batch(size=1 << 60), "tree"),
        (with_batch(size=-5), "tree"),
        (with_batch(key_successors={"a": "b"}), "bundle"),
        (lambda cut: msgspec.structs.replace(cut, earlier={}), "feed"),
        (lambda cut: msgspec.structs.replace(cut, begins={}), "feed"),
    ],
)
def test_a_false_beginning_is_refused(cut: Members, tmp_path: Path, change: Callable[[Cut], Cut], step: str):
    assert first_half(written(tmp_path / "b", changed(cut, change))) == step


@pytest.mark.parametrize("topic", ["models", "checkpoints"])
def test_no_append_about_participants_or_payments_may_be_left_out(cut: Members, tmp_path: Path, topic: str):
    """Not even with a beginning that declares it, because a rotation of the key could be hidden."""
    frames = [*read_frames(io.BytesIO(cut[f"log/{topic}"]), topic)]

    def without_the_first(of: Cut) -> Cut:
        return msgspec.structs.replace(
            of, begins=of.begins | {topic: 99}, earlier=of.earlier | {topic: of.earlier[topic][1:]}
        )

    left = changed(cut, without_the_first) | {f"log/{topic}": framed(frames[1:])}
    assert first_half(written(tmp_path / "b", left)) == STEP_OF[topic]


def test_appends_that_matter_cannot_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The bundle begins too late, or leaves out rules or a participant's joining. The payment then does not follow from
    the rest.
    """

    def bundle(holds: Callable[[Plan, Decision], bool]) -> Path:
        with monkeypatch.context() as patched:
            patched.setattr(Plan, "holds", holds)
            return bundle_of(tmp_path, aged_log())

    honest = Plan.holds

    def of_this(topic: str, when: Callable[[Plan, Decision], bool]) -> Callable[[Plan, Decision], bool]:
        return lambda plan, append: (
            honest(plan, append) and not (append.topic == topic and when(plan, append))
        )

    monkeypatch.setattr(bundling, "plan_of", _planned())
    assert computed_again(bundle(honest)) == ""
    early = lambda plan, append: append.offset <= plan.batch.runs[append.topic].end  # noqa: E731
    for topic, step in (("snapshots", "snapshots"), ("scores", "scores"), ("inputs", "input")):
        path = bundle(of_this(topic, early))
        assert first_half(path) == ""
        assert computed_again(path) == step, topic


def _planned() -> Callable:
    """The plan is not asked again, because it would see that the states differ."""
    plans: list[Plan | None] = []
    asked = bundling.plan_of

    async def planned(*arguments: object) -> Plan | None:
        if not plans:
            plans.append(await asked(*arguments))  # type: ignore[arg-type]
        return plans[0]

    return planned


WITHOUT_END = RULES.replace("CrunchContract\n", "CrunchContract, Ewma\n", 1).replace(
    "hours=1)", 'hours=1), AggregationWindow(name="long", hours=1, rule=Ewma(alpha=0.5))'
)


def test_a_log_whose_states_reach_back_without_limit_is_bundled_as_a_whole(tmp_path: Path):
    """A mean that weighs every value, however old: the windows of no period restart."""
    log = aged_log(WITHOUT_END, 9)
    members = members_of(bundle_of(tmp_path, log))
    assert decode_manifest(members["manifest.json"]).cut is None
