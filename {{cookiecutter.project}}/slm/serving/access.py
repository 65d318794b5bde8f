"""Who may ask the server: by the Host that a request names, the site that it comes from, and a token.

A page in a browser can send requests to this machine's addresses. It cannot choose their Host or Origin.
"""

import hmac
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from slm.errors import UserError
from slm.serving.refusal import RequestError, refusal

LONGEST_HEAD = 16 << 10  # bytes of target and headers; browsers and proxies send less than half of it
SHORTEST_TOKEN = 16
OPEN_PATH = "/health"  # a load balancer asks it by an address of its own, without a token
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_TOKEN = re.compile("[!-~]+")


@dataclass(frozen=True)
class Access:
    """hosts: as `NAME:PORT`, or as `NAME` for any port; origins: as browsers send them."""

    hosts: frozenset[str]
    origins: frozenset[str]
    token: str | None


def read_token(file: Path | None) -> str | None:
    """The token in a file, else in the variable SLM_TOKEN; None where neither is given.

    Raises:
        UserError: no such file, or a text that is no token.
    """
    where, text = "SLM_TOKEN", os.environ.get("SLM_TOKEN")
    if file is not None:
        where = str(file)
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: the token cannot be read ({error}); name a text file") from None
    if text is not None and (len(text) < SHORTEST_TOKEN or not _TOKEN.fullmatch(text)):
        raise UserError(
            f"{where}: a token has at least {SHORTEST_TOKEN} characters, all of them letters, digits or "
            "signs of ASCII; make one with `openssl rand -hex 32`"
        )
    return text


def access_of(
    host: str, port: int, allow_hosts: tuple[str, ...], allow_origins: tuple[str, ...], token: str | None
) -> Access:
    """The rules for a server that listens at `host` and `port`.

    Raises:
        UserError: others can reach the address and there is no token, or a name is none.
    """
    if token is None and not _is_loopback(host):
        raise UserError(
            f"--host {host}: others can reach this address, so the server needs a token; set the variable "
            "SLM_TOKEN or name a file with --token-file"
        )
    bound = f"[{host}]" if ":" in host else host
    own = {f"{name}:{port}".lower() for name in (*LOOPBACK_NAMES, bound)}
    named = {_host_name(name) for name in allow_hosts}
    return Access(frozenset(own | named), frozenset(map(_origin, allow_origins)), token)


def guards(access: Access) -> list[Middleware]:
    """In this order: a foreign site learns nothing, and an allowed page can read why it was refused."""
    cors = Middleware(
        Cors,
        allow_origins=sorted(access.origins),
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("Retry-After",),
        allow_private_network=True,
    )
    token = [Middleware(TokenGuard, token=access.token)] if access.token else []
    return [Middleware(SiteGuard, access=access), *([cors] if access.origins else []), *token]


class SiteGuard:
    """Refuses requests of doubtful form, for another host, or from another site's page."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._fault(scope) if scope["type"] == "http" else None
        await (refusal(error) if error else self.app)(scope, receive, send)

    def _fault(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        pairs = [(scope["raw_path"], scope["query_string"]), *scope["headers"]]
        if sum(len(name) + len(value) for name, value in pairs) > LONGEST_HEAD:
            return RequestError(f"target and headers are larger than {LONGEST_HEAD >> 10} KB", status=431)
        if not scope["path"].startswith("/"):
            return RequestError("the target of the request is no path; send the path alone")
        if "transfer-encoding" in headers and "content-length" in headers:
            return RequestError("Transfer-Encoding beside Content-Length; send one of them")
        host = headers.get("host", "")
        if scope["path"] != OPEN_PATH and not self._knows(host):
            return RequestError(
                f"the host {host[:100]!r} is none of this server's; start it with --allow-host NAME",
                status=421,
            )
        origins, site = headers.getlist("origin"), headers.get("sec-fetch-site", "none")
        if not all(origin in self.access.origins for origin in origins):
            return RequestError(
                f"pages of {origins[0][:100]!r} may not ask; start the server with --allow-origin URL",
                status=403,
            )
        if not origins and site not in ("none", "same-origin"):
            return RequestError("pages of other sites may not ask (Sec-Fetch-Site)", status=403)
        return None

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        return found is not None and not self.access.hosts.isdisjoint(
            (found[1], f"{found[1]}:{int(found[2] or 80)}")
        )


class Cors(CORSMiddleware):
    """Starlette's, whose refusal of a preflight is a text: here it has the form of all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return refusal(RequestError(bytes(response.body).decode(), status=response.status_code))


class TokenGuard:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == OPEN_PATH or self._is_told(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        error = RequestError(
            "Incorrect API key provided: send the server's token as `Authorization: Bearer TOKEN`",
            code="invalid_api_key",
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refusal(error)(scope, receive, send)

    def _is_told(self, headers: Headers) -> bool:
        told = headers.getlist("authorization")
        scheme, _, token = told[0].partition(" ") if len(told) == 1 else ("", "", "")
        # Equal times for all wrong tokens: the time would say how many characters are right.
        return hmac.compare_digest(token.encode("latin-1"), self.token) and scheme.lower() == "bearer"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host_name(name: str) -> str:
    found = _HOST.fullmatch(name.lower())
    if found is None:
        raise UserError(
            f"--allow-host {name}: not the name of a host; write NAME or NAME:PORT, such as model.example.org"
        )
    return f"{found[1]}:{int(found[2])}" if found[2] else found[1]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or url.lower() != f"{parts.scheme}://{parts.netloc}".lower() or "@" in parts.netloc:
        raise UserError(
            f"--allow-origin {url}: not the origin of a page; write scheme, host and port alone, such as "
            "https://app.example.org"
        )
    return url.lower()
