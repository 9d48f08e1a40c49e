"""Who may ask, and what a page may do: a token, the Host header, and the headers of every reply."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

from wsi_mil.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Digest of nothing: the page puts an empty style where OpenSeadragon would else write one of its own."""

CONTENT_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY_STYLE}; img-src 'self' blob: data:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, no inline script, no style in the page's text."""

HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}

LEAST_TOKEN = 16
"""Characters of a token that is given: fewer can be guessed."""


def check_token(token: str) -> None:
    """Raise ConfigError for a token that is missing or too short: there is no way to serve without one."""
    if len(token) < LEAST_TOKEN:
        raise ConfigError(f"a token of {len(token)} characters protects nothing: give {LEAST_TOKEN} or more")


@final
class Guard:
    """Lets only those pass who know the token, from the page itself, and puts the headers on every reply.

    The first visit brings the token in the address (`?token=`), gets it as a cookie that scripts cannot read, and is
    sent on to the address without it, so that it stands in no history and no screenshot. The cookie is lax, for with a
    strict one the address could not be followed from a mail. What changes files must come
    from the page: same origin, and JSON, which other pages cannot send unasked.
    """

    def __init__(self, app: App, *, token: str, cookie: str) -> None:
        """`cookie` is a name of this port's own: cookies are shared by all ports of a host."""
        check_token(token)
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, send on, or refuse with 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = {name.encode(): value.encode() for name, value in HEADERS.items()}
                added.setdefault(b"cache-control", b"private, no-store")
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in added.items() if name not in present),
                ]
            await send(message)

        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Any:
        """A reply that ends it here, or None for those who may pass."""
        connection = HTTPConnection(scope)
        offered = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if offered and self._is_token(offered[0]):
            answer = RedirectResponse(scope["path"] if scope["path"] == "/" else "/", status_code=303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax", path="/")
            return answer
        if not self._is_token(connection.cookies.get(self._cookie, "")):
            return PlainTextResponse("Open the address with the token that wsi-mil view printed.\n", status_code=401)
        if scope["method"] not in ("GET", "HEAD") and not _from_page(connection):
            return PlainTextResponse("Changes are taken from the viewer's own page alone.\n", status_code=403)
        return None

    def _is_token(self, told: str) -> bool:
        return secrets.compare_digest(told.encode(), self._token.encode())


def _from_page(connection: HTTPConnection) -> bool:
    headers = connection.headers
    origin = headers.get("origin")
    same = origin is not None and urlsplit(origin).netloc == headers.get("host", "")
    is_json = headers.get("content-type", "").split(";")[0].strip() == "application/json"
    return same and is_json
