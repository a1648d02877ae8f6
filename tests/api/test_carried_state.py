"""`GET /reports/models/{id}/state`, and the state in a prediction's row."""

from __future__ import annotations

from tests.logs import MINUTE_MS, START_MS

from coordinator.api.times import naive
from coordinator.streams.log import ids


async def test_the_state_of_a_model_is_answered_with_its_round(api):
    last = 510 * MINUTE_MS
    assert await api.get("/reports/models/m1/state") == [
        {
            "subject": "BTCUSDT",
            "scope_key": "60s",
            "state": {"position": 510},
            "shared": 510,
            "changed_at": naive(START_MS + last + MINUTE_MS),
            "changed_by_input_id": ids.input_id("BTCUSDT", START_MS + last),
        }
    ]


async def test_a_model_without_state_has_no_rows_and_an_unknown_model_is_not_found(api):
    assert await api.get("/reports/models/m2/state") == []
    assert (await api.client.get("/reports/models/nobody/state")).status_code == 404


async def test_a_prediction_has_the_state_after_its_round(api):
    rows = await api.get("/reports/predictions?projectIds=m1&projectIds=m2&status=SCORED")
    states = {(row["model_id"], row["input_id"]): row["state"] for row in rows}
    for (model_id, input_id), state in states.items():
        minute = (int(input_id.rpartition("/")[2]) - START_MS) // MINUTE_MS
        carried = model_id == "m1" and minute < 540
        assert state == ({"position": minute} if carried else None), (model_id, minute)


async def test_as_of_an_hour_the_state_is_that_of_the_hour(api):
    rows = await api.get(f"/reports/models/m1/state?as_of={START_MS + 61 * MINUTE_MS}")
    assert [row["state"] for row in rows] == [{"position": 60}]
