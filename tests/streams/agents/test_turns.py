import asyncio

from coordinator.streams.agents.predict.asking import Asking, Turn


def a_round(seconds: float) -> Asking:
    asking = Asking.__new__(Asking)
    asking._monotonic = asyncio.get_running_loop().time
    asking._until = asking._monotonic() + seconds
    return asking


async def test_a_free_model_is_asked_at_once_and_without_a_timer(monkeypatch):
    monkeypatch.setattr(asyncio, "timeout", None)
    turn = Turn(0.0)
    assert await a_round(10)._has_turn(turn)
    assert turn.lock.locked()


async def test_rounds_get_their_turn_in_order_of_arrival():
    turn, order = Turn(0.0), []

    async def ask(name: str) -> None:
        assert await a_round(10)._has_turn(turn)
        order.append(name)
        turn.lock.release()

    assert await a_round(10)._has_turn(turn)
    first = asyncio.create_task(ask("first"))
    await asyncio.sleep(0)
    turn.lock.release()  # the first is woken but has not run yet
    await asyncio.gather(ask("second"), first)
    assert order == ["first", "second"]


async def test_a_round_whose_time_is_over_gets_no_turn_at_a_busy_model():
    turn = Turn(0.0)
    assert await a_round(10)._has_turn(turn)
    assert not await a_round(-1)._has_turn(turn)
    assert turn.waiting == 0
