"""Read the image in a request's body, and stop work if the client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect


async def image_bytes(request: Request) -> bytes:
    """Return the request's body, or the one file in its form.

    Raises:
        HTTPException: a form without a file or with several; a URL or JSON instead of an image.
    """
    kind = request.headers.get("content-type", "").lower()
    content = await (_file_in_form(request) if kind.startswith("multipart/form-data") else request.body())
    if content[:8].lower().startswith((b"http://", b"https://", b"file:")):
        raise HTTPException(422, "URLs are not fetched; send the image's bytes")
    if content.lstrip()[:1] in (b"{", b"["):
        raise HTTPException(400, "JSON is not accepted; send the image's bytes")
    return content


async def _file_in_form(request: Request) -> bytes:
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=4, max_part_size=1 << 10)
    parser.spool_max_size = 1 << 40  # keep files in memory, which is bounded, and never on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(422, "the form contains no file; send the image as file=@image.jpg")
        return await files[0].read()
    finally:
        await form.close()


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of `work`, or cancel it when the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected before the result was ready.
    """
    task, disconnect = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for other in (task, disconnect):
            other.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
