"""The one JSON document that a command with --json writes on stdout: its answer, or its error if it has none.

A command may print its answer and then end with an error: the figure is there, and something about it is wrong. With a
second document stdout would be JSON no more. The error is then on stderr alone, and in the exit code.
"""

from __future__ import annotations

import json
from typing import Any

import typer


class JsonAnswer:
    """The document of the command that runs. One command runs in a process at a time."""

    def __init__(self) -> None:
        self.is_printed = False

    def begin(self) -> None:
        """Another command begins: it has printed nothing yet."""
        self.is_printed = False

    def print(self, value: Any) -> None:
        """The command's answer, indented."""
        typer.echo(json.dumps(value, indent=2))
        self.is_printed = True

    def print_error(self, text: str, exit_code: int) -> None:
        """Why the command failed, unless its answer is on stdout already."""
        if not self.is_printed:
            self.print({"error": text, "exit_code": exit_code})


json_answer = JsonAnswer()
