"""Every event of `models` has a unique id, also while the feed's clock stands still.

Found by `coordinator simulate --seed 25 --rounds 1`: a model left and was seen again before the first tick.
"""

from __future__ import annotations

from coordinator.streams.events import ModelLeft, ModelSeen
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.ports import ModelInfo, ModelNotice

INFO = ModelInfo("m1", "one", "m1-1", "c1", "c1")


def test_a_model_may_leave_and_be_seen_several_times_in_one_instant():
    stage = ModelStage()
    events = []
    for change in ("seen", "left") * 3:
        draft = stage.offer([ModelNotice(change, INFO, reason="stopped")], 7)
        assert draft is not None
        stage.remember(draft)
        events += draft.events
    assert [type(event) for event in events] == [ModelSeen, ModelLeft] * 3
    assert len({event.id for event in events}) == 6
