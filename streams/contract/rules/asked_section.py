"""What is asked, and what an answer is."""

from __future__ import annotations

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.rules.text_parts import (
    Rows,
    Said,
    Section,
    Text,
    fields_table,
    listed,
    plural,
    said_of,
    span,
)

_HIDDEN = {
    "resolvable": "Nobody can see your answer before its horizon has passed.",
    "recorded": "Everybody can see your answer as soon as its round is recorded.",
}


def asked(contract: CrunchContract, subjects: tuple[str, ...]) -> Section:
    """The schedules, the posted questions, and what a model is shown."""
    blocks: list[Said] = []
    if contract.scheduled_predictions or contract.questions is None:
        rows = tuple(
            (
                f"`{schedule.scope_key}`",
                _subject(schedule.scope.subject, subjects),
                span(schedule.interval_seconds),
                f"the next {span(schedule.scope.horizon_seconds)}",
                span(schedule.scope.step_seconds),
                ", ".join(f"`{name}` = {value}" for name, value in schedule.params.items()) or "-",
            )
            for schedule in contract.schedules()
        )
        blocks.append(
            Rows(("scope", "subject", "asked every", "asks about", "in steps of", "arguments"), rows)
        )
    if contract.questions is not None:
        blocks += _questions(contract)
    blocks += _shown(contract)
    return Section("What is asked", tuple(blocks))


def _shown(contract: CrunchContract) -> list[Said]:
    """What a model gets before it is asked: the feed's records, a posted question, or either of them."""
    call = contract.call_method
    tick, predict = (
        f"`{method}({', '.join(arguments)})`"
        for method, arguments in (
            (call.tick, call.tick_arguments),
            (call.predict, call.predict_arguments),
        )
    )
    blocks: list[Said] = [
        Text(
            f"First the node calls your model's {tick} with the input. Then it calls {predict} once for each scope. "
            "This must return the answer."
        )
    ]
    if contract.questions is not None:
        blocks.append(
            Text(
                "The input of a posted question is its payload, with `question_id`, `round_id`, `tags`, `opens_at` and "
                "`closes_at` (ms)."
            )
        )
    if not contract.schedules():
        return blocks
    first = max(contract.input_records, contract.input_records_first)
    more = f", and up to {first:,} in its first call" if first > contract.input_records else ""
    return [
        *blocks,
        Text(
            f"The input of a scope in the first table is made from the last {contract.input_records:,} records of a "
            f"subject, up to the time of the round{more}. A record has the type `{contract.raw_input_type.__name__}`, "
            f"the input has the type `{contract.input_type.__name__}`. This function makes it:"
        ),
        *said_of(contract.build_input),
    ]


def answer(contract: CrunchContract) -> Section:
    """The type of an answer, its bounds, its deadline, and who sees it when."""
    hidden = []
    if contract.schedules():
        hidden.append(_HIDDEN[contract.answers_hidden_until])
    if contract.questions is not None:
        hidden.append("Nobody can see your answer to a posted question before the question is closed.")
    strikes = (
        f"After {plural(contract.model_strikes_max, 'round')} in a row without a valid answer, by its own fault, the "
        "node asks the orchestrator to stop your model."
        if contract.model_strikes_max
        else "A model is never stopped because it gives no answers."
    )
    return Section(
        "Your answer",
        (
            Text(f"An answer has the type `{contract.output_type.__name__}`."),
            *fields_table(contract.output_type),
            Text(
                f"You have {span(contract.deadline_seconds)} from the moment at which the input is made. A later "
                f"answer counts as missing. As JSON, an answer may have at most {contract.output_max_bytes:,} bytes. "
                "An answer of another type, a larger one, or one with a number that is not finite fails by your "
                "model's fault."
            ),
            Text(" ".join((*hidden, strikes))),
        ),
    )


def _subject(subject: str | tuple[str, ...] | None, subjects: tuple[str, ...]) -> str:
    if isinstance(subject, tuple):
        return f"{listed(subject)}, in one answer"
    return (
        f"`{subject}`"
        if subject
        else f"each of {listed(subjects)}"
        if len(subjects) != 1
        else f"`{subjects[0]}`"
    )


def _questions(contract: CrunchContract) -> list[Said]:
    questions = contract.questions
    assert questions is not None  # noqa: S101 - its caller has looked
    counts = {
        "last": "Your last valid answer before answers close is scored.",
        "mean": "The mean of your valid answers is scored, each weighted by the time for which it was the newest.",
        "history": "All your answers are scored together, with their times.",
    }
    again = (
        f"While a question is open, every model is asked again every {span(questions.ask_again_seconds)}."
        if questions.ask_again_seconds
        else "Every model is asked once."
    )
    changed = (
        "It is asked again if the question is posted again with changes."
        if questions.ask_again_on_change
        else "It is not asked again if the question is posted again."
    )
    missing = (
        f"A model without a valid answer is asked again after {span(questions.ask_missing_seconds)}, then "
        "after twice that time, and so on up to a day."
        if questions.ask_missing_seconds
        else "A model without a valid answer is not asked again for that reason."
    )
    rows = tuple(
        (
            f"`{scope.scope_key}`",
            listed(scope.tags) if scope.tags else "every question",
            ", ".join(f"`{name}` = {value}" for name, value in scope.params.items()) or "-",
        )
        for scope in questions.scopes
    )
    return [
        Text(
            "The operator posts questions, each with its own times. A question is asked in the first scope "
            "that fits its tags."
        ),
        Rows(("scope", "questions with the tags", "arguments"), rows),
        Text(f"{counts[questions.counts]} {again} {changed} {missing}"),
    ]
