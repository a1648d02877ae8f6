"""A log that the product's own stages made, folded into read models, and an explainer over both. No broker."""

from __future__ import annotations

from types import SimpleNamespace

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.projections.explaining.explainer import Explainer
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.audit.explain.recomputing import explain_again
from coordinator.streams.engine import MemoryLog


class MemoryAppends:
    """The decisions of a log in memory by offset, in place of `KafkaAppends`, which reads them from a broker."""

    def __init__(self, log) -> None:
        self._log = log
        self._decisions = {}

    def __call__(self, wanted):
        return {
            (topic, offset): self.of(topic)[offset] for topic, offsets in wanted.items() for offset in offsets
        }

    def of(self, topic):
        """Offset -> the counted decision whose last record is there."""
        if topic not in self._decisions:
            self._decisions[topic] = {decision.offset: decision for decision in self._log.decisions(topic)}
        return self._decisions[topic]


class _AsBuilt(MemoryAppends):
    """The same over a `LogBuilder` that may still grow."""

    def of(self, topic):
        return {decision.offset: decision for decision in MemoryLog(self._log.records).decisions(topic)}


def explainer_over(log):
    """An explainer over a `LogBuilder`, without any contract."""
    return Explainer(_AsBuilt(log), lambda facts: explain_again(facts, ContractShelf()))


def fold(log, folder, crunch_id="engine"):
    """The read models of all topics of a log in memory; close them."""
    read = open_read_models(folder, "cluster", crunch_id)
    folder = Folder(read.all())
    for topic in folder.readers:
        for offset in range(log.end(topic)):
            folder.fold(topic, offset, log.record(topic, offset))
    folder.commit()
    return read


def explained(log, folder, contracts, crunch_id="engine"):
    """`.explainer`, `.read` and `.appends` over a log. `contracts` returns the contract of a hash."""
    appends = MemoryAppends(log)
    return SimpleNamespace(
        explainer=Explainer(appends, lambda facts: explain_again(facts, contracts)),
        read=fold(log, folder, crunch_id),
        appends=appends,
    )


def the(explanation, name):
    """The step of this name."""
    return next(step for step in explanation.steps if step.name == name)


def values(step):
    """Name -> exact value of a step's inputs and outputs."""
    return {value.name: value.exact for value in [*step.inputs, *step.result]}
