"""The export file of a node, and the directory made from it: complete or not at all, and without secrets."""

from __future__ import annotations

import base64
import os
import zipfile
from contextlib import suppress
from hashlib import sha256
from warnings import catch_warnings, simplefilter

import msgspec
import pytest
from pydantic import SecretStr

from coordinator.cli.dotenv_values import read_values
from coordinator.infra.moving import export_file
from coordinator.infra.moving.export_file import (
    FORMAT,
    HASH_CHARS,
    LOG,
    MANIFEST,
    SETTINGS,
    ExportFile,
    Manifest,
    writing_export,
)
from coordinator.infra.moving.importing import new_data_dir
from coordinator.infra.moving.settings_text import OF_THE_MACHINE, machine_set, secrets_set, settings_text
from coordinator.infra.processes.data_dir import claim_data_dir
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.signing.note_keys import SignerKey

CONTRACT = "ab" * 32
SECRETS = {
    "blobs_url": "s3://key-id-of-blobs:secret-of-blobs@bucket/prefix",
    "model_runner_node_token": "token-of-models",
    "solana_rpc_url": "https://rpc.example.org/?api-key=key-of-solana",
    "webhook_url": "https://hooks.example.org/path-of-webhook",
    "webhook_secret": "whsec_" + base64.b64encode(b"secret-of-webhook-secret").decode(),
    "evidence_key": SignerKey("coordinator/btc-up", bytes(range(32))).secret_text().strip(),
    "api_keys": f"ops settle {'5e' * 32}",
}
BESIDE = {
    "KAFKA_SASL_PASSWORD": "password-of-kafka",
    "KAFKA_SSL_KEY_PASSWORD": "password-of-the-key",
    "FEED_OPT_TOKEN": "token-of-the-feed",
    "PYTH_API_KEY": "key-of-pyth",
    "HTTPS_PROXY": "http://me:password-of-the-proxy@proxy:8080",
    "COORDINATOR_KEY": "key-of-the-operator",
}


def silent(_done, _total):
    pass


def manifest(**changes):
    fields = dict.fromkeys(("version", "crunch_id", "birth_id", "sha256"), "x")
    fields |= {"format": FORMAT, "records": 1, "blobs": 0, "lost": []}
    fields |= {"secrets_left_out": [], "machine_left_out": []}
    return msgspec.json.encode(Manifest(**fields | changes))


def write(path, **changes):
    with writing_export(path) as export:
        with export.adding_log() as log_file:
            log_file.write(b"the log " * 40)
        export.put(f"contracts/{CONTRACT}", b"a contract")
        export.put(SETTINGS, b"CRUNCH_ID=x\n")
        export.put(MANIFEST, manifest(**changes))
    return path


def test_an_export_is_read_again_and_any_tool_opens_it(tmp_path):
    path = write(tmp_path / "node")
    export = ExportFile(path, silent)
    assert (export.manifest.format, list(export.contracts())) == (FORMAT, [(CONTRACT, b"a contract")])
    assert export.log().read() == b"the log " * 40
    assert zipfile.ZipFile(path).testzip() is None
    assert os.listdir(tmp_path) == ["node"]


def test_a_file_that_was_altered_or_cut_anywhere_is_refused_by_its_name(tmp_path):
    whole = write(tmp_path / "whole").read_bytes()
    path = tmp_path / "other.node"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((LogError, OperatorError), match=r"other\.node"):
            ExportFile(path, silent)
        path.write_bytes(whole[:at])
        with pytest.raises((LogError, OperatorError), match=r"other\.node"):
            ExportFile(path, silent)
    path.write_bytes(whole + b"\n")
    with pytest.raises(LogError, match=r"other\.node.* cut short or altered"):
        ExportFile(path, silent)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x1f\x8b rest", "use `coordinator topics restore`"),
        (b"", "not an export"),
        (b"text", "not an export"),
    ],
)
def test_another_kind_of_file_is_refused_with_what_it_is(content, says, tmp_path):
    path = tmp_path / "something"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=f"something is .*{says}"):
        ExportFile(path, silent)
    with pytest.raises(OperatorError, match="cannot be read"):
        ExportFile(tmp_path / "nowhere", silent)


