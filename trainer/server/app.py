"""The ASGI application: routes, answers to errors, and protection."""

import http
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from trainer import progress
from trainer.data.snapshot import SnapshotError
from trainer.errors import UserError
from trainer.index.queries import QueryError
from trainer.server.gate import BusyError
from trainer.server.protection import Protection, Rules, refusal
from trainer.server.routes import NotFoundError, Service, api, page

_RETRY_S = 2.0
_KINDS = {404: "not_found", 405: "invalid"}
_DESCRIPTION = "Search the clips of a snapshot with a trained video-text model."


def create(service: Service, rules: Rules) -> Protection:
    """Return the application."""
    app = FastAPI(
        title="svilm",
        description=_DESCRIPTION,
        version="1",
        docs_url=None,  # FastAPI's own pages load scripts from other hosts
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(api)
    app.include_router(page)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in (UserError, OSError):
        app.add_exception_handler(kind, _user_error)
    app.add_exception_handler(Exception, _internal_error)
    return Protection(app, rules, service.metrics)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or None
    message = first["msg"].removeprefix("Value error, ")
    return refusal(422, "invalid", message, field=field)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    kind = _KINDS.get(status, "invalid" if status < 500 else "internal")
    message = http.HTTPStatus(status).phrase
    return refusal(status, kind, message, dict(error.headers or {}))


async def _user_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, NotFoundError):
        return refusal(404, "not_found", str(error))
    if isinstance(error, QueryError):
        return refusal(422, "invalid", str(error))
    if isinstance(error, BusyError):
        return refusal(503, "busy", str(error), retry_after_s=_RETRY_S)
    # Its message names folders of this machine, which are for the log alone.
    progress.say(f"serve: {request.url.path}: {error}", logging.ERROR)
    if isinstance(error, SnapshotError):
        return refusal(500, "damaged", "the clip cannot be read: see the server's log")
    return refusal(500, "internal", "the server failed: see its log")


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    return refusal(500, "internal", "the server failed: see its log")
