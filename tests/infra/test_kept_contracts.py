"""The node stores each contract: an applied contract stays in force whatever happens to its source, and the source
alone has no effect.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import msgspec
import pytest
from tests.given import heard

from coordinator.infra.contracts import archive as contract_archive
from coordinator.infra.contracts import meaning as contract_meaning
from coordinator.infra.contracts import node_contracts as contract_node
from coordinator.infra.contracts import sources as contract_sources
from coordinator.infra.contracts.archive import ArchiveFolder, differences, pack, read_archive, unpack
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import contract_hash, meaning_of
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import CrunchConfigured
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import ContractError, OperatorError
from coordinator.streams.settings import Settings

RULES = """
from coordinator.streams.contract import CrunchContract
from helpers_of_it import TABLE, factor

def score(prediction, truth):
    from helpers_of_it import later
    v = min(1.0, max(-1.0, prediction.value))
    d = (truth.return_ > 0) - (truth.return_ < 0)
    return {"value": later() * factor() * (2 * v * d - v * v)}

CONTRACT = CrunchContract(score_prediction=score, crunch_pubkey="1" * 32)
"""
HELPERS = """
import pathlib
TABLE = pathlib.Path(__file__).with_name("weights.txt").read_text()
NAME = "weights.txt"

def factor():
    return float(TABLE) if NAME else 0.0

def later():
    return 1.0
"""
RISE = SimpleNamespace(return_=0.01)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Writes the operator's files; gives the settings of a node that has them."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(contract_node, "find_archive", lambda *_: None)

    def write(rules: str = RULES, helpers: str = HELPERS, weights: str = "0.5") -> Settings:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "its_rules.py").write_text(rules)
        (tmp_path / "helpers_of_it.py").write_text(helpers)
        (tmp_path / "weights.txt").write_text(weights)
        return Settings(contract="its_rules:CONTRACT", data_dir=tmp_path / "data")

    return write


def scored(contract: CrunchContract) -> float:
    answer = contract.output_type.model_validate({"value": 1.0})
    return float(contract.score_prediction(answer, RISE)["value"])


def test_a_contract_of_settings_alone_is_stored_with_its_source_too(workspace, tmp_path):
    """None of its values is from the operator's code, so only its path tells which source makes it."""
    workspace(
        "from coordinator.streams.contract import CrunchContract\nCONTRACT = CrunchContract(grace_seconds=7)\n"
    )
    contract = load_contract("its_rules:CONTRACT")
    content = pack(contract, "its_rules:CONTRACT")
    assert list(read_archive(content).files) == ["its_rules.py"]
    (tmp_path / "its_rules.py").unlink()
    assert unpack(content, contract_hash(contract)).grace_seconds == 7


def test_a_stored_contract_runs_from_the_stored_files_and_nothing_else(workspace, tmp_path):
    workspace()
    contract = load_contract("its_rules:CONTRACT")
    content = pack(contract, "its_rules:CONTRACT")
    for name in ("its_rules.py", "helpers_of_it.py", "weights.txt"):
        (tmp_path / name).unlink()
    unpacked = unpack(content, contract_hash(contract))
    assert scored(unpacked) == scored(contract) == 0.5
    assert meaning_of(unpacked) == meaning_of(contract)
    assert "helpers_of_it" not in sys.modules


def test_old_and_new_contracts_are_stored_side_by_side_whatever_is_on_disk(workspace):
    workspace(weights="0.5")
    old = pack(load_contract("its_rules:CONTRACT"), "its_rules:CONTRACT")
    workspace(weights="0.25", helpers=HELPERS.replace("return 1.0", "return 3.0"))
    new = pack(load_contract("its_rules:CONTRACT"), "its_rules:CONTRACT")
    workspace(rules="def (")
    both = [unpack(archive, read_archive(archive).meaning.hash) for archive in (old, new)]
    assert [scored(contract) for contract in both] == [0.5, 0.75]


