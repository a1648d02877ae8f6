"""The settings of a node's folder where the environment has none: `.env`, and the rendered files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.containers.node import why_no_engine
from tests.scaffold.workspace import coordinator

from coordinator.cli.dotenv_values import read_values
from coordinator.cli.node_folder import FILE_BYTES_MAX, read_dotenv, take_over_settings
from coordinator.scaffolds.render import render
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings

ENVIRON = {"PLACE": "/srv", "EMPTY": ""}
LINES = {
    "CRUNCH_ID=btc-up": {"CRUNCH_ID": "btc-up"},
    "# a comment\n\nA=1\n  B = 2 \n": {"A": "1", "B": "2"},
    "A=1 # said why": {"A": "1"},
    "export A=1": {"A": "1"},
    "A=": {"A": ""},
    "A=1\r\nB=2\r\n": {"A": "1", "B": "2"},
    "\ufeffA=1": {"A": "1"},
    "A=a=b": {"A": "a=b"},
    "": {},
    "A=1\nA=2\nB=$A": {"A": "2", "B": "2"},
    # a dollar
    "A=$PLACE/x": {"A": "/srv/x"},
    "A=${PLACE}x": {"A": "/srvx"},
    "A=pa$$word": {"A": "pa$word"},
    "A='pa$word'": {"A": "pa$word"},
    "A='$$'": {"A": "$$"},
    'A="$$"': {"A": "$"},
    r'A="pa\$word"': {"A": "pa$word"},
    'A="$PLACE"': {"A": "/srv"},
    "A=$5x$": {"A": "$5x$"},
    "A=${NOBODY:-d}": {"A": "d"},
    "A=${NOBODY-d}": {"A": "d"},
    "A=${EMPTY:-d}${EMPTY-e}": {"A": "d"},
    r"A=\$PLACE": {"A": r"\/srv"},
    r'A="x\$y\\$PLACE"': {"A": r"x$y\/srv"},
    # quotes, comments, backslashes
    'A="two words"': {"A": "two words"},
    "A='# no comment'": {"A": "# no comment"},
    "A=a#b": {"A": "a#b"},
    "A=a\t#b": {"A": "a\t#b"},
    "A= #b": {"A": "#b"},
    "A=#b": {"A": "#b"},
    'A="a" # b': {"A": "a"},
    r"A='it\'s'": {"A": "it's"},
    r"A='a\\b\n'": {"A": r"a\\b\n"},
    r'A="a\nb"': {"A": "a\nb"},
    r'A="a\\b\"c"': {"A": 'a\\b"c'},
    r'A="a\qb"': {"A": r"a\qb"},
    r"A=a\\b": {"A": r"a\\b"},
    "A=it's": {"A": "it's"},
    'A=a"b': {"A": 'a"b'},
    "A='a\nb'": {"A": "a\nb"},
    "A=a;b `c` \u00e9": {"A": "a;b `c` \u00e9"},
}


@pytest.mark.parametrize(("text", "values"), LINES.items(), ids=[repr(text) for text in LINES])
def test_a_dotenv_file_is_read_as_the_table_says(text, values, tmp_path):
    (tmp_path / ".env").write_bytes(text.encode())
    assert read_dotenv(tmp_path / ".env", ENVIRON) == values


def read_by_compose(folder: Path, text: str) -> dict[str, str]:
    (folder / "compose.yaml").write_text("services: {a: {image: x, env_file: [.env]}}\n")
    (folder / ".env").write_bytes(text.encode())
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=folder, env={name: os.environ[name] for name in ("PATH", "HOME")} | ENVIRON, capture_output=True, check=True,
    )  # fmt: skip
    variables = json.loads(done.stdout)["services"]["a"].get("environment", {})
    return {
        name: value.replace("$$", "$") for name, value in variables.items()
    }  # it writes what compose may read again


compose = pytest.mark.skipif(bool(why_no_engine()), reason=why_no_engine() or "docker compose is here")


@compose
def test_docker_compose_reads_the_same(tmp_path):
    """One file for it: each line of the table, under a name of its own."""
    plain = {text: values for text, values in LINES.items() if list(values) == ["A"] and text[0] == "A"}
    lines = [text.replace("A", f"N{number}", 1) for number, text in enumerate(plain)]
    expected = {f"N{number}": values["A"] for number, values in enumerate(plain.values())}
    assert len(expected) > 30
    assert read_by_compose(tmp_path, "\n".join(lines) + "\n") == expected


@compose
@settings(deadline=None, max_examples=10)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["{}", "'{}'", '"{}"', "'{}' # c", "{} # c"]),
            st.text(st.sampled_from("$ab{}:-#'\"\\ \t%;=`n"), max_size=8),
        ),
        min_size=20,
        max_size=60,
    )
)
def test_docker_compose_reads_every_line_as_we_do(tmp_path_factory, values):
    read = {}
    for number, (form, value) in enumerate(values):
        try:
            values_read = read_values(line := f"N{number}={form.format(value)}\n", ENVIRON)
        except ValueError:
            continue
        read[line] = values_read
    expected = {name: value for values in read.values() for name, value in values.items()}
    assert read_by_compose(tmp_path_factory.mktemp("env"), "".join(read)) == expected


BROKEN = {
    "A=1\nnot a setting\n": "line 2: cannot be read; write KEY=VALUE",
    "\n\n\nJUST_A_NAME\n": "line 4: cannot be read",
    'A="open\n': "line 1: cannot be read",
    "A=1\n\xff": "line 2: cannot be read",
    "A='a'b": "line 1: cannot be read",
    "B=1\nA=pa$word": r"line 2: A has \$word, which nothing sets; put the value in single quotes",
    "A=${": r"line 1: A has \$\{ without a name",
    "A=${PLACE:?no}": r"line 1: A has \$\{ without a name, or with more",
    r'A="\a"': r"line 1: A has the escape \\a",
    "A='a\nb'\nx": "line 3: cannot be read",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=[repr(text) for text in BROKEN])
def test_an_invalid_line_is_named(text, words, tmp_path):
    (tmp_path / ".env").write_text(text)
    with pytest.raises(OperatorError, match=words):
        read_dotenv(tmp_path / ".env", ENVIRON)


@pytest.mark.parametrize("raw", [b"\xff\xfe=1", b"A=" + b"x" * FILE_BYTES_MAX], ids=["no text", "too long"])
def test_a_file_without_settings_is_refused(raw, tmp_path):
    (tmp_path / ".env").write_bytes(raw)
    with pytest.raises(OperatorError, match=r"\.env"):
        read_dotenv(tmp_path / ".env", ENVIRON)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9./:,_-]{1,30}", fullmatch=True),
        max_size=10,
    )
)
def test_plain_values_are_read_unchanged(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    assert read_dotenv(path, {}) == values


def test_the_environment_takes_precedence_over_the_file_and_the_file_over_the_scaffold(tmp_path):
    node = render("a-b", "realtime", tmp_path, version="1").node
    (node / ".env").write_text("FEED_SUBJECTS=ETHUSDT\nAPI_PORT=8123\nCRUNCH_ID=from-file\n")
    environ = {"API_PORT": "8456"}
    take_over_settings(environ, node)
    settings = read_settings(environ)
    assert (settings.api_port, settings.feed_subjects, settings.crunch_id) == (
        8456,
        ("ETHUSDT",),
        "from-file",
    )
    assert settings.contract == "runtime_definitions.contracts:CONTRACT"
    assert settings.model_base_classname == "crunch_a_b.tracker.TrackerBase"
    assert environ["MODELS_DIR"] == str(tmp_path / "a-b/crunch-a-b/examples")
    assert environ["PYTHONPATH"] == str(tmp_path / "a-b/crunch-a-b")


def test_an_existing_module_path_stays_and_a_second_time_changes_nothing(tmp_path):
    node = render("a", "realtime", tmp_path, version="1").node
    environ = {"PYTHONPATH": "/elsewhere"}
    take_over_settings(environ, node)
    once = dict(environ)
    take_over_settings(environ, node)
    assert environ == once
    assert environ["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "a/crunch-a"), "/elsewhere"]


def test_if_the_challenge_is_installed_the_folder_beside_it_is_not_needed(tmp_path):
    """A container has only the node's folder."""
    workspace = render("a", "realtime", tmp_path, version="1")
    alone = tmp_path / "srv"
    workspace.node.rename(alone)
    (alone / ".env").unlink()
    environ = {"CONTRACT": "", "MODEL_BASE_CLASSNAME": ""}  # so compose hands on what is not set
    take_over_settings(environ, alone)
    assert environ == {
        "CRUNCH_ID": "a",
        "API_ROUTES_DIR": str(alone / "api"),
        "CONTRACT": "runtime_definitions.contracts:CONTRACT",
        "MODEL_BASE_CLASSNAME": "crunch_a.tracker.TrackerBase",
    }