def test_a_newer_format_and_an_unknown_member_are_refused(tmp_path):
    with pytest.raises(OperatorError, match=r"coordinator-export/9.*reads coordinator-export/1: upgrade"):
        ExportFile(write(tmp_path / "newer", format="coordinator-export/9"), silent)
    with writing_export(tmp_path / "strange") as export:
        export.put("../../.bashrc", b"x")
    with pytest.raises(OperatorError, match="which is not part of an export"):
        ExportFile(tmp_path / "strange", silent)
    with writing_export(tmp_path / "poor") as export:
        export.put(LOG, b"x")
    with pytest.raises(OperatorError, match=r"not an export of a node: manifest\.json is missing"):
        ExportFile(tmp_path / "poor", silent)


def sealed(path, content):
    """A file with a valid hash, as anybody can make it."""
    path.write_bytes(content[:-HASH_CHARS] + sha256(content[:-HASH_CHARS]).hexdigest().encode())
    return path


HOSTILE = {
    "no JSON": {MANIFEST: b"{"},
    "a list": {MANIFEST: b"[]"},
    "half a manifest": {MANIFEST: b'{"format": "coordinator-export/1"}'},
    "a path for a crunch": {MANIFEST: manifest(crunch_id="../../etc")},
    "no log": {LOG: None},
    "no settings": {SETTINGS: None},
    "settings that are no text": {SETTINGS: b"\xff\xfe"},
    "a contract out of its folder": {"contracts/../x": b"x"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_with_a_valid_hash_and_wrong_content_is_refused(case, tmp_path):
    members = {LOG: b"the log", SETTINGS: b"CRUNCH_ID=x\n", MANIFEST: manifest()} | HOSTILE[case]
    with writing_export(tmp_path / "other.node") as export:
        for name, content in members.items():
            if content is not None:
                export.put(name, content)
    with pytest.raises((LogError, OperatorError)):
        ExportFile(tmp_path / "other.node", silent)


def test_a_bit_flipped_anywhere_under_a_valid_hash_is_never_our_fault(tmp_path):
    whole, path = write(tmp_path / "whole").read_bytes(), tmp_path / "other.node"
    for at in range(2, len(whole) - HASH_CHARS):
        for bit in (0, 3, 6):
            sealed(path, whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with suppress(LogError, OperatorError):
                export = ExportFile(path, silent)
                list(export.contracts())


@pytest.mark.parametrize("what", ["compressed otherwise", "twice"])
def test_a_member_that_no_export_has_is_refused(what, tmp_path):
    path = tmp_path / "other.node"
    kind = zipfile.ZIP_LZMA if what == "compressed otherwise" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", kind) as archive, catch_warnings():
        simplefilter("ignore")
        archive.comment = b"0" * HASH_CHARS
        for name, content in ((LOG, b""), (SETTINGS, b""), (MANIFEST, manifest()), (MANIFEST, b"{}")):
            archive.writestr(name, content)
    with pytest.raises(OperatorError, match="which is not part of an export"):
        ExportFile(sealed(path, path.read_bytes()), silent)


def test_members_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export_file, "MEMBERS_BYTES_MAX", 100_000)
    with writing_export(tmp_path / "bomb") as export:
        export.put(LOG, b"")
        for name, content in (
            (SETTINGS, b""),
            (MANIFEST, manifest()),
            (f"contracts/{CONTRACT}", bytes(200_000)),
        ):
            export.put(name, content)
    assert (tmp_path / "bomb").stat().st_size < 10_000
    with pytest.raises(OperatorError, match="would have 200"):
        ExportFile(tmp_path / "bomb", silent)


def test_a_failed_export_leaves_the_previous_one(tmp_path):
    path = write(tmp_path / "node")
    before = path.read_bytes()
    with pytest.raises(TypeError), writing_export(path) as export:
        export.put(SETTINGS, None)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["node"])


def test_no_secret_setting_is_in_the_text_and_each_is_named():
    secret = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    assert secret | {"api_keys"} == set(SECRETS), "a new secret setting needs a value here"
    settings = read_settings({name.upper(): text for name, text in SECRETS.items()})
    text = settings_text(settings)
    for value in SECRETS.values():
        assert value not in text
    assert secrets_set(settings, BESIDE) == sorted({name.upper() for name in SECRETS} | set(BESIDE))
    assert secrets_set(Settings(), {"PATH": "/bin"}) == []


def test_the_other_settings_are_the_same_when_they_are_read_again():
    environ = {
        "CRUNCH_ID": "eth-up",
        "FEED_SUBJECTS": "ETHUSDT,BTCUSDT",
        "FEED_COLUMNS": 'time="a $NAME" \\ it\'s',
        "SETTLE_REHEARSALS": "true",
        "SNAPSHOT_INTERVAL_SECONDS": "600",
        "API_TRUSTED_NETWORKS": "",
        "WALLETS_FILE": "/srv/wallets.csv",
        "DATA_DIR": "/srv/node",
    }
    settings = read_settings(environ)
    text = settings_text(settings)
    again = read_settings(read_values(text, {"NAME": "wrong"}))
    machine = {name: Settings.model_fields[name].get_default() for name in OF_THE_MACHINE}
    assert again == settings.changed(**machine)
    assert machine_set(settings) == ["DATA_DIR", "WALLETS_FILE"]
    assert "# of the old machine: #WALLETS_FILE=/srv/wallets.csv\n" in text
    assert "KAFKA_BOOTSTRAP" not in text


def test_a_directory_appears_completely_or_not_at_all(tmp_path):
    target = tmp_path / "node"
    target.mkdir()
    with pytest.raises(FileNotFoundError), new_data_dir(target, "btc-up") as work:
        (work / "half" / "half").write_text("x")
    assert (os.listdir(tmp_path), os.listdir(target)) == (["node"], [])
    with new_data_dir(target, "btc-up") as work:
        (work / "whole").write_text("x")
        assert os.listdir(target) == []
    assert {"whole", "crunch.json"} <= set(os.listdir(target))
    assert os.listdir(tmp_path) == ["node"]


def test_a_directory_with_anything_in_it_is_refused_and_stays(tmp_path):
    target = tmp_path / "node"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OperatorError, match=r"node is not an empty directory \(it holds notes\.txt\)"):
        new_data_dir(target, "btc-up").__enter__()
    assert (target / "notes.txt").read_text() == "mine"
    with pytest.raises(OperatorError, match=r"notes\.txt is not an empty directory"):
        new_data_dir(target / "notes.txt", "btc-up").__enter__()


def test_the_rest_of_a_killed_import_is_removed_and_a_running_import_is_not(tmp_path):
    left, filling = tmp_path / ".node.importing-1", tmp_path / ".node.importing-2"
    for folder in (left, filling):
        with claim_data_dir(folder, "btc-up"):
            (folder / "half").write_text("x")
    with claim_data_dir(filling, "btc-up"), new_data_dir(tmp_path / "node", "btc-up"):
        assert (left.exists(), filling.exists()) == (False, True)


def test_a_directory_that_was_filled_meanwhile_stays(tmp_path):
    target = tmp_path / "node"
    with (
        pytest.raises(OperatorError, match="node was filled by another process in the meantime"),
        new_data_dir(target, "btc-up"),
    ):
        (target / "theirs").mkdir(parents=True)
    assert os.listdir(tmp_path) == ["node"]
