"""Moves the clock of a whole process: a trial runs a contract under it, to see whether the contract reads the clock."""

from __future__ import annotations

import datetime as dt
import time
from types import ModuleType
from typing import Any

from coordinator.infra.contracts.sources import STAND_INS


def move_clock(seconds: int) -> None:
    """From now on the module `time`, and the `datetime` that a contract imports, tell a time `seconds` later."""
    module: Any = time
    for name in ("time", "monotonic", "perf_counter"):
        setattr(module, name, _later(getattr(time, name), seconds))
        setattr(module, f"{name}_ns", _later(getattr(time, f"{name}_ns"), seconds * 1_000_000_000))
    for name in ("gmtime", "localtime", "ctime"):
        setattr(module, name, _of_now(getattr(time, name)))
    strftime = time.strftime
    module.strftime = lambda form, at=None: strftime(form, time.localtime() if at is None else at)
    STAND_INS["datetime"] = _moved_datetime(dt.timedelta(seconds=seconds))


def _later(clock: Any, difference: int) -> Any:
    return lambda: clock() + difference


def _of_now(convert: Any) -> Any:
    """A function like `time.localtime` that converts the moved time when it is called without one."""
    return lambda at=None: convert(time.time() if at is None else at)


class _SameKind(type):
    """Makes `isinstance` with a stand-in class true for instances of the class that it replaces."""

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
