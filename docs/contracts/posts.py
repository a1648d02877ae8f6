"""Posts and epochs of Predictoor: which post counts, and the result of an epoch."""

from __future__ import annotations

from typing import Any


def accepted(
    posts: list[dict[str, Any]], epoch: int, seconds: int, balance: int
) -> tuple[dict[str, Any], list[Any]]:
    """(the post that counts, [(time, reason) of the refused ones])."""
    held: dict[str, Any] = {"up": None, "stake": 0}
    refused = []
    for post in posts:
        stake, up, why = post.get("stake"), post.get("up"), ""
        if post.get("epoch") != epoch:
            why = "no epoch"
        elif type(up) is not bool or type(stake) is not int or stake < 0:
            why = "not a direction and an amount"
        elif post["at"] >= epoch - seconds:
            why = "too late"
        elif stake > balance:
            why = "not enough balance"
        if why:
            refused.append([post["at"], why])
        else:
            held = {"up": up, "stake": stake}
    return held, refused


def truth_of_epoch(records: list[Any], rules: dict[str, Any]) -> dict[str, Any]:
    """The epoch, its direction and its revenue, from three records: price, sales, price."""
    values, day, seconds = records[-1].values, rules["subscription_seconds"], rules["epoch_seconds"]
    at = records[-1].at // 1000
    epoch = int(values.get("epoch", at // seconds * seconds))
    before, after = (
        record.values.get("price", record.values.get("close")) for record in (records[0], records[-1])
    )
    resolved = values.get("resolved_at", None if "epoch" in values else at)
    late = None in (resolved, before, after) or resolved - epoch > rules["truth_timeout_seconds"]
    sales = [
        (int(record.at // 1000), int(record.values["sale"]))
        for record in records[1:-1]
        if "sale" in record.values
    ]
    revenue = sum(
        amount // (day // seconds) for at, amount in sales if 0 <= epoch - at // seconds * seconds < day
    )
    return {"epoch": epoch, "up": None if late or before == after else after > before, "revenue": revenue}
