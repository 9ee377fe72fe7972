"""Only what Stripe signed with one of our secrets, just now, is taken for an event; and little of it is kept."""

import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import stripe

from application.inbox import Event
from application.stripe_events import TOLERANCE_S, BadEvent, BadSignature, operation_of, verified
from tests.given import NOON

SAMPLES = Path(__file__).parent / "samples"
SECRET = "whsec_in_force"
OLD = "whsec_before"
PAYMENT = UUID("eee9ccc9-8c7e-5931-9de9-5420b278a3a7")
PERSONAL = ["ada@example.com", "Ada Lovelace", "+15550100", "12 St James's Square", "4242", "a note about Ada"]


def body(**members: Any) -> bytes:
    told = {"id": "evt_1", "type": "charge.updated", "created": 1_762_171_200, "data": {"object": thing()}}
    return msgspec.json.encode(told | members)


def thing(**members: Any) -> dict[str, Any]:
    marks = {"payledger_payment": str(PAYMENT), "payledger_operation": "cap_1"}
    return {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "metadata": marks} | members


def signature(signed: bytes, secret: str = SECRET, at: datetime = NOON) -> str:
    """As https://docs.stripe.com/webhooks#verify-manually has it."""
    stamp = str(int(at.timestamp()))
    return f"t={stamp},v1={hmac.digest(secret.encode(), stamp.encode() + b'.' + signed, 'sha256').hex()}"


def heard(signed: bytes, *secrets: str, header: str | None = None, now: datetime = NOON) -> Event:
    return verified(signed, signature(signed) if header is None else header, secrets or (SECRET,), now)


# --- Signatures --------------------------------------------------------------------------------------------------


def test_a_signature_is_over_the_very_bytes() -> None:
    spaced = body().replace(b":", b" : ")
    assert heard(spaced).event_id == heard(body()).event_id == "evt_1"
    with pytest.raises(BadSignature):
        heard(spaced, header=signature(body()))
    umlauts = body(data={"object": thing(description="Grüße, 東京")})
    assert heard(umlauts).object_id == "ch_1"


def test_a_secret_that_is_being_replaced_is_good_until_it_is_gone() -> None:
    old = signature(body(), OLD)
    assert heard(body(), SECRET, OLD, header=old).event_id == "evt_1"
    assert heard(body(), OLD, SECRET).event_id == "evt_1"
    with pytest.raises(BadSignature):
        heard(body(), SECRET, header=old)


def test_a_header_may_carry_several_signatures() -> None:
    stamp, good = signature(body()).split(",")
    other = signature(body(), OLD).split(",")[1]
    for header in (f"{stamp},{other},{good}", f"{stamp},{good},{other}", f"{stamp},v0=abc,{good}"):
        assert heard(body(), header=header).event_id == "evt_1"
    with pytest.raises(BadSignature):
        heard(body(), header=f"{stamp},{good.replace('v1', 'v0')}")


def test_the_header_that_stripes_own_library_makes_is_good() -> None:
    stamp = int(NOON.timestamp())
    signed = stripe.WebhookSignature._compute_signature(f"{stamp}.{body().decode()}", SECRET)
    assert heard(body(), header=f"t={stamp},v1={signed}").event_id == "evt_1"


def test_without_a_secret_nothing_is_good() -> None:
    with pytest.raises(BadSignature):
        verified(body(), signature(body()), (), NOON)


@pytest.mark.parametrize("place", range(0, len(body()), 7))
def test_a_body_that_was_changed_anywhere_is_refused(place: int) -> None:
    changed = bytearray(body())
    changed[place] ^= 1
    with pytest.raises(BadSignature):
        heard(bytes(changed), header=signature(body()))


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "=",
        "t=",
        "v1=abc",
        "t=abc,v1=abc",
        "t=-1,v1=abc",
        "t=1e9,v1=abc",
        "t=²,v1=abc",
        "t=99999999999999999999,v1=abc",
        "\x00\xff",
        f"t={int(NOON.timestamp())}",
        f"t={int(NOON.timestamp())},v1=",
        f"t={int(NOON.timestamp())},v1=ümlaut",
        f"t={int(NOON.timestamp())},v1={'0' * 64}",
        signature(body()).replace("t=", "T="),
        signature(body()).replace("t=", " t="),
        signature(body()).split(",")[1],
        signature(body())[:-1],
        "," * 10_000,
    ],
)
def test_a_header_that_is_missing_or_garbage_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        heard(body(), header=header)


@pytest.mark.parametrize("age_s", [TOLERANCE_S, 0, -TOLERANCE_S])
def test_a_signature_of_now_is_good(age_s: int) -> None:
    assert heard(body(), now=NOON + timedelta(seconds=age_s)).event_id == "evt_1"


@pytest.mark.parametrize("age_s", [TOLERANCE_S + 1, -TOLERANCE_S - 1, 86_400, -86_400])
def test_a_recording_is_refused_and_so_is_what_was_signed_in_the_future(age_s: int) -> None:
    with pytest.raises(BadSignature):
        heard(body(), now=NOON + timedelta(seconds=age_s))


