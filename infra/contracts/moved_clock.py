"""Another time for a whole process: what a trial runs a contract by, to see whether it looks at the clock."""

from __future__ import annotations

import datetime as dt
import time
from types import ModuleType
from typing import Any

from coordinator.infra.contracts.sources import STAND_INS


def move_clock(seconds: int) -> None:
    """From now on `time` says a time so much later, and so does the `datetime` that a contract imports."""
    module: Any = time
    for name in ("time", "monotonic", "perf_counter"):
        setattr(module, name, _later(getattr(time, name), seconds))
        setattr(module, f"{name}_ns", _later(getattr(time, f"{name}_ns"), seconds * 1_000_000_000))
    for name in ("gmtime", "localtime", "ctime"):
        setattr(module, name, _of_now(getattr(time, name)))
    strftime = time.strftime
    module.strftime = lambda form, at=None: strftime(form, time.localtime() if at is None else at)
    STAND_INS["datetime"] = _moved_datetime(dt.timedelta(seconds=seconds))


def _later(asked: Any, more: int) -> Any:
    return lambda: asked() + more


def _of_now(value: Any) -> Any:
    return lambda at=None: value(time.time() if at is None else at)


class _SameKind(type):
    """A stand-in takes for its own whatever the class that it stands for does."""

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, cls.__mro__[1])


def _moved_datetime(moved: dt.timedelta) -> ModuleType:
    class Moment(dt.datetime, metaclass=_SameKind):
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return handler(dt.datetime)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return dt.datetime.now(tz) + moved

        @classmethod
        def utcnow(cls) -> Any:
            return dt.datetime.now(dt.UTC).replace(tzinfo=None) + moved

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    class Day(dt.date, metaclass=_SameKind):
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return handler(dt.date)

        @classmethod
        def today(cls) -> Any:
            return Moment.now().date()

    stand_in = ModuleType("datetime", dt.__doc__)
    stand_in.__dict__.update(vars(dt), datetime=Moment, date=Day)
    return stand_in
