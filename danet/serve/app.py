"""The REST interface, and the page's files. Command: `danet serve`; every operation stands at /docs and /openapi.json.

    POST /v1/segment      an image -> classes and shares as JSON, or labels or overlay as PNG
    POST /v1/attention    an image, or the id of a kept one, and a pixel -> where the pixel looks
    GET  /v1/images/ID/{pixels,labels,channels}    more of a kept image, for the page
    GET  /v1/model, /health, /metrics

torch runs in one thread; an image is decoded in another process; nothing is written to disk and no address is fetched.
"""

import asyncio
from importlib import resources
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from danet import __version__
from danet.errors import InputError
from danet.predict.attention import Module, Seen
from danet.predict.predictor import Predictor
from danet.serve import responses
from danet.serve.guard import Guard, Limits
from danet.serve.service import Service, max_pixels
from danet.serve.uploads import image_bytes, unless_left

Output = Literal["json", "labels", "overlay"]

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "jpg": "image/jpeg", "svg": "image/svg+xml"}

IMAGE_BODY = {
    "requestBody": {
        "description": "A JPEG, PNG or WebP image: the bytes themselves, or a form with one file.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def create_app(predictor: Predictor, limits: Limits | None = None) -> FastAPI:
    """The ASGI application."""
    limits = limits or Limits()
    service = Service(predictor, limits)
    app = FastAPI(title="danet", version=__version__, docs_url=None, redoc_url=None, lifespan=service.running)
    _add_errors(app)
    _add_images(app, service)
    _add_kept(app, service)
    _add_state(app, service, limits)
    _add_page(app)
    app.add_middleware(Guard, limits=limits, budget=service.budget, counters=service.counters)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def _(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}; see /docs"}, 422)

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _add_images(app: FastAPI, service: Service) -> None:
    @app.post("/v1/segment", openapi_extra=IMAGE_BODY)
    async def segment(request: Request, output: Output | None = None, keep: bool = False) -> Response:
        """Segment an image.

        The answer is JSON with each class's share of the pixels and its mean confidence; with `output=labels` a palette
        PNG of train ids; with `output=overlay`, or `Accept: image/png`, the image under the classes' colors.
        `keep=true` adds an id to the JSON, for questions about the image.
        """
        content = await image_bytes(request)
        name = seen = None
        with service.place():
            if keep:
                name, kept = await unless_left(request, service.keep(content, request))
                found, seen = kept.segmentation, kept.seen
            else:
                found = await unless_left(request, service.segment(content, request))
            if output is None:
                output = "overlay" if "image/png" in request.headers.get("accept", "") else "json"
            if output != "json":
                draw = responses.labels_png if output == "labels" else responses.overlay_png
                return Response(await asyncio.to_thread(draw, found), media_type="image/png")
            summary = await asyncio.to_thread(found.summary)
        del summary["name"]  # the client's affair
        extra = {"image": name} if keep else {}
        return JSONResponse(summary | extra | ({} if seen is None else {"grid": responses.grid(seen)}))

    @app.post("/v1/attention", openapi_extra=IMAGE_BODY)
    async def attention(
        request: Request, x: Annotated[int, Query()], y: Annotated[int, Query()], image: str | None = None
    ) -> JSONResponse:
        """Where a pixel looks: the weights of its position attention over the feature grid (base64 of float16, row by
        row; they sum to 1), and their shares by class.

        Give the image as for `/v1/segment`, or `image`, the id of a kept one, and no body.
        """
        if image is not None:
            return await _attention(service, service.seen(service.kept(image)), x, y)
        content = await image_bytes(request)
        with service.place():
            kept = await unless_left(request, service.look(content, request))
            return await _attention(service, service.seen(kept), x, y)


def _add_kept(app: FastAPI, service: Service) -> None:
    @app.get("/v1/images/{image}/pixels")
    async def pixels(image: str, without: Module | None = None) -> Response:
        """Gzip of a kept image's train ids and confidences (0 to 255), a byte a pixel each; `without`: as they would
        be with that module's attention switched off.
        """
        content = await asyncio.to_thread(responses.pixels, await service.kept_segmentation(image, without))
        return Response(content, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"})

    @app.get("/v1/images/{image}/labels")
    async def labels(image: str, without: Module | None = None) -> Response:
        """A kept image's train ids as a palette PNG; `without` as above."""
        found = await service.kept_segmentation(image, without)
        return Response(await asyncio.to_thread(responses.labels_png, found), media_type="image/png")

    @app.get("/v1/images/{image}/channels")
    async def channels(
        image: str, class_id: Annotated[int, Query(ge=0)], count: Annotated[int, Query(ge=1, le=16)] = 4
    ) -> JSONResponse:
        """The channel maps that answer most to a class (base64 of float16)."""
        if class_id >= len(service.predictor.classes):
            raise HTTPException(422, f"class_id: there are {len(service.predictor.classes)} classes; see /v1/model")
        seen = service.seen(service.kept(image))
        return JSONResponse(await service.ask(responses.channels, seen, class_id, count))


def _add_state(app: FastAPI, service: Service, limits: Limits) -> None:
    @app.get("/v1/model")
    async def model() -> JSONResponse:
        """The network's card: classes and colors, architecture, what it was trained on, license; and the limits."""
        taken = {"bytes": limits.body_bytes, "pixels": max_pixels(service.predictor)}
        return JSONResponse(service.card | {"limits": taken})

    @app.get("/health")
    async def health() -> JSONResponse:
        """200 as long as the server answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts in Prometheus' text format."""
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("danet.serve") / "page"
    files = {
        file.name: (file.read_bytes(), TYPES[file.name.rpartition(".")[2]])
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in TYPES
    }

    def answer(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index() -> Response:
        return answer("index.html")

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> Response:
        return answer("docs.html")

    @app.api_route("/page/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(name: str) -> Response:
        return answer(name)


async def _attention(service: Service, seen: Seen, x: int, y: int) -> JSONResponse:
    return JSONResponse(await service.ask(responses.attention, seen, x, y))
