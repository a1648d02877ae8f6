"""Finds the line of the operator's own files (`path:line`) that an error came from, for the error message.

Reads only the exception. A frame belongs to the operator if its module is neither ours, nor of the standard library,
nor of a library that validates types. The innermost such frame outside of installed packages is named: an error inside
numpy must be corrected where numpy was called. Pure.
"""

from __future__ import annotations

import sys
from types import TracebackType

from pydantic import ValidationError

_NOT_THE_OPERATORS = frozenset({"coordinator", "pydantic", "pydantic_core", "msgspec", "_pytest"})
AUTHORS_ERRORS = (Exception, SystemExit)
"""The errors of a contract's function that the node catches. SystemExit is one, since scripts refuse a bad submission
by `sys.exit`. KeyboardInterrupt is none: Ctrl-C must stop the node.
"""
_INSTALLED = ("site-packages", "dist-packages")


def text_of(error: BaseException) -> str:
    """The text of an error. The author's code makes it, so that may raise, too: a KeyError of an int with too many
    digits does.
    """
    try:
        return str(error)
    except AUTHORS_ERRORS:
        return "(its text cannot be made)"


def in_words(error: BaseException) -> str:
    """`ValueError: its text`."""
    return f"{type(error).__name__}: {text_of(error)}"


def where(error: BaseException) -> str:
    """`path:line` of the operator's line that `error` came from; "" if no frame belongs to the operator."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own, installed = "", ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        # Code in `<string>` and the like has no file that an operator could open.
        is_library = package in _NOT_THE_OPERATORS or package in sys.stdlib_module_names
        if not (is_library and package != "__main__") and not code.co_filename.startswith("<"):
            place = f"{code.co_filename}:{trace.tb_lineno}"
            if any(part in code.co_filename for part in _INSTALLED):
                installed = place
            else:
                own = place
        trace = trace.tb_next
    return own or installed


def described(error: BaseException) -> str:
    """The error in one line of text, with the operator's line that it came from if there is one."""
    place = where(error)
    words = text_of(error)
    if isinstance(error, ValidationError):
        words = "; ".join(
            f"{'.'.join(map(str, invalid['loc'])) or '?'}: {invalid['msg']}"
            for invalid in error.errors(include_url=False)
        )
    text = f"{type(error).__name__}: {' '.join(words.split())}"
    return f"{text} ({place})" if place else text
