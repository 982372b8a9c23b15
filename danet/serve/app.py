"""The REST API and the files of the web page. Command: `danet serve`; the operations are listed at /docs.

    POST /v1/segment      an image -> classes as JSON, or labels or overlay as PNG
    POST /v1/attention    an image or a stored image's id, and a pixel -> attention weights of the pixel
    GET  /v1/images/ID/{pixels,labels,channels}    more about a stored image, for the page
    GET  /v1/model, /health/live, /health/ready, /metrics

torch runs in one thread, and images are decoded in another process. Nothing is written to disk, and no URL is fetched.
"""

import asyncio
from http import HTTPStatus
from importlib import resources
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from danet import __version__
from danet.errors import InputError
from danet.predict.modules import Module
from danet.predict.predictor import Predictor
from danet.serve import responses, schemas
from danet.serve.guard import Guard
from danet.serve.image_store import StoredImage
from danet.serve.limits import Limits
from danet.serve.peers import Peers
from danet.serve.service import Elsewhere, Service, max_pixels
from danet.serve.uploads import cancel_on_disconnect, image_bytes
from danet.weights.runtimes import ExportedNetwork

OutputFormat = Literal["json", "labels", "overlay"]
Output = Annotated[
    OutputFormat | None,
    Query(description="Format of the response. The default is json, or overlay if the request accepts image/png."),
]
Keep = Annotated[bool, Query(description="Store the image for queries, and return its id. Only for json.")]
Column = Annotated[int, Query(description="Column of the pixel, counted from 0.")]
Row = Annotated[int, Query(description="Row of the pixel, counted from 0.")]
StoredId = Annotated[str | None, Query(description="Id of a stored image. If given, send no body.")]
OldStoredId = Annotated[str | None, Query(alias="picture", include_in_schema=False)]  # vocabulary: old name
ImageId = Annotated[str, Path(description="Id of a stored image: `image` in the response to `/v1/segment?keep=true`.")]
Without = Annotated[Module | None, Query(description="Switch this module's attention off.")]
ClassId = Annotated[int, Query(ge=0, description="Id of the class: its index in the class names of `/v1/model`.")]
Count = Annotated[int, Query(ge=1, le=16, description="Number of channels.")]

STORED, OLD_STORED = "/v1/images/{image}", "/v1/pictures/{image}"  # vocabulary: old name

PARAMETERS = {"class_name": "class_id"}
"""Parameters in errors of the library -> their names in the REST API, if different."""

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "jpg": "image/jpeg", "svg": "image/svg+xml"}

