"""The account itself, its balance and the movements of it."""

from collections import defaultdict

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json

ACCOUNT_ID = "acct_sandbox"


def retrieve_account(_call: Call) -> Json:
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_profile": {"mcc": None, "name": "payledger sandbox", "url": None},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "payledger sandbox", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def retrieve_balance(call: Call) -> Json:
    """The sum of all movements, by currency: pending until `available_on`, then available."""
    sums: dict[str, defaultdict[str, int]] = {"available": defaultdict(int), "pending": defaultdict(int)}
    for moved in call.change.store.newest_first("balance_transaction", {}):
        kind = "available" if moved["available_on"] <= call.now else "pending"
        sums[kind][moved["currency"]] += moved["net"]
    currencies = sorted({"usd", *sums["available"], *sums["pending"]})
    parts = {
        kind: [{"amount": by[c], "currency": c, "source_types": {"card": by[c]}} for c in currencies]
        for kind, by in sums.items()
    }
    return {"object": "balance", **parts, "livemode": False}


def retrieve_balance_transaction(call: Call) -> Json:
    moved = call.named("balance_transaction", "id")
    if moved["available_on"] <= call.now:
        moved["status"] = "available"
    return moved


def retrieve_event(call: Call) -> Json:
    return call.named("event", "id")
