"""Who may ask: whoever has a test key."""

from base64 import b64decode

from interface.sandbox.stripe_errors import unauthorized

_TEST_KEYS = ("sk_test_", "rk_test_")


def authorize(header: str) -> None:
    """Bearer, or Basic with the key as the user. Any test key will do; the stand-in has one account."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            secret = b64decode(secret).decode().partition(":")[0]
        except ValueError:
            secret = ""
    if not secret.strip():
        raise unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using"
            " Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
    if not secret.strip().startswith(_TEST_KEYS):
        raise unauthorized("Invalid API Key provided: the stand-in takes keys that begin with sk_test_ or rk_test_.")
