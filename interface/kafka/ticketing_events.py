"""What the ticket service hears of orders that were paid: `payment:created {id, orderId, stripeId}`."""

from collections.abc import Sequence

from msgspec import Struct, json

from domain.envelope import Envelope
from domain.order_facts import OrderPaid
from interface.kafka.messages import Message, milliseconds


class PaymentCreated(Struct, frozen=True, rename="camel"):
    """An order was paid. `stripe_id` is Stripe's id of the charge."""

    id: str
    order_id: str
    stripe_id: str | None


EVENT_TYPE = "payment:created"
EVENTS = {EVENT_TYPE: PaymentCreated}


def ticketing_messages(envelopes: Sequence[Envelope]) -> list[Message]:
    """What a batch of the log tells the ticket service, in order; keyed by order."""
    return [_message(envelope, envelope.fact) for envelope in envelopes if isinstance(envelope.fact, OrderPaid)]


def _message(envelope: Envelope, paid: OrderPaid) -> Message:
    event = PaymentCreated(str(paid.payment), paid.order, paid.charge)
    headers = [("event-type", EVENT_TYPE.encode()), ("content-type", b"application/json")]
    return Message(paid.order.encode(), json.encode(event), headers, milliseconds(envelope.at))
