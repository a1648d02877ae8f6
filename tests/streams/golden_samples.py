"""One event of each kind, in which no field has its default: the content of the golden files.

A new kind needs an entry here; then COORDINATOR_WRITE_GOLDEN=1 writes its file, once.
"""

from __future__ import annotations

import msgspec
from tests.streams.build import HASH, T0, TX_A, checkpoint_data, configured, tick

from coordinator.streams import events as ev

_FEED = {"source": "binance", "subject": "BTCUSDT", "kind": "candle", "granularity": "1m"}
_SCOPE = ev.Scope(
    together=["BTCUSDT", "ETHUSDT"],
    scope_key="60s",
    subject="BTCUSDT",
    horizon_seconds=60,
    step_seconds=15,
    interval_seconds=60,
    order=1,
)

QUESTION = ev.PostedQuestion(
    question_id="q1",
    payload=msgspec.Raw(b'{"title":"Will it rain?"}'),
    opens_at=T0,
    closes_at=T0 + 60_000,
    tags=["Weather"],
    resolves_at=T0 + 120_000,
    resolves_by="BTCUSDT",
    blob=ev.Blob(
        sha256=HASH,
        bytes=512,
        media_type="application/vnd.apache.parquet",
        columns=[("id", "string")],
        rows=3,
    ),
)

_CHECKPOINT = checkpoint_data(
    ranking=[
        ev.RankedEntry(
            model_id="m1", rank=1, key_units=5, prediction_count=60, snapshot_count=6,
            result_summary_units={"value": 5}, failed_count=1, absent_count=2, rounds_count=63,
            cruncher_id="c1", counts={"1h": 60}, first_point=T0,
        )
    ],
    unranked=["m2"],
    unranked_reasons={"m2": "never scored in the period"},
    emission_contract_hash=HASH,
    payout=ev.PayoutData(
        pools=[ev.PoolPaid(name="1h", weight=1, paid=[(0, 1, 3)], retained_parts=7, unpaid={"a benchmark": [0]})],
        retained_frac64=700_000_000,
        retained_is="left",
    ),
    credits=[
        ev.Credits(correction_id="correction/1", checkpoint_id="ckp_0", reason="a candle was wrong", prizes={"m3": 7})
    ],
)  # fmt: skip

