"""An issuer of tokens: its keys, and the address it publishes them at, in whatever way it is told to."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

HOUR = timedelta(hours=1)
POLL_S = 0.01


class Issuer:
    """Serves a key set on an address of its own, in whatever way it is told to."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = with_body(b"")
        self.asked = 0
        self.go_on = threading.Event()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()

    def serve(self, *keys: "Key") -> None:
        self.answer = with_body(set_of(*keys))

    def in_two_halves(self, *keys: "Key") -> Callable[[BaseHTTPRequestHandler], None]:
        body = set_of(*keys)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            with_body(body[:200], length=len(body))(handler)
            self.go_on.wait()
            handler.wfile.write(body[200:])

        return answer

    def keeps_waiting(self, _: BaseHTTPRequestHandler) -> None:
        self.go_on.wait()

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class Key:
    """A key that an issuer signs with."""

    def __init__(self, name: str | list[str]) -> None:
        self._name = name
        self._private = rsa.generate_private_key(65_537, 2048)
        self.told = json.loads(RSAAlgorithm.to_jwk(self._private.public_key())) | {"kid": name}

    def token(self) -> str:
        now = datetime.now(UTC)
        claims = {"sub": "shop", "scope": "read:payment", "iat": now, "exp": now + HOUR, "jti": str(uuid4())}
        return jwt.encode(claims, self._private, algorithm="RS256", headers={"kid": self._name})


def set_of(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.told for key in keys]}).encode()


def with_body(body: bytes, *, status: int = 200, length: int | None = None, location: str | None = None) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        if location:
            handler.send_header("Location", location)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()

    return answer
