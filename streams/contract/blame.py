"""Where in the operator's own files an error arose: `path:line`, for a message that can be acted on.

Pure: it looks at an exception and nothing else. A frame is the operator's when its module is neither ours nor of the
standard library nor of what checks types between; the innermost one outside of installed packages is named, since an
error inside of numpy is to be mended where numpy was called.
"""

from __future__ import annotations

import sys
from types import TracebackType

from pydantic import ValidationError

_NOT_THE_OPERATORS = frozenset({"coordinator", "pydantic", "pydantic_core", "msgspec", "_pytest"})
AUTHORS_ERRORS = (Exception, SystemExit)
"""What a function of a contract may raise at us: scripts say "bad submission" by `sys.exit`. Ctrl-C stays ours."""
_INSTALLED = ("site-packages", "dist-packages")


def where(error: BaseException) -> str:
    """`path:line` of the operator's line that `error` came from; empty when no such line took part."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own, installed = "", ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        known = package in _NOT_THE_OPERATORS or package in sys.stdlib_module_names
        if not (known and package != "__main__") and not code.co_filename.startswith("<"):
            place = f"{code.co_filename}:{trace.tb_lineno}"
            if any(part in code.co_filename for part in _INSTALLED):
                installed = place
            else:
                own = place
        trace = trace.tb_next
    return own or installed


def described(error: BaseException) -> str:
    """The error in one line, with the operator's line it came from where there is one."""
    place = where(error)
    words = str(error)
    if isinstance(error, ValidationError):
        words = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or '?'}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
    text = f"{type(error).__name__}: {' '.join(words.split())}"
    return f"{text} ({place})" if place else text
