"""Payout by rules: each model's part of a pool, what is retained, and that everything sums exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given as property_of
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.streams.build import PUBKEY

from coordinator.infra.contracts.loading import contract_hash
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.emission import FRAC64_ONE, PARTS
from coordinator.streams.contract.payout import Payout, Pool, Taker, pools_paid
from coordinator.streams.contract.payout_amounts import frac64_shares, money, on_chain
from coordinator.streams.contract.payout_rules import by_percentile, by_softmax, in_proportion, top
from coordinator.streams.contract.strategies import softmax
from coordinator.streams.log.errors import ContractError

OLD_HOURS = 1e5


def entry(model_id: str, key: float, player: str = "", **more: Any) -> dict[str, Any]:
    usual = {"keys": {}, "counts": {}, "prediction_count": 100, "hours_here": OLD_HOURS}
    return {"model_id": model_id, "player": player or model_id, "key": key} | usual | more


def entries(*keys: float) -> list[dict[str, Any]]:
    return [entry(f"m{i}", key) for i, key in enumerate(keys)]


def paid(payout: Payout, ranked: list[dict[str, Any]], direction: str = "desc", total: int = 1000) -> Any:
    """({model id: units of `total`}, retained)."""
    amounts, retained = money(pools_paid(payout, ranked, direction), total)
    return {ranked[i]["model_id"]: amount for i, amount in amounts.items()}, retained


def one_pool(**fields: Any) -> Payout:
    payout = {name: fields.pop(name) for name in list(fields) if name in Payout.model_fields}
    return Payout(pools=[Pool(name="all", **fields)], **payout)


E1, E2, E3, E4 = (math.exp(1 / place) for place in (1, 2, 3, 4))
FOUR = E1 + E2 + E3 + E4
RULES = {
    # rule, direction, keys best first, parts
    "a weight for each place": (top(4), "desc", [4, 3, 2, 1], [E1 / FOUR, E2 / FOUR, E3 / FOUR, E4 / FOUR]),
    "no more places than there are": (top(2), "desc", [4, 3, 2], [E1 / (E1 + E2), E2 / (E1 + E2), 0]),
    "a place without an entry is left": (top(4), "desc", [4, 3], [E1 / FOUR, E2 / FOUR]),
    "over those present nothing is left": (top(4, over="present"), "desc", [4, 3], [E1 / (E1 + E2), E2 / (E1 + E2)]),
    "tied entries share their places": (top(4), "desc", [4, 3, 3], [E1 / FOUR, (E2 + E3) / 2 / FOUR, (E2 + E3) / 2 / FOUR]),
    "also a place behind the last": (top(2), "desc", [4, 3, 3], [E1 / (E1 + E2), E2 / 2 / (E1 + E2), E2 / 2 / (E1 + E2)]),
    "alpha 0: all alike": (top(4, alpha=0), "desc", [4, 3, 2], [0.25, 0.25, 0.25]),
    "nobody": (top(4), "desc", [], []),
    "in proportion": (in_proportion(), "desc", [3, 1, -1], [0.75, 0.25, 0]),
    "in proportion, squared": (in_proportion(power=2), "desc", [3, 1, 0], [0.9, 0.1, 0]),
    "above a baseline": (in_proportion(above=1), "desc", [4, 2, 1], [0.75, 0.25, 0]),
    "below a baseline where less is better": (in_proportion(above=1), "asc", [0.25, 0.75, 2], [0.75, 0.25, 0]),
    "nobody above it": (in_proportion(above=9), "desc", [4, 2], [0, 0]),
    "above the third best": (in_proportion(above_place=3), "desc", [4, 2, 1, 0], [0.75, 0.25, 0, 0]),
    "fewer than that: above the last": (in_proportion(above_place=21), "desc", [4, 2, 1], [0.75, 0.25, 0]),
    "small parts are given up": (in_proportion(part_min=0.2), "desc", [6, 3, 1], [2 / 3, 1 / 3, 0]),
    "tied ones are given up together": (in_proportion(part_min=0.3), "desc", [4, 2, 2, 2], [1, 0, 0, 0]),
    "by percentile": (by_percentile(power=1), "desc", [4, 3, 2, 1], [2 / 3, 1 / 3, 0, 0]),
    "by percentile, all tied": (by_percentile(), "desc", [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
    "softmax": (by_softmax(beta=2), "desc", [1, 0.5], [math.e / (math.e + 1), 1 / (math.e + 1)]),
    "softmax where less is better": (by_softmax(beta=2), "asc", [-1, -0.5], [math.e / (math.e + 1), 1 / (math.e + 1)]),
    "softmax, beta 0": (by_softmax(beta=0), "desc", [9, 1], [0.5, 0.5]),
    "softmax, far behind": (by_softmax(beta=1e6), "desc", [9, 1], [1, 0]),
    "by percentile, alone": (by_percentile(), "desc", [1], [1]),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "direction", "keys", "parts"), RULES.values(), ids=RULES)
def test_a_rule_gives_parts_of_a_pool(rule, direction, keys, parts):
    (pool,) = pools_paid(one_pool(rule=rule), entries(*keys), direction)
    parts_given = {i: part / PARTS for i, _, part in pool.paid}
    assert [parts_given.get(i, 0) for i in range(len(keys))] == pytest.approx(parts, abs=1e-15)
    assert pool.retained_parts / PARTS == pytest.approx(1 - sum(parts), abs=1e-15)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: top(0), "places"), (lambda: top(1.5), "places"), (lambda: top(4, alpha=1e9), "alpha"),
        (lambda: top(4, alpha=math.nan), "alpha"), (lambda: top(4, over="some"), "over"),
        (lambda: in_proportion(above=math.inf), "above"), (lambda: in_proportion(power=0), "power"),
        (lambda: in_proportion(above=1, above_place=2), "above_place"), (lambda: in_proportion(part_min=2), "part_min"),
        (lambda: by_percentile(power=101), "power"), (lambda: by_softmax(beta=-1), "beta"),
    ],
)  # fmt: skip
def test_a_meaningless_rule_is_refused_when_it_is_created(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


TWO = [entry("a1", 5, "a"), entry("b1", 4, "b"), entry("a2", 3, "a"), entry("c1", 2, "c")]
ELIGIBLE = {
    # payout, each model's amount of 1000 (places have equal weight: 250 each), what is retained, why not
    "best model only": ({"best_model_only": True}, {"a1": 250, "b1": 250, "c1": 250}, 250,
                        {"another model of its player is better": [2]}),
    "a benchmark takes no place": ({"benchmarks": ["a1"]}, {"b1": 250, "a2": 250, "c1": 250}, 250, {"a benchmark": [0]}),
    "better than the benchmark": ({"benchmarks": ["a2"], "beat_benchmark": True}, {"a1": 250, "b1": 250}, 500,
                                  {"a benchmark": [2], "not better than the benchmark": [3]}),
    "a benchmark that is not there": ({"benchmarks": ["x"], "beat_benchmark": True}, dict.fromkeys(["a1", "b1", "a2", "c1"], 250), 0, {}),
    "better than a number": ({"above": 3}, {"a1": 250, "b1": 250}, 500, {"not better than 3": [2, 3]}),
    "enough scores": ({"least_count": 101}, {}, 1000, {"fewer than 101 scores": [0, 1, 2, 3]}),
    "after a warm-up": ({"warm_up_hours": OLD_HOURS + 1}, {}, 1000, {"in its first 100001 hours": [0, 1, 2, 3]}),
    "one's own condition": ({"eligible": lambda entry: "" if entry["player"] == "b" else "not b"}, {"b1": 250}, 750,
                            {"not b": [0, 2, 3]}),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "amounts", "retained", "why"), ELIGIBLE.values(), ids=ELIGIBLE)
def test_a_model_that_may_not_be_paid_has_a_reason(fields, amounts, retained, why):
    payout = one_pool(rule=top(4, alpha=0), **fields)
    assert paid(payout, TWO) == (amounts, retained)
    assert pools_paid(payout, TWO, "desc")[0].unpaid == why


def test_the_place_of_a_model_that_may_not_be_paid_goes_to_the_next_or_is_retained():
    taken = one_pool(rule=top(2, alpha=0), benchmarks=["a1"])
    assert paid(taken, TWO) == ({"b1": 500, "a2": 500}, 0)
    pool_kept = one_pool(rule=top(2, alpha=0), benchmarks=["a1"], unpaid_places="kept")
    assert paid(pool_kept, TWO) == ({"b1": 500}, 500)


def test_of_a_players_tied_models_the_one_with_the_lower_id_is_paid_and_takes_one_place():
    tied = [entry("z", 5, "a"), entry("b", 5, "b"), entry("y", 5, "a")]
    payout = one_pool(rule=top(2, alpha=0), best_model_only=True)
    assert paid(payout, tied) == ({"b": 500, "y": 500}, 0)


def test_a_pool_is_paid_by_its_own_number_and_leaves_out_models_without_it():
    ranked = [
        entry("a", 9, keys={"1h": 0.1, "24h": 0.5}),
        entry("b", 8, keys={"1h": 0.2}),
        entry("c", 7, keys={"24h": 0.4}, counts={"24h": 3}),
    ]
    payout = Payout(
        pools=[
            Pool(name="short", key="1h", weight=0.75, rule=top(1)),
            Pool(name="long", key="24h", weight=0.25, rule=top(2, alpha=0), least_count=4),
        ]
    )
    assert paid(payout, ranked) == ({"a": 125, "b": 750}, 125)
    short, long = pools_paid(payout, ranked, "desc")
    assert [(i, rank) for i, rank, _ in short.paid] == [(1, 1)]
    assert long.unpaid == {"fewer than 4 scores": [2]}


def test_where_lower_is_better_the_lowest_number_wins():
    payout = one_pool(rule=top(1), above=2, benchmarks=["m0"], beat_benchmark=False)
    assert paid(payout, entries(0.5, 1, 3), "asc") == ({"m1": 1000}, 0)


BAD = {
    "too few": lambda entries: [0.5],
    "below nothing": lambda entries: [-0.1, 0.2],
    "more than all": lambda entries: [0.6, 0.5],
    "not a number": lambda entries: ["half", 0.5],
    "NaN": lambda entries: [math.nan, 0.5],
    "infinity": lambda entries: [math.inf, 0],
}


@pytest.mark.parametrize("rule", BAD.values(), ids=BAD)
def test_an_own_rule_that_returns_no_parts_names_its_pool(rule):
    with pytest.raises(ValueError, match="pool all: "):
        pools_paid(one_pool(rule=rule), entries(2, 1), "desc")


def test_an_own_rule_may_return_any_kind_of_number():
    np = pytest.importorskip("numpy")
    rule = lambda entries: [Fraction(1, 3), np.float64(0.5)]  # noqa: E731
    assert paid(one_pool(rule=rule), entries(2, 1), total=3000) == ({"m0": 1000, "m1": 1500}, 500)


def test_money_rounds_each_pool_down_and_retains_the_remainder():
    halves = Payout(pools=[Pool(name="a", rule=top(1)), Pool(name="b", rule=top(1))])
    assert paid(halves, entries(1), total=7) == ({"m0": 6}, 1)
    assert frac64_shares(pools_paid(halves, entries(1), "desc")) == ({0: FRAC64_ONE}, 0)
    thirds = Payout(pools=[Pool(name=name, rule=top(1)) for name in "abc"])
    assert paid(thirds, entries(1), total=3_000_000) == ({"m0": 3_000_000}, 0)


CHAIN = {
    "withhold": ("withhold", {0: 250_000_000, 1: 250_000_000}, "withheld"),
    "prizes_only": ("prizes_only", {0: 250_000_000, 1: 250_000_000}, "left"),
    "share_out": ("share_out", {0: 500_000_000, 1: 500_000_000}, "shared_out"),
    "a taker that is paid": (Taker(model_id="m1"), {0: 250_000_000, 1: 750_000_000}, "taken"),
}


@pytest.mark.parametrize(("retained", "shares", "is_"), CHAIN.values(), ids=CHAIN)
def test_the_contract_decides_what_happens_to_the_retained_share_on_chain(retained, shares, is_):
    payout = one_pool(rule=top(4, alpha=0), retained=retained)
    shares_on_chain, data = on_chain(payout, pools_paid(payout, entries(2, 1), "desc"), entries(2, 1))
    assert (shares_on_chain, data.retained_frac64, data.retained_is) == (shares, 500_000_000, is_)


def test_an_unknown_recipient_is_a_fault_and_so_is_an_empty_distribution():
    for payout, words in (
        (
            one_pool(rule=top(2), retained=Taker(model_id="x")),
            "model x, who takes the retained share, is not ranked",
        ),
        (one_pool(above=9, retained="share_out"), "nobody is paid"),
    ):
        with pytest.raises(ValueError, match=words):
            on_chain(payout, pools_paid(payout, entries(1), "desc"), entries(1))


def test_a_contract_has_one_way_of_paying_and_pools_have_unique_names():
    with pytest.raises(ValidationError, match="set one of them"):
        CrunchContract(payout=Payout(pools=[Pool(name="a")]), build_emission=softmax())
    with pytest.raises(ValidationError, match="share a name"):
        Payout(pools=[Pool(name="a"), Pool(name="a")])
    with pytest.raises(ValidationError, match="at most 9 decimals"):
        Pool(name="a", weight=0.1234567891)


def test_a_pool_that_ranks_by_an_unknown_number_is_found_before_the_challenge_begins():
    def of(key: str) -> CrunchContract:
        return CrunchContract(crunch_pubkey=PUBKEY, payout=one_pool(key=key))

    for key in ("", "value", "score_recent"):
        check_contract(of(key))
    with pytest.raises(ContractError, match=r"payout: pool 'all' ranks by 'score_recnt', which is none of"):
        check_contract(of("score_recnt"))


def test_another_rule_makes_another_contract():
    rules = [top(4), top(5), top(4, over="present"), in_proportion(), in_proportion(power=2), by_percentile()]
    payouts = [one_pool(rule=rule) for rule in rules]
    payouts += [one_pool(rule=top(4), retained=retained) for retained in ("share_out", Taker(model_id="1"))]
    hashes = [contract_hash(CrunchContract(payout=payout)) for payout in [*payouts, None]]
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == contract_hash(CrunchContract(payout=one_pool(rule=top(4))))


some_rules = st.sampled_from(
    [top(1), top(4), top(10, alpha=-3), top(7, over="present"), in_proportion(), in_proportion(power=2, part_min=0.1),
     in_proportion(above_place=3, power=3), by_percentile(), by_percentile(power=1), by_softmax(beta=3)]
)  # fmt: skip


def test_a_reason_of_the_authors_own_can_be_recorded_whatever_is_in_it():
    """A lone surrogate would stop the stage: no JSON writer takes it."""
    payout = Payout(pools=[Pool(name="all", eligible=lambda _: "no\ud800\x1b[2J")])
    (pool,) = pools_paid(payout, entries(2.0), "desc")
    assert pool.unpaid == {"no??[2J": [0]}
    assert msgspec.json.encode(pool)


@pytest.mark.parametrize("above", [math.nan, math.inf])
def test_a_pool_that_no_number_is_above_is_refused(above):
    with pytest.raises(ValidationError, match="finite"):
        Pool(name="all", above=above)


some_pools = st.lists(
    st.builds(
        Pool,
        name=st.uuids().map(str),
        weight=st.integers(1, 10**15).map(lambda n: n / 10**9),
        key=st.sampled_from(["", "x"]),
        rule=some_rules,
        above=st.none() | st.sampled_from([0.0, 0.25]),
        least_count=st.sampled_from([0, 50]),
    ),
    min_size=1,
    max_size=4,
)
some_payouts = st.builds(
    Payout,
    pools=some_pools,
    best_model_only=st.booleans(),
    benchmarks=st.sampled_from([[], ["m1"]]),
    beat_benchmark=st.booleans(),
    unpaid_places=st.sampled_from(["passed_on", "kept"]),
    retained=st.sampled_from(["withhold", "prizes_only"]),
)
keys_of_many = st.integers(-(10**9), 10**9).map(lambda n: n / 10**9)
some_entries = st.lists(
    st.tuples(keys_of_many, st.none() | keys_of_many, st.sampled_from("pqr"), st.integers(0, 99)), max_size=12
).map(
    lambda rows: [
        entry(f"m{i}", key, player, keys={"x": x}, prediction_count=count)
        for i, (key, x, player, count) in enumerate(sorted(rows, key=lambda row: -row[0]))
    ]
)


@settings(max_examples=200, deadline=None)
@property_of(some_payouts, some_entries, st.sampled_from(["asc", "desc"]), st.integers(0, 10**15))
def test_shares_and_the_retained_share_sum_exactly_whatever_the_pools(payout, ranked, direction, total):
    pools = pools_paid(payout, ranked, direction)
    for pool in pools:
        assert sum(part for _, _, part in pool.paid) + pool.retained_parts == PARTS
        assert not {i for i, _, _ in pool.paid} & {i for those in pool.unpaid.values() for i in those}
    for amounts, retained, whole in ((*frac64_shares(pools), FRAC64_ONE), (*money(pools, total), total)):
        assert sum(amounts.values()) + retained == whole
        assert all(amount > 0 for amount in amounts.values())
        assert retained >= 0


@settings(max_examples=100, deadline=None)
@property_of(some_payouts, some_entries.filter(lambda drawn: len(drawn) > 1))
def test_tied_models_that_may_be_paid_get_the_same_up_to_one_part(payout, ranked):
    for pool in pools_paid(payout, ranked, "desc"):
        by_rank: dict[int, list[int]] = {}
        for _, rank, part in pool.paid:
            by_rank.setdefault(rank, []).append(part)
        assert all(max(parts) - min(parts) <= 1 for parts in by_rank.values())
