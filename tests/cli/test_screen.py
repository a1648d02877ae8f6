"""What a person sees of a node."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coordinator.cli.screen import LatestAnswers, Screen, picture, status_line
from coordinator.infra.processes.supervisor import ChildState

BOARD = [
    {
        "created_at": "2023-03-01T07:12:00.000000",
        "model_id": "104",
        "model_name": "[red]small[/red]",
        "cruncher_name": "ada",
        "rank": 1,
        "score_metrics": {"score_recent": 0.25, "score_steady": None},
        "score_ranking": {"key": "score_recent", "value": 0.25, "direction": "desc"},
        "score_recent": 0.25,
        "score_steady": None,
        "scored_count": 1234,
    }
]
NEWS = LatestAnswers(
    board=BOARD,
    summary={
        "inputs": {"received": 432, "resolved": 431},
        "predictions": {"pending": 7, "scored": 3017, "failed": 1, "absent": 2},
    },
    checkpoint={"id": "ckp_1", "status": "PENDING", "period_start": "2023-03-01T00:00:00.000Z"},
)
CHILDREN = {"feed": ChildState("feed", "running", 1), "score": ChildState("score", "waiting", 2, restarts=3)}


def drawn(what, width=120):
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


def test_the_line_tells_time_counts_checkpoint_leader_and_who_is_ill():
    assert status_line(NEWS, CHILDREN) == (
        "event time 2023-03-01 07:12:00 | rounds 432  pending 7  scored 3,017  failed 1  absent 2 | "
        "checkpoint ckp_1 PENDING 2023-03-01T00:00:00.000Z | best [red]small[/red] +0.250000 | score waiting"
    )


def test_a_board_by_a_key_of_the_summary_says_of_which_period_it_is():
    assert "ranked by" not in drawn(picture(NEWS, CHILDREN, "http://127.0.0.1:8000"))
    ranked = BOARD[0] | {
        "score_metrics": {"score_recent": 0.25, "ic": 0.5},
        "score_ranking": {"key": "ic", "value": 0.5, "direction": "desc"},
        "ic": 0.5,
        "ranked_as_of": "2023-03-01T07:00:00.000",
    }
    screen = " ".join(
        drawn(picture(LatestAnswers(board=[ranked]), CHILDREN, "http://127.0.0.1:8000")).split()
    )
    assert (
        "leaderboard at 2023-03-01 07:12:00, ranked by ic of the period that ended 2023-03-01 07:00:00"
        in screen
    )
    assert "+0.500000" in screen


def test_what_has_no_score_yet_is_no_failure():
    waiting = {"pending": 8, "scored": 5678, "no_score": 1034, "failed": 0, "absent": 0}
    line = status_line(LatestAnswers(summary={"inputs": {"received": 1680}, "predictions": waiting}), {})
    assert "rounds 1,680  pending 8  scored 5,678  no score yet 1,034  failed 0  absent 0" in line


def test_before_anything_is_known_the_line_says_so():
    assert status_line(LatestAnswers(), {}) == (
        "event time - | rounds 0  pending 0  scored 0  failed 0  absent 0 | checkpoint none offered yet"
    )


def test_the_table_shows_names_as_they_are_and_every_part():
    text = drawn(picture(NEWS, CHILDREN, "http://127.0.0.1:8000"))
    for part in (
        "[red]small[/red]",
        "ada",
        "+0.250000",
        "1,234",
        "ckp_1 PENDING",
        "score waiting (3x again)",
        "http://127.0.0.1:8000/",
    ):
        assert part in text


@pytest.mark.parametrize(
    "news",
    [LatestAnswers(), LatestAnswers(board=[{"model_id": "1"}]), LatestAnswers(checkpoint={"detail": "none"})],
)
def test_a_half_told_answer_is_drawn_as_far_as_it_goes(news):
    assert drawn(picture(news, {}, "http://x"))


def test_a_message_is_one_line_without_markup():
    out = io.StringIO()
    Screen(Console(file=out, width=20)).say(
        "kafka ended\n([bold]exit code 1[/bold]), starting it again in 0.5 s"
    )
    assert out.getvalue() == "kafka ended ([bold]exit code 1[/bold]), starting it again in 0.5 s\n"


@pytest.mark.parametrize(
    ("fresh", "scored", "lines"),
    [
        (True, [None, 0, 7, 8], [False, False, True, False]),
        (False, [100, 100, 107], [False, False, True]),
        (False, [0, 7], [False, True]),
    ],
)
def test_the_first_score_of_this_run_is_told_once(fresh, scored, lines):
    screen = Screen(Console(file=io.StringIO()), fresh=fresh)
    told = [
        screen._first_score(
            LatestAnswers(summary={} if count is None else {"predictions": {"scored": count}})
        )
        for count in scored
    ]
    assert told == lines