def test_an_altered_archive_is_refused_and_the_folder_skips_it(workspace, tmp_path):
    settings = workspace()
    contract = load_contract(settings.contract)
    content, the_hash = pack(contract, settings.contract), contract_hash(contract)
    archive = read_archive(content)
    for files in (
        archive.files | {"weights.txt": b"500"},
        archive.files | {"helpers_of_it.py": archive.files["helpers_of_it.py"].replace(b"1.0", b"9.0")},
    ):
        other = msgspec.json.encode(msgspec.structs.replace(archive, files=files))
        with pytest.raises(ContractError, match="differs from the applied one"):
            unpack(other, the_hash)
    with pytest.raises(ContractError, match="damaged"):
        unpack(content, "f" * 64)
    with pytest.raises(ContractError, match="cannot be read"):
        unpack(b"{}", the_hash)
    folder = ArchiveFolder(tmp_path)
    folder.put(the_hash, content)
    assert (folder.get(the_hash), list(folder.hashes())) == (content, [the_hash])
    path = tmp_path / "contracts" / the_hash
    path.write_bytes(path.read_bytes() + b" ")
    assert folder.get(the_hash) is None


def test_a_node_keeps_the_applied_contract_while_the_source_is_another_broken_or_missing(workspace, tmp_path):
    command = NodeContracts(workspace()).apply_proposed(1, None)
    applied = command.data.contract_hash
    assert NodeContracts(workspace()).remark(applied) == ""
    assert NodeContracts(workspace(rules="# again\n" + RULES)).remark(applied) == ""
    other = NodeContracts(workspace(weights="0.25"))
    assert f"applied contract {applied[:12]}; the text on disk is another" in other.remark(applied)
    assert scored(other.shelf(applied)) == 0.5
    broken = NodeContracts(workspace(rules="def ("))
    assert "the text on disk is broken" in broken.remark(applied)
    assert scored(broken.shelf(applied)) == 0.5
    assert broken.terms_under(applied, None).contract_hash == applied
    with pytest.raises(OperatorError, match="SyntaxError"):
        broken.apply_proposed(2, None)
    (tmp_path / "its_rules.py").unlink()
    gone = NodeContracts(Settings(contract="its_rules:CONTRACT", data_dir=tmp_path / "data"))
    assert scored(gone.shelf(applied)) == 0.5


