"""A whole node in one process: the stages over a log in memory, without a broker. See `engine.py` and `play.py`."""

from coordinator.streams.engine.engine import Engine, KeptEngine, Output, Recorded, StaleStateError
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.models import Functions, Models, NoModels, RecordedAnswers
from coordinator.streams.engine.owner import Kept, Owner
from coordinator.streams.engine.period_end import Ending, end_now
from coordinator.streams.engine.play import Place, Played, Score, candles, play

__all__ = [
    "Ending",
    "Engine",
    "Functions",
    "Kept",
    "KeptEngine",
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
    "Score",
    "StaleStateError",
    "candles",
    "end_now",
    "play",
]
