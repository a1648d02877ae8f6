"""Posted questions before an independent verifier: bundles pass, and every answer can be proved, whichever round has
it.
"""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.bundles import MemorySource, bundle_of
from tests.infra.evidence.questioned import T0, questioned_log
from tests.infra.evidence.test_bundle import judged
from tests.infra.evidence.test_proofs import KEY, settings
from tests.memory_log import MemoryLog

from coordinator.infra.evidence.proving import write_proof
from coordinator.streams.events import (
    RoundOpened,
    ScopeAnswered,
    SubmitAnswers,
    SubmitAnswersData,
    SubmittedAnswer,
)
from coordinator.streams.evidence.prediction_proof import proved
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.ids import prediction_id, question_of

Q = "inp/questions/r/"
SCORED = {"again~2/question/slow": [937_500_000], "corrected/question/slow": [437_500_000, 937_500_000]}
"""Prediction -> its scores, by the first and by the corrected truth."""


@pytest.mark.parametrize("number", [0, 1])
def test_bundles_of_questions_pass(tmp_path: Path, number: int):
    """The second bundle's windows reach back to a period whose scores were corrected later."""
    code, output = judged(bundle_of(tmp_path, questioned_log(), number))
    assert code == 0, output


def test_a_handed_in_answer_to_an_open_question_is_in_no_bundle(tmp_path: Path):
    """The bundle of an older checkpoint contains the later commands, and everybody may read it."""
    log = MemoryLog({topic: list(records) for topic, records in questioned_log().topics.items()})
    answer = SubmittedAnswer(
        question_id="open", scope_key="question", output=msgspec.Raw(b'{"value":0.31415927}')
    )
    data = SubmitAnswersData(
        round_id="r", model_id="hand", cruncher_id="c", answers=[answer], sha256="5" * 64
    )
    log.append("commands", encode_event(SubmitAnswers(id="cmd/submit/open", at=T0, data=data)))
    path = bundle_of(tmp_path, log, 0)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert [name for name, content in members.items() if b"0.31415927" in content] == []
    assert b"cmd/submit/open" in members["log/commands"]
    code, output = judged(path)
    assert code == 0, output


def test_the_answers_of_a_model_that_do_not_count_are_listed_too(tmp_path: Path):
    path = bundle_of(tmp_path, questioned_log(), 0)
    code, output = judged(path, "--model", "hand", "--json")
    assert code == 0
    rounds = json.loads(output[output.index("\n{\n") :])["rounds"]
    (again,) = [round_ for round_ in rounds if round_["asked"]]
    assert (again["input_id"], again["answer"], again["units"]) == (
        f"{Q}again",
        '{"value":0.8}',
        {"value": 960_000_000},
    )
    assert list(again["other_answers"].values()) == ['{"value":0.9}']
    code, output = judged(path, "--model", "slow", "--json")
    rounds = json.loads(output[output.index("\n{\n") :])["rounds"]
    of = [
        (round_["input_id"].removeprefix(Q), round_["status"], round_["corrected"], round_["units"])
        for round_ in rounds
    ]
    assert sorted(of, key=lambda row: (row[0], row[2])) == [
        ("again", "SCORED", False, {"value": 937_500_000}),
        ("annulled", "FAILED", False, {}),
        ("corrected", "SCORED", False, {"value": 437_500_000}),
        ("corrected", "SCORED", True, {"value": 937_500_000}),
        ("void", "FAILED", False, {}),
    ]


def test_every_answer_is_proved_by_its_own_id(tmp_path: Path):
    log = questioned_log()
    rosters = {
        event.data.input_id: event.data.roster
        for event in log.events("predictions")
        if isinstance(event, RoundOpened)
    }
    statuses: dict[str, str] = {}
    for event in log.events("predictions"):
        for answer in (
            event.data.entries(rosters[event.data.input_id]) if isinstance(event, ScopeAnswered) else ()
        ):
            wanted = prediction_id(event.data.input_id, event.data.scope_key, answer.model_id)
            path = tmp_path / "proof.txt"
            asyncio.run(write_proof(settings(tmp_path), MemorySource(log), wanted, path))
            answers = proved(path.read_bytes(), [KEY.verifier], wanted)
            assert {proof.answer for proof in answers} == {bytes(answer.output).decode()}
            assert [proof.revision for proof in answers] == [*range(len(answers))]
            name = wanted.removeprefix(Q)
            if name in SCORED:
                assert [proof.units["value"] for proof in answers] == SCORED[name]
            by_hand = name.startswith("again~s")
            statuses[f"hand {answers[0].answer}" if by_hand else name] = answers[-1].status
            assert (
                question_of(event.data.input_id).removeprefix(Q) == name.partition("/")[0].partition("~")[0]
            )
    assert statuses == {
        "again/question/even": "SCORED",
        "again/question/slow": "FAILED",
        "again~2/question/slow": "SCORED",
        'hand {"value":0.9}': "REPLACED",
        'hand {"value":0.8}': "SCORED",
        "void/question/even": "FAILED",
        "void/question/slow": "FAILED",
        "annulled/question/even": "FAILED",
        "annulled/question/slow": "FAILED",
        "corrected/question/even": "SCORED",
        "corrected/question/slow": "SCORED",
        "later/question/even": "SCORED",
        "later/question/slow": "SCORED",
    }