EDITS = {
    "the contract": {"rules": RULES.replace("2 * v * d", "v * d")},
    "a module of the pack that it imports": {"helpers": HELPERS.replace("return 1.0", "return 3.0")},
    "a module that it imports when it is called": {"helpers": HELPERS.replace("def later", "def sooner")},
    "a file that it reads": {"weights": "0.25"},
    "a broken text": {"rules": "def ("},
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_worker_restarted_alone_under_another_source_works_like_the_others(workspace, edit):
    """The others loaded the contract before the edit, this one after it. Both use the applied one."""
    others = NodeContracts(workspace())
    applied = others.proposed
    others.terms_of(others.apply_proposed(1, None))
    settings = workspace(**EDITS[edit])
    restarted = NodeContracts(settings)
    assert restarted.proposed != applied
    assert "the text on disk is" in restarted.remark(applied)
    assert scored(restarted.shelf(applied)) == scored(others.shelf(applied)) == 0.5
    assert restarted.terms_under(applied, None) == others.terms_under(applied, None)


def test_a_host_without_files_finds_the_contract_in_the_log(workspace, tmp_path, monkeypatch):
    command = NodeContracts(workspace()).apply_proposed(1, None)
    applied = command.data.contract_hash
    settings = workspace(rules="def (").changed(data_dir=tmp_path / "other host")
    settings.data_dir.mkdir()
    with pytest.raises(OperatorError, match="neither in the data directory nor in the log"):
        NodeContracts(settings).shelf(applied)
    monkeypatch.setattr(contract_node, "find_archive", lambda *_: bytes(command.data.archive))
    assert scored(NodeContracts(settings).shelf(applied)) == 0.5
    assert list(ArchiveFolder(settings.data_dir).hashes()) == [applied]


def as_in_a_new_process(monkeypatch):
    monkeypatch.setattr(contract_sources, "_LOADED", {})
    for name in [name for name in sys.modules if name.startswith(contract_sources.PRIVATE)]:
        monkeypatch.delitem(sys.modules, name)


def test_a_later_release_does_not_change_an_applied_contract_and_neither_does_a_downgrade(
    workspace, monkeypatch
):
    """A field with a default is added, and another version of a package is installed; then both are undone."""
    command = NodeContracts(workspace()).apply_proposed(1, None)
    applied = command.data.contract_hash

    class Later(CrunchContract):
        calm_seconds: float = 0.0

    Later.__module__, Later.__qualname__ = CrunchContract.__module__, "CrunchContract"
    with monkeypatch.context() as upgraded:
        upgraded.setattr("coordinator.streams.contract.CrunchContract", Later)
        as_in_a_new_process(upgraded)
        node = NodeContracts(workspace())
        assert (node.proposed, node.fault, node.remark(applied)) == (applied, None, "")
        assert type(node.shelf(applied)).model_fields.keys() - CrunchContract.model_fields.keys() == {
            "calm_seconds"
        }
        upgraded.setattr(contract_meaning, "version_of", lambda key: 2)
        upgraded.setattr("coordinator.infra.contracts.code.version_of_distribution", lambda name: "99")
        assert scored(unpack(bytes(command.data.archive), applied)) == 0.5
        upgraded.setattr(contract_archive, "FORMAT", 2)
        assert scored(unpack(bytes(command.data.archive), applied)) == 0.5
    as_in_a_new_process(monkeypatch)
    node = NodeContracts(workspace())
    assert (node.proposed, node.remark(applied)) == (applied, "")


def test_changes_of_a_contract_are_named(workspace):
    workspace()
    old = meaning_of(load_contract("its_rules:CONTRACT"))
    workspace(RULES.replace("score_prediction=score", "score_prediction=score, grace_seconds=9"), weights="2")
    new = meaning_of(load_contract("its_rules:CONTRACT"))
    texts = differences(old, new)
    assert "grace_seconds: not set -> 9.0" in texts
    assert "file weights.txt changed" in texts
    assert differences(old, old) == []


# --- the feed stage ----------------------------------------------------------------------------------------------


def decision(offset: int, event: object) -> Decision:
    from coordinator.streams.log.envelope import Need, encode_event
    from coordinator.streams.log.plain_topics import PlainCounter

    counted = PlainCounter("commands", Need(offset)).read(offset, encode_event(event))
    assert counted is not None
    return counted


def test_an_applied_contract_is_in_force_from_the_next_checkpoint_boundary_and_the_same_one_changes_nothing(
    workspace,
):
    contracts = NodeContracts(workspace())
    first = contracts.apply_proposed(1, None)
    node_contracts = contracts
    stage = FeedStage(lambda command: node_contracts.terms_of(command))  # noqa: PLW0108 - `kept` is another one later
    stage.remember(stage.configure(contracts.terms_of(first), 0))
    draft, refused = heard(stage, decision(3, first))
    assert (list(draft.events), refused) == ([], [])
    stage.remember(draft)
    new = NodeContracts(workspace(weights="0.25"))
    node_contracts = new
    draft, refused = heard(stage, decision(4, new.apply_proposed(2, None)))
    (event,) = draft.events
    assert isinstance(event, CrunchConfigured)
    assert event.data.contract_hash == new.proposed != contracts.proposed
    assert event.data.effective_from == 604_800_000
    stage.remember(draft)
    assert heard(stage, decision(4, new.apply_proposed(2, None))) == (None, [])


def test_a_contract_that_does_not_fit_the_node_is_refused_with_its_reason(workspace):
    contracts = NodeContracts(workspace())
    command = contracts.apply_proposed(1, None)
    elsewhere = RULES.replace(
        "score_prediction=score", "score_prediction=score, scope=PredictionScope(subject='X')"
    )
    elsewhere = elsewhere.replace("import CrunchContract", "import CrunchContract, PredictionScope")
    fault = NodeContracts(workspace(rules=elsewhere))
    with pytest.raises(OperatorError, match="none of FEED_SUBJECTS"):
        fault.apply_proposed(2, None)
    stage = FeedStage(contracts.terms_of)
    stage.remember(stage.configure(contracts.terms_of(command), 0))
    bad = msgspec.structs.replace(command, data=msgspec.structs.replace(command.data, archive=b"{}"))
    draft, refused = heard(stage, decision(5, bad))
    assert list(draft.events) == []
    assert "cannot be read" in refused[0][1]
