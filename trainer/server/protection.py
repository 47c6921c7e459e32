"""Checks of each request before the API sees it, and headers of each answer.

A request needs a known Host, so that another site's name cannot be rebound to this address. It
may not come from another site's page. Its client's rate is limited. With a token, it has to carry
the token or the session that the token opened. No route reads a body; that of the sign-in is read
here, up to a limit.
"""

import collections
import dataclasses
import hmac
import ipaddress
import secrets
import time
import urllib.parse
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.server import assets
from trainer.server.metrics import Metrics

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_OPEN = ("/healthz", "/page/page.css")  # paths that need no token
_SIGN_IN_BYTES = 4096
_CLIENTS = 4096  # clients whose rate is remembered
_WRONG_TOKEN = 50  # requests that a wrong token counts as


@dataclasses.dataclass(frozen=True)
class Rules:
    """Rules for the requests of a server."""

    hosts: frozenset[str] = frozenset()  # names besides localhost and addresses
    token: str | None = None
    rate: float = 200.0  # requests a second that a client may send in the long run
    burst: float = 1000.0  # requests that it may send at once


class Protection:
    """An ASGI application that passes on only the requests that its rules allow."""

    def __init__(self, app: ASGIApp, rules: Rules, metrics: Metrics) -> None:
        """Initialize with an empty list of clients and a new session."""
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._session = secrets.token_urlsafe(32)
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.monotonic() - begun)
            await send(message)

        refused = await self._refuse(scope, receive)
        await (refused or self._app)(scope, receive, send_with_headers)

    async def _refuse(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the answer to a request that may not pass; None if it may."""
        headers = Headers(scope=scope)
        if not known_host(headers.get("host", ""), self._rules.hosts):
            return refusal(403, "forbidden", "the Host header does not name this server")
        if _from_another_site(headers):
            return refusal(403, "forbidden", "requests of other sites' pages are not answered")
        client = (scope.get("client") or ("",))[0]
        wait = self._wait(client, 1)
        if wait:
            return refusal(429, "too_many", "too many requests: slow down", retry_after_s=wait)
        if self._rules.token is None or scope["path"] in _OPEN or self._is_signed_in(scope):
            return None
        if scope["path"] == "/" and scope["method"] == "POST":
            return await self._sign_in(scope, receive, client)
        if "authorization" in headers:
            self._wait(client, _WRONG_TOKEN)
        if scope["path"] == "/":
            return HTMLResponse(assets.sign_in(failed=False), 401)
        told = "give the server's token in the header `Authorization: Bearer TOKEN`"
        return refusal(401, "unauthorized", told, {"WWW-Authenticate": "Bearer"})

    def _is_signed_in(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), self._rules.token or ""):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(scope))
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._session)

    async def _sign_in(self, scope: Scope, receive: Receive, client: str) -> Response:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _SIGN_IN_BYTES:
                return refusal(413, "too_large", "the token is too long")
            if not message.get("more_body", False):
                break
        try:
            given = urllib.parse.parse_qs(body.decode(), max_num_fields=4).get("token", [""])[0]
        except ValueError:
            given = ""
        if not _same(given.strip(), self._rules.token or ""):
            self._wait(client, _WRONG_TOKEN)
            return HTMLResponse(assets.sign_in(failed=True), 401)
        query = scope["query_string"].decode("ascii", "ignore")
        answer = RedirectResponse(f"/?{query}" if query else "/", 303)
        name = _cookie_name(scope)
        answer.set_cookie(name, self._session, httponly=True, samesite="lax")
        return answer

    def _wait(self, client: str, requests: int) -> float:
        """Take requests of a client's allowance, and return the seconds until it has one again."""
        now = time.monotonic()
        left, before = self._buckets.pop(client, (self._rules.burst, now))
        left = min(self._rules.burst, left + (now - before) * self._rules.rate)
        enough = left >= 1
        left = max(left - requests, -self._rules.burst) if enough else left
        self._buckets[client] = left, now
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - left) / self._rules.rate


def known_host(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header names an address, this machine, or one of the names.

    An address cannot be rebound. Another site's name can.

    >>> [known_host(host, {"gpu7"}) for host in ("127.0.0.1:80", "[::1]:80", "GPU7", "example.org")]
    [True, True, True, False]
    """
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(
    status: int,
    kind: str,
    message: str,
    headers: dict[str, str] | None = None,
    *,
    retry_after_s: float = 0.0,
    field: str | None = None,
) -> JSONResponse:
    """Return an answer of the API's error type (schema.ErrorAnswer)."""
    more: dict[str, Any] = dict(headers or {})
    if retry_after_s:
        more["Retry-After"] = str(max(1, round(retry_after_s)))
    detail = {"type": kind, "message": message} | ({"field": field} if field else {})
    return JSONResponse({"error": detail}, status, more)


def _from_another_site(headers: Headers) -> bool:
    """Return whether a browser sends the request for a page of another site, links excepted."""
    other = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    return other and headers.get("sec-fetch-mode") != "navigate"


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _cookie_name(scope: Scope) -> str:
    """Return a name that differs between servers of one machine: cookies ignore ports."""
    return f"svilm-{(scope.get('server') or ('', 0))[1]}"
