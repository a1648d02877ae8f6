"""Money: shares that always sum to exactly one billion, and what forbids offering an emission."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, settings
from hypothesis import given as property_of
from hypothesis import strategies as st
from tests.streams.build import PUBKEY

from coordinator.streams.addresses import NOBODYS_ADDRESSES, base58_bytes, is_pubkey, wallet_fault
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.contract import FRAC64_ONE, CrunchContract, EmissionCheckpoint
from coordinator.streams.contract.emission import allocate, emission_faults, emission_sha256, tier_shares

PROVIDER = "11111111111111111111111111111111"  # 32 zero bytes
M = 1_000_000

TIERS = {
    # the ranks, and the share of each
    "nobody": ([], []),
    "one takes all": ([1], [1000 * M]),
    "two": ([1, 2], [625 * M, 375 * M]),
    "three": ([1, 2, 3], [500 * M, 250 * M, 250 * M]),
    "five": ([1, 2, 3, 4, 5], [400 * M] + [150 * M] * 4),
    "ten: the tiers themselves": (list(range(1, 11)), [350 * M] + [100 * M] * 4 + [50 * M] * 5),
    "eleven: the last goes without": (list(range(1, 12)), [350 * M] + [100 * M] * 4 + [50 * M] * 5 + [0]),
    "nine: what the tenth would get is shared": (
        list(range(1, 10)),
        [355_555_556] + [105_555_556] * 4 + [55_555_555] * 4,
    ),
    "two tied first": ([1, 1], [500 * M, 500 * M]),
    "two tied first of ten": (
        [1, 1, 3, 4, 5, 6, 7, 8, 9, 10],
        [225 * M] * 2 + [100 * M] * 3 + [50 * M] * 5,
    ),
    "tied across the edge of a tier": (
        [1, 2, 3, 4, 5, 5, 7, 8, 9, 10],
        [350 * M] + [100 * M] * 3 + [75 * M] * 2 + [50 * M] * 4,
    ),
    "tied across the last paid place": (
        [*range(1, 10), 10, 10],
        [350 * M] + [100 * M] * 4 + [50 * M] * 4 + [25 * M] * 2,
    ),
    "three tied: the billion does not divide": ([1, 1, 1], [333_333_334, 333_333_333, 333_333_333]),
    "eleven tied first": ([1] * 11, [90_909_091] * 10 + [90_909_090]),
}


@pytest.mark.parametrize(("ranks", "shares"), TIERS.values(), ids=TIERS)
def test_tiers_share_as_the_table_says(ranks, shares):
    assert tier_shares(ranks) == shares
    assert sum(shares) == (FRAC64_ONE if shares else 0)


def test_ranks_must_be_in_ascending_order():
    with pytest.raises(ValueError, match="ascend"):
        tier_shares([1, 3, 2])


def test_seven_models_get_all_of_a_prize():
    """W17 of the peer: 997 of 1000 were paid."""
    assert sum(tier_shares(list(range(1, 8)), total=1000)) == 1000


METRICS = [None, 0, 0.0, -1.5, 1e300, math.nan, math.inf, -math.inf]


@st.composite
def scored_models(draw) -> list[int]:
    """Keys of 1 to 1,000 models. A small spread makes many ties."""
    n, spread = draw(st.integers(1, 1000)), draw(st.sampled_from([0, 1, 3, 20, 10**9]))
    rng = draw(st.randoms(use_true_random=False))
    return [rng.randint(-spread, spread) for _ in range(n)]


def entries_of(keys: list[int]) -> list[dict]:
    ranked, _ = rank([(f"m{i:04}", key) for i, key in enumerate(keys)], "desc")
    return [{"model_id": model_id, "rank": place, "key": key} for place, model_id, key in ranked]


@settings(max_examples=100, deadline=None)
@property_of(scored_models())
@example([0])
@example([0] * 11)
@example([0] * 1000)
@example(list(range(9)))
@example(list(range(1000)))
def test_any_emission_is_exact_positive_monotone_and_fair(keys):
    entries = entries_of(keys)
    for i, entry in enumerate(entries):  # metrics do not matter, whatever their values
        entry["value"] = METRICS[i % len(METRICS)]
    built = CrunchContract().build_emission(entries, PUBKEY, None, None)
    emission = EmissionCheckpoint.model_validate(built).model_dump(mode="json")
    assert emission_faults(emission, len(entries)) == []
    shares = {reward["cruncher_index"]: reward["reward_pct"] for reward in emission["cruncher_rewards"]}
    assert sum(shares.values()) == FRAC64_ONE
    assert all(type(share) is int and share > 0 for share in shares.values())
    paid = [shares.get(i, 0) for i in range(len(entries))]
    assert paid == sorted(paid, reverse=True)  # entries are in order of rank
    for rank_ in {entry["rank"] for entry in entries}:
        tied = [paid[i] for i, entry in enumerate(entries) if entry["rank"] == rank_]
        assert max(tied) - min(tied) <= 1
    if len(entries) > 1 and entries[0]["rank"] < entries[1]["rank"]:
        assert paid[0] > paid[1]


@property_of(
    st.lists(st.fractions(min_value=0, max_value=10, max_denominator=999), min_size=1, max_size=20),
    st.integers(0, 10**10),
)
def test_the_allocator_distributes_everything_within_one_of_the_exact_share(weights, total):
    if sum(weights) == 0:
        with pytest.raises(ValueError, match="not all 0"):
            allocate(weights, total)
        return
    shares = allocate(weights, total)
    assert sum(shares) == total
    whole = sum(weights)
    assert all(abs(share - weight * total / whole) < 1 for share, weight in zip(shares, weights, strict=True))


@pytest.mark.parametrize("weights", [[Fraction(-1), Fraction(2)], [Fraction(0)], [Fraction(0), Fraction(0)]])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        allocate(weights)


def test_no_weights_give_no_shares():
    assert allocate([]) == []


# --- what may be offered ---------------------------------------------------------------------------------


def emission(**changes) -> dict:
    return {
        "crunch": PUBKEY,
        "cruncher_rewards": [
            {"cruncher_index": 0, "reward_pct": 600 * M},
            {"cruncher_index": 1, "reward_pct": 400 * M},
        ],
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
    } | changes


def rewards(*pairs) -> dict:
    return {"cruncher_rewards": [{"cruncher_index": i, "reward_pct": share} for i, share in pairs]}


def providers(*pairs) -> list:
    return [{"provider": name, "reward_pct": share} for name, share in pairs]


FAULTS = {
    "no key": ({"crunch": ""}, "crunch_pubkey"),
    "a key of 31 bytes": ({"crunch": "1" * 31}, "crunch_pubkey"),
    "a key of 33 bytes": ({"crunch": "1" * 33}, "crunch_pubkey"),
    "a key with a letter that base58 lacks": ({"crunch": "0" + PUBKEY[1:]}, "crunch_pubkey"),
    "a key with a blank": ({"crunch": PUBKEY + " "}, "crunch_pubkey"),
    "a key of a megabyte": ({"crunch": "1" * 1_000_000}, "crunch_pubkey"),
    "nobody": (rewards(), "no cruncher rewards"),
    "one too little": (rewards((0, 600 * M), (1, 400 * M - 1)), "sum to 999999999"),
    "one too much": (rewards((0, 600 * M), (1, 400 * M + 1)), "sum to 1000000001"),
    "a negative share": (rewards((0, 1100 * M), (1, -100 * M)), "not an integer in 1"),
    "a zero share": (rewards((0, 1000 * M), (1, 0)), "not an integer in 1"),
    "a share that is a float": (rewards((0, 600.0 * M), (1, 400 * M)), "not an integer in 1"),
    "a share that is a truth": (rewards((0, True), (1, 1000 * M - 1)), "not an integer in 1"),
    "a share beyond all": (rewards((0, 2000 * M)), "not an integer in 1"),
    "the same place twice": (rewards((0, 600 * M), (0, 400 * M)), "cruncher_index"),
    "a place behind the ranking": (rewards((0, 600 * M), (2, 400 * M)), "cruncher_index"),
    "a negative place": (rewards((0, 600 * M), (-1, 400 * M)), "cruncher_index"),
    "a provider that is no key": (
        {"compute_provider_rewards": providers(("me", 1000 * M))},
        "compute_provider_rewards: providers",
    ),
    "a pool that is not shared out": (
        {"data_provider_rewards": providers((PROVIDER, 999 * M))},
        "data_provider_rewards do not sum",
    ),
    "a provider twice": (
        {"data_provider_rewards": providers((PROVIDER, 500 * M), (PROVIDER, 500 * M))},
        "data_provider_rewards: providers",
    ),
}


@pytest.mark.parametrize(("changes", "fault"), FAULTS.values(), ids=FAULTS)
def test_an_emission_with_a_fault_may_not_be_offered(changes, fault):
    faults = emission_faults(emission(**changes), 2)
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compute_provider_rewards": providers((PROVIDER, 1000 * M))},
        {"data_provider_rewards": providers((PROVIDER, 1 * M), (PUBKEY, 999 * M))},
    ],
)
def test_an_emission_without_a_fault_may_be_offered(changes):
    assert emission_faults(emission(**changes), 2) == []


def test_every_fault_is_named():
    broken = emission(crunch="", compute_provider_rewards=providers(("x", 1)), **rewards((5, 1)))
    assert len(emission_faults(broken, 2)) == 5


def test_the_hash_covers_the_content_and_not_the_order_of_keys():
    in_order = emission()
    other = dict(reversed(list(in_order.items())))
    assert emission_sha256(in_order) == emission_sha256(other)
    assert emission_sha256(in_order) != emission_sha256(emission(**rewards((0, 600 * M), (1, 400 * M - 1))))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("1", 1),
        ("11", 2),
        ("2", 1),
        ("5R", 2),  # 256 - 1 + ..
        ("5Q", 1),  # 255
        ("z" * 2, 2),
        ("JxF12TrwUP45BMd", 11),  # "Hello World"
        (PUBKEY, 32),
        (PROVIDER, 32),
        ("0", None),
        ("O", None),
        ("I", None),
        ("l", None),
        (" ", None),
        ("é", None),
        ("1\n", None),
    ],
)
def test_base58_matches_its_reference_values(text, size):
    assert base58_bytes(text) == size


@property_of(st.binary(min_size=1, max_size=70))
def test_base58_counts_bytes(data):
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    text = "1" * (len(data) - len(data.lstrip(b"\0"))) + text
    assert base58_bytes(text) == len(data)
    assert is_pubkey(text) == (len(data) == 32)


@pytest.mark.parametrize("provider", [None, PROVIDER])
def test_the_default_emission_pays_providers_from_their_own_pools(provider):
    built = CrunchContract().build_emission([{"model_id": "a", "rank": 1}], PUBKEY, provider, provider)
    whole = providers((PROVIDER, FRAC64_ONE)) if provider else []
    assert built["compute_provider_rewards"] == whole
    assert built["data_provider_rewards"] == whole
    assert built["cruncher_rewards"] == [{"cruncher_index": 0, "reward_pct": FRAC64_ONE}]


def test_zero_models_make_an_empty_emission_that_is_not_offered():
    """W18 of the peer: an empty list with sum 0 passed as an emission."""
    built = CrunchContract().build_emission([], PUBKEY, None, None)
    assert emission_faults(EmissionCheckpoint.model_validate(built).model_dump(mode="json"), 0) == [
        "no cruncher rewards"
    ]


def test_entries_may_come_in_any_order_and_each_is_paid_by_its_own_rank():
    entries = [{"model_id": "b", "rank": 2}, {"model_id": "a", "rank": 1}, {"model_id": "c", "rank": 2}]
    rewards = CrunchContract().build_emission(entries, "1" * 32, None, None)["cruncher_rewards"]
    assert [reward["cruncher_index"] for reward in rewards] == [0, 1, 2]
    assert [reward["reward_pct"] for reward in rewards] == [250_000_000, 500_000_000, 250_000_000]


def test_an_address_at_which_nobody_can_be_paid_is_still_a_valid_key():
    assert all(map(is_pubkey, NOBODYS_ADDRESSES))
    assert all(map(wallet_fault, NOBODYS_ADDRESSES))
    assert wallet_fault("SysvarC1ock11111111111111111111111111111111") is not None
    assert wallet_fault(None) == "is no public key (base58 of 32 bytes)"
