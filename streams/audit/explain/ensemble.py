"""The life of one answer of an ensemble: past scores, members, weights, the answer, the truth, the score.

Takes the recorded events of the round with their positions, and the contract; gives an `Explanation`. The stage of
scores makes the round again, over its events and over the earlier rounds that weights and filters look back on. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from coordinator.streams.audit.differences import outcome_text, short
from coordinator.streams.audit.ensembles import mean_again
from coordinator.streams.audit.explain.figure_facts import ByContract
from coordinator.streams.audit.explain.question import QuestionFacts
from coordinator.streams.audit.explain.rescoring import AnsweredRound, InputHistory, decided_again
from coordinator.streams.audit.explain.steps import (
    LISTED_MAX,
    Explanation,
    Placed,
    Step,
    explanation,
    fact,
    moment,
    rules_step,
    time,
    units,
)
from coordinator.streams.audit.explain.truth import counted_in, truth_of_window
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.audit.scores import score_again
from coordinator.streams.contract import CrunchContract, Ensemble, MinScore, TopN
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    EnsemblesScored,
    EnsemblesScoredData,
    InputReceived,
    InputResolved,
    RoundScored,
    ScoreEntry,
    Terms,
)
from coordinator.streams.log.ids import asking_suffix, ensemble_id, ensemble_name, prediction_id
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.scores.past_scores import NOTHING, PastPeriod, PastRead, PastSums, take_scores

WEIGHT_DECIMALS = 9


class EnsembleFacts(ByContract, frozen=True, kw_only=True):
    """What the log holds of one answer of an ensemble.

    `rounds` is its round, or all of a posted question; `resolved` its truth. `past` are the rounds of its scope that
    were scored before it and that it may look back on, from `past_from` to `past_until` (ms).
    """

    ensemble_id: str
    scope_key: str
    received: Placed[InputReceived]
    rounds: Sequence[AnsweredRound]
    resolved: Sequence[Placed[InputResolved]]
    window: Mapping[str, Sequence[SeenRecord]] = {}
    scored: Placed[EnsemblesScored]
    question: QuestionFacts | None = None
    past: Sequence[Placed[RoundScored]] = ()
    past_from: int = 0
    past_until: int = 0
    past_fault: str = ""
    carried: bool = False
    """Whether the round carried a state to later ones."""
    told: TermsInForce
    terms: Terms

    @property
    def data(self) -> EnsemblesScoredData:
        """What is recorded of the ensembles of the round."""
        return self.scored.event.data

    @property
    def place(self) -> int:
        """Where this one is in the columns."""
        return self.data.models.index(self.ensemble_id)

    @property
    def entry(self) -> ScoreEntry:
        """What is recorded of its score."""
        return self.data.entries()[self.place]

    @property
    def weights(self) -> Sequence[int | None]:
        """The recorded weight of each model that answered; None for a model that is no member."""
        return self.data.weights[self.place] or [None] * len(self.data.answered)

    @property
    def looks_back(self) -> bool:
        """Whether past scores decide about its members and their weights."""
        return self.past_until > 0


class RecomputedEnsemble(msgspec.Struct, frozen=True):
    """The ensemble, computed again: its own parts of the columns."""

    weights: Sequence[int | None]
    output: msgspec.Raw
    entry: ScoreEntry


def explain_ensemble(facts: EnsembleFacts) -> Explanation:
    """The explanation of one answer of an ensemble."""
    data = facts.data
    title = (
        f"What the ensemble {ensemble_name(facts.ensemble_id)} made of the answers at {moment(data.point)} for "
        f"{data.subject}, {data.scope_key}, and what it was worth"
    )
    the_id = prediction_id(data.input_id, data.scope_key, facts.ensemble_id)
    return explanation("ensemble", the_id, title, _steps(facts))


def _steps(facts: EnsembleFacts) -> Iterator[Step]:
    again, fault = None, facts.contract_fault
    rule: Ensemble | None = None
    if facts.contract is not None:
        rule = next(
            (rule for rule in facts.contract.ensembles if ensemble_id(rule.name) == facts.ensemble_id), None
        )
        try:
            again = _again(facts, facts.contract)
        except AUTHORS_ERRORS as error:
            fault = f"cannot be computed again: {in_words(error)}"
    yield rules_step(facts.data.contract_hash, facts.terms, facts.configured)
    if facts.looks_back:
        yield _past_scores(facts, rule)
    yield _members(facts, rule, None if facts.past_fault else again, facts.past_fault or fault)
    yield _answer(facts, rule, None if facts.past_fault else again, fault)
    yield truth_of_window(
        facts.resolved[-1],
        facts.received.event.data.subject,
        facts.window,
        facts.contract if facts.question is None else None,
        facts.contract_fault
        if facts.question is None
        else "not computed again here: the explanation of a member's answer has it",
    )
    yield _score(facts, again, fault)
    at = facts.data.resolvable_at
    yield counted_in(facts.ensemble_id, *facts.told.snapshot_period(at), at)


def _again(facts: EnsembleFacts, contract: CrunchContract) -> RecomputedEnsemble | None:
    """The ensemble by the stage; None if the stage makes none."""
    received, question = facts.received.event, facts.question
    scopes = [scope for scope in received.data.scopes if scope.scope_key == facts.scope_key]
    decided = decided_again(
        contract,
        facts.told,
        InputHistory(
            msgspec.structs.replace(received, data=msgspec.structs.replace(received.data, scopes=scopes)),
            facts.rounds,
            facts.resolved,
            None if question is None else question.closed,
            None if question is None else question.answers_closed,
        ),
        past=[earlier.event for earlier in facts.past],
        before=question.carried.before if question is not None else (),
    ).events
    for event in decided:
        if isinstance(event, EnsemblesScored) and facts.ensemble_id in event.data.models:
            place = event.data.models.index(facts.ensemble_id)
            return RecomputedEnsemble(
                event.data.weights[place], event.data.outputs[place], event.data.entries()[place]
            )
    return None


def _past_sums(facts: EnsembleFacts) -> PastSums:
    """The models' scores that the ensemble looked back on."""
    past: dict[str, PastPeriod] = {}
    for earlier in facts.past:
        take_scores(past, earlier.event.data, facts.told.at(earlier.event.data.point))
    data = facts.data
    of = PastRead().of(past, data.point, scope_name(data.subject, data.scope_key), facts.told)
    return of.get(ensemble_name(facts.ensemble_id), NOTHING)