def test_a_recording_cannot_be_given_another_age() -> None:
    """Whichever of two timestamps is looked at, it must be the one that was signed."""
    old, good = signature(body()).split(",")
    later = NOON + timedelta(hours=1)
    fresh = f"t={int(later.timestamp())}"
    for header in (f"{fresh},{old},{good}", f"{old},{fresh},{good}", f"{fresh},{good},{old}", f"{fresh},{good}"):
        with pytest.raises(BadSignature):
            heard(body(), header=header, now=later)


def test_what_is_not_utf_8_is_refused() -> None:
    signed = b'{"id": "\xff\xfe"}'
    with pytest.raises(BadSignature):
        heard(signed)


def test_the_clock_is_the_one_handed_in() -> None:
    long_ago = datetime(2016, 1, 1, tzinfo=UTC)
    assert heard(body(), header=signature(body(), at=long_ago), now=long_ago).event_id == "evt_1"


# --- Events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["charge.failed", "charge.succeeded"])
def test_what_stripe_shows_as_an_example_is_an_event(kind: str) -> None:
    assert heard((SAMPLES / f"{kind}.json").read_bytes()) == Event(
        event_id="evt_00000000000000",
        type=kind,
        object_id="ch_00000000000000",
        payment_intent="ch_00000000000000",  # a charge without an intent is the payment itself
        payment=None,
        operation=None,
        created_at=datetime(2012, 1, 18, 2, 24, 38, tzinfo=UTC),
        account=None,
    )


def test_an_event_tells_which_payment_it_is_about_and_which_request_caused_it() -> None:
    key = f"{PAYMENT}:cap_1"
    told = body(request={"id": "req_1", "idempotency_key": key}, account="acct_1")
    assert heard(told) == Event(
        "evt_1", "charge.updated", "ch_1", "pi_1", PAYMENT, "cap_1", datetime(2025, 11, 3, 12, tzinfo=UTC), "acct_1"
    )


@pytest.mark.parametrize(
    ("named", "intent"),
    [
        ({"object": "payment_intent", "id": "pi_7"}, "pi_7"),
        ({"payment_intent": "pi_1"}, "pi_1"),
        ({"payment_intent": {"id": "pi_1", "object": "payment_intent"}}, "pi_1"),
        ({"payment_intent": None}, "ch_1"),
        ({"object": "customer", "id": "cus_1", "payment_intent": None}, None),
        ({"object": "refund", "id": "re_1"}, "pi_1"),
    ],
)
def test_the_payment_intent_is_named_in_every_form(named: dict[str, Any], intent: str | None) -> None:
    assert heard(body(data={"object": thing(**named)})).payment_intent == intent


@pytest.mark.parametrize("marks", [None, {}, {"payledger_payment": "not one"}, {"other": "1"}])
def test_an_object_without_our_mark_names_no_payment(marks: dict[str, str] | None) -> None:
    assert heard(body(data={"object": thing(metadata=marks)})).payment is None


@pytest.mark.parametrize("request_", [None, "req_1", {"id": "req_1"}, {"id": None, "idempotency_key": None}])
def test_an_event_that_no_request_of_ours_caused_names_no_operation(request_: Any) -> None:
    assert heard(body(request=request_)).operation is None


@pytest.mark.parametrize(
    ("key", "operation"),
    [
        (f"{PAYMENT}:cap_1", "cap_1"),
        (f"{PAYMENT}:cap_1:method", "cap_1"),
        (f"{PAYMENT}:", None),
        (f"{PAYMENT}", None),
        ("of-somebody-else", None),
        (f"{UUID(int=7)}:cap_1", None),
        (None, None),
        ("", None),
    ],
)
def test_only_a_key_of_this_payment_names_an_operation(key: str | None, operation: str | None) -> None:
    assert operation_of(key, PAYMENT) == operation
    assert operation_of(key, None) is None


def test_nothing_personal_is_kept_of_an_event() -> None:
    email, name, phone, street, last4, note = PERSONAL
    details = {"email": email, "name": name, "phone": phone, "address": {"line1": street}}
    told = body(
        data={
            "object": thing(
                billing_details=details,
                description=note,
                receipt_email=email,
                payment_method_details={"card": {"last4": last4}},
                metadata=thing()["metadata"] | {"guest": name},
            ),
            "previous_attributes": {"receipt_email": email},
        },
        request={"id": "req_1", "idempotency_key": f"of {name}"},
    )
    kept = repr(heard(told))
    assert not [one for one in PERSONAL if one in kept]


@pytest.mark.parametrize(
    "signed",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"no json",
        b'{"id": "evt_1"}',
        body(id=7),
        body(type=None),
        body(data={}),
        body(data={"object": "ch_1"}),
        body(created="yesterday"),
        body(created=10**18),
        body(created=-(10**18)),
        body(data={"object": thing(payment_intent=7)}),
    ],
)
def test_what_is_signed_and_no_event_is_refused_and_its_text_is_told_to_nobody(signed: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        heard(signed)
    assert str(refused.value) == "the body is no event of Stripe's"
    assert refused.value.__suppress_context__
