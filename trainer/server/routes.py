"""The routes of the API and of the page."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from jaxtyping import Float

from protos.v1 import clip_pb2
from trainer.errors import UserError
from trainer.index.queries import Filters
from trainer.runs.run_path import RunPath
from trainer.server import assets, films, schema
from trainer.server.gate import Gate
from trainer.server.library import Library
from trainer.server.metrics import Metrics
from trainer.server.nouns import nouns_of
from trainer.server.videos import RangeError, Videos, span_of

_REFUSALS: dict[int | str, dict[str, object]] = {
    status: {"model": schema.ErrorAnswer}
    for status in (400, 401, 403, 404, 405, 413, 422, 429, 500, 503)
}
_SPREAD = 12  # clips that the page shows before the first query
_EXAMPLES = 4
_LABELS = 200  # maximum number of labels that the page offers
_EXAMPLE = 120  # characters
api = APIRouter(prefix="/api", responses=_REFUSALS, tags=["search"])
page = APIRouter(responses=_REFUSALS, tags=["server"])


class NotFoundError(UserError):
    """A request for what the server does not have."""


@dataclasses.dataclass(frozen=True)
class Service:
    """All that requests use."""

    libraries: tuple[Library, ...]  # one, or two of the same clips
    videos: Videos | None
    gate: Gate
    metrics: Metrics

    def library(self, side: str) -> Library:
        """Return the clips as a run sees them.

        Raises:
          NotFoundError: the server has a single run.
        """
        if int(side) >= len(self.libraries):
            raise NotFoundError("this server has one run: leave `side` out")
        return self.libraries[int(side)]

    def clip(self, number: int) -> clip_pb2.Clip:
        """Read a clip's record.

        Raises:
          NotFoundError: there is no such clip.
          SnapshotError: the record is damaged.
        """
        library = self.libraries[0]
        if number >= len(library.index):
            raise NotFoundError(f"clip {number} does not exist: there are {len(library.index):,}")
        return library.clip(number)


def _service_of(request: Request) -> Service:
    return request.app.state.service


Served = Annotated[Service, Depends(_service_of)]
NumberPath = Annotated[schema.Number, Path(description="number of the clip")]


@api.get("/about")
def about(service: Served) -> schema.About:
    """Return the served runs and clips."""
    index = service.libraries[0].index
    count = min(_SPREAD, len(index))
    spread = [(2 * place + 1) * len(index) // (2 * count) for place in range(count)]
    clips = [service.clip(number) for number in spread[:_EXAMPLES]]
    runs = [library.index.run for library in service.libraries]
    names = _names([run.folder for run in runs])
    return schema.About(
        runs=[
            schema.RunAbout(name=name, step=run.step, averaged=run.averaged)
            for name, run in zip(names, runs, strict=True)
        ],
        snapshots=[
            schema.SnapshotAbout(
                name=one["folder"].rpartition("/")[2],
                dataset=one["dataset"],
                manifest_sha256=one["manifest_sha256"],
            )
            for one in index.about["snapshots"]
        ],
        clips=len(index),
        labels=sorted(index.columns.labels)[:_LABELS],
        videos=service.videos is not None,
        examples=list(dict.fromkeys(clip.caption[:_EXAMPLE] for clip in clips if clip.caption)),
        spread=spread,
    )


def _names(folders: Sequence[RunPath | None]) -> list[str]:
    """Return the names of runs, with their parents' names if they are the same otherwise.

    >>> from pathlib import Path
    >>> _names([Path("runs/first"), Path("runs/second")])
    ['first', 'second']
    >>> _names([Path("a/run"), Path("b/run")])
    ['a/run', 'b/run']
    """
    names = ["run" if folder is None else folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return ["run" if folder is None else "/".join(folder.parts[-2:]) for folder in folders]


@api.get("/search")
async def search(
    query: Annotated[schema.SearchQuery, Query()], service: Served
) -> schema.SearchAnswer:
    """Find clips by texts, by a clip, or by both."""
    library = service.library(query.side)
    if query.like is not None:
        await anyio.to_thread.run_sync(service.clip, query.like)
    work = library.query, query.text, query.without, query.like
    if library.knows([*query.text, *query.without]):
        vector = await anyio.to_thread.run_sync(*work)
    else:
        vector = await service.gate.call(*work)
    return await anyio.to_thread.run_sync(_find, query, vector, library, service)


def _find(
    query: schema.SearchQuery, vector: Float[np.ndarray, " e"], library: Library, service: Service
) -> schema.SearchAnswer:
    filters = Filters(
        datasets=(query.dataset,) if query.dataset else (),
        videos=(query.video,) if query.video else (),
        labels=(query.label,) if query.label else (),
        min_us=round(query.shortest * 1e6),
        max_us=None if query.longest is None else round(query.longest * 1e6),
        min_score=-math.inf if query.min_score is None else query.min_score,
    )
    first = (query.page - 1) * query.size
    # One more shows whether there is another page, and one may be the clip asked about.
    top = first + query.size + 2
    hits = library.index.search(like=vector, filters=filters, top=top, each_video=query.by_video)
    hits = [hit for hit in hits if hit.row != query.like][first : first + query.size + 1]
    results = []
    for place, hit in enumerate(hits[: query.size]):
        fields = _described(hit.row, service.clip(hit.row), service).model_dump()
        results.append(schema.Found(**fields, rank=first + place + 1, score=hit.score))
    if query.like is not None and not query.text:
        nouns = _nouns(service.clip(query.like))
    else:
        known = [noun for found in results for noun in found.nouns]
        nouns = nouns_of(" . ".join(query.text), known, schema.MAX_NOUNS)
    return schema.SearchAnswer(more=len(hits) > query.size, nouns=nouns, results=results)


@api.get("/clips/{number}")
def clip(number: NumberPath, service: Served) -> schema.Clip:
    """Return a clip's fields."""
    return _described(number, service.clip(number), service)