def test_a_folder_without_settings_changes_nothing(tmp_path):
    environ: dict[str, str] = {}
    take_over_settings(environ, tmp_path)
    assert environ == {}


def test_answers_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / ".scaffold").mkdir()
    (tmp_path / ".scaffold/answers.yml").write_text("slug: [\n")
    with pytest.raises(OperatorError, match=r"answers\.yml cannot be used"):
        take_over_settings({}, tmp_path)


def test_a_command_reads_the_file_of_its_folder_and_says_where_it_is_wrong(tmp_path):
    (tmp_path / ".env").write_text("CRUNCH_ID=Not A Slug\n")
    done = coordinator(tmp_path, "status")
    assert (done.returncode, "CRUNCH_ID 'Not A Slug' must be" in done.stderr) == (2, True), done.stderr
    (tmp_path / ".env").write_text("CRUNCH_ID=ok\nwhat is this\n")
    done = coordinator(tmp_path, "status")
    assert (done.returncode, ".env, line 2: cannot be read" in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1


def test_models_check_in_the_nodes_folder_knows_the_challenge(tmp_path):
    workspace = render("a", "realtime", tmp_path, version="1")
    done = coordinator(
        workspace.node, "models", "check", "../crunch-a/examples/trend_following", "--rounds", 3
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready to submit" in done.stdout
