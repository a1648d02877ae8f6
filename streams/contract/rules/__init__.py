"""The rules of a crunch in words, for participants: made of the contract, so that text and code cannot differ.

`rules_of` says everything that a contract says: what is asked, what an answer is, how it is scored, what absence costs,
how it is ranked and paid. `rendering.py` makes Markdown or HTML of it. A test checks that every field of a contract is
mentioned, and that another value of it gives another text. Pure.
"""

from coordinator.streams.contract.rules.rendering import as_html, as_markdown
from coordinator.streams.contract.rules.rules import Circumstances, rules_of

__all__ = ["Circumstances", "as_html", "as_markdown", "rules_of"]