@api.get("/clips/{number}/film.jpg", response_class=Response)
def film(number: NumberPath, service: Served, request: Request) -> Response:
    """Return a clip's frames, side by side in one JPEG."""
    one = service.clip(number)
    library = service.libraries[0]
    version = library.index.snapshot(number).manifest_sha256[:16]
    etag = f'"{version}-{library.record(number)}"'
    return _cached(request, etag, films.MEDIA_TYPE, lambda: films.film(one))


@api.get("/clips/{number}/structure")
async def structure(
    number: NumberPath, query: Annotated[schema.StructureQuery, Query()], service: Served
) -> schema.StructureAnswer:
    """Locate nouns in a clip, and compare its windows."""
    library = service.library(query.side)
    await anyio.to_thread.run_sync(service.clip, number)
    work = library.structure, number, query.noun
    if query.noun:
        found = await service.gate.call(*work)
    else:
        found = await anyio.to_thread.run_sync(*work)
    return schema.StructureAnswer(
        similarity=found.similarity.astype(float).round(4).tolist(),
        window_of=found.window_of,
        crop=[round(share, 6) for share in found.crop],
        nouns=[
            schema.Located(
                noun=one.noun,
                cosine=one.cosine,
                share=one.share,
                heat=(one.heat * 255).round().astype(int).tolist(),
            )
            for one in found.nouns
        ],
    )


@api.get("/clips/{number}/video", response_class=StreamingResponse)
def video(
    number: NumberPath,
    service: Served,
    range_header: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
) -> Response:
    """Return the video file of a clip, or a range of its bytes."""
    file = service.videos and service.videos.find(service.clip(number).video_id)
    if not service.videos or not file:
        raise NotFoundError(f"the video of clip {number} is not served")
    headers = {"Accept-Ranges": "bytes"}
    try:
        span = span_of(range_header, file.size)
    except RangeError:
        headers["Content-Range"] = f"bytes */{file.size}"
        return Response(status_code=416, headers=headers)
    start, end = span or (0, file.size)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    data = service.videos.read(file, start, end)
    return StreamingResponse(data, 206 if span else 200, headers, file.media_type)


def _described(number: int, one: clip_pb2.Clip, service: Service) -> schema.Clip:
    width, height = films.frame_size(one)
    return schema.Clip(
        number=number,
        clip_id=one.clip_id,
        video_id=one.video_id,
        start_us=one.start_us,
        end_us=one.end_us,
        caption=one.caption,
        nouns=_nouns(one),
        labels=list(one.labels),
        frames=len(films.shown_frames(one)),
        width=width,
        height=height,
        video=bool(service.videos and service.videos.find(one.video_id)),
    )


def _nouns(one: clip_pb2.Clip) -> list[str]:
    """Return the clip's distinct noun phrases that a request may have."""
    texts: Iterable[str] = (" ".join(chunk.text.split()) for chunk in one.noun_chunks)
    return list(dict.fromkeys(text for text in texts if 0 < len(text) <= 60))[: schema.MAX_NOUNS]


# --- the page and the server itself ---


@page.get("/", include_in_schema=False)
def index(request: Request) -> Response:
    """Return the page."""
    return _asset(request, "index.html")


@page.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """Return the description of the API, for reading."""
    return _asset(request, "docs.html")


@page.get("/page/{name}", include_in_schema=False)
def asset(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _asset(request, name)


@page.get("/healthz")
async def healthz() -> JSONResponse:
    """Return that the server answers."""
    return JSONResponse({"status": "ok"})


@page.get("/metrics", response_class=PlainTextResponse)
def metrics(service: Served) -> Response:
    """Return counters in Prometheus's text format."""
    return PlainTextResponse(service.metrics.exposition())


def _asset(request: Request, name: str) -> Response:
    found = assets.files().get(name)
    if found is None:
        raise NotFoundError(f"there is no file {name!r}")
    return _cached(request, found.etag, found.media_type, lambda: found.data)


def _cached(request: Request, etag: str, media_type: str, make: Callable[[], bytes]) -> Response:
    """Return the bytes, or only that the browser's copy is current."""
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(make(), 200, headers, media_type)