def _past_scores(facts: EnsembleFacts, rule: Ensemble | None) -> Step:
    sums, unit = _past_sums(facts), 10.0**-facts.terms.score_decimals
    error_field = rule.error_field if rule is not None else ""
    of_models = [
        sums.member(model_id, "", None, error_field, unit) for model_id in facts.data.answered[:LISTED_MAX]
    ]
    listed = facts.past[-LISTED_MAX:]
    return Step(
        name="past scores",
        rule="Weights and filters know the scores in this scope of the whole snapshot periods before the round, as far "
        "as they were known when it was scored",
        inputs=[
            fact(
                f"{earlier.event.data.input_id}/{earlier.event.data.scope_key}",
                f"{len(earlier.event.data.models)} models",
                source=earlier.source,
            )
            for earlier in listed
        ],
        left_out=len(facts.past) - len(listed),
        result=[
            time("from", facts.past_from),
            time("until", facts.past_until),
            fact("rounds", len(facts.past)),
            *(
                fact(
                    model.model_id,
                    {
                        "scored": model.scored,
                        "mean_score": model.mean_score,
                        **({"mean_squared_error": model.mean_squared_error} if error_field else {}),
                    },
                )
                for model in of_models
                if not facts.past_fault
            ),
        ],
        note=facts.past_fault,
    )


def _members(
    facts: EnsembleFacts, rule: Ensemble | None, again: RecomputedEnsemble | None, fault: str
) -> Step:
    data = facts.data
    weights = facts.weights
    members = [weight for weight in weights if weight is not None]
    agrees = None if again is None else list(again.weights) == list(data.weights[facts.place])
    return Step(
        name="members",
        rule=_rule(rule),
        inputs=[
            units(model_id, weight, WEIGHT_DECIMALS)
            for model_id, weight in [*zip(data.answered, weights, strict=True)][:LISTED_MAX]
        ],
        left_out=max(0, len(weights) - LISTED_MAX),
        result=[
            fact("answered", len(weights)),
            fact("members", len(members)),
            units("sum_of_weights", sum(members), WEIGHT_DECIMALS),
        ],
        agrees=agrees,
        note=f"computed again: {short(list(again.weights))}" if again is not None and not agrees else fault,
    )


def _rule(rule: Ensemble | None) -> str:
    """The members of the ensemble and their weights, in words."""
    if rule is None:
        return "The contract's filter chooses among the models that answered, and its weights are divided by their sum"
    match rule.filter:
        case TopN(n=n):
            chosen = f"The {n} models with the best mean score, of those that answered and have one"
        case MinScore(value=value):
            chosen = f"The models that answered and whose mean score is {value:g} or better"
        case None:
            chosen = "All models that answered"
        case _:
            chosen = "Of the models that answered, those that the contract's filter lets in"
    weights = {
        "equal": "each has the same weight",
        "inverse_variance": f"each weighs 1 / (mean of {rule.error_field} squared); who has none is no member",
    }.get(rule.weights if isinstance(rule.weights, str) else "", "the contract's function weighs them")
    return f"{chosen}; {weights}. A weight is divided by the sum of all, and recorded as a whole number of 10**-9"


