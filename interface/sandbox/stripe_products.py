"""What is sold: products, and their prices. A price is one currency and, where it recurs, one interval."""

from interface.sandbox import stripe_objects as form
from interface.sandbox.stripe_billing_objects import price_form, product_form
from interface.sandbox.stripe_call import Call
from interface.sandbox.stripe_errors import Json, invalid, refused
from interface.sandbox.stripe_lists import lister
from interface.sandbox.stripe_money import MAX_AMOUNT_MINOR, check_currency, check_digits

MAX_YEARS = 3
_MOST = {"day": MAX_YEARS * 365, "week": MAX_YEARS * 52, "month": MAX_YEARS * 12, "year": MAX_YEARS}
_PRODUCT_TEXTS = (
    "active",
    "default_price",
    "description",
    "images",
    "marketing_features",
    "name",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "unit_label",
    "url",
)
_PRICE_TEXTS = ("active", "nickname", "tax_behavior")
_NOT_DONE = ("currency_options", "custom_unit_amount", "tiers", "tiers_mode", "transform_quantity")


# Products


def create_product(call: Call) -> Json:
    wanted = call.params.get("id")
    if wanted is not None and call.change.find("product", wanted) is not None:
        raise invalid(f"There is a product with the id {wanted} already.", code="resource_already_exists", param="id")
    product = call.change.put(product_form(call.params, call.now))
    if (given := call.params.get("default_price_data")) is not None:
        product["default_price"] = _add_price(call, given, product["id"], "default_price_data")["id"]
    call.change.emit("product.created", product)
    return product


def retrieve_product(call: Call) -> Json:
    return call.named("product", "id")


def update_product(call: Call) -> Json:
    product = call.named("product", "id")
    if (default := call.params.get("default_price")) is not None:
        price = call.change.get("price", default, "default_price", status=400)
        if price["product"] != product["id"]:
            raise invalid(f"The price {default} is one of another product.", param="default_price")
    form.copied(product, call.params, _PRODUCT_TEXTS)
    product["updated"] = call.now
    call.change.put(product)
    call.change.emit("product.updated", product)
    return product


def delete_product(call: Call) -> Json:
    """Only one that has no prices can go."""
    product = call.named("product", "id")
    if next(call.change.store.newest_first("price", {"product": product["id"]}), None) is not None:
        raise invalid("A product that has prices cannot be deleted; make it inactive instead.", param="id")
    gone = call.change.put({"id": product["id"], "object": "product", "deleted": True})
    call.change.emit("product.deleted", product)
    return gone


def _listed_product(call: Call, product: Json) -> bool:
    ids = call.params.get("ids")
    return ids is None or product["id"] in ids


list_products = lister("product", "active", "shippable", "type", "url", where=_listed_product)

# Prices


def create_price(call: Call) -> Json:
    params = call.params
    given = [name for name in ("product", "product_data") if name in params]
    if len(given) != 1:
        raise refused("Either product or product_data is needed.", code="parameter_missing", param="product")
    if "product" in params:
        product = call.change.get("product", params["product"], "product", status=400)
        if not product["active"]:
            raise invalid(f"The product {product['id']} is not active.", param="product")
    else:
        product = call.change.put(product_form(params["product_data"], call.now))
        call.change.emit("product.created", product)
    price = _add_price(call, params, product["id"], "")
    _take_lookup_key(call, price)
    return price


def _add_price(call: Call, params: Json, product: str, path: str) -> Json:
    currency = check_currency(params["currency"])
    if name := next((name for name in _NOT_DONE if params.get(name)), None):
        raise invalid("The stand-in has prices of one currency and one unit amount only.", param=_within(path, name))
    if params.get("billing_scheme", "per_unit") != "per_unit":
        raise invalid("The stand-in bills per unit only.", param=_within(path, "billing_scheme"))
    amount = _unit_amount(params, path)
    check_digits(amount, currency, _within(path, "unit_amount"))
    _check_recurring(params.get("recurring"), _within(path, "recurring"))
    price = call.change.put(price_form(params | {"currency": currency}, product, amount, call.now))
    call.change.emit("price.created", price)
    return price


def _unit_amount(params: Json, path: str) -> int:
    given = params.get("unit_amount", params.get("unit_amount_decimal"))
    if given is None:
        param = _within(path, "unit_amount")
        raise refused("A price needs a unit_amount.", code="parameter_missing", param=param)
    if not str(given).isdecimal() or int(given) > MAX_AMOUNT_MINOR:
        raise invalid(
            f"The unit amount is in whole minor units, from 0 to {MAX_AMOUNT_MINOR}.",
            code="parameter_invalid_integer",
            param=_within(path, "unit_amount"),
        )
    return int(given)


def _check_recurring(recurring: Json | None, path: str) -> None:
    if recurring is None:
        return
    most = _MOST[recurring["interval"]]
    if not 1 <= recurring.get("interval_count", 1) <= most:
        raise invalid(
            f"At most {MAX_YEARS} years: interval_count is from 1 to {most} of {recurring['interval']}.",
            param=f"{path}[interval_count]",
        )
    if recurring.get("usage_type", "licensed") != "licensed" or recurring.get("meter"):
        raise invalid("The stand-in knows licensed usage only.", param=f"{path}[usage_type]")


def _take_lookup_key(call: Call, price: Json) -> None:
    """A lookup key belongs to one price; it is taken from another one only when asked to."""
    key = call.params.get("lookup_key")
    if key is None:
        return
    for other in list(call.change.store.newest_first("price", {"lookup_key": key})):
        if other["id"] == price["id"]:
            continue
        if not call.params.get("transfer_lookup_key"):
            raise invalid(f"The lookup key {key} belongs to {other['id']} already.", param="lookup_key")
        call.change.emit("price.updated", call.change.put(other | {"lookup_key": None}), {"lookup_key": key})
    price["lookup_key"] = key


def retrieve_price(call: Call) -> Json:
    return call.named("price", "price")


def update_price(call: Call) -> Json:
    price = call.named("price", "price")
    if call.params.get("currency_options"):
        raise invalid("The stand-in has prices of one currency only.", param="currency_options")
    form.copied(price, call.params, _PRICE_TEXTS)
    _take_lookup_key(call, price)
    call.change.put(price)
    call.change.emit("price.updated", price)
    return price


def _listed_price(call: Call, price: Json) -> bool:
    keys, wanted = call.params.get("lookup_keys"), call.params.get("recurring") or {}
    recurring = price["recurring"] or {}
    return (keys is None or price["lookup_key"] in keys) and all(
        recurring.get(name) == text for name, text in wanted.items()
    )


list_prices = lister("price", "product", "active", "currency", "type", where=_listed_price)


def _within(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name