IMAGE_BODY = {
    "requestBody": {
        "description": "A still JPEG, PNG, WebP or GIF image: either its bytes, or a form with one file.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def create_app(predictor: Predictor, limits: Limits | None = None, peers: Peers | None = None) -> FastAPI:
    """Create the ASGI application that serves a network.

    Args:
        predictor: the network.
        limits: limits on requests, and access rules.
        peers: the processes of the server, if there are several.

    Raises:
        InputError: an exported network for one size, to which images are not resized.
    """
    if isinstance(predictor.network, ExportedNetwork):
        predictor.network.check_size(predictor.card.size)
    limits = limits or Limits()
    service = Service(predictor, limits, peers or Peers())
    app = FastAPI(
        title="danet",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=service.lifespan,
        redirect_slashes=False,  # a redirect would need the scheme and the path that the browser sees
    )
    app.state.stopping = service.stopping
    _add_errors(app, service)
    _add_predictions(app, service)
    _add_stored_images(app, service)
    _add_status(app, service, limits)
    _add_page(app)
    app.add_middleware(
        Guard,
        limits=limits,
        budget=service.memory,
        metrics=service.metrics,
        peers=service.peers,
        stopping=service.stopping,
    )
    return app


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(Elsewhere)
    async def _(request: Request, error: Elsewhere) -> Response:
        try:
            return await service.peers.forward(request, error.number)
        except HTTPException as failure:
            return JSONResponse({"error": failure.detail}, failure.status_code, failure.headers)

    @app.exception_handler(InputError)
    async def _(_: Request, error: InputError) -> JSONResponse:
        own = error.where.name if isinstance(error.where, PurePath) else error.where  # folders are no one's business
        where = PARAMETERS.get(str(error.where), own)
        return JSONResponse({"error": f"{where}: {error.what}; {error.remedy}"}, 422)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {_describe_invalid(first)}; see /docs"}, 422)

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        what = error.detail
        if what == HTTPStatus.NOT_FOUND.phrase:  # raised by the router, not by us
            what = "no such page; see /docs"
        elif what == HTTPStatus.METHOD_NOT_ALLOWED.phrase:
            allowed = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
            return JSONResponse({"error": f"use {allowed}; see /docs"}, error.status_code, {"Allow": allowed})
        return JSONResponse({"error": what}, error.status_code, error.headers)


def _describe_invalid(error: dict[str, Any]) -> str:
    """Return what is wrong with a parameter, without its value."""
    limits = error.get("ctx", {})
    messages: dict[str, str] = {
        "missing": "missing",
        "int_parsing": "must be a whole number",
        "bool_parsing": "must be true or false",
        "literal_error": f"must be {limits.get('expected', '').replace(chr(39), '')}",
        "greater_than_equal": f"must be at least {limits.get('ge')}",
        "less_than_equal": f"must be at most {limits.get('le')}",
    }
    return messages.get(error["type"]) or str(error["msg"])


def _add_predictions(app: FastAPI, service: Service) -> None:
    failures = schemas.errors(400, 401, 403, 408, 413, 422, 503)

    @app.post(
        "/v1/segment",
        summary="Segment an image",
        openapi_extra=IMAGE_BODY,
        response_model=schemas.Segmented,
        responses={**schemas.content("image/png"), **failures},
    )
    async def segment(request: Request, output: Output = None, keep: Keep = False) -> Response:
        """Segment an image.

        The response is JSON with the classes in the image, each with its share of the pixels and its mean confidence.
        `output=labels` returns the class ids as a palette PNG, and `output=overlay` the image with its class colors.

        With `keep=true`, the image is stored for queries by its id, `image`. `modules` holds the scale of each
        attention module (alpha, beta), and the size of what it adds, relative to its input over the whole image: all
        of it, and the part that varies between positions.
        """
        content = await image_bytes(request)
        image_id = inspection = None
        with service.queue_slot():
            if keep:
                image_id, image = await cancel_on_disconnect(request, service.store(content, request))
                result, inspection = image.segmentation, image.inspection
            else:
                result = await cancel_on_disconnect(request, service.segment(content, request))
            if output is None:
                output = "overlay" if "image/png" in request.headers.get("accept", "") else "json"
            if output != "json":
                encoding = responses.LABELS if output == "labels" else responses.OVERLAY
                return Response(await service.encode(result, encoding, request), media_type="image/png")
            summary = await asyncio.to_thread(result.summary)
        del summary["name"]  # the server does not know the file's name
        if keep:
            summary |= {"image": image_id, "picture": image_id}  # vocabulary: old name
        if inspection is not None:
            summary |= {"grid": responses.grid(inspection), "modules": responses.contributions(inspection)}
        return JSONResponse(summary)

    @app.post(
        "/v1/attention",
        summary="Attention of a pixel",
        openapi_extra=IMAGE_BODY,
        response_model=schemas.Attention,
        responses={**failures, **schemas.errors(404, 409)},
    )
    async def attention(
        request: Request, x: Column, y: Row, image: StoredId = None, old_image: OldStoredId = None
    ) -> JSONResponse:
        """Return the position attention of one pixel.

        `weights` holds its attention weights over the feature grid, as base64-encoded float16 values in row-major
        order. They sum to 1. `classes` holds their sum over each class as `share`, and the class's share of the image
        as `image_share`.

        Send an image as for `/v1/segment`, or give the id of a stored image.
        """
        image_id = old_image if image is None else image
        if image_id is not None:
            return await _attention(service, service.stored(image_id), x, y, request)
        content = await image_bytes(request)
        with service.queue_slot():
            inspected = await cancel_on_disconnect(request, service.inspect(content, request))
            return await _attention(service, inspected, x, y, request)


def _add_stored_images(app: FastAPI, service: Service) -> None:
    failures = schemas.errors(400, 401, 404, 409, 413, 422, 503)

    @app.get(f"{OLD_STORED}/pixels", include_in_schema=False)
    @app.get(
        f"{STORED}/pixels",
        summary="Class and confidence of each pixel",
        response_class=Response,
        responses={**schemas.content("application/octet-stream"), **failures},
    )
    async def pixels(request: Request, image: ImageId, without: Without = None) -> Response:
        """Return the class ids of a stored image's pixels, followed by their confidences (0 to 255).

        Each value is one byte, in row-major order. The response is compressed with gzip.
        """
        content = await service.encode_stored(image, without, responses.PIXELS, request)
        return Response(content, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"})

    @app.get(f"{OLD_STORED}/labels", include_in_schema=False)
    @app.get(
        f"{STORED}/labels",
        summary="Labels of a stored image",
        response_class=Response,
        responses={**schemas.content("image/png"), **failures},
    )
    async def labels(request: Request, image: ImageId, without: Without = None) -> Response:
        """Return the class ids of a stored image's pixels as a palette PNG."""
        content = await service.encode_stored(image, without, responses.LABELS, request)
        return Response(content, media_type="image/png")

    @app.get(f"{OLD_STORED}/channels", include_in_schema=False)
    @app.get(
        f"{STORED}/channels",
        summary="Channels that respond to a class",
        response_model=schemas.Channels,
        responses=failures,
    )
    async def channels(request: Request, image: ImageId, class_id: ClassId, count: Count = 4) -> JSONResponse:
        """Return the channels that respond most to a class, and their maps.

        Each map holds base64-encoded float16 values over the feature grid, in row-major order.
        """
        if class_id >= len(service.predictor.classes):
            last = len(service.predictor.classes) - 1
            raise HTTPException(422, f"class_id: must be from 0 to {last}, got {class_id}; see /v1/model")
        inspection = service.inspection(service.stored(image))
        request.scope["danet.body"].hold(count * responses.map_memory(inspection))
        return JSONResponse(await service.query(responses.channels, inspection, class_id, count))


def _add_status(app: FastAPI, service: Service, limits: Limits) -> None:
    image_limits = {"bytes": limits.body_bytes, "pixels": max_pixels(service.predictor)}
    card = JSONResponse(service.model_card | {"limits": image_limits}).body  # one for all requests

    failures = schemas.errors(400, 401)

    @app.get("/v1/model", summary="Model card", response_model=schemas.Model, responses=failures)
    async def model() -> Response:
        """Return the model card: architecture, classes, colors, training data and license; and the server's limits."""
        return Response(card, media_type="application/json")

    @app.get("/health", include_in_schema=False)
    @app.get("/health/live", summary="Liveness", response_model=schemas.Live)
    async def live() -> JSONResponse:
        """Return status 200 while the server is running."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready", include_in_schema=False)
    @app.get("/health/ready", summary="Readiness", response_model=schemas.Ready, responses=schemas.errors(503))
    async def ready() -> JSONResponse:
        """Return status 200 if images can be segmented, and 503 otherwise."""
        await service.check_ready()
        return JSONResponse({"status": "ready"})

    @app.get(
        "/metrics",
        summary="Metrics",
        response_class=Response,
        responses={**schemas.content("text/plain"), **failures},
    )
    async def metrics(request: Request) -> Response:
        """Return counters and gauges in the Prometheus text format: the sums over all processes of the server."""
        text = service.metrics.render()
        if service.peers.addresses and not request.scope["danet.internal"]:
            text = await service.peers.metrics(text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("danet.serve") / "page"
    files = {
        file.name: (file.read_bytes(), TYPES[file.name.rpartition(".")[2]])
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in TYPES
    }

    def respond(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return respond("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return respond("docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return respond(name)


async def _attention(service: Service, image: StoredImage, x: int, y: int, request: Request) -> JSONResponse:
    inspection = service.inspection(image)  # 409 if the network does not support it
    request.scope["danet.body"].hold(responses.map_memory(inspection))
    return JSONResponse(await service.query(responses.attention, image, x, y))
