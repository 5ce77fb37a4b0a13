"""The application: its paths."""

# No `from __future__ import annotations`: FastAPI reads those of the functions in `make_app`, whose types are imported there.
import asyncio
import secrets
from typing import Any

from nemoport.errors import NemoportError, UsageError
from nemoport.server.app import Gate, Server, TooLarge, error_response
from nemoport.server.files import MOST_FIELD_BYTES, MOST_FIELDS, read_form
from nemoport.server.models import Model, chunk_ms
from nemoport.server.native import Native
from nemoport.server.pages import FORM, api_page, page_file
from nemoport.server.realtime import Realtime

STREAM, REALTIME = "/v1/stream", "/v1/realtime"
# Of every page: it loads nothing of others, and is shown in nobody's frame.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def make_app(server: Server) -> Any:
    """Returns the application of a server, of ASGI."""
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.websockets import WebSocket

    app = FastAPI(title="nemoport", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.add_middleware(Gate, server=server)

    @app.exception_handler(NemoportError)
    async def unusable(request: Request, error: NemoportError) -> Response:
        return error_response(422, error)

    @app.post("/v1/audio/transcriptions", openapi_extra=FORM, tags=["OpenAI"])
    async def transcriptions(request: Request) -> Response:
        """Transcribes a recording."""
        refused = server.is_draining and server.refusal() or None
        if refused or server.transcriptions.is_full:
            full = UsageError("Too many recordings wait.", expected="fewer", found="as many as may", todo="try again later")
            response = error_response(*(refused or (503, full)))
        else:
            response = await _transcribed(server, request)
        server.metrics.uploads.labels(response.status_code).inc()
        return response

    @app.get("/v1/models", tags=["OpenAI"])
    async def models() -> Response:
        """Lists the models."""
        return JSONResponse({"object": "list", "data": [_model_fields(model) for model in server.models]})

    @app.get("/health", tags=["operation"])
    async def health() -> Response:
        """Says whether the threads of all models run: 200 or 500."""
        return PlainTextResponse("ok\n" if server.models.are_alive else "failed\n", 200 if server.models.are_alive else 500)

    @app.get("/ready", tags=["operation"])
    async def ready() -> Response:
        """Says whether a session can begin now: 200 or 503."""
        refused = await server.readiness()
        return error_response(*refused) if refused else PlainTextResponse("ready\n")

    @app.get("/metrics", tags=["operation"])
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(await server.figures(), media_type="text/plain; version=0.0.4")

    @app.get("/api", tags=["operation"])
    async def api() -> Response:
        """Shows the paths."""
        return Response(api_page(app.openapi()), media_type="text/html", headers=PAGE_HEADERS)

    @app.get("/{name}", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page(name: str = "index.html") -> Response:
        found = page_file(name)
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1], headers=PAGE_HEADERS)

    @app.websocket(STREAM)
    async def stream(socket: WebSocket) -> None:
        await server.serve(socket, Native(), secrets.token_hex(8))

    @app.websocket(REALTIME)
    async def realtime(socket: WebSocket) -> None:
        id = secrets.token_hex(8)
        await server.serve(socket, Realtime(id, socket.query_params.get("model", "")), id)

    return app


async def _transcribed(server: Server, request: Any) -> Any:
    from python_multipart.exceptions import MultipartParseError
    from starlette.exceptions import HTTPException

    limits, todo = server.limits, "send multipart/form-data with the part `file`"
    try:
        async with asyncio.timeout(limits.upload_s):
            form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except TooLarge:
        expected = f"at most {limits.upload_bytes} bytes"
        return error_response(413, UsageError("The recording is too large.", expected=expected, found="more", todo="cut it"))
    except TimeoutError:
        expected = f"the whole form within {limits.upload_s:g} s"
        return error_response(408, UsageError("The form came too slowly.", expected=expected, found="less", todo="send it again"))
    except (HTTPException, MultipartParseError) as error:
        found = str(getattr(error, "detail", error))
        return error_response(400, UsageError("The form cannot be read.", expected="a form", found=found, todo=todo))
    try:
        return await server.transcriptions.answer(read_form(form))
    except NemoportError as error:
        return error_response(422, error)
    finally:
        await form.close()


def _model_fields(model: Model) -> dict[str, Any]:
    recognizer = model.recognizer()
    fields = {"id": model.name, "object": "model", "owned_by": "nemoport", "is_live": recognizer.is_live}
    looks = [one for one in model.spec.lookaheads if isinstance(one, int)]
    return fields | {
        "sample_rate": recognizer.sample_rate_hz,
        "lookaheads": looks,
        "chunk_ms": chunk_ms(recognizer),
        "languages": model.languages,
    }
