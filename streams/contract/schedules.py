"""Schedules: what a contract asks of the market, how far ahead, and on which grid of time. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.streams.contract.call_method import PREDICT_NAMES
from coordinator.streams.log.finite import not_finite

PARAMS_BYTES_MAX = 8192
JOINT = "+"  # between the names of subjects that are asked together


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictionScope(_Strict):
    """What the models predict: a subject, how far ahead, and in which steps."""

    subject: str | tuple[str, ...] | None = None
    """One feed subject, such as `BTCUSD`; None: each subject of the feed separately; `("BTCUSD", "ETHUSD")`: these
    together, in one tick and one answer, as the subject `BTCUSD+ETHUSD`. Then a model's `tick` and the scoring get an
    object by subject: `{"BTCUSD": .., "ETHUSD": ..}`, each as `build_input` and `resolve_ground_truth` return it."""
    horizon_seconds: int = Field(default=60, gt=0)
    """How far ahead: the truth is known this long after the round's point."""
    step_seconds: int = Field(default=15, gt=0)
    """The step that a model is told, for answers that go step by step to the horizon."""

    @field_validator("subject")
    @classmethod
    def _are_several(cls, subject: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(subject, tuple) and (len(set(subject)) < max(len(subject), 2) or "" in subject):
            raise ValueError(f"subject: {subject} are not two or more, each named once")
        return subject

    @property
    def name(self) -> str | None:
        """The name of its subject, joined by `+` if there are several; None: each subject of the feed."""
        return JOINT.join(self.together) or self.subject  # type: ignore[return-value]

    def asks(self, subject: str) -> bool:
        """True if models are asked about this subject."""
        return self.name == subject or (self.name is None and JOINT not in subject)

    @property
    def together(self) -> tuple[str, ...]:
        """The subjects that are asked together; empty if each is asked separately."""
        return self.subject if isinstance(self.subject, tuple) else ()


class ScheduledPrediction(_Strict):
    """A scope asked on a grid of `interval_seconds` in event time, from the epoch on."""

    scope_key: str = Field(min_length=1, max_length=100)
    """Its name in predictions, scores and boards: `1h`."""
    scope: PredictionScope = PredictionScope()
    """What is asked."""
    interval_seconds: int = Field(default=60, gt=0)
    """How often, counted from the epoch: 60 asks at every full minute of event time."""
    active: bool = True
    """False: it is not asked any more."""
    order: int = 0
    """Schedules with a lower order are asked first."""
    params: dict[str, Any] = {}
    """Name -> free argument: plain JSON, at most 8 kB. `CallMethod.predict_arguments` may name each of them, or all of
    them as `params`; `score_round` gets them as `context.params`. For example `{"steps": [300, 3600], "asset": "BTC"}`.
    """

    @field_validator("params")
    @classmethod
    def _are_plain(cls, params: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(PREDICT_NAMES & params.keys()):
            raise ValueError(f"params: {taken} have a meaning already")
        try:
            body = msgspec.json.encode(params)
            same = msgspec.json.decode(body) == params and not not_finite(params)
        except (TypeError, ValueError) as error:
            raise ValueError(f"params: no plain JSON: {error}") from error
        if not same or len(body) > PARAMS_BYTES_MAX:
            raise ValueError(f"params: plain JSON of at most {PARAMS_BYTES_MAX} bytes, this has {len(body)}")
        return params
