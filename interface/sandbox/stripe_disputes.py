"""Disputes: the cardholder contests a captured charge, the money is withdrawn, and evidence decides.

As in Stripe's test mode, some cards contest every charge, and the text `winning_evidence` or `losing_evidence` decides.
"""

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_cards import card_of_fingerprint
from interface.sandbox.stripe_errors import Json, invalid
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_store import Change

FEE = 1_500
DUE_S = 7 * 24 * 3600
_OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")


def contest(change: Change, charge: Json) -> None:
    """Open the dispute that a test card brings, once its charge has been captured in full."""
    reason = card_of_fingerprint(charge["payment_method_details"]["card"]["fingerprint"]).disputed
    if reason is None or charge["disputed"] or not charge["amount_captured"]:
        return
    inquiry = reason == "inquiry"
    dispute = _dispute(charge, "general" if inquiry else reason, change.now)
    dispute["status"] = "warning_needs_response" if inquiry else "needs_response"
    dispute["is_charge_refundable"] = inquiry
    change.put(dispute)
    change.emit("charge.dispute.created", dispute)
    if inquiry:
        return
    change.put(charge)["disputed"] = True
    _move(change, dispute, -charge["amount_captured"], FEE)
    change.emit("charge.dispute.funds_withdrawn", dispute)


def retrieve_dispute(call: Call) -> Json:
    return call.named("dispute", "dispute")


def update_dispute(call: Call) -> Json:
    dispute = _open(call)
    evidence = call.params.get("evidence") or {}
    dispute["evidence"] |= {name: text for name, text in evidence.items() if name in dispute["evidence"]}
    form.copied(dispute, call.params, ("metadata",))
    details = dispute["evidence_details"]
    details["has_evidence"] = any(dispute["evidence"].values())
    if not call.params.get("submit", True):
        return call.change.put(dispute)
    details["submission_count"] += 1
    warned = dispute["status"].startswith("warning_")
    dispute["status"] = "warning_under_review" if warned else "under_review"
    call.change.put(dispute)
    call.change.emit("charge.dispute.updated", dispute)
    decided = {"winning_evidence": "won", "losing_evidence": "lost"}.get(dispute["evidence"]["uncategorized_text"])
    if decided is not None:
        _end(call.change, dispute, "warning_closed" if warned else decided)
    return dispute


def close_dispute(call: Call) -> Json:
    """Give in: the money stays with the cardholder."""
    dispute = _open(call)
    _end(call.change, dispute, "warning_closed" if dispute["status"].startswith("warning_") else "lost")
    return dispute


def _open(call: Call) -> Json:
    dispute = call.named("dispute", "dispute")
    if dispute["status"] not in _OPEN:
        raise invalid(f"This dispute is already closed ({dispute['status']}).", code="dispute_already_closed")
    return dispute


def _end(change: Change, dispute: Json, status: str) -> None:
    dispute["status"] = status
    change.put(dispute)
    if status == "won":
        _move(change, dispute, dispute["amount"], 0)
        change.emit("charge.dispute.funds_reinstated", dispute)
    change.emit("charge.dispute.closed", dispute)


def _move(change: Change, dispute: Json, amount: int, fee: int) -> None:
    moved = change.put(form.balance_transaction(dispute, amount, fee, change.now) | {"type": "adjustment"})
    dispute["balance_transactions"] = [*dispute["balance_transactions"], moved]


def _dispute(charge: Json, reason: str, now: int) -> Json:
    return {
        "id": new_id("dp_"),
        "object": "dispute",
        "amount": charge["amount_captured"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"product_description": None, "uncategorized_file": None, "uncategorized_text": None},
        "evidence_details": {"due_by": now + DUE_S, "has_evidence": False, "past_due": False, "submission_count": 0},
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {"card": {"brand": "visa", "network_reason_code": "10.4"}, "type": "card"},
        "reason": reason,
        "status": "needs_response",
    }
