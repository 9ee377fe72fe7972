"""The stand-in's own surface under `/_sandbox`: state, faults, clock, and the page of a 3-D Secure challenge.

`POST clock {"advance_s", "at_most"?}` plays what comes due on the way: all of it before it answers, or so many moments
of it at most. `POST billing` says what is done about failed renewals, `POST cards/{payment method}` reissues a card.
"""

import html
import json
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from interface.sandbox.stripe_api import MAX_ADVANCE_S, MAX_MOMENTS, Api
from interface.sandbox.stripe_attempts import authenticate
from interface.sandbox.stripe_billing_settings import billing_settings, change_billing_settings
from interface.sandbox.stripe_collection import settle
from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_faults import BadControlError, whole
from interface.sandbox.stripe_store import OBJECTS, Change
from interface.sandbox.stripe_webhooks import Courier

MAX_YEAR = 2999

_PAGE = """<!doctype html><meta charset="utf-8"><title>3-D Secure (sandbox)</title>
<h1>3-D Secure</h1><p>Payment {intent}: {amount} {currency} in minor units.</p>
<form method="post"><button name="outcome" value="complete">Complete</button>
<button name="outcome" value="fail">Fail</button></form>"""


class Answer(NamedTuple):
    """What the HTTP layer sends; `location` makes it a redirect."""

    status: int
    body: bytes
    content_type: str = "application/json"
    location: str | None = None


def control(api: Api, courier: Courier | None, method: str, path: str, body: bytes) -> Answer:
    """One call of the control surface. Bad input is a 400 that names the field."""
    try:
        if path == "/_sandbox/webhooks":
            return _webhooks(courier, method, body)
        return _control(api, method, path, body)
    except BadControlError as error:
        return _json({"error": {"field": error.field, "message": str(error)}}, 400)


def _control(api: Api, method: str, path: str, body: bytes) -> Answer:
    match method, path.removeprefix("/_sandbox/").split("/"):
        case "GET", ["state"]:
            return Answer(200, _state(api))
        case "GET", ["faults"]:
            return _json({"faults": api.faults.shown()})
        case "POST", ["faults"]:
            api.faults.arm(_decoded(body))
            return _json({"faults": api.faults.shown()})
        case "DELETE", ["faults"]:
            api.faults.clear()
            return _json({"faults": []})
        case "POST", ["clock"]:
            return _json(_advance(api, _decoded(body)))
        case "GET", ["clock"]:
            return _json({"now": api.now})
        case "GET", ["billing"]:
            return _json(billing_settings(api.store))
        case "POST", ["billing"]:
            change = Change(api.store, api.now)
            settings = change_billing_settings(change, _decoded(body))
            api.commit(change)
            return _json(settings)
        case "POST", ["cards", method]:
            return _json(_reissue(api, method, _decoded(body)))
        case "GET", ["3ds", intent]:
            return _page(api, intent)
        case "POST", ["3ds", intent]:
            return _settle(api, intent, body)
        case _:
            return _json({"error": {"field": "path", "message": f"there is no {method} {path}"}}, 404)


def _webhooks(courier: Courier | None, method: str, body: bytes) -> Answer:
    if courier is None:
        raise BadControlError("mode", "this stand-in was started without an address for webhooks")
    match method:
        case "GET":
            return _json(courier.shown())
        case "POST":
            return _json(courier.behave(_decoded(body)))
        case _:
            return _json({"error": {"field": "path", "message": f"there is no {method} of webhooks"}}, 404)


def _state(api: Api) -> bytes:
    """Every object in full, in order of creation; built from the stored bytes, so it is cheap."""
    api.play_due()
    api.keys.forget_expired(api.now)
    tables = [b'"%bs":[%b]' % (kind.encode(), b",".join(api.store.raw(kind))) for kind in OBJECTS]
    return b'{%b,"idempotency_keys":%d,"now":%d}' % (b",".join(tables), len(api.keys), api.now)


def _advance(api: Api, given: object) -> Json:
    """Stops early, at the last moment played, once `at_most` moments have been; `left_s` is what is still to go."""
    if not isinstance(given, dict):
        raise BadControlError("body", "a JSON object is needed")
    if unknown := set(given) - {"advance_s", "at_most"}:
        raise BadControlError(str(min(unknown)), "unknown field")
    seconds = whole(given, "advance_s", 0, MAX_ADVANCE_S, None)
    at_most = whole(given, "at_most", 1, MAX_MOMENTS, MAX_MOMENTS)
    until = api.now + seconds
    played = api.advance(until, at_most)
    left_s = max(0, until - api.now)
    return {"now": api.now, "played": played, "left_s": left_s, "more": played == at_most and api.due_by(until)}


def _reissue(api: Api, wanted: str, given: object) -> Json:
    """The card networks tell of a new card in place of a customer's old one."""
    if not isinstance(given, dict) or set(given) - {"exp_month", "exp_year"}:
        raise BadControlError("body", "exp_month and exp_year are needed")
    change = Change(api.store, api.now)
    method = change.find("payment_method", wanted)
    if method is None or method["customer"] is None:
        raise BadControlError("payment_method", "no customer has it")
    previous = {"card": dict(method["card"])}
    method["card"]["exp_month"] = whole(given, "exp_month", 1, 12, method["card"]["exp_month"])
    method["card"]["exp_year"] = whole(given, "exp_year", 1970, MAX_YEAR, None)
    change.put(method)
    change.emit("payment_method.automatically_updated", method, previous)
    api.commit(change)
    return method


# 3-D Secure


def _page(api: Api, wanted: str) -> Answer:
    intent = _challenged(api, wanted)
    shown = {name: html.escape(str(intent[name])) for name in ("amount", "currency")}
    return Answer(200, _PAGE.format(intent=html.escape(wanted), **shown).encode(), "text/html")


def _settle(api: Api, wanted: str, body: bytes) -> Answer:
    outcome = dict(parse_qsl(body.decode(errors="replace"))).get("outcome")
    if outcome is None and body[:1] == b"{":
        outcome = dict(_decoded(body)).get("outcome")
    if outcome not in ("complete", "fail"):
        raise BadControlError("outcome", "complete or fail is needed")
    return_url = _challenged(api, wanted)["next_action"]["redirect_to_url"]["return_url"]
    change = Change(api.store, api.now)
    intent = authenticate(change, change.get("payment_intent", wanted, "intent"), passed=outcome == "complete")
    settle(change, intent)
    api.commit(change)
    if return_url is None:
        return _json({"id": wanted, "status": intent["status"]})
    done = "succeeded" if intent["status"] in ("succeeded", "requires_capture") else "failed"
    return Answer(303, b"", location=_with_query(return_url, payment_intent=wanted, redirect_status=done))


def _challenged(api: Api, wanted: str) -> Json:
    intent = api.store.get("payment_intent", wanted)
    if intent is None or intent["status"] != "requires_action":
        raise BadControlError("payment_intent", "no challenge is open for it")
    return intent


def _with_query(url: str, **more: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *more.items()])))


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise BadControlError("body", "JSON is needed") from None


def _json(given: Json, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(given))
