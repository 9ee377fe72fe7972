"""Customers: create, change, delete."""

from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, missing
from interface.sandbox.stripe_ids import new_id
from interface.sandbox.stripe_methods import attach, method_for, not_attached
from interface.sandbox.stripe_objects import copied
from interface.sandbox.stripe_subscriptions import cancel_all_of

_CUSTOMER_TEXTS = ("address", "description", "email", "name", "phone", "shipping", "tax_exempt", "preferred_locales")


def create_customer(call: Call) -> Json:
    wanted = new_id("cus_")
    customer: Json = {
        "id": wanted,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": call.now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": wanted[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    call.change.put(customer)
    became: dict[str, str] = {}
    for name in ("payment_method", "source"):
        if name in call.params:
            given = call.params[name]
            became[given] = attach(call.change, method_for(call.change, given, name), customer)["id"]
    _take_over(call, customer, became)
    call.change.emit("customer.created", customer)
    return customer


def retrieve_customer(call: Call) -> Json:
    """A deleted customer can still be asked for: `{"id", "object", "deleted": true}`."""
    found = call.change.find("customer", call.ids[0])
    if found is None:
        raise missing("customer", call.ids[0], "id")
    return found


def update_customer(call: Call) -> Json:
    customer = call.named("customer", "id")
    if "source" in call.params:
        attach(call.change, method_for(call.change, call.params["source"], "source"), customer)
    _take_over(call, customer, {})
    call.change.put(customer)
    call.change.emit("customer.updated", customer)
    return customer


def delete_customer(call: Call) -> Json:
    """The personal data goes; what is left says that there was one."""
    customer = call.named("customer", "id")
    cancel_all_of(call.change, customer["id"])
    for method in list(call.change.store.newest_first("payment_method", {"customer": customer["id"]})):
        call.change.put(method | {"customer": None})
    gone = {"id": customer["id"], "object": "customer", "deleted": True}
    call.change.put(gone)
    call.change.emit("customer.deleted", gone)
    return gone


def _take_over(call: Call, customer: Json, became: dict[str, str]) -> None:
    """`became`: the names of static cards, and the payment methods that were made of them just now."""
    copied(customer, call.params, _CUSTOMER_TEXTS)
    default = (call.params.get("invoice_settings") or {}).get("default_payment_method")
    if default is not None:
        default = became.get(default, default)
        method = call.change.get("payment_method", default, "invoice_settings[default_payment_method]", status=400)
        if method["customer"] != customer["id"]:
            raise not_attached(default, "invoice_settings[default_payment_method]")
        customer["invoice_settings"]["default_payment_method"] = default
