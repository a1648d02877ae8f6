"""`coordinator submit`: a participant without a hosted model hands in answers to a node's open questions.

It speaks to the node's API with the key that its operator gave out; it needs no Kafka and no contract.
"""

from __future__ import annotations

import hashlib
import os
from typing import Annotated

import httpx
import typer

from coordinator.cli.rounds import read_file
from coordinator.cli.shared import JsonOption, print_json
from coordinator.infra.rounds.files import read_content
from coordinator.streams.log.errors import NodeRefusedError, OperatorError, WorldError

SECONDS_MAX = 60.0


def submit(
    round_id: Annotated[str, typer.Argument(metavar="ROUND", help="The round's id.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The answers, or `-` for standard input.")],
    question: Annotated[str | None, typer.Option(help="The file is the answer to this one question.")] = None,
    node: Annotated[
        str, typer.Option(help="The node's address.", envvar="COORDINATOR_NODE")
    ] = "http://localhost:8000",
    as_json: JsonOption = False,
) -> None:
    """Hand in answers to the open questions of a round; the last ones before the close count.

    The file is JSON, JSON lines, CSV or Parquet: an object `{question id: answer}`, lines or a table with
    `question_id`, or the answer to one question. Put your key into COORDINATOR_KEY; it says for which model the
    answers are. If one answer is invalid, all are refused, and its row and the reason are shown. Keep the receipt: it
    holds the hash of your file.

    Example: [bold]COORDINATOR_KEY=... coordinator submit week-12 answers.csv --node http://node.example:8000[/bold]
    """
    key = os.environ.get("COORDINATOR_KEY", "")
    if not key:
        raise OperatorError("set COORDINATOR_KEY to the key that the node's operator gave you")
    content = read_file(file)
    # What cannot be read is refused here, with the file's name.
    read_content(content, "standard input" if file == "-" else file)
    params = {"question_id": question} if question else {}
    try:
        answer = httpx.post(
            f"{node.rstrip('/')}/rounds/{round_id}/answers",
            content=content,
            params=params,
            headers={"X-API-Key": key, "Content-Type": "application/octet-stream"},
            timeout=SECONDS_MAX,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WorldError(f"the node at {node} did not answer: {error}") from error
    try:
        body = answer.json()
    except ValueError:
        raise WorldError(
            f"the node at {node} answered {answer.status_code} without JSON: is this the address of a node?"
        ) from None
    if (
        answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
        or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    ):
        raise WorldError(f"the node answered {answer.status_code}: {body.get('detail', '')}")
    if answer.status_code >= httpx.codes.BAD_REQUEST:
        raise NodeRefusedError(f"refused: {body.get('detail', answer.status_code)}")
    if body.get("sha256") != hashlib.sha256(content).hexdigest():
        raise WorldError(
            "the receipt's hash is not that of the file that was sent: something between you and the node changed "
            "the file"
        )
    if as_json:
        print_json(body)
        return
    state = "recorded" if body["recorded"] == len(body["questions"]) else f"received: {body['detail']}"
    count = len(body["questions"])
    typer.echo(
        f"{count} {'answer' if count == 1 else 'answers'} of model {body['model_id']} to round {round_id} {state}\n"
        f"receipt {body['sha256']} at {body['received_at']}"
    )
