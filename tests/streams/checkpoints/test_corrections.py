"""Corrections of checkpoints that were offered or paid: the next checkpoint carries the difference, exactly once,
whatever happens in between.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st
from tests.streams.build import HOUR, PUBKEY, T0, TX_B, checkpoint_data, period_closed, snapshot
from tests.streams.checkpoints.test_checkpoint_commands import (
    CKP,
    NO,
    OTHER,
    STATUSES,
    advance,
    confirm,
    fail,
    history,
    outcome,
    stage,
)

from coordinator.projections.folding.projection import encode_row
from coordinator.streams import events as ev
from coordinator.streams.checkpoints import corrections
from coordinator.streams.checkpoints.corrections import correction_id
from coordinator.streams.checkpoints.prizes import prize_amounts, shares_of, shares_sha256
from coordinator.streams.contract import FRAC64_ONE, CrunchContract
from coordinator.streams.events.checkpoints import PayoutData, PoolPaid
from coordinator.streams.log import ids

POOL = 1_000_000_000
PERIOD = 6 * HOUR
WRONG = {"m1": (POOL, POOL - 300), "m2": (0, 200), "gone": (0, 100)}
"""model_id -> (paid, due)"""
CORRECTS = ("CheckpointCorrected", 200)
LIVE = CrunchContract(crunch_pubkey=PUBKEY)
TWO = [
    msgspec.structs.replace(checkpoint_data().ranking[0], model_id=model_id, rank=rank)
    for rank, model_id in enumerate("ab", start=1)
]
M1_PAID_ALL = shares_of(checkpoint_data())
HERS = "So11111111111111111111111111111111111111112"


def from_m1(**due):
    """m1, whom a checkpoint of these tests pays all of the pool, should have left these amounts to others."""
    return {"m1": (POOL, POOL - sum(due.values()))} | {
        model_id: (0, amount) for model_id, amount in due.items()
    }


def correct(
    amounts=WRONG,
    checkpoint_id=CKP,
    *,
    reason="a candle was wrong",
    total=POOL,
    name="correct",
    shares=M1_PAID_ALL,
):
    models = [
        ev.ModelCorrection(model_id=model_id, paid=paid, due=due)
        for model_id, (paid, due) in sorted(amounts.items())
    ]
    data = ev.CorrectCheckpointData(
        checkpoint_id=checkpoint_id, total_prize=total, models=models, reason=reason, shares=shares
    )
    return ev.CorrectCheckpoint(id=name, at=T0 + 2, data=data)


def close(scene, number, *, rehearsal=False):
    """The events of the end of the next period."""
    start = T0 + number * PERIOD
    scene.when(
        "snapshots",
        snapshot("m1", start, 2, rehearsal=rehearsal),
        snapshot("m2", start, 1, rehearsal=rehearsal),
        period_closed(start, start + PERIOD),
    )
    return scene


def carried(scene):
    """Corrections in the latest opened checkpoint: parent -> prizes."""
    return {credit.checkpoint_id: credit.prizes for credit in scene.only(ev.CheckpointOpened).data.credits}


def paid_scene(status="PAID"):
    return stage(*history(status), contract=LIVE)


@pytest.mark.parametrize("status", STATUSES)
def test_an_offered_checkpoint_can_be_corrected_and_a_withheld_one_cannot(status):
    scene = stage(*history(status), contract=LIVE)
    assert outcome(scene, correct()) == (NO if status == "WITHHELD" else CORRECTS)
    assert scene.stage.settlements.states[CKP].status == status
    if status == "WITHHELD":
        assert "release it" in scene.only(ev.CommandRefused).data.reason


def test_the_next_checkpoint_carries_the_difference_with_parent_and_reason_and_later_ones_do_not():
    scene = paid_scene()
    outcome(scene, correct())
    opened = close(scene, 1).only(ev.CheckpointOpened).data
    assert opened.credits == [
        ev.Credits(
            correction_id=correction_id(CKP, POOL, correct().data.models),
            checkpoint_id=CKP,
            reason="a candle was wrong",
            prizes={"gone": 100, "m2": 200},
        )
    ]
    assert sum(reward["reward_pct"] for reward in opened.emission["cruncher_rewards"]) == FRAC64_ONE
    assert carried(close(scene, 2)) == {}


def test_a_correction_does_not_change_the_emission():
    plain, corrected = paid_scene(), paid_scene()
    outcome(corrected, correct())
    without, with_credits = (close(scene, 1).only(ev.CheckpointOpened).data for scene in (plain, corrected))
    assert msgspec.structs.replace(with_credits, credits=[]) == without


def test_the_first_of_several_checkpoints_in_one_decision_carries_the_correction():
    scene = paid_scene()
    outcome(scene, correct())
    starts = [T0 + PERIOD, T0 + 2 * PERIOD]
    scene.when(
        "snapshots",
        *(snapshot("m1", start, 2) for start in starts),
        period_closed(starts[0], T0 + 3 * PERIOD),
    )
    assert [len(event.data.credits) for event in scene.made] == [1, 0]


def test_corrections_of_the_same_parent_and_content_are_one_whatever_their_text():
    scene = paid_scene()
    assert outcome(scene, correct()) == CORRECTS
    assert outcome(scene, correct(name="again")) == ("nothing", 200)
    assert outcome(scene, correct(reason="in other words", name="third")) == ("nothing", 200)
    close(scene, 1)
    assert outcome(scene, correct(name="fourth")) == ("nothing", 200)
    assert carried(close(scene, 2)) == {}


def test_an_old_command_repeated_after_a_newer_correction_does_not_bring_the_old_one_back():
    scene = paid_scene()
    assert outcome(scene, correct()) == CORRECTS
    assert outcome(scene, correct(from_m1(m2=50), name="newer")) == CORRECTS
    assert outcome(scene, correct()) == ("nothing", 200)  # its client did not learn that it was recorded
    assert carried(close(scene, 1)) == {CKP: {"m2": 50}}


def test_a_correction_of_a_correction_pays_the_rest_and_takes_nothing_back():
    scene = paid_scene()
    outcome(scene, correct())
    assert carried(close(scene, 1)) == {CKP: {"gone": 100, "m2": 200}}
    more = from_m1(m2=250, gone=50)
    assert outcome(scene, correct(more, name="second")) == CORRECTS
    assert carried(close(scene, 2)) == {CKP: {"m2": 50}}  # `gone` has 50 too much and keeps them
    assert outcome(scene, correct(name="back")) == CORRECTS  # the first statement again
    assert carried(close(scene, 3)) == {}


def test_a_wrong_correction_is_withdrawn_before_a_checkpoint_carries_it():
    scene = paid_scene()
    assert outcome(scene, correct({})) == ("nothing", 200)  # the original amounts were right after all
    outcome(scene, correct())
    assert outcome(scene, correct({}, name="nothing-was-wrong")) == CORRECTS
    assert carried(close(scene, 1)) == {}


def test_several_parents_are_separate_entries():
    scene = stage(*history("PAID"), *history("SUBMITTED", start=T0 + PERIOD, tx_hash="x"), contract=LIVE)
    outcome(scene, correct())
    outcome(scene, correct(from_m1(m2=7), OTHER, name="other"))
    assert carried(close(scene, 2)) == {CKP: {"gone": 100, "m2": 200}, OTHER: {"m2": 7}}


def test_a_carrier_is_corrected_like_any_other_and_what_it_carried_stays_carried():
    scene = paid_scene()
    outcome(scene, correct())
    assert carried(close(scene, 1)) == {CKP: {"gone": 100, "m2": 200}}
    # The carrier is corrected before it is paid, and its parent once more: two that are owed at the same time.
    assert outcome(scene, swapped(scene, OTHER, "carrier")) == CORRECTS
    assert outcome(scene, correct(from_m1(m2=230, gone=100), name="parent")) == CORRECTS
    assert carried(close(scene, 2)) == {CKP: {"m2": 30}, OTHER: {"m2": 9}}
    # The second carrier is corrected with the words of the first: another parent, so another statement.
    third = ids.checkpoint_id("btc-up", T0 + 2 * PERIOD, T0 + 3 * PERIOD)
    command = swapped(scene, third, "third")
    assert outcome(scene, command) == CORRECTS
    again = msgspec.structs.replace(command, id="third again")
    assert outcome(scene, again) == ("nothing", 200)
    assert carried(close(scene, 3)) == {third: {"m2": 9}}
    assert carried(close(scene, 4)) == {}


def swapped(scene, checkpoint_id, name):
    """m2 should have had 9 of what the checkpoint, whose scene is still open, pays m1."""
    data = scene.stage.settlements.states[checkpoint_id].data
    paid = dict(prize_amounts(data, POOL)[0])
    amounts = {"m1": (paid["m1"], paid["m1"] - 9), "m2": (paid["m2"], paid["m2"] + 9)}
    return correct(amounts, checkpoint_id, name=name, shares=shares_of(data))


def test_a_withheld_checkpoint_carries_nothing_until_its_release_and_another_may_carry_it_before():
    scene = paid_scene()
    outcome(scene, correct())
    hold = ev.WithholdCheckpointData(reason="look", period_at=T0 + PERIOD)
    scene.when("commands", ev.WithholdCheckpoint(id="hold", at=T0, data=hold))
    assert close(scene, 1).only(ev.CheckpointWithheld).data.checkpoint.credits == []
    the_id = ids.checkpoint_id("btc-up", T0 + PERIOD, T0 + 2 * PERIOD)
    free = ev.ReleaseCheckpoint(id="free", at=T0, data=ev.ReleaseCheckpointData(checkpoint_id=the_id))
    assert outcome(scene, free) == ("CheckpointOpened", 200)
    assert carried(scene) == {CKP: {"gone": 100, "m2": 200}}
    assert carried(close(scene, 2)) == {}


def test_a_rehearsal_does_not_carry_the_correction_of_a_real_checkpoint():
    scene = paid_scene()
    outcome(scene, correct())
    assert carried(close(scene, 1, rehearsal=True)) == {}
    assert carried(close(scene, 2)) == {CKP: {"gone": 100, "m2": 200}}


def test_a_corrected_rehearsal_is_never_paid_with_money():
    scene = stage(*history("PENDING", rehearsal=True), contract=LIVE)
    outcome(scene, correct())
    assert carried(close(scene, 1)) == {}
    assert carried(close(scene, 2, rehearsal=True)) == {CKP: {"gone": 100, "m2": 200}}


def test_a_checkpoint_whose_submission_failed_keeps_its_corrections_and_is_offered_with_them_again():
    scene = paid_scene()
    outcome(scene, correct())
    the_id = close(scene, 1).only(ev.CheckpointOpened).data.checkpoint_id
    assert outcome(scene, confirm(TX_B, the_id)) == ("CheckpointSubmitted", 200)
    assert outcome(scene, fail(TX_B, the_id)) == ("CheckpointSubmissionFailed", 200)
    assert scene.stage.settlements.states[the_id].data.credits
    assert carried(close(scene, 2)) == {}


def test_a_credited_model_that_is_not_ranked_has_a_payee_too():
    scene = paid_scene()
    outcome(scene, correct())
    the_id = close(scene, 1).only(ev.CheckpointOpened).data.checkpoint_id

    def bind(model_id):
        data = ev.BindPayeesData(checkpoint_id=the_id, payees={model_id: HERS})
        return ev.BindPayees(id=f"bind-{model_id}", at=T0, data=data)

    assert outcome(scene, bind("gone")) == ("PayeesBound", 200)
    assert outcome(scene, bind("nobody")) == ("refused", 422)


def test_a_model_that_was_banned_since_keeps_its_earnings():
    scene = paid_scene()
    outcome(scene, correct())
    scene.when("commands", ev.BanModel(id="ban", at=T0, data=ev.BanModelData(model_id="m2", reason="a copy")))
    assert carried(close(scene, 1)) == {CKP: {"gone": 100, "m2": 200}}


def test_a_correction_changes_no_status_and_its_parent_continues():
    scene = stage(*history("PENDING"), contract=LIVE)
    outcome(scene, correct())
    assert outcome(scene, confirm()) == ("CheckpointSubmitted", 200)
    assert outcome(scene, advance("CLAIMABLE")) == ("CheckpointClaimable", 200)
    assert outcome(scene, advance("PAID")) == ("CheckpointPaid", 200)
    assert carried(close(scene, 1)) == {CKP: {"gone": 100, "m2": 200}}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (correct(reason=""), "reason"),
        (correct(reason=" "), "reason"),
        (correct(reason="x" * 501), "reason"),
        (correct(total=0), "total_prize"),
        (correct(total=10**18 + 1), "total_prize"),
        (correct({"m1": (5, 5)}), "was right"),
        (correct({"m1": (-1, 5)}), "below 0"),
        (correct({"m1": (0, 10**4_299), "m2": (0, 9 * 10**4_299)}), "above 1000000000000000000"),
        (correct({"": (0, 5)}), "model_id"),
        (correct({"x" * 201: (0, 5)}), "model_id"),
        (correct({"a\x00": (0, 5)}), "model_id"),
        (correct({"m2": (0, 1)}), "due to all sums to 1000000001, more than the pool"),
        (correct({"m1": (0, POOL)}), "m1 was paid 1000000000 and not 0"),
        (correct({"m1": (POOL - 1, POOL)}), "m1 was paid 1000000000 and not 999999999"),
        (correct({"m1": (POOL, POOL - 1), "m2": (1, 2)}), "m2 was paid 0 and not 1"),
        (correct(total=POOL + 1), "m1 was paid 1000000001"),
        (correct(shares=None), "does not bring the shares"),
        (correct(shares=shares_of(checkpoint_data(ranking=TWO))), "does not bring the shares"),
        (correct({f"m{n}": (0, 1) for n in range(65_537)}), "more than 65536"),
    ],
)
@pytest.mark.parametrize("status", ["PENDING", "PAID"])
def test_an_invalid_correction_is_refused(command, what, status):
    """Whoever may write commands cannot make credits that nobody is owed, neither before nor after the payment."""
    scene = paid_scene(status)
    assert outcome(scene, command) == ("refused", 422)
    assert what in scene.only(ev.CommandRefused).data.reason


def test_models_named_twice_or_in_another_order_are_refused():
    command = correct()
    for models in (command.data.models[::-1], [command.data.models[0]] * 2):
        data = msgspec.structs.replace(command.data, models=models)
        assert outcome(paid_scene(), msgspec.structs.replace(command, data=data)) == ("refused", 422)


def test_a_correction_of_an_unknown_checkpoint_is_refused():
    assert outcome(paid_scene(), correct(checkpoint_id="ckp_none")) == ("refused", 404)


def test_a_refusal_does_not_repeat_a_long_id():
    """A correction may be large. Its refusal would be an event that no record can hold."""
    scene = paid_scene()
    assert outcome(scene, correct(checkpoint_id="c" * 7_000_000)) == ("refused", 404)
    assert len(scene.only(ev.CommandRefused).data.checkpoint_id) == 200


def test_the_shares_are_the_same_out_of_a_read_model():
    """The command reads them there, where the reasons in `unpaid` have another order."""
    pool = PoolPaid(
        name="all", weight=1, paid=[(0, 1, 10**18)], retained_parts=0, unpaid={"z": [2], "a": [1]}
    )
    decided = checkpoint_data(payout=PayoutData(pools=[pool], retained_frac64=0, retained_is="none"))
    read = msgspec.msgpack.decode(encode_row(decided), type=ev.CheckpointData)
    assert shares_sha256(shares_of(read)) == shares_sha256(shares_of(decided))


def test_credits_that_no_checkpoint_could_hold_are_refused_until_one_has_carried_them(monkeypatch):
    monkeypatch.setattr(corrections, "CREDITS_BYTES_MAX", 200)
    scene = stage(*history("PAID"), *history("SUBMITTED", start=T0 + PERIOD, tx_hash="x"), contract=LIVE)
    assert outcome(scene, correct()) == CORRECTS
    assert outcome(scene, correct(WRONG, OTHER, name="other")) == NO
    assert carried(close(scene, 2)) == {CKP: {"gone": 100, "m2": 200}}
    assert outcome(scene, correct(WRONG, OTHER, name="other again")) == CORRECTS


@settings(max_examples=60, deadline=None)
@any_of(
    st.lists(
        st.one_of(
            st.just("close"),
            st.just("hold"),
            st.tuples(*[st.integers(0, 50)] * 3).filter(lambda due: sum(due) <= 100),
        ),
        max_size=12,
    )
)
def test_no_model_gets_more_than_its_largest_statement_and_in_the_end_all_is_carried(steps):
    """For any order of statements, withholdings and checkpoints."""
    shares = (600_000_000, 400_000_000)
    rewards = [{"cruncher_index": place, "reward_pct": share} for place, share in enumerate(shares)]
    emission = checkpoint_data().emission | {"cruncher_rewards": rewards}
    parent = checkpoint_data(ranking=TWO, emission=emission)
    opened, *later = history("PAID")
    scene = stage(msgspec.structs.replace(opened, data=parent), *later, contract=LIVE)
    paid = {"a": 60, "b": 40, "c": 0}
    got: dict[str, int] = {}
    most: dict[str, int] = {}
    newest: dict[str, tuple[int, int]] = {}
    number = 0

    def closed():
        nonlocal number
        number += 1
        close(scene, number)
        for event in scene.made:
            for credit in event.data.credits if isinstance(event, ev.CheckpointOpened) else ():
                for model_id, amount in credit.prizes.items():
                    assert amount > 0
                    got[model_id] = got.get(model_id, 0) + amount

    for step, what in enumerate(steps):
        if what == "close":
            closed()
        elif what == "hold":
            data = ev.WithholdCheckpointData(reason="look", period_at=T0 + (number + 1) * PERIOD)
            scene.when("commands", ev.WithholdCheckpoint(id=f"hold{step}", at=T0, data=data))
        else:
            statement = dict(zip("abc", zip(paid.values(), what, strict=True), strict=True))
            amounts = {model_id: pair for model_id, pair in statement.items() if pair[0] != pair[1]}
            if (
                outcome(scene, correct(amounts, name=f"c{step}", total=100, shares=shares_of(parent)))[0]
                == "CheckpointCorrected"
            ):
                newest = amounts
                for model_id, (before, due) in amounts.items():
                    most[model_id] = max(most.get(model_id, 0), due - before)
    closed()  # this checkpoint may be withheld
    closed()
    assert all(amount <= most[model_id] for model_id, amount in got.items())
    for model_id, (before, due) in newest.items():
        assert got.get(model_id, 0) >= due - before


def test_a_state_with_corrections_is_written_and_read_back():
    scene = paid_scene()
    outcome(scene, correct())
    own = scene.stage.state.own
    again = msgspec.json.decode(msgspec.json.encode(own), type=type(own))
    assert again == own
    assert again.settlements.corrections.owed(rehearsal=False)[0].prizes == {"gone": 100, "m2": 200}
