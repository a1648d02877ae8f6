"""A whole node in one process: the stages over a log in memory, without a broker. See `engine.py` and `play.py`."""

from coordinator.streams.engine.engine import Engine, Output, Recorded, SavedEngine, StaleStateError
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.models import Functions, Models, NoModels, RecordedAnswers
from coordinator.streams.engine.owner import Owner, SavedOwner
from coordinator.streams.engine.period_end import Ending, end_now
from coordinator.streams.engine.play import Place, Played, Score, candles, play

__all__ = [
    "Ending",
    "Engine",
    "Functions",
    "LogReader",
    "MemoryLog",
    "Models",
    "NoModels",
    "Output",
    "Owner",
    "Place",
    "Played",
    "Recorded",
    "RecordedAnswers",
    "SavedEngine",
    "SavedOwner",
    "Score",
    "StaleStateError",
    "candles",
    "end_now",
    "play",
]
