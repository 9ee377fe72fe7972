"""What both faces of the client say to their HTTP library."""

import re
from typing import Any

import httpx

from interface.client_answers import Answer
from interface.client_attempts import Attempt, Call

CONNECT_TIMEOUT_S = 5.0
_SENDABLE = re.compile(r"[\x21-\x7e]+")


def connection(url: str, token: str) -> dict[str, Any]:
    """What a client is made with. Raises ValueError, which quotes neither: both may hold a secret."""
    if not re.match("https?://[^/]", url) or not _SENDABLE.fullmatch(url):
        raise ValueError("the ledger's address must be one that begins with http:// or https://")
    if not _SENDABLE.fullmatch(token):
        raise ValueError("the token has a character that cannot be sent, or none at all")
    try:
        return {"base_url": httpx.URL(url), "headers": {"Authorization": f"Bearer {token}"}}
    except httpx.InvalidURL:
        pass
    raise ValueError("the ledger's address cannot be read")


def request(call: Call[Any], attempt: Attempt) -> dict[str, Any]:
    """One request, as the library's `request` takes it."""
    said = {} if call.body is None else {"Content-Type": "application/json"}
    return {
        "method": call.method,
        "url": call.path,
        "headers": said | call.headers,
        "params": call.query or None,
        "content": call.body,
        "timeout": httpx.Timeout(attempt.timeout_s, connect=min(CONNECT_TIMEOUT_S, attempt.timeout_s)),
    }


def answered(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)
