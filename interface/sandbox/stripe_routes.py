"""Every endpoint: method and path -> the SDK's parameter type that checks it and the function that answers it."""

from collections.abc import Callable
from typing import NamedTuple

from interface.sandbox import stripe_account as account
from interface.sandbox import stripe_charges as charges
from interface.sandbox import stripe_customers as customers
from interface.sandbox import stripe_disputes as disputes
from interface.sandbox import stripe_invoice_calls as invoices
from interface.sandbox import stripe_methods as methods
from interface.sandbox import stripe_payments as payments
from interface.sandbox import stripe_products as products
from interface.sandbox import stripe_refunds as refunds
from interface.sandbox import stripe_subscription_changes as changes
from interface.sandbox import stripe_subscriptions as subscriptions
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, unknown_route
from interface.sandbox.stripe_lists import list_events, lister, searcher


class Route(NamedTuple):
    """`params` is the name of a module in `stripe.params`, without underscore and `_params`."""

    params: str
    run: Callable[[Call], Json]


_OF_INTENTS = ("currency", "customer", "status")

_TABLE: tuple[tuple[str, str, Callable[[Call], Json]], ...] = (
    ("POST /v1/payment_intents", "payment_intent_create", payments.create_intent),
    ("GET /v1/payment_intents", "payment_intent_list", lister("payment_intent", "customer")),
    ("GET /v1/payment_intents/search", "payment_intent_search", searcher("payment_intent", *_OF_INTENTS)),
    ("GET /v1/payment_intents/*", "payment_intent_retrieve", payments.retrieve_intent),
    ("POST /v1/payment_intents/*", "payment_intent_update", payments.update_intent),
    ("POST /v1/payment_intents/*/confirm", "payment_intent_confirm", payments.confirm_intent),
    ("POST /v1/payment_intents/*/capture", "payment_intent_capture", payments.capture_intent),
    ("POST /v1/payment_intents/*/cancel", "payment_intent_cancel", payments.cancel_intent),
    ("POST /v1/charges", "charge_create", charges.create_charge),
    ("GET /v1/charges", "charge_list", lister("charge", "payment_intent", "customer")),
    ("GET /v1/charges/*", "charge_retrieve", charges.retrieve_charge),
    ("POST /v1/charges/*", "charge_update", charges.update_charge),
    ("POST /v1/charges/*/capture", "charge_capture", charges.capture_charge),
    ("POST /v1/refunds", "refund_create", refunds.create_refund),
    ("GET /v1/refunds", "refund_list", lister("refund", "charge", "payment_intent")),
    ("GET /v1/refunds/*", "refund_retrieve", refunds.retrieve_refund),
    ("POST /v1/refunds/*", "refund_update", refunds.update_refund),
    ("GET /v1/disputes", "dispute_list", lister("dispute", "charge", "payment_intent")),
    ("GET /v1/disputes/*", "dispute_retrieve", disputes.retrieve_dispute),
    ("POST /v1/disputes/*", "dispute_update", disputes.update_dispute),
    ("POST /v1/disputes/*/close", "dispute_close", disputes.close_dispute),
    ("POST /v1/customers", "customer_create", customers.create_customer),
    ("GET /v1/customers", "customer_list", lister("customer", "email")),
    ("GET /v1/customers/search", "customer_search", searcher("customer", "email", "name", "phone")),
    ("GET /v1/customers/*", "customer_retrieve", customers.retrieve_customer),
    ("POST /v1/customers/*", "customer_update", customers.update_customer),
    ("DELETE /v1/customers/*", "customer_delete", customers.delete_customer),
    ("POST /v1/payment_methods", "payment_method_create", methods.create_payment_method),
    ("GET /v1/payment_methods", "payment_method_list", lister("payment_method", "customer", "type")),
    ("GET /v1/payment_methods/*", "payment_method_retrieve", methods.retrieve_payment_method),
    ("POST /v1/payment_methods/*", "payment_method_update", methods.update_payment_method),
    ("POST /v1/payment_methods/*/attach", "payment_method_attach", methods.attach_payment_method),
    ("POST /v1/payment_methods/*/detach", "payment_method_detach", methods.detach_payment_method),
    ("GET /v1/customers/*/payment_methods", "customer_payment_method_list", methods.list_methods),
    ("POST /v1/products", "product_create", products.create_product),
    ("GET /v1/products", "product_list", products.list_products),
    ("GET /v1/products/*", "product_retrieve", products.retrieve_product),
    ("POST /v1/products/*", "product_update", products.update_product),
    ("DELETE /v1/products/*", "product_delete", products.delete_product),
    ("POST /v1/prices", "price_create", products.create_price),
    ("GET /v1/prices", "price_list", products.list_prices),
    ("GET /v1/prices/*", "price_retrieve", products.retrieve_price),
    ("POST /v1/prices/*", "price_update", products.update_price),
    ("POST /v1/subscriptions", "subscription_create", subscriptions.create_subscription),
    ("GET /v1/subscriptions", "subscription_list", subscriptions.list_subscriptions),
    ("GET /v1/subscriptions/*", "subscription_retrieve", subscriptions.retrieve_subscription),
    ("POST /v1/subscriptions/*", "subscription_update", changes.update_subscription),
    ("DELETE /v1/subscriptions/*", "subscription_cancel", subscriptions.cancel_subscription),
    ("GET /v1/invoices", "invoice_list", invoices.list_invoices),
    ("GET /v1/invoices/*", "invoice_retrieve", invoices.retrieve_invoice),
    ("POST /v1/invoices/*", "invoice_update", invoices.update_invoice),
    ("POST /v1/invoices/*/finalize", "invoice_finalize_invoice", invoices.finalize_invoice),
    ("POST /v1/invoices/*/pay", "invoice_pay", invoices.pay_invoice),
    ("POST /v1/invoices/*/void", "invoice_void_invoice", invoices.void_invoice),
    ("POST /v1/invoices/*/mark_uncollectible", "invoice_mark_uncollectible", invoices.mark_uncollectible),
    ("GET /v1/invoices/*/lines", "invoice_line_item_list", invoices.list_lines),
    ("GET /v1/invoice_payments", "invoice_payment_list", invoices.list_payments),
    ("GET /v1/invoice_payments/*", "invoice_payment_retrieve", invoices.retrieve_payment),
    ("GET /v1/invoiceitems", "invoice_item_list", lister("invoiceitem", "customer", "invoice")),
    ("POST /v1/tokens", "token_create", methods.create_token),
    ("GET /v1/tokens/*", "token_retrieve", methods.retrieve_token),
    ("GET /v1/events", "event_list", list_events),
    ("GET /v1/events/*", "event_retrieve", account.retrieve_event),
    (
        "GET /v1/balance_transactions",
        "balance_transaction_list",
        lister("balance_transaction", "source", "currency", "type"),
    ),
    ("GET /v1/balance_transactions/*", "balance_transaction_retrieve", account.retrieve_balance_transaction),
    ("GET /v1/balance", "balance_retrieve", account.retrieve_balance),
    ("GET /v1/account", "account_retrieve_current", account.retrieve_account),
)

_ROUTES = {tuple(pattern.replace(" ", "").split("/")): Route(params, run) for pattern, params, run in _TABLE}


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route and the ids in the path; Stripe's 404 when there is none."""
    steps = (method, *path.strip("/").split("/"))
    if (found := _ROUTES.get(steps)) is not None:
        return found, ()
    if len(steps) > 3 and (found := _ROUTES.get((*steps[:3], "*", *steps[4:]))) is not None:
        return found, (steps[3],)
    raise unknown_route(method, path)
