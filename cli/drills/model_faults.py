"""Faults of models and of who runs them: one answers too much or never; the orchestrator is gone."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.scratch import ScratchNode

PREDICT = '''"""A model of a drill that misbehaves."""

from coordinator.scaffolds.challenge.tracker import TrackerBase


class Model(TrackerBase):
    """Misbehaves."""

    def predict(self, subject, horizon_seconds, step_seconds):
        """Never an answer."""
'''
BODIES = {
    "flood": "        return {'value': 0.1, 'more': 'x' * 3_000_000}\n",
    "hang": "        while True:\n            pass\n",
    "slow": "        import time\n\n        time.sleep(3)\n        return {'value': 0.1}\n",
    "memory": "        return {'value': float(len(bytearray(4_000_000_000)))}\n",
}
BLAMED_SECONDS_MAX = 90.0


def _misbehaves(how: str) -> Callable[[ScratchNode], None]:
    return lambda node: node.write_model("bad", PREDICT + BODIES[how])


def _is_blamed(node: ScratchNode) -> None:
    """The bad model has failed or been absent by its own fault, and the others are scored all the same."""

    def blamed() -> bool:
        failed = node.predictions("bad", "FAILED") + node.predictions("bad", "ABSENT")
        return bool(failed) and all(prediction["fault"] == "model" for prediction in failed)

    node.until(blamed, "the bad model is blamed", BLAMED_SECONDS_MAX)
    if not node.predictions("rising", "SCORED"):
        raise DrillFailedError("an honest model is not scored beside the bad one")


def _taken_off(node: ScratchNode) -> None:
    _is_blamed(node)
    node.command("models", "ban", "bad", "--reason", "a drill")


def _of_one_model(how: str, breaks: str) -> Drill:
    return Drill(
        name=f"model-{how}",
        breaks=breaks,
        holds="Its predictions fail by its own fault. The other models are scored.",
        inject=_misbehaves(how),
        end=_taken_off,
        ends_by="Nothing has to be done; `coordinator models ban MODEL` stops the model at once.",
    )


DRILLS = (
    _of_one_model("flood", "A model answers each round with three megabytes."),
    _of_one_model("hang", "A model never answers: it computes for ever."),
    _of_one_model("slow", "A model answers each round a second after its deadline."),
    _of_one_model("memory", "A model asks for four gigabytes of memory in each round; two are allowed."),
    Drill(
        name="orchestrator-gone",
        breaks="The orchestrator with all models is killed each time it starts.",
        alert="models",
        inject=lambda node: node.kill_in_a_loop("models"),
        end=ScratchNode.let_live,
        ends_by="Start the orchestrator again; in the drill the supervisor does it.",
    ),
)
