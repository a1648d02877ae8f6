"""Every alert has an entry in the guide, every command in it exists, and the files generated from it are up to date."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import get_args

import jsonschema_rs
import msgspec
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.outside_tools import missing, npm_file
from tests.streams.engine.test_correct import corrected_log
from tests.streams.golden_samples import SAMPLES
from tests.waiting import LIMIT_SECONDS

from coordinator.api.alert_guide import GUIDES
from coordinator.api.invariant_shapes import AlertKind
from coordinator.api.node_alerts import NODE_ALERTS
from coordinator.api.prometheus import Metrics
from coordinator.streams.log.envelope import encode_event
from documentation.commands_page import leaves
from documentation.whole_app import whole_app
from observability import __main__ as observability
from observability import alert_rules, dashboards, runbook

ASYNCAPI = "@asyncapi/specs@6.11.1"
ASYNCAPI_SHA256 = "abe96881dbfaad495ccbb6bd8d3fb43ca18a13b9d7564849ccb66f39d5e5b20f"


def test_every_kind_of_alert_has_its_entry():
    assert set(NODE_ALERTS) == set(get_args(AlertKind))


COMMANDS = {" ".join(words): command for words, command in leaves()}


def commands_of(name: str) -> list[str]:
    """Our commands on a page: each of `look`, and those in backquotes."""
    guide = GUIDES[name]
    quoted = re.findall(r"`([^`]*)`", " ".join((*guide.end, guide.over)))
    return [line for line in (*guide.look, *quoted) if line.startswith("coordinator ")]


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_on_a_page_is_complete(name):
    """The name of a group alone only prints its help, and a command without its required options prints an error."""
    for line in commands_of(name):
        words = shlex.split(line)[1:]
        length = next((n for n in (2, 1) if " ".join(words[:n]) in COMMANDS), 0)
        assert length, f"{line}: there is no such command"
        params, rest = COMMANDS[" ".join(words[:length])].params, words[length:]
        options = {
            text: param for param in params if param.param_type_name == "option" for text in param.opts
        }
        values = []
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                values.append(word)
                continue
            assert word in options, f"{line}: there is no {word}"
            if not options.pop(word).is_flag:
                assert rest, f"{line}: {word} needs a value"
                rest.pop(0)
        needed = [text for text, param in options.items() if param.required]
        assert not needed, f"{line}: it needs {needed}"
        arguments = [param for param in params if param.param_type_name == "argument"]
        assert sum(param.required for param in arguments) <= len(values) <= len(arguments), line


def test_a_page_has_the_problem_the_risk_the_action_and_the_end():
    for name, text in runbook.pages().items():
        if name != "index.md":
            for heading in ("What is at risk", "Look", "End it", "How to see that it is over"):
                body = text.partition(f"## {heading}\n")[2].partition("\n## ")[0].strip()
                assert body, f"{name}: {heading}"


def test_files_generated_from_the_guide_and_the_events_are_up_to_date():
    old = [
        path for path, text in observability.files().items() if not path.exists() or path.read_text() != text
    ]
    assert not old, "make observability"


async def test_every_metric_that_rules_and_dashboards_use_is_one_of_ours(api):
    text = (await api.client.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    samples = {sample.name for family in families for sample in family.samples} | {
        family.name + suffix for family in families for suffix in ("", "_total", "_bucket")
    }
    exprs = [guide.expr for guide in GUIDES.values()]
    exprs += [expr for panels in dashboards.DASHBOARDS.values() for _, _, expr, _ in panels]
    for expr in exprs:
        for name in expr.replace("(", " ").replace("{", " ").replace("[", " ").split():
            if name.startswith("coordinator_") and name != "coordinator_webhook_posts_total":
                assert name in samples, f"{name} in {expr}"


async def test_names_follow_the_conventions(api):
    """Prometheus' conventions: a prefix, base units, help; `_total` for counters alone."""
    for family in text_string_to_metric_families((await api.client.get("/metrics")).text):
        assert family.name.startswith("coordinator_"), family.name
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_ms", "_minutes", "_mb", "_total_total")), family.name
        if family.type == "gauge":
            assert not family.name.endswith("_total"), family.name


