"""One ranking for board and payment. W19 of the peer: None came first when lower is better, NaN, free-text directions."""

from __future__ import annotations

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from coordinator.streams.checkpoints.ranking import rank

CASES = {
    "nobody": ([], "desc", [], []),
    "one": ([("a", 5)], "desc", [(1, "a")], []),
    "more is better": ([("a", 1), ("b", 3), ("c", 2)], "desc", [(1, "b"), (2, "c"), (3, "a")], []),
    "less is better": ([("a", 1), ("b", 3), ("c", 2)], "asc", [(1, "a"), (2, "c"), (3, "b")], []),
    "ties share a rank and the next is skipped": (
        [("c", 2), ("b", 5), ("a", 5), ("d", 1)],
        "desc",
        [(1, "a"), (1, "b"), (3, "c"), (4, "d")],
        [],
    ),
    "all tied": ([("b", 0), ("a", 0)], "desc", [(1, "a"), (1, "b")], []),
    "ties in the middle, less is better": (
        [("d", 9), ("c", 2), ("b", 2), ("a", 1)],
        "asc",
        [(1, "a"), (2, "b"), (2, "c"), (4, "d")],
        [],
    ),
    "silence is last when more is better": ([("a", None), ("b", -5)], "desc", [(1, "b")], ["a"]),
    "silence is last when less is better": ([("a", None), ("b", 5)], "asc", [(1, "b")], ["a"]),
    "silence does not beat a losing model": (
        [("idle", None), ("loser", -(10**9))],
        "desc",
        [(1, "loser")],
        ["idle"],
    ),
    "all silent": ([("b", None), ("a", None)], "desc", [], ["a", "b"]),
    "keys beyond a float's digits": ([("a", 2**60), ("b", 2**60 + 1)], "desc", [(1, "b"), (2, "a")], []),
}


@pytest.mark.parametrize(("keys", "direction", "ranked", "unranked"), CASES.values(), ids=CASES)
def test_ranking(keys, direction, ranked, unranked):
    ranked_rows, silent = rank(keys, direction)
    assert [(place, model_id) for place, model_id, _ in ranked_rows] == ranked
    assert silent == unranked
    assert {model_id: key for _, model_id, key in ranked_rows} == {
        name: key for name, key in keys if key is not None
    }


@pytest.mark.parametrize("direction", ["descending", "ASC", "", "up"])
def test_an_unknown_direction_is_refused(direction):
    with pytest.raises(ValueError, match="direction"):
        rank([("a", 1)], direction)


@property_of(
    st.lists(
        st.tuples(st.text(max_size=3), st.none() | st.integers(-3, 3)),
        unique_by=lambda pair: pair[0],
        max_size=20,
    ),
    st.sampled_from(["asc", "desc"]),
    st.randoms(),
)
def test_the_ranking_does_not_depend_on_the_order_of_arrival(keys, direction, rng):
    shuffled = keys[:]
    rng.shuffle(shuffled)
    assert rank(keys, direction) == rank(shuffled, direction)
    ranked_rows, unranked = rank(keys, direction)
    for place, _, key in ranked_rows:
        better = sum(
            1 for _, _, other in ranked_rows if (other > key if direction == "desc" else other < key)
        )
        assert place == better + 1
    assert len(ranked_rows) + len(unranked) == len(keys)
