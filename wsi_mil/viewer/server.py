"""The server: a handful of routes over a table of slides; nothing in an address ever becomes a path."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wsi_mil.errors import SlideError, WsiMilError
from wsi_mil.geometry import Box
from wsi_mil.viewer import drawn, layers
from wsi_mil.viewer.cases import Case, Cohort
from wsi_mil.viewer.handles import Handles
from wsi_mil.viewer.pyramid import crop_jpeg
from wsi_mil.viewer.security import LOOPBACK, Guard

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BODY_BYTES = 16 << 20

MOST_CROP_PX = 512

CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

FOREVER = {"cache-control": "private, max-age=3600"}
"""Tiles are kept by the browser; what can change is not."""


def make_app(
    cohort: Cohort, *, token: str, port: int = 0, hosts: Sequence[str] = (), handles: Handles | None = None
) -> Starlette:
    """The application that serves a cohort to those who know the token, at loopback and at `hosts`."""
    pages = Pages(cohort, handles or Handles())
    routes = [
        # First, since it is asked for a hundred times as often as all others.
        Route("/tile/{key}/{level:int}/{column:int}_{row:int}.jpg", pages.tile),
        Route("/", pages.index),
        Route("/static/{name}", pages.static),
        Route("/api/cases", pages.cases),
        Route("/api/colours", pages.colours),
        Route("/api/slide/{key}", pages.slide),
        Route("/api/slide/{key}/crop/{place}.jpg", pages.crop),
        Route("/api/slide/{key}/regions", pages.save_regions, methods=["PUT"]),
        Route("/api/slide/{key}/tissue", pages.save_tissue, methods=["PUT"]),
        Route("/api/map/{key}/{model}", pages.map),
        Route("/api/map/{key}/{model}/places", pages.places),
        Route("/api/map/{key}/{model}/{channel:int}", pages.channel),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[*_hosts(LOOPBACK), *_hosts(hosts)], www_redirect=False),
            Middleware(Guard, token=token, cookie=f"wsi_mil_{port}"),
        ],
        exception_handlers={WsiMilError: _told},  # type: ignore[dict-item]
    )


@final
class Pages:
    """One method a route. Keys are looked up in tables; what is not there is 404."""

    def __init__(self, cohort: Cohort, handles: Handles) -> None:
        self._cohort, self._handles = cohort, handles
        folder = resources.files("wsi_mil.viewer") / "static"
        self._files = {one.name: one for one in folder.iterdir() if one.is_file()}

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        return self._file(request.path_params["name"])

    def cases(self, request: Request) -> Response:
        """The list of slides."""
        return JSONResponse(layers.case_list(self._cohort))

    def colours(self, request: Request) -> Response:
        """Colour tables."""
        return JSONResponse(layers.colour_tables(), headers=FOREVER)

    def slide(self, request: Request) -> Response:
        """Size, scale, levels and polygons of a slide."""
        case = self._case(request)
        return JSONResponse(layers.slide_told(self._cohort, case, self._handles.get(case)))

    def crop(self, request: Request) -> Response:
        """A small picture of one place: x, y, width, height in level-0 pixels and the longest side wanted."""
        case = self._case(request)
        try:
            x, y, width, height, size = (int(part) for part in request.path_params["place"].split("_"))
        except ValueError:
            raise HTTPException(404) from None
        opened = self._handles.get(case)
        least = width > 0 and height > 0 and 0 < size <= MOST_CROP_PX
        if not least or max(width, height) > max(opened.slide.size_l0) or max(abs(x), abs(y)) > 1 << 31:
            raise HTTPException(404)
        box = Box(float(x), float(y), float(width), float(height))
        key = ("crop", case.key, opened.state, box, size)
        data = self._handles.kept(key, lambda: crop_jpeg(opened.slide, box, max_px=size))
        return Response(data, media_type="image/jpeg", headers=FOREVER)

    def tile(self, request: Request) -> Response:
        """A tile of the slide."""
        place = request.path_params
        try:
            data = self._handles.tile(self._case(request), place["level"], place["column"], place["row"])
        except IndexError:
            raise HTTPException(404) from None
        return Response(data, media_type="image/jpeg", headers=FOREVER)

    def map(self, request: Request) -> Response:
        """What a map is."""
        return JSONResponse(layers.map_told(self._map(request)))

    def places(self, request: Request) -> Response:
        """Where the tiles of a map lie."""
        return _numbers(layers.places(self._map(request)))

    def channel(self, request: Request) -> Response:
        """Scores of one channel."""
        try:
            return _numbers(layers.channel(self._map(request), request.path_params["channel"]))
        except IndexError:
            raise HTTPException(404) from None

    async def save_regions(self, request: Request) -> Response:
        """Keep the regions drawn on a slide."""
        return await self._save(request, drawn.save_regions)

    async def save_tissue(self, request: Request) -> Response:
        """Change the tissue of a slide."""
        return await self._save(request, drawn.edit_tissue)

    async def _save(self, request: Request, how: Callable[..., Any]) -> Response:
        case, told = self._case(request), await _body(request)

        def save() -> dict[str, Any]:
            opened = self._handles.get(case)
            how(self._cohort, case, opened.slide, told)
            return layers.slide_told(self._cohort, case, opened)

        return JSONResponse(await run_in_threadpool(save))

    def _case(self, request: Request) -> Case:
        case = self._cohort.cases.get(request.path_params["key"])
        if case is None:
            raise HTTPException(404)
        return case

    def _map(self, request: Request) -> Any:
        try:
            return layers.read_map(self._case(request), request.path_params["model"])
        except (KeyError, FileNotFoundError):
            raise HTTPException(404) from None

    def _file(self, name: str) -> Response:
        found = self._files.get(name)
        if found is None:
            raise HTTPException(404)
        suffix = name[name.rfind(".") :]
        return Response(found.read_bytes(), media_type=CONTENT_TYPES.get(suffix, "application/octet-stream"))


def _numbers(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")


async def _body(request: Request) -> Any:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MOST_BODY_BYTES:
            raise HTTPException(413)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "not JSON") from None


def _hosts(names: Sequence[str]) -> list[str]:
    """Names as the Host header may write them: addresses of IPv6 with their brackets and without."""
    return [form for name in names for form in ((name, f"[{name}]") if ":" in name else (name,))]


async def _told(request: Request, error: WsiMilError) -> Response:
    """A fault in one sentence, with no place on the disk in it: 409 for a slide that cannot be read, else 400."""
    status = 409 if isinstance(error, SlideError) else 400
    return JSONResponse({"error": layers.without_places(str(error))}, status_code=status)