def promtool(*arguments: str, text: str = "") -> str:
    """What promtool finds in `text` or in the files of the rules' folder; "" if nothing."""
    if shutil.which("promtool") is None:
        missing("there is no promtool: it is in Debian's package prometheus")
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=observability.FOLDER,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    return done.stdout + done.stderr if done.returncode else ""


def test_the_rules_fire_when_they_should_and_only_then():
    assert promtool("check", "rules", "rules.yml") == ""
    assert promtool("test", "rules", "rules_test.yml") == ""


async def test_prometheus_own_linter_finds_nothing_in_the_metrics():
    with whole_app() as (_, registry):
        text = generate_latest(registry).decode()
    empty = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    # The linter passes over a metric without a sample, and on an empty node there are many.
    samples = [f"{name} 0" for name in empty if f"\n{name}" not in text.replace(f"# TYPE {name} ", "")]
    assert promtool("check", "metrics", text=text + "\n".join(samples) + "\n") == ""


def test_the_rules_are_those_of_the_guide():
    told = yaml.safe_load((observability.FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in told] == [alert_rules.alert_name(name) for name in GUIDES]
    tested = yaml.safe_load((observability.FOLDER / "rules_test.yml").read_text())["tests"]
    assert [group["name"] for group in tested] == ["a quiet node", *GUIDES]


def test_the_asyncapi_document_is_valid_by_its_own_schema():
    schema = jsonschema_rs.validator_for(
        npm_file(ASYNCAPI, "schemas/3.0.0-without-$id.json", ASYNCAPI_SHA256)
    )
    document = yaml.safe_load((observability.ROOT / "docs/asyncapi.yaml").read_text())
    assert [error.message for error in schema.iter_errors(document)] == []


def of_document(document, name):
    """The validator of a record with this message."""
    return jsonschema_rs.validator_for(
        {"$ref": f"#/components/messages/{name}/payload", "components": document["components"]}
    )


def test_the_examples_of_the_asyncapi_document_and_all_records_of_a_log_are_valid_by_it():
    document = yaml.safe_load((observability.ROOT / "docs/asyncapi.yaml").read_text())
    for name, message in document["components"]["messages"].items():
        for example in message["examples"]:
            of_document(document, name).validate(example["payload"])
    for kind, sample in SAMPLES.items():
        schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
        jsonschema_rs.validator_for(schema).validate(msgspec.json.decode(encode_event(sample)))
        assert document["components"]["schemas"][kind]["examples"], kind
    log = corrected_log()
    for topic, channel in document["channels"].items():
        birth, *others = [of_document(document, name) for name in channel["messages"]]
        for record in map(msgspec.json.decode, log[topic]):
            if not birth.is_valid(record):
                assert any(validator.is_valid(record) for validator in others), record
    foreign = {
        "e": 1,
        "epoch": 1,
        "seq": 1,
        "events": [msgspec.json.decode(encode_event(SAMPLES["RoundScored"]))],
    }
    assert of_document(document, "ScoresAppend").is_valid(foreign)
    assert not of_document(document, "FeedsAppend").is_valid(foreign)


async def test_a_live_round_is_timed_from_its_truth_to_the_board_and_a_replayed_one_is_not(parts):
    now = [1_000_000]
    metrics = Metrics(parts.projector, lambda: now[0])
    scored = SAMPLES["RoundScored"]
    live = msgspec.structs.replace(
        scored, at=1_000_400, data=msgspec.structs.replace(scored.data, rehearsal=False)
    )
    now[0] = 1_001_000
    for event in (scored, live, msgspec.structs.replace(live, at=999_999)):
        parts.projector.on_scored(event)
    text = generate_latest(metrics.registry).decode()
    assert "coordinator_truth_to_board_seconds_count 1.0" in text
    assert "coordinator_truth_to_board_seconds_sum 0.6" in text