_EVENTS: list[ev.AnyEvent] = [
    ev.TopicBorn(
        id="birth/b1/feeds",
        at=T0,
        data=ev.TopicBornData(
            crunch_id="btc-up", topic="feeds", format=1, birth_id="b1", before="b0", copy_of="eth-up"
        ),
    ),
    configured(
        scopes=[_SCOPE],
        min_participation=0.25,
        newcomer_excuse_max=0.25,
        newcomer_past="worst",
        coverage=ev.CoverageTerms(share=0.85, hours=336, rounds=1),
        checkpoint_offset_ms=3_600_000,
        boards=[
            ev.BoardTerms(
                name="1h",
                window="score_recent",
                parts=[ev.BoardPart("BTCUSDT", "60s", "7")],
                every_scope=False,
                of_scores=True,
            )
        ],
        ensembles=[ev.EnsembleTerms(name="best", hours=24, error_field="error", weighs_metrics=True)],
        calendar=ev.CalendarTerms(
            zone="Europe/Zurich", weekday=0, minute=720, unpaid_until=T0, ends_at=T0 + 10 * 86_400_000
        ),
        scoring_hash="s" * 64,
        answers_hidden_until="recorded",
        absence_policy="percentile",
        absence_units=-5,
        absence_percent=12.5,
        input_records_max=500,
        questions=ev.QuestionTerms(
            scopes=[ev.QuestionScope(scope_key="weather", tags=["Weather"])],
            counts="mean",
            ask_again_ms=3_600_000,
            ask_again_on_change=False,
            ask_missing_ms=60_000,
        ),
        goes_on=True,
    ),
    ev.FeedRecordReceived(
        id="feed/1",
        at=T0,
        data=ev.FeedRecordData(
            **_FEED, ts_event=T0 - 60_000, values={"close": "1.50"}, revision=2, backfilled=True
        ),
    ),
    ev.FeedGapFound(
        id="gap/1",
        at=T0,
        data=ev.FeedGapData(**_FEED, from_ms=1, until_ms=2, reason="no record came in time"),
    ),
    ev.FeedGapClosed(
        id="gap-closed/1",
        at=T0,
        data=ev.FeedGapClosedData(
            **_FEED, from_ms=1, until_ms=2, complete=True, reason="all its records are there"
        ),
    ),
    ev.FeedStateChanged(
        id="feed-state/1",
        at=T0,
        data=ev.FeedStateChangedData(source="binance", state="reconnecting", reason="status 429"),
    ),
    tick(T0, rehearsal=True),
    ev.QuestionPosted(
        id="question/week-1/q1/r0",
        at=T0,
        data=ev.QuestionPostedData(round_id="week-1", question=QUESTION, revision=1),
    ),
    ev.QuestionClosed(
        id="question/week-1/q1:closed",
        at=T0,
        data=ev.QuestionClosedData(round_id="week-1", question_id="q1"),
    ),
    ev.QuestionResolved(
        id="question/week-1/q1:resolved/r0",
        at=T0,
        data=ev.QuestionResolvedData(
            round_id="week-1", question_id="q1", truth=msgspec.Raw(b'{"outcome":1}'), revision=1
        ),
    ),
    ev.QuestionVoided(
        id="question/week-1/q1:voided",
        at=T0,
        data=ev.QuestionVoidedData(round_id="week-1", question_id="q1", reason="it was annulled", revision=1),
    ),
    ev.PostReceived(
        id="post/questions/aa",
        at=T0,
        data=ev.PostReceivedData(
            source="questions", sha256="aa", refused=[("week-1/q2", "no such question is known")]
        ),
    ),
    ev.StakesPosted(id="stakes/1", at=T0, data=ev.StakesPostedData(stakes={"7": "12.5"})),
    ev.InputClosed(
        id="inp/questions/week-1/q1:closed",
        at=T0,
        data=ev.InputClosedData(input_id="inp/questions/week-1/q1", askings=2, stakes={"7": "12.5"}),
    ),
    ev.TruthRefused(
        id="inp/questions/week-1/q1:refused/r0",
        at=T0,
        data=ev.TruthRefusedData(
            input_id="inp/questions/week-1/q1", revision=0, reason="outcome: Input should be a number"
        ),
    ),
    ev.InputReceived(
        id="inp/BTCUSDT/1:received",
        at=T0,
        data=ev.InputReceivedData(
            input_id="inp/BTCUSDT/1",
            subject="BTCUSDT",
            point=T0,
            deadline_at=T0 + 10_000,
            scopes=[
                ev.InputScope(scope_key="60s", horizon_seconds=60, step_seconds=15, resolvable_at=T0 + 60_000)
            ],
            contract_hash=HASH,
            rehearsal=True,
            payload=msgspec.Raw(b'{"symbol":"BTCUSDT","candles":[{"ts":1,"close":0.1}]}'),
            history=ev.InputHistory(
                feed=ev.Feed(source="generated", kind="candle", granularity="1m"),
                since={"BTCUSDT": T0 - 60_000},
            ),
            question=ev.QuestionAsked(
                input_id="inp/questions/week-1/q1",
                round_id="week-1",
                question_id="q1",
                asking=1,
                whom="all",
                opens_at=T0,
                closes_at=T0 + 60_000,
                tags=["Weather"],
                resolves_at=T0 + 120_000,
                resolves_by="BTCUSDT",
                revision=1,
                blob=QUESTION.blob,
            ),
        ),
    ),
    ev.InputOpenedOverGap(
        id="inp/BTCUSDT/1:over-gap",
        at=T0,
        data=ev.InputOpenedOverGapData(
            input_id="inp/BTCUSDT/1",
            subject="BTCUSDT",
            point=T0,
            gaps=[ev.GapSpan(from_ms=T0 - 120_000, until_ms=T0 - 60_000)],
        ),
    ),
    ev.InputResolved(
        id="inp/BTCUSDT/1:resolved:60s",
        at=T0,
        data=ev.InputResolvedData(
            input_id="inp/BTCUSDT/1",
            horizon_seconds=60,
            resolvable_at=T0,
            truth={"return": -0.125, "direction_up": False},
            reason=None,
            last=True,
            revision=1,
            void=True,
        ),
    ),
    ev.InputsUntil(
        id="inputs-until/1",
        at=T0,
        data=ev.InputsUntilData(
            until=T0,
            clock=T0 + 1,
            rehearsal=True,
            skipped=[
                ev.SkippedPoints(
                    subject="BTCUSDT", scope_key="60s", from_point=1, until_point=2, count=2, reason="late"
                )
            ],
        ),
    ),
    ev.RoundOpened(
        id="inp/BTCUSDT/1:opened",
        at=T0,
        data=ev.RoundOpenedData(
            input_id="inp/BTCUSDT/1",
            roster=[ev.RosterEntry(model_id="7", deployment_id="d1", cruncher_id="c1")],
            scope_keys=["60s"],
            clock=T0,
            contract_hash=HASH,
            models_seq=1,
            history=ev.RoundHistory(
                subject="BTCUSDT", models=[0], sha256="a" * 64, reason="build_input: ValueError: too long"
            ),
            performance=ev.RoundPerformance(snapshots_seq=3, sha256="b" * 64),
            closes_at=T0 + 60_000,
        ),
    ),
    ev.ScopeAnswered(
        id="inp/BTCUSDT/1/60s:answers/0",
        at=T0,
        data=ev.ScopeAnsweredData(
            input_id="inp/BTCUSDT/1",
            scope_key="60s",
            models=[0, 1, 3, 4],
            outputs=[msgspec.Raw(b'{"value":-0.5}'), ev.NO_OUTPUT, ev.NO_OUTPUT, ev.NO_OUTPUT],
            exec_times_us=[900, 3, 0, 7],
            unanswered=[ev.Unanswered(1, "FAILED", "model", 0), ev.Unanswered(2, "ABSENT", "node", 1)],
            reasons=["BAD_OUTPUT: ", "DEADLINE: "],
            deployments=[(0, "d2")],
            blobs=[(3, ev.Blob(sha256=HASH, bytes=2_000_000, media_type="application/json"))],
        ),
    ),
    ev.RoundAnsweredInPart(
        id="inp/BTCUSDT/1:part/0",
        at=T0,
        data=ev.RoundAnsweredInPartData(input_id="inp/BTCUSDT/1", models=[0, 2], clock=T0),
    ),
    ev.RoundAnswered(
        id="inp/BTCUSDT/1:answered", at=T0, data=ev.RoundAnsweredData(input_id="inp/BTCUSDT/1", clock=T0)
    ),
    ev.AnswersClosed(
        id="inp/questions/week-1/q1:answers-closed",
        at=T0,
        data=ev.AnswersClosedData(
            input_id="inp/questions/week-1/q1", rounds=["", "~2", "~s0123456789ab"], clock=T0
        ),
    ),
    ev.ModelSeen(
        id="model-seen/1",
        at=T0,
        data=ev.ModelSeenData(
            model_id="7",
            model_name="trend",
            deployment_id="d1",
            cruncher_id="c1",
            cruncher_name="ann",
            wallet_pubkey="wallet",
            hotkey="hot",
        ),
    ),
    ev.ModelLeft(
        id="model-left/1", at=T0, data=ev.ModelLeftData(model_id="7", deployment_id="d1", reason="STOPPED")
    ),
    ev.ModelBanned(id="model-banned/1", at=T0, data=ev.ModelBannedData(model_id="7", reason="by hand")),
    ev.ModelReadmitted(
        id="model-readmitted/1",
        at=T0,
        data=ev.ModelReadmittedData(model_id="7", reason="mended"),
    ),
    ev.ApplyContract(
        id="cmd/0",
        at=T0,
        data=ev.ApplyContractData(
            contract_hash=HASH,
            path="rules.contracts:CONTRACT",
            archive=b"{}",
            settings=ev.TermSettings(
                feed_source="binance",
                feed_kind="candle",
                feed_granularity="1m",
                feed_subjects=["BTCUSDT"],
                snapshot_interval_seconds=3600,
                checkpoint_interval_seconds=604_800,
                checkpoint_offset_seconds=345_600,
            ),
        ),
    ),
    ev.PostQuestions(id="cmd/3", at=T0, data=ev.PostQuestionsData(round_id="week-1", questions=[QUESTION])),
    ev.CloseQuestions(id="cmd/4", at=T0, data=ev.CloseQuestionsData(round_id="week-1", question_ids=["q1"])),
    ev.ResolveQuestions(
        id="cmd/5",
        at=T0,
        data=ev.ResolveQuestionsData(
            round_id="week-1", truths={"q1": msgspec.Raw(b'{"outcome":1}')}, again=True
        ),
    ),
    ev.VoidQuestions(
        id="cmd/6",
        at=T0,
        data=ev.VoidQuestionsData(round_id="week-1", reason="it was annulled", question_ids=["q1"]),
    ),
    ev.PostStakes(id="cmd/7", at=T0, data=ev.StakesPostedData(stakes={"7": "12.5"})),
    ev.SubmitAnswers(
        id="cmd/8",
        at=T0,
        data=ev.SubmitAnswersData(
            round_id="week-1",
            model_id="7",
            cruncher_id="c1",
            answers=[
                ev.SubmittedAnswer(
                    question_id="q1",
                    scope_key="question",
                    output=msgspec.Raw(b'{"value":0.5}'),
                    blob=QUESTION.blob,
                )
            ],
            sha256=HASH,
        ),
    ),
    ev.BanModel(id="cmd/1", at=T0, data=ev.BanModelData(model_id="7", reason="by hand")),
    ev.ReadmitModel(id="cmd/2", at=T0, data=ev.ReadmitModelData(model_id="7", reason="mended")),
    ev.ModelFailureReported(
        id="model-failed/1",
        at=T0,
        data=ev.ModelFailureData(
            model_id="7", deployment_id="d1", code="BAD_IMPLEMENTATION", reason="raises"
        ),
    ),
    ev.RoundScored(
        id="inp/BTCUSDT/1/60s:scored",
        at=T0,
        data=ev.RoundScoredData(
            input_id="inp/BTCUSDT/1",
            scope_key="60s",
            subject="BTCUSDT",
            point=T0,
            resolvable_at=T0 + 60_000,
            horizon_seconds=60,
            rehearsal=True,
            contract_hash=HASH,
            models=["7", "8", "9"],
            crunchers=["c1", "", ""],
            units={"value": [-250_000_000, None, None]},
            unscored=[
                ev.Unscored(1, "ABSENT", "model", -1_000_000_000),
                ev.Unscored(2, "FAILED", "node", None, 0),
            ],
            reasons=["score is not finite: nan"],
            rounds=["~2", "", ""],
            replaced={"": [0]},
            merged={"~s0123456789ab": [0]},
        ),
    ),
    ev.RoundRescored(
        id="inp/questions/week-1/q1/question:rescored/r1",
        at=T0,
        data=ev.RoundRescoredData(
            input_id="inp/questions/week-1/q1",
            scope_key="question",
            subject="questions",
            point=T0 - 60_000,
            resolvable_at=T0,
            horizon_seconds=0,
            rehearsal=True,
            contract_hash=HASH,
            models=["7"],
            crunchers=["c1"],
            units={"value": [250_000_000]},
            unscored=[],
            reasons=[],
            revision=1,
            first_resolvable_at=T0 - 30_000,
            before=ev.ScoreColumns(
                models=["7"],
                units={},
                unscored=[ev.Unscored(0, "FAILED", "node", None, 0)],
                reasons=["score is not finite: nan"],
            ),
        ),
    ),
    ev.StateCarried(
        id="inp/BTCUSDT/1/60s:state",
        at=T0,
        data=ev.StateCarriedData(
            input_id="inp/BTCUSDT/1",
            scope_key="60s",
            subject="BTCUSDT",
            holder="BTCUSDT/60s",
            states={"7": msgspec.Raw(b'{"wealth":1000.25}'), "8": msgspec.Raw(b"null")},
            shared=[msgspec.Raw(b'{"pot":1.5}')],
        ),
    ),
    ev.EnsemblesScored(
        id="inp/BTCUSDT/1/60s:ensembles",
        at=T0,
        data=ev.EnsemblesScoredData(
            input_id="inp/BTCUSDT/1",
            scope_key="60s",
            subject="BTCUSDT",
            point=T0 - 60_000,
            resolvable_at=T0,
            horizon_seconds=60,
            rehearsal=True,
            contract_hash="c" * 64,
            models=["__ensemble_best__", "__ensemble_equal__"],
            crunchers=[],
            units={"value": [None, 750_000_000]},
            unscored=[ev.Unscored(0, "FAILED", "node", None, 0)],
            reasons=["ensemble best: ValueError: it has no member"],
            rounds=["~2", ""],
            replaced={"": [0]},
            merged={"~3": [0]},
            answered=["7", "8", "9"],
            weights=[[], [500_000_000, None, 500_000_000]],
            outputs=[ev.NO_OUTPUT, msgspec.Raw(b'{"value":0.5}')],
            states={"__ensemble_equal__": msgspec.Raw(b'{"wealth":1.5}')},
            holder="BTCUSDT/60s",
        ),
    ),
    ev.ScoredUntil(id="scored-until/1", at=T0, data=ev.ScoredUntilData(until=T0, rehearsal=True)),
    ev.SnapshotTaken(
        id="snap/7/1-2:taken",
        at=T0,
        data=ev.SnapshotTakenData(
            snapshot_id="snap/7/1-2",
            model_id="7",
            period_start=T0,
            period_end=T0 + 3_600_000,
            sums={"value": ev.FieldSum(-5, 2)},
            summary_units={"value": -2},
            windows_units={"score_recent": -2, "score_steady": None},
            corrected=[
                ev.PeriodCorrection(T0 - 3_600_000, -5, 0, 0, {"questions/question": ev.ScopeSum(-5, 0, 0)})
            ],
            restated=[
                ev.PeriodRestated(
                    period_start=T0 - 3_600_000,
                    scored_before=2,
                    scored_count=1,
                    summary_before={"value": -1},
                    summary_units={"value": -3},
                    summary_error="metric own: ValueError: no",
                    series=[ev.SeriesValue(-4, True)],
                )
            ],
            scopes={"BTCUSDT/60s": ev.ScopeSum(-5, 2, 1)},
            boards_units={"1h": None},
            scored_count=2,
            failed_count=3,
            absent_model_count=4,
            absent_node_count=5,
            charged_count=6,
            rehearsal=True,
            contract_hash=HASH,
            summary_error="aggregate_snapshot: ValueError: no",
            rehearsal_windows=["score_recent"],
            failed_node_count=1,
            no_score_count=7,
            cruncher_id="c1",
            first_point=T0 - 60_000,
            rounds_count=9,
            excused_count=2,
            coverage=ev.Answered(7, 9),
            joined=ev.JoinedAt(T0 - 60_000, T0),
            filled_count=1,
            series=[ev.SeriesValue(-4, True), ev.SeriesValue(-1, False)],
            windows_counts={"score_steady": 1},
        ),
    ),
    ev.PeriodClosed(
        id="period-closed/1",
        at=T0,
        data=ev.PeriodClosedData(
            from_ms=T0,
            until_ms=T0 + 3_600_000,
            snapshot_count=1,
            rehearsal=False,
            rounds_count=60,
            asked_before=[ev.PointCount(T0 - 60_000, 2)],
            other_scoring_count=3,
            newcomer_past=ev.NewcomerPast(
                total=ev.FieldSum(-9, 2),
                scopes={"BTCUSDT/60s": ev.ScopeSum(-9, 2, 0)},
                series=[ev.SeriesValue(-4, scored=False)],
            ),
        ),
    ),
    ev.CheckpointOpened(id="ckp_1:opened", at=T0, data=_CHECKPOINT),
    ev.CheckpointWithheld(
        id="ckp_1:withheld",
        at=T0,
        data=ev.CheckpointWithheldData(reason="withheld by command: look first", checkpoint=_CHECKPOINT),
    ),
    ev.CheckpointSubmitted(
        id="ckp_1:submitted",
        at=T0,
        data=ev.CheckpointSubmittedData(checkpoint_id="ckp_1", tx_hash=TX_A, command_id="c1"),
    ),
    ev.CheckpointSubmissionFailed(
        id="ckp_1:submission-failed",
        at=T0,
        data=ev.CheckpointSubmissionFailedData(
            checkpoint_id="ckp_1", tx_hash=TX_A, reason="expired", command_id="c2"
        ),
    ),
    ev.CheckpointClaimable(
        id="ckp_1:claimable", at=T0, data=ev.CheckpointAdvancedData(checkpoint_id="ckp_1", command_id="c3")
    ),
    ev.CheckpointPaid(
        id="ckp_1:paid", at=T0, data=ev.CheckpointAdvancedData(checkpoint_id="ckp_1", command_id="c4")
    ),
    ev.CheckpointCorrected(
        id="correction/1:c16",
        at=T0,
        data=ev.CheckpointCorrectedData(
            correction_id="correction/1",
            checkpoint_id="ckp_0",
            total_prize=100,
            models=[
                ev.ModelCorrection(model_id="m1", paid=100, due=93),
                ev.ModelCorrection(model_id="m3", paid=0, due=7),
            ],
            reason="a candle was wrong",
            command_id="c16",
            contract_hash=HASH,
            records_sha256="ab" * 32,
        ),
    ),
    ev.CorrectCheckpoint(
        id="c16",
        at=T0,
        data=ev.CorrectCheckpointData(
            checkpoint_id="ckp_0",
            total_prize=100,
            models=[ev.ModelCorrection(model_id="m3", paid=0, due=7)],
            reason="a candle was wrong",
            contract_hash=HASH,
            records_sha256="ab" * 32,
            shares=ev.CheckpointShares(
                model_ids=["m1"],
                rewards=[(0, 1_000_000_000)],
                pools=[ev.PoolPaid(name="1h", weight=1, paid=[(0, 1, 3)], retained_parts=7)],
            ),
        ),
    ),
    ev.EvidenceKeyRotated(
        id="key-rotation/1",
        at=T0,
        data=ev.EvidenceKeyRotatedData(
            old_key="coordinator/btc-up+0a1b2c3d+b2xk",
            new_key="coordinator/btc-up+4e5f6071+bmV3",
            old_signature="b2xkIHNpZ25lZA==",
            new_signature="bmV3IHNpZ25lZA==",
            command_id="c17",
        ),
    ),
    ev.RotateEvidenceKey(
        id="c17",
        at=T0,
        data=ev.EvidenceKeyData(
            old_key="coordinator/btc-up+0a1b2c3d+b2xk",
            new_key="coordinator/btc-up+4e5f6071+bmV3",
            old_signature="b2xkIHNpZ25lZA==",
            new_signature="bmV3IHNpZ25lZA==",
        ),
    ),
    ev.CommandRefused(
        id="c5:refused",
        at=T0,
        data=ev.CommandRefusedData(
            command_id="c5",
            command_kind="ConfirmCheckpoint",
            checkpoint_id="ckp_1",
            reason="no such checkpoint",
            state="(none)",
            http_status=404,
        ),
    ),
    ev.RecordFeed(
        id="c8",
        at=T0,
        data=ev.RecordFeedData(
            **_FEED,
            records=[ev.GivenRecord(ts_event=T0 - 60_000, at=T0, values={"close": "1.50"}, revision=1)],
        ),
    ),
    ev.ConfirmCheckpoint(id="c1", at=T0, data=ev.ConfirmCheckpointData(checkpoint_id="ckp_1", tx_hash=TX_A)),
    ev.AdvanceCheckpoint(
        id="c3", at=T0, data=ev.AdvanceCheckpointData(checkpoint_id="ckp_1", status="CLAIMABLE", tx_hash=TX_A)
    ),
    ev.BindPayees(
        id="c15",
        at=T0,
        data=ev.BindPayeesData(
            checkpoint_id="ckp_1", payees={"7": "So11111111111111111111111111111111111111112"}, replaces=True
        ),
    ),
    ev.PayeesBound(
        id="k9",
        at=T0,
        data=ev.PayeesBoundData(
            checkpoint_id="ckp_1",
            payees={"7": "So11111111111111111111111111111111111111112"},
            command_id="c15",
        ),
    ),
    ev.WithholdCheckpoint(id="c6", at=T0, data=ev.WithholdCheckpointData(reason="look first", period_at=T0)),
    ev.ReleaseCheckpoint(
        id="c7", at=T0, data=ev.ReleaseCheckpointData(checkpoint_id="ckp_1", reason="looked")
    ),
    ev.FailCheckpointSubmission(
        id="c2",
        at=T0,
        data=ev.FailCheckpointSubmissionData(
            checkpoint_id="ckp_1", tx_hash=TX_A, reason="expired", replaced_by="tx-b"
        ),
    ),
    ev.DeadLettered(
        id="dead/1",
        at=T0,
        data=ev.DeadLetteredData(
            origin="commands", position="3", reason="no JSON", sha256="0" * 64, head="x"
        ),
    ),
]

SAMPLES: dict[str, ev.AnyEvent] = {type(event).__name__: event for event in _EVENTS}
