"""A node is moved as its operator does it: exported while it runs and at rest, imported, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile

import pytest
from tests import forked
from tests.broker.test_up import SPEED, command, run_environment, until_it_says, up
from tests.candles import candle_file
from tests.infra.test_moving import BESIDE, SECRETS
from tests.waiting import LIMIT_SECONDS, looks

from coordinator.infra.log.copy_file import Copied, read_entries

pytestmark = pytest.mark.broker
WITH_SECRETS = {name.upper(): text for name, text in SECRETS.items() if name != "blobs_url"} | {
    # What changes the way to Kafka or the network would do so here, too.
    name: text
    for name, text in BESIDE.items()
    if name.startswith(("FEED_OPT", "PYTH", "COORDINATOR"))
}


def ask(folder, *arguments, **variables):
    done = forked.run([*map(str, arguments)], env=run_environment() | variables, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def answer(folder, *arguments, **variables):
    code, out, err = ask(folder, *arguments, "--json", **variables)
    assert code == 0, out + err
    return json.loads(out)


def hashes(folder, data_dir):
    return answer(folder, "replay", "--data-dir", data_dir)["state_hash"]


def records_in(path):
    with zipfile.ZipFile(path) as archive, archive.open("log.copy.gz") as file:
        return [entry for entry in read_entries(file) if isinstance(entry, Copied)]


def assert_no_secret(path):
    with zipfile.ZipFile(path) as archive:
        contents = [archive.read(name) for name in archive.namelist() if name != "log.copy.gz"]
    contents += [entry.value or b"" for entry in records_in(path)]
    for name, secret in (SECRETS | BESIDE).items():
        assert not [text for text in contents if secret.encode() in text], name


@pytest.mark.slow  # two nodes, and eight commands that each start and stop a Kafka
def test_a_moved_node_continues_where_it_was(tmp_path):
    candles = candle_file(tmp_path)
    node = up(tmp_path, "--candles", candles, "--speed", SPEED)
    try:
        until_it_says(node, "first score")
        running = answer(tmp_path, "export", "running.node", "--data-dir", "node", **WITH_SECRETS)
        assert set(running["secrets_left_out"]) == set(WITH_SECRETS)
        node.send_signal(signal.SIGINT)
        node.communicate(timeout=LIMIT_SECONDS)
    finally:
        node.kill()
    # While it ran: a beginning of what there is now, and as good as any.
    at_rest = answer(tmp_path, "export", "rest.node", "--data-dir", "node", **WITH_SECRETS)
    assert running["records"] < at_rest["records"]
    for name in ("running.node", "rest.node"):
        assert_no_secret(tmp_path / name)
    before = hashes(tmp_path, "node")

    imported = answer(tmp_path, "import", "rest.node", "--into", "moved")
    assert imported["sha256"] == at_rest["sha256"]
    assert hashes(tmp_path, "moved") == before
    answer(tmp_path, "export", "again.node", "--data-dir", "moved")
    assert records_in(tmp_path / "again.node") == records_in(tmp_path / "rest.node")
    code, _, err = ask(tmp_path, "import", "rest.node", "--into", "moved")
    assert (code, "moved is not an empty directory" in err) == (2, True), err
    settings = (tmp_path / "moved" / "settings.env").read_text()
    assert f"# of the old machine: #FEED_CANDLES_FILE={candles}\n" in settings
    assert "FEED_SUBJECTS" not in settings  # the default, and whatever will be it

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moved").rename(tmp_path / "elsewhere" / "node")
    node = up(tmp_path / "elsewhere", "--candles", candles, "--speed", SPEED)
    try:
        until_it_says(node, "first score")
        verified = answer(tmp_path, "replay", "--verify", "--data-dir", "elsewhere/node")
        node.send_signal(signal.SIGINT)
        node.communicate(timeout=LIMIT_SECONDS)
    finally:
        node.kill()
    assert verified["equal"]
    answer(tmp_path, "export", "after.node", "--data-dir", "elsewhere/node")
    earlier = records_in(tmp_path / "rest.node")
    after = {(entry.topic, entry.offset): entry for entry in records_in(tmp_path / "after.node")}
    assert all(after[entry.topic, entry.offset] == entry for entry in earlier)
    assert {topic for topic, offset in after if offset > 0} >= {"feeds", "inputs", "predictions", "scores"}
    for topic in ("feeds", "inputs", "predictions", "scores"):
        assert sum(at[0] == topic for at in after) > sum(entry.topic == topic for entry in earlier), topic

    killed_in_the_middle(tmp_path)


def killed_in_the_middle(folder):
    importing = subprocess.Popen(
        command("import", "after.node", "--into", "late"),
        env=run_environment(),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for _ in looks(0.02):
        if list(folder.glob(".late.importing-*/kafka/log")):
            break
        assert importing.poll() is None, importing.communicate()
    importing.kill()
    importing.communicate()
    assert not (folder / "late").exists()
    code, _, err = ask(folder, "import", "cut.node", "--into", "late")
    assert (code, "cut.node" in err) == (2, True), err
    whole = (folder / "after.node").read_bytes()
    (folder / "cut.node").write_bytes(whole[: len(whole) // 2])
    code, _, err = ask(folder, "import", "cut.node", "--into", "late")
    assert (code, "cut.node is not a complete export: it was cut short or altered" in err) == (1, True), err
    assert not (folder / "late").exists()
    assert answer(folder, "import", "after.node", "--into", "late")["data_dir"] == str(folder / "late")
    assert not list(folder.glob(".late.importing-*"))
    assert os.listdir(folder / "late" / "contracts")
