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
            Rows(("scope", "subject", "asked every", "about", "in steps of", "arguments of its own"), rows)
        )
    if contract.questions is not None:
        blocks += _questions(contract)
    call = contract.call_method
    first = max(contract.input_records, contract.input_records_first)
    blocks += [
        Text(
            f"First your model's `{call.tick}({', '.join(call.tick_arguments)})` receives what is known: at "
            "most the last "
            f"{contract.input_records:,} records of a subject, up to the point of the round"
            + (f", and {first:,} with its first tick" if first > contract.input_records else "")
            + (
                f". Then `{call.predict}({', '.join(call.predict_arguments)})` is called once for each scope, "
                "and returns the answer."
            )
        ),
        Text(
            f"A record is of the type `{contract.raw_input_type.__name__}`, what `{call.tick}` receives of the "
            f"type `{contract.input_type.__name__}`."
        ),
        Text("It is made by this:"),
        *said_of(contract.build_input),
    ]
    return Section("What is asked", tuple(blocks))


def answer(contract: CrunchContract) -> Section:
    """The type of an answer, its bounds, its deadline, and who sees it when."""
    hidden = {
        "resolvable": "Nobody sees your answer before its horizon has passed.",
        "recorded": "Everybody can see your answer as soon as its round is recorded.",
    }
    strikes = (
        f"After {plural(contract.model_strikes_max, 'round')} in a row without a valid answer, by its own fault, the "
        "orchestrator is asked to stop your model."
        if contract.model_strikes_max
        else "A model is never stopped for answers that it does not give."
    )
    return Section(
        "Your answer",
        (
            Text(f"An answer is of the type `{contract.output_type.__name__}`."),
            *fields_table(contract.output_type),
            Text(
                f"You have {span(contract.deadline_seconds)} from the moment the input is made. A later answer "
                "counts as none. As "
                f"JSON an answer has at most {contract.output_max_bytes:,} bytes. One of another type, a "
                "larger one, and one with a "
                "number that is not finite have failed, by your model's fault."
            ),
            Text(f"{hidden[contract.answers_hidden_until]} {strikes}"),
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
        "mean": "The mean of your valid answers is scored, each weighted by the time that it stood.",
        "history": "All your answers are scored together, with their times.",
    }
    again = (
        f"While a question is open, every model is asked again every {span(questions.ask_again_seconds)}."
        if questions.ask_again_seconds
        else "Every model is asked once."
    )
    changed = (
        "It is asked again when the question is posted anew with other contents."
        if questions.ask_again_on_change
        else "It is not asked again when the question is posted anew."
    )
    missing = (
        f"A model without a valid answer is asked again after {span(questions.ask_missing_seconds)}, then "
        "after twice that, and so "
        "on up to a day."
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
            "that fits it."
        ),
        Rows(("scope", "questions with the tags", "arguments of its own"), rows),
        Text(f"{counts[questions.counts]} {again} {changed} {missing}"),
    ]
