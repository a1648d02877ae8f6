"""The node watches itself: a broken invariant of its log is shown in the API and metrics, withheld by command, and sent
as an alert.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import httpx
import msgspec
import pytest
from tests.chain.rpc_server import rpc_server
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, TX_HASH, fold_into
from tests.posted import Posted
from tests.projections.test_checks import a_log, submitted
from tests.streams.golden_samples import SAMPLES
from tests.waiting import limit

from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.monitor import HOLE_MS_MAX, LAG_MS_MAX, Monitor
from coordinator.api.replay_check import ReplayCheck
from coordinator.api.watches import Watches
from coordinator.infra.log.scrub import LogScrub
from coordinator.infra.webhook import Webhook
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams import events as ev
from coordinator.streams.agents.owning.dead_letters import dead_letter
from coordinator.streams.log.envelope import Append, encode_append
from coordinator.streams.log.errors import CorruptTopicError, WorldError
from coordinator.streams.settings import Settings


class Commands:
    """A command port that stores what was sent. `broken` makes it fail."""

    def __init__(self):
        self.sent, self.broken = [], False

    async def send(self, command):
        if self.broken:
            raise WorldError("Kafka is away")
        self.sent.append(command)
        return len(self.sent) - 1


@pytest.fixture
async def node(tmp_path):
    """A monitor over a log in memory, with its API, its clock, its commands and a webhook on a real socket."""
    settings = Settings(data_dir=tmp_path, replay_check_seconds=3600)
    read = open_read_models(tmp_path, "cluster", "btc-up")
    projector = Projector(settings, read)
    projector._started = True
    # The decisions of this log do not record their sources, so nothing can be checked by them.
    projector.folder.on_decision = lambda _decision: None
    log, port = a_log(), Commands()
    clock = SimpleNamespace(now=START_MS + 100 * HOUR_MS)
    async with rpc_server(lambda _call: b"") as hook:
        webhook = Webhook(hook.url, wall_ms=lambda: 0)
        monitor = Monitor(projector, port, lambda: clock.now, Watches(webhook=webhook))
        app = create_app(settings, Sender(projector, port), monitor=monitor)
        posting = asyncio.create_task(webhook.run())
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url="http://127.0.0.1"
        ) as client:

            async def look(seconds=0):
                fold_into(projector.folder, log)
                clock.now += int(seconds * 1000)
                await monitor.look()
                return (await client.get("/reports/invariants")).json()

            async def posts(number):
                async with limit():
                    while len(hook.calls) < number:
                        await asyncio.sleep(0.01)
                return [(call["state"], call["kind"], call["name"]) for call in hook.calls]

            async def metric(line):
                return line in (await client.get("/metrics")).text

            yield SimpleNamespace(
                log=log, port=port, look=look, posts=posts, metric=metric, monitor=monitor, clock=clock,
                projector=projector, client=client, settings=settings,
            )  # fmt: skip
        posting.cancel()
    read.close()


def named(body):
    return {invariant["name"]: invariant for invariant in body["invariants"]}


async def test_a_sound_node_reports_that_all_hold_and_sends_nothing(node):
    body = await node.look()
    assert body["ok"] is True
    assert set(named(body)) == {
        "predictions", "rewards", "periods", "settlements", "lifecycles", "numbers", "replay",
    }  # fmt: skip
    assert named(body)["replay"]["checked"] is False
    assert node.port.sent == []
    assert [alert["kind"] for alert in body["alerts"]] == ["checkpoint"]  # the one that a_log withholds
    assert await node.metric('coordinator_invariant_ok{name="predictions"} 1.0')
    assert await node.metric('coordinator_alerts{kind="checkpoint"} 1.0')
    assert await node.metric(
        'coordinator_alerts{kind="stage"} 0.0'
    )  # each kind has its line also while it is off


def lose_a_prediction(log):
    log.append("predictions", log._opened("inp/BTCUSDT/9", START_MS, ["m1", "m2"], ["60s"]))
    log.append("predictions", *log._answers("inp/BTCUSDT/9", "60s", START_MS, {"m1": 0.5}))


def pay_too_little(log):
    log.checkpoint(12 * HOUR_MS, {"m1": 999_999_999})


def skip_a_period(log):
    log.snapshot("m1", START_MS + 4 * HOUR_MS, START_MS + 5 * HOUR_MS)


def pay_twice(log):
    log.append("checkpoints", submitted("ckp_1"), submitted("ckp_2", TX_HASH))


def move_illegally(log):
    log.append(
        "checkpoints",
        ev.CheckpointPaid(
            id="paid", at=START_MS, data=ev.CheckpointAdvancedData(checkpoint_id="ckp_x", command_id="c")
        ),
    )


BREAKS = {
    "predictions": lose_a_prediction,
    "rewards": pay_too_little,
    "periods": skip_a_period,
    "settlements": pay_twice,
    "lifecycles": move_illegally,
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_broken_invariant_is_shown_measured_withheld_and_sent(node, name):
    await node.look()
    BREAKS[name](node.log)
    body = await node.look(5)
    assert body["ok"] is False
    assert name in body["withholding"]
    assert named(body)[name]["ok"] is False
    assert named(body)[name]["detail"]
    assert await node.metric(f'coordinator_invariant_ok{{name="{name}"}} 0.0')
    withheld = [command for command in node.port.sent if isinstance(command, ev.WithholdCheckpoint)]
    assert f"invariant {name!r} is broken" in " ".join(command.data.reason for command in withheld)
    assert ("firing", "invariant", name) in await node.posts(2)


async def test_a_skipped_number_counts_after_the_owner_had_time_to_claim_again(node):
    await node.look()
    skipped = Append(e=1, epoch=1, seq=999, part=(1, 1), events=msgspec.Raw(b"[]"))
    node.log.records["scores"].append(encode_append(skipped))
    assert named(await node.look())["numbers"]["ok"] is True
    numbers = named(await node.look(HOLE_MS_MAX / 1000))["numbers"]
    assert numbers["ok"] is False
    assert "999" in numbers["detail"]
    assert len(node.port.sent) == 1
    assert ("firing", "invariant", "numbers") in await node.posts(2)
    node.log.records["scores"].append(encode_append(Append(e=1, epoch=2, seq=0, claim="next")))
    assert named(await node.look())["numbers"]["ok"] is True
    assert ("resolved", "invariant", "numbers") in await node.posts(3)


async def test_while_it_stays_broken_each_checkpoint_is_withheld_by_one_command(node):
    lose_a_prediction(node.log)
    for _ in range(4):
        await node.look(5)
    assert len(node.port.sent) == 1
    assert node.port.sent[0].data.period_at is None  # the next one
    node.log.checkpoint(12 * HOUR_MS, {"m1": 1_000_000_000}, withheld="withheld by command")
    await node.look(5)
    await node.look(5)
    assert len(node.port.sent) == 2
    assert node.port.sent[0].id != node.port.sent[1].id


async def test_a_command_that_could_not_be_sent_is_reported_and_sent_later(node):
    lose_a_prediction(node.log)
    node.port.broken = True
    body = await node.look()
    assert "command" in {alert["kind"] for alert in body["alerts"]}
    node.port.broken = False
    body = await node.look(5)
    assert "command" not in {alert["kind"] for alert in body["alerts"]}
    assert len(node.port.sent) == 1


async def test_a_feed_that_stands_still_is_reported_and_its_recovery_too(node):
    node.log.tick(START_MS)
    await node.look()
    assert "feed" in {alert["kind"] for alert in (await node.look(300))["alerts"]}
    node.log.tick(START_MS + MINUTE_MS)
    assert "feed" not in {alert["kind"] for alert in (await node.look(5))["alerts"]}


async def test_a_feed_that_has_ended_is_no_alarm(node):
    node.log.tick(START_MS)
    data = ev.FeedStateChangedData(source="candles", state="ended", reason="the file is read")
    node.log.append("feeds", ev.FeedStateChanged(id="s", at=START_MS, data=data))
    await node.look()
    assert "feed" not in {alert["kind"] for alert in (await node.look(3000))["alerts"]}


async def test_a_source_that_lacks_a_subject_or_is_refused_is_reported_and_one_that_is_away_after_a_while(
    node,
):
    async def told(seconds: float = 1) -> list[str]:
        return [
            alert["text"]
            for alert in (await node.look(seconds))["alerts"]
            if alert["name"].startswith("source")
        ]

    node.log.feed_state("connected", START_MS)
    assert await told() == []
    node.log.feed_state("degraded", START_MS, "nothing has come of ETHUSDT depth 1s for over 300 s")
    assert await told() == ["generated is degraded: nothing has come of ETHUSDT depth 1s for over 300 s"]
    node.log.feed_state("refused", START_MS + 1, "status 451: not from here")
    assert await told() == ["generated is refused: status 451: not from here"]
    node.log.feed_state("reconnecting", START_MS + 2, "silent for 60 s")
    assert await told() == []
    assert await told(300) == ["generated is reconnecting: silent for 60 s"]
    node.log.feed_state("connected", START_MS + 3)
    assert await told(300) == []


async def test_an_alert_makes_the_node_degraded_while_its_process_is_healthy(node):
    """A supervisor that restarts by the code does nothing, and a reader of the status sees it."""
    answer = await node.client.get("/healthz")
    assert (answer.status_code, answer.json()["status"], answer.json()["alerts"]) == (200, "ok", [])
    await node.look()
    answer = await node.client.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert len(answer.json()["alerts"]) == 1  # the checkpoint that a_log withholds


async def test_a_record_altered_by_the_disk_withholds_with_topic_and_offset(node):
    node.monitor.scrub = LogScrub("nowhere:1", "btc-up", 0)
    finding = named(await node.look())["log"]
    assert (finding["ok"], finding["checked"]) == (True, False)
    node.monitor.scrub.damage["inputs"] = str(CorruptTopicError("btc-up.inputs", 7, "its checksum is wrong"))
    body = await node.look()
    assert "topic btc-up.inputs cannot be read at offset 7" in named(body)["log"]["detail"]
    assert "topics restore" in named(body)["log"]["detail"]
    assert body["withholding"] == ["log"]
    assert ("firing", "invariant", "log") in await node.posts(2)
    node.monitor.scrub.damage.clear()
    assert (await node.look())["ok"] is True


async def test_a_lost_blob_is_reported_and_withholds_nothing(node):
    node.monitor.scrub = LogScrub("nowhere:1", "btc-up", 0)
    node.monitor.scrub.lost["abc"] = "blob abc is missing; btc-up.inputs at offset 7 names it"
    body = await node.look()
    assert ("blob", "abc") in {(alert["kind"], alert["name"]) for alert in body["alerts"]}
    assert (body["ok"], body["withholding"]) == (True, [])
    node.monitor.scrub.lost.clear()
    assert "blob" not in {alert["kind"] for alert in (await node.look())["alerts"]}


async def test_each_worker_stopped_by_a_record_is_reported_by_name_with_the_record(node):
    for worker, record in (
        ("score", "inputs offset 7"),
        ("predict", "models offset 2"),
        ("../x", "a stranger's"),
    ):
        node.log.append("dead-letters", dead_letter("log", worker, f"{record}: too new", b"", node.clock.now))
    node.log.append("dead-letters", dead_letter("commands", "3", "no such kind", b"{}", node.clock.now))
    alerts = {
        alert["name"]: alert["text"] for alert in (await node.look())["alerts"] if alert["kind"] == "log"
    }
    assert alerts == {
        "score": "the score worker stands still: inputs offset 7: too new",
        "predict": "the predict worker stands still: models offset 2: too new",
        "commands": "a command was not taken: offset 3: no such kind",
    }


async def test_a_flood_of_unreadable_records_is_reported_and_ends_after_a_minute(node):
    def letters(count, first):
        for number in range(first, first + count):
            node.log.append(
                "dead-letters", dead_letter("file", f"line {number}", "no JSON", b"{", node.clock.now)
            )

    letters(99, 0)
    assert "flood" not in {alert["name"] for alert in (await node.look())["alerts"]}
    letters(1, 99)
    texts = {alert["name"]: alert["text"] for alert in (await node.look())["alerts"]}
    assert texts["flood"] == (
        "100 records and more within 60 s could not be read and were set aside: look at `coordinator dead-letters list`, "
        "and repair what the source sends. The last one: no JSON"
    )
    assert "flood" not in {alert["name"] for alert in (await node.look(61))["alerts"]}


async def test_one_price_a_hundred_times_too_high_is_reported(node):
    for minute, price in enumerate(("8759", "8769", "877900", "8779")):
        node.log.record(START_MS + minute * MINUTE_MS, price=price)
    (alert,) = [listed for listed in (await node.look())["alerts"] if listed["name"].startswith("price")]
    assert "is 100 times the 8769 before" in alert["text"]


async def test_lag_that_lasts_is_reported(node):
    await node.look()
    node.projector._ends["scores"] = 10**6
    assert "lag" not in {alert["kind"] for alert in (await node.look())["alerts"]}
    assert "lag" in {alert["kind"] for alert in (await node.look(LAG_MS_MAX / 1000))["alerts"]}


async def test_an_unpaid_checkpoint_is_reported_and_a_rehearsal_is_not(node):
    data = msgspec.structs.replace(
        node.log.checkpoint_data(12 * HOUR_MS, {"m1": 1_000_000_000}), rehearsal=False
    )
    node.log.append("checkpoints", ev.CheckpointOpened(id="x", at=node.clock.now, data=data))
    await node.look()
    body = await node.look(node.settings.unpaid_alert_seconds)
    unpaid = [alert["name"] for alert in body["alerts"] if alert["name"].startswith("unpaid")]
    assert unpaid == [f"unpaid {data.checkpoint_id}"]


async def test_a_truth_corrected_after_its_checkpoint_is_reported_until_the_checkpoint_is_corrected(node):
    posted = Posted(node.log)
    posted.post("week-1", "late")
    posted.post("week-1", "soon")
    for question in ("late", "soon"):
        posted.ask("week-1", question)
        posted.resolve("week-1", question, HOUR_MS, {"outcome": 1})
    posted.resolve("week-1", "soon", 2 * HOUR_MS, {"outcome": 0}, revision=1)
    await node.look()
    data = node.log.checkpoint_data(0, {"m1": 1_000_000_000})
    node.log.append("checkpoints", ev.CheckpointOpened(id="x", at=node.clock.now, data=data))

    def told(body):
        return [alert["text"] for alert in body["alerts"] if alert["name"].startswith("truth")]

    assert told(await node.look()) == []
    late_at = data.period_end - START_MS + 60_000
    posted.resolve("week-1", "late", late_at, {"outcome": 0}, revision=1)
    (text,) = told(await node.look())
    assert text == (
        f"the truth of week-1/late was corrected after {data.checkpoint_id} was built: "
        f"coordinator checkpoint correct {data.checkpoint_id} --reason TEXT --total-prize MICRO_USDC"
    )
    corrected = ev.CheckpointCorrected(
        id="y",
        at=START_MS + late_at + 1,
        data=msgspec.structs.replace(SAMPLES["CheckpointCorrected"].data, checkpoint_id=data.checkpoint_id),
    )
    node.log.append("checkpoints", corrected)
    assert told(await node.look()) == []


async def test_a_request_before_the_first_check_has_no_consequence(node):
    lose_a_prediction(node.log)
    fold_into(node.projector.folder, node.log)
    body = (await node.client.get("/reports/invariants")).json()
    assert body["ok"] is False
    assert body["looked_at"] is None
    assert node.port.sent == []


# --- replayed hash = live hash -----------------------------------------------------------------------------

VERDICT = (
    '{{"equal":{equal},"verdicts":[{{"projection":"models","equal":{equal},"kept":"a","recomputed":"a",'
    '"replayed":"b","reason":"{reason}"}}],"replay":{{"events":1,"records":1,"seconds":1.0,'
    '"events_per_second":1.0,"duplicates_ignored":0,"state_hash":{{}}}}}}'
)


def says(node, text, code):
    """A replay check whose command prints this and exits with this code."""
    script = f"import sys; print({text!r}); sys.exit({code})"
    check = ReplayCheck(node.settings, (sys.executable, "-c", script))
    node.monitor.replay_check = check
    return check


async def test_a_read_model_that_differs_from_the_log_is_an_alert_and_withholds_no_payment(node):
    await says(node, VERDICT.format(equal="false", reason="the log gives other rows"), 1).check("models")
    body = await node.look()
    assert "models: the log gives other rows (to rebuild it, " in named(body)["replay"]["detail"]
    assert (body["ok"], body["withholding"], node.port.sent) == (False, [], [])
    assert [(alert["kind"], alert["name"]) for alert in body["alerts"] if alert["name"] == "replay"] == [
        ("invariant", "replay")
    ]


async def test_a_replay_with_the_same_hash_passes(node):
    await says(node, VERDICT.format(equal="true", reason=""), 0).check("models")
    replay = named(await node.look())["replay"]
    assert (replay["ok"], replay["checked"], replay["counts"]["equal"]) == (True, True, 1)


@pytest.mark.parametrize(("text", "code"), [("", 3), ("no json", 0), ("", 70), ("{}", 1)])
async def test_a_replay_that_could_not_be_made_is_reported_and_breaks_nothing(node, text, code):
    await says(node, text, code).check("models")
    replay = named(await node.look())["replay"]
    assert replay["ok"] is True
    assert "could not be checked" in replay["detail"]
    assert node.port.sent == []


DAMAGED = '{"equal":false,"verdicts":[],"replay":null,"log_fault":"topic x cannot be read at offset 7"}'


async def test_a_log_altered_by_the_disk_withholds_until_it_is_whole_again(node):
    await says(node, DAMAGED, 1).check("models")
    body = await node.look()
    assert named(body)["replay"]["detail"] == "models: topic x cannot be read at offset 7"
    assert body["withholding"] == ["replay"]
    assert len(node.port.sent) == 1
    script = f"print({VERDICT.format(equal='true', reason='')!r})"
    node.monitor.replay_check._command = (sys.executable, "-c", script)
    await node.monitor.replay_check.check("models")
    assert (await node.look())["withholding"] == []


async def test_a_check_that_died_proves_nothing_about_the_log(node):
    script = "raise MemoryError('no room for topic x at offset 7')"
    node.monitor.replay_check = ReplayCheck(node.settings, (sys.executable, "-c", script))
    await node.monitor.replay_check.check("models")
    replay = named(await node.look())["replay"]
    assert replay["ok"] is True
    assert "could not be checked (exit 1)" in replay["detail"]
    assert node.port.sent == []


async def test_a_process_that_cannot_be_started_is_reported_and_breaks_nothing(node):
    node.monitor.replay_check = ReplayCheck(node.settings, ("/nowhere/at/all",))
    await node.monitor.replay_check.check("models")
    replay = named(await node.look())["replay"]
    assert (replay["ok"], replay["checked"]) == (True, False)
    assert "could not be checked" in replay["detail"]


async def test_an_empty_read_model_is_not_compared(node):
    check = says(node, VERDICT.format(equal="false", reason="has no positions"), 1)
    check._folded = node.projector.has_folded
    await check.check("models")  # nothing is folded on this node yet
    assert check.checks == 0
    await node.look()
    await check.check("predictions")
    assert check.checks == 1
