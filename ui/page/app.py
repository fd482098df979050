"""The application: its parts, what it hands on, and what an error looks like."""

import threading
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from agent.errors import BadInput, Busy, NesyLoraError
from graphs.control.anybody import Steers
from memory.run.about import own_version
from ui.page import drafts, listing, prompts, start
from ui.page.gate import Gate, Keys
from ui.page.place import Here, Place
from ui.page.rendering import HERE, partial, render, text, warm
from ui.page.run import bundle, details, orders, overview, question, stream, talking

PARTS = (listing, start, drafts, prompts, overview, details, question, stream, orders, talking, bundle)
SCRIPTS = ";\n".join((HERE / "static" / f"{name}.js").read_text("utf-8") for name in ("htmx.min", "hx-sse.min", "page"))
TITLES = {404: "Not found", 405: "Not found", 409: "In use", 413: "Too large", 422: "That cannot be done"}
MOST_SENT = 256 * 1024  # bytes of a form; of an uploaded file see `start`


def make_app(root: Path, steers: Steers, keys: Keys) -> FastAPI:
    """The page over the runs in `root`. It keeps nothing that a restart could lose."""
    app = FastAPI(
        title="NeSyLoRA", version=own_version(), docs_url=None, redoc_url=None, telemetry={"tracing": False},
        max_body_size=MOST_SENT, form_limits={"max_fields": 64, "max_files": 1, "max_part_size": MOST_SENT},
        description="Runs as pages and parts of pages (HTML), and orders that steer them.",
    )  # fmt: skip
    warm()
    app.state.place = Place(root, steers, keys)
    app.state.ending = threading.Event()  # set where streams are to end, which go on for ever else
    for part in PARTS:
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_api_route("/page.css", _style, include_in_schema=False)
    app.add_api_route("/page.js", _script, include_in_schema=False)
    app.add_api_route("/api", _api, tags=["pages"], summary="What this server answers")
    app.add_api_route("/links", _link, methods=["POST"], tags=["orders"], summary="A link for another browser")
    app.add_exception_handler(NesyLoraError, _sorry)
    app.add_exception_handler(RequestValidationError, _sorry)
    app.add_exception_handler(HTTPException, _sorry)
    app.add_middleware(Gate, keys=keys)
    return app


def _style() -> Response:
    """The report's style sheet, and what a page needs beyond it."""
    return Response(text("page.css"), media_type="text/css", headers={"cache-control": "no-cache"})


def _script() -> Response:
    """All scripts as one: htmx begins in the first pause after its own, and would not know what comes behind that."""
    return Response(SCRIPTS, media_type="text/javascript", headers={"cache-control": "no-cache"})


def _link(request: Request, place: Here) -> HTMLResponse:
    link = f"http://{request.headers['host']}{place.keys.link()}"
    return HTMLResponse(partial("#said", text("said.html.j2", text="This link works once:", link=link), "innerHTML"))


def _api(request: Request) -> HTMLResponse:
    """The OpenAPI description as a page of our own: the usual ones fetch their scripts from elsewhere."""
    return render("api.html.j2", described=request.app.openapi())


def _sorry(request: Request, error: Exception) -> Response:
    """An error in the words that it came with: beside the page for a part of it, else as a page."""
    code, said = _code(error), _sentence(error)
    if request.headers.get("accept", "").startswith("application/json"):
        return PlainTextResponse(said, code)
    if request.headers.get("hx-request"):
        content = partial("#said", text("said.html.j2", text=said, fault=True), "innerHTML")
        return HTMLResponse(content, code, headers={"hx-reswap": "none"})
    return render("sorry.html.j2", code, text=said, title=TITLES.get(code, "Something went wrong"))


def _code(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, BadInput | RequestValidationError):
        return 422
    return 409 if isinstance(error, Busy) else 500


def _sentence(error: Exception) -> str:
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    return str(error.detail) if isinstance(error, HTTPException) else str(error)