def _answer(
    facts: EnsembleFacts, rule: Ensemble | None, again: RecomputedEnsemble | None, fault: str
) -> Step:
    data, entry = facts.data, facts.entry
    members = {
        model_id: weight
        for model_id, weight in zip(data.answered, facts.weights, strict=True)
        if weight is not None
    }
    answers = {}
    for model_id in members:
        used = [answer for the_round in facts.rounds if (answer := the_round.answer_of(model_id)) is not None]
        valid = [answer for answer in used if answer[0].status == "PENDING"]
        if valid:
            answers[model_id] = valid[-1]
    output = bytes(data.outputs[facts.place])
    agrees, note = None, fault
    if again is not None:
        agrees = msgspec.json.decode(again.output) == msgspec.json.decode(output)
        note = (
            ""
            if agrees
            else f"computed again: {bytes(again.output).decode()[:500]} {again.entry.reason}".strip()
        )
    elif rule is not None and rule.combine is None and facts.question is None and members:
        values = [
            (msgspec.json.decode(answers[model_id][0].output), weight) for model_id, weight in members.items()
        ]
        mean = mean_again(values, sum(members.values()))
        agrees = mean == msgspec.json.decode(output)
        note = "" if agrees else f"computed again from the recorded weights: {mean}"[:500]
    return Step(
        name="answer",
        rule="combine of the contract, of the members' answers and weights"
        if rule is not None and rule.combine is not None
        else "The weighted mean of the members' answers, number by number, added in the order of the models; what is "
        "no number must be the same in all",
        inputs=[
            fact(
                f"{members[model_id]} x {model_id}{f' in round {suffix}' if suffix else ''}",
                answer.text,
                source=part.source,
            )
            for model_id, (answer, part) in [*answers.items()][:LISTED_MAX]
            for suffix in [asking_suffix(part.event.data.input_id)]
        ],
        left_out=max(0, len(answers) - LISTED_MAX),
        result=[fact("reason", entry.reason)] if output == b"null" else [fact("output", output.decode())],
        agrees=agrees,
        note=note
        or (
            "of a posted question counts what its contract says of a model's answers"
            if facts.question
            else ""
        ),
    )


def _score(facts: EnsembleFacts, again: RecomputedEnsemble | None, fault: str) -> Step:
    entry, decimals = facts.entry, facts.terms.score_decimals
    result = [fact("status", entry.status)]
    result += [units(name, number, decimals) for name, number in sorted(entry.units.items())]
    if entry.reason:
        result.append(fact("reason", entry.reason))
    agrees, note = None, fault
    if again is not None and not facts.past_fault:
        computed = again.entry
        agrees = (computed.status, computed.units) == (entry.status, entry.units)
        note = "" if agrees else f"computed again: {outcome_text(computed)}"
        if not agrees and facts.carried:
            agrees = None
            note = (
                f"it may rest on what earlier rounds carried, without which it is {computed.units}; `coordinator "
                "verify-e2e` makes it again with that"
            )
    elif facts.past_fault and facts.contract is not None and facts.contract.score_round is None:
        agrees, note = _score_of_recorded(facts, facts.contract)
    return Step(
        name="score",
        rule="The ensemble's answer is scored as one more model's, and changes nobody else's score; each number "
        f"becomes a whole number of units of 10**-{decimals}, rounded half-even from its shortest decimal form",
        sources=[facts.scored.source],
        inputs=[
            fact("truth", facts.resolved[-1].event.data.truth),
            fact("output", bytes(facts.data.outputs[facts.place]).decode()),
        ],
        result=result,
        agrees=agrees,
        note=note,
    )


def _score_of_recorded(facts: EnsembleFacts, contract: CrunchContract) -> tuple[bool | None, str]:
    """(whether the recorded answer has the recorded score, the note of the step)."""
    truth, output = facts.resolved[-1].event.data.truth, bytes(facts.data.outputs[facts.place])
    if truth is None or output == b"null":
        return None, facts.past_fault
    scored = score_again(contract, msgspec.json.decode(output), typed_truth(contract, facts.scope_key, truth))
    return (
        scored == facts.entry.units,
        "" if scored == facts.entry.units else f"computed again: {short(scored)}",
    )
