"""Serve a cohort until interrupted, and say under which address."""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from wsi_mil.errors import ConfigError, MissingExtra, StageError
from wsi_mil.viewer.cases import Cohort

LIBRARY = "openseadragon.min.js"

FETCH = "python npm/fetch.py"

LOOPBACK = ("127.0.0.1", "localhost", "::1")

ANY = ("0.0.0.0", "::")
"""Addresses that stand for all of a machine's own."""


@dataclass(frozen=True)
class Address:
    """Where the viewer answers."""

    url: str
    """With the token; whoever has it sees the slides."""
    tunnel: str
    """The line to type on one's own machine where the viewer runs elsewhere; empty where it listens to the network."""


def serve(
    cohort: Cohort, *, host: str, port: int, token: str, told: Callable[[Address], None] = lambda address: None
) -> None:
    """Serve until interrupted. `told` is called with the address as soon as the port is taken; port 0 takes a free one.

    Raises MissingExtra without the server's libraries, StageError without the page's library, ConfigError where the
    port is taken.
    """
    try:
        import uvicorn

        from wsi_mil.viewer.server import make_app
    except ImportError as error:
        raise MissingExtra(str(error.name), extra="viewer", purpose="`wsi-mil view`") from error
    require_library()
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    names = [host] if host not in ANY else [socket.gethostname(), socket.getfqdn(), *_own_addresses()]
    app = make_app(cohort, token=token, port=port, hosts=names)
    told(address_of(host, port=port, token=token))
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, lifespan="off"
    )
    with listener:
        uvicorn.Server(settings).run(sockets=[listener])


def new_token() -> str:
    """A token that nobody guesses (256 bits)."""
    return secrets.token_urlsafe(32)


def address_of(host: str, *, port: int, token: str) -> Address:
    """The address to open, and the line for a tunnel where the server listens to its own machine alone."""
    shown = f"[{host}]" if ":" in host else host
    if host in ANY:
        shown = socket.gethostname()
    tunnel = f"ssh -L {port}:{shown}:{port} {getpass.getuser()}@{socket.gethostname()}" if host in LOOPBACK else ""
    return Address(f"http://{shown}:{port}/?token={token}", tunnel)


def require_library() -> str:
    """The text of OpenSeadragon. Raises StageError with the way to have it where it was not fetched."""
    place = resources.files("wsi_mil.viewer") / "static" / LIBRARY
    if not place.is_file():
        raise StageError(f"the viewer lacks OpenSeadragon, which set-up fetches: run `{FETCH}` in the source folder")
    return place.read_text(encoding="utf-8")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends at once only on sockets that say they speak TCP; others wait 40 ms for each reply's second part.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        # From here on visitors wait in line, while the server starts.
        listener.listen(128)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror or error}): choose another --port"
        ) from None
    return listener


def _own_addresses() -> list[str]:
    try:
        return sorted({str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None)})
    except OSError:
        return []
