"""What the service serves for people and their pages: the demo page, the widget, and the documents with Swagger UI."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html
import re
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.web.documents import asyncapi_document, openapi_document
from app.web.requests import is_current

STATIC = Path(__file__).parent.parent / "static"
MODULES = frozenset(path.name for path in (STATIC / "widget").iterdir())
REVALIDATE = {"Cache-Control": "no-cache"}


def _sha256(text: str) -> str:
    """The hash of a text, as Content-Security-Policy writes it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# The CDN that Swagger UI's own installation guide names. The hashes pin what it may serve (W3C Subresource Integrity).
_SWAGGER = "https://unpkg.com/swagger-ui-dist@5.35.0"
_SWAGGER_JS = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_SWAGGER_CSS = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"
_SCRIPT = 'window.SwaggerUIBundle && SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true})'
_SCRIPT_HASH = _sha256(_SCRIPT)
_SWAGGER_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HTTP API</title>
<link rel="icon" href="data:,">
<style>body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem }}</style>
<link rel="stylesheet" href="{_SWAGGER}/swagger-ui.css" integrity="{_SWAGGER_CSS}" crossorigin="anonymous">
<div id="swagger-ui">
  <h1>HTTP API</h1>
  <p>This page shows Swagger UI from unpkg.com as soon as the browser has loaded it. The plain documents are
  <a href="openapi.json">openapi.json</a> and <a href="asyncapi.json">asyncapi.json</a>; <a href=".">back</a>.</p>
</div>
<script src="{_SWAGGER}/swagger-ui-bundle.js" integrity="{_SWAGGER_JS}" crossorigin="anonymous"></script>
<script>{_SCRIPT}</script>
</html>
"""
_SWAGGER_CSP = (
    f"default-src 'none'; script-src https://unpkg.com 'sha256-{_SCRIPT_HASH}'; style-src https://unpkg.com "
    "'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Its one stylesheet is pinned by a hash. Trusted types: no text can become HTML or a script, whatever the widget does.
_INDEX_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_EXAMPLE = "https://chat.example.com"
# Pages ask again after five minutes, so that an update is soon everywhere, but not for each page that a visitor opens.
_SCRIPT_HEADERS = {
    "Cache-Control": "public, max-age=300",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Vary": "Accept-Encoding",
}


async def index(request: Request) -> Response:
    """The page that shows the room, with the lines that put it on other pages."""
    page, digest = _index((STATIC / "index.html").stat().st_mtime_ns)
    own = request.app.state.settings.public_url or str(request.base_url)
    headers = {**REVALIDATE, "Content-Security-Policy": _INDEX_CSP.format(digest)}
    return HTMLResponse(page.replace(_EXAMPLE, html.escape(own.rstrip("/"))), headers=headers)


@functools.lru_cache(maxsize=1)
def _index(changed: int) -> tuple[str, str]:
    """The page, and the hash of its stylesheet. `changed`: of the file, so that a new one is read."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    style = re.search("<style>(.*)</style>", page, re.DOTALL)
    return page, _sha256(style[1]) if style else ""


async def script(request: Request) -> Response:
    """The chat widget for any page."""
    return _serve(request, STATIC / "widget.js")


async def module(request: Request) -> Response:
    """One of the modules that the widget loads. Any page may: which ones the room lets in is asked when they join."""
    name = request.path_params["module"]
    if name not in MODULES:
        raise HTTPException(404)
    response = _serve(request, STATIC / "widget" / name)
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _serve(request: Request, file: Path) -> Response:
    plain, packed, etag = _script(file, file.stat().st_mtime_ns)
    headers = {**_SCRIPT_HEADERS, "ETag": etag}
    if is_current(request, etag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, headers={**headers, "Content-Encoding": "gzip"}, media_type="text/javascript")
    return Response(plain, headers=headers, media_type="text/javascript")


@functools.lru_cache(maxsize=32)
def _script(file: Path, changed: int) -> tuple[bytes, bytes, str]:
    """A script, the same compressed, and the ETag of both, which therefore is a weak one (RFC 9110, 8.8.1)."""
    plain = file.read_bytes()
    return plain, gzip.compress(plain, 9, mtime=0), f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"'


async def swagger_ui(request: Request) -> Response:
    """Swagger UI on `/openapi.json`."""
    return HTMLResponse(_SWAGGER_PAGE, headers={**REVALIDATE, "Content-Security-Policy": _SWAGGER_CSP})


async def openapi(request: Request) -> Response:
    """The HTTP API."""
    return JSONResponse(openapi_document(request.app.state.settings), headers=REVALIDATE)


async def asyncapi(request: Request) -> Response:
    """The WebSocket API."""
    return JSONResponse(asyncapi_document(request.app.state.settings), headers=REVALIDATE)
