"""The work item that turns one shard's planned rows into finished files.

It is idempotent: a shard whose summary has the expected fingerprint is not built again.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from typing import NamedTuple

from pipelines.building import other_increments, previous_version
from pipelines.building.nouns import NounParser
from pipelines.decoding import frame_codec, video, video_file
from pipelines.decoding.spans import TO_THE_END
from pipelines.errors import UserError
from pipelines.messages import LOGGER
from pipelines.planning import filters
from pipelines.planning.plan import Plan
from pipelines.planning.video_lookup import VideoLookup
from pipelines.snapshots import snapshot
from pipelines.snapshots.redaction import redaction_of
from pipelines.sources.clip_request import (
    ClipRequest,
    first_of_clip_id,
    lacking,
    reject,
    row_order,
    to_json,
)
from pipelines.sources.reject_reasons import REMOVED
from protos.v1.clip_pb2 import Box, Clip, NounChunk, Question, Segment
from protos.v1.manifest_pb2 import FileEntry, Reject, ShardEntry, ShardSummary, VideoFile

# Minimum number of rows after which a shard's failure rate stands for that of the whole build.
# Videos are assigned to shards at random.
_ENOUGH_ROWS = 100


class TooManyFailuresError(UserError, RuntimeError):
    """A failure rate above --max-failures, which stops the run."""


@dataclasses.dataclass(frozen=True)
class ShardOutcome:
    """The part of the manifest that describes one shard."""

    shard: int
    rows: int
    rejects: dict[str, int]  # count by reason code
    entry: ShardEntry
    videos_sha256: str
    reused: bool  # already finished, or adopted from an earlier version


def build_shard(
    shard: int,
    requests: Iterable[ClipRequest],
    plan: Plan,
    parser: NounParser,
    lookup: VideoLookup,
    decoded: Callable[[int, float], None] = lambda clips, seconds: None,
) -> ShardOutcome:
    """Decode and write one shard, unless it is already finished.

    Args:
      shard: number of the shard.
      requests: the shard's rows, in any order.
      plan: the snapshot to build.
      parser: finds the captions' noun chunks.
      lookup: finds the video files.
      decoded: called after each decoded video with its number of requested clips and the seconds.

    Raises:
      TooManyFailuresError: more rows fail to decode than the plan allows.
    """
    # This order keeps a video's clips adjacent in the shard. The exception is a clip_id prefix that
    # also starts another video's prefix, as with the ids "s1" and "s1_e2".
    requests = sorted(
        requests, key=lambda r: (first_of_clip_id(r.video_id), r.clip_id, row_order(r.source_row))
    )
    down = redaction_of(plan.removed)
    gone = [request for request in requests if down.ids_of(request.video_id)]
    requests = [request for request in requests if not down.ids_of(request.video_id)]
    by_video = {
        video_id: list(group)
        for video_id, group in itertools.groupby(requests, key=lambda r: r.video_id)
    }
    located = {video_id: _located(wanted, lookup) for video_id, wanted in by_video.items()}
    fingerprint = _fingerprint(requests, len(gone), located, plan)
    stem = plan.stem(shard)
    previous = None
    if plan.previous:
        previous = previous_version.read(plan.previous, shard, plan.increment)
    if previous and previous.is_final(len(requests) + len(gone), plan.removed):
        for file in previous.files:
            snapshot.link_or_copy(plan.previous, file, plan.out)
        return _outcome(shard, previous.summary, plan, reused=True)
    if done := _finished(stem, fingerprint, plan):
        return _outcome(shard, done, plan, reused=True)

    chunks = parser.parse(request.caption for request in requests)
    summary = ShardSummary(fingerprint=fingerprint, rows=len(requests) + len(gone))
    summary.rejects.extend(_reject("remove", REMOVED, "taken down", request) for request in gone)
    present = other_increments.present(plan, requests) if plan.base else {}
    seen = 0
    with snapshot.ShardWriter(plan.out, stem) as writer:
        mixed: list[Clip] = []
        for video_id, wanted in by_video.items():
            if mixed:
                first = first_of_clip_id(mixed[0].video_id)
                if not first_of_clip_id(video_id).startswith(first):
                    writer.append_all(mixed)
                    mixed = []
            file, rows, of_another_file = located[video_id]
            summary.rejects.extend(of_another_file)
            distinct = _without_duplicates(_new(rows, present, summary.rejects), summary.rejects)
            # Earlier releases made records of rows that lead to another file, with its frames.
            if previous and not of_another_file and previous.keeps(video_id, file):
                clips = previous.keep(video_id, distinct, summary)
            elif not distinct:
                clips = []
            else:
                began = time.monotonic()
                clips = _clips(file, distinct, chunks, plan, summary)
                decoded(len(distinct), time.monotonic() - began)
            mixed += clips
            seen += len(wanted)
            _check_failures(seen, summary.rejects, plan.max_failures)
        writer.append_all(mixed)
    summary.records = writer.records
    summary.data.CopyFrom(writer.data)
    summary.index.CopyFrom(writer.index)
    rejects = sorted(summary.rejects, key=lambda r: row_order(r.source_row))
    del summary.rejects[:]
    summary.rejects.extend(down.rejects(rejects))
    snapshot.write_file(plan.out, f"{stem}.json", snapshot.to_json(summary))
    LOGGER.info("wrote %s: %d records, %d rejects", stem, summary.records, len(summary.rejects))
    return _outcome(shard, summary, plan, reused=False)


class _Located(NamedTuple):
    """A video's file, its rows, and the rejects of rows whose labels lead to another file."""

    file: video_file.Video | video_file.Failure
    rows: list[ClipRequest]
    elsewhere: list[Reject]


def _located(requests: list[ClipRequest], lookup: VideoLookup) -> _Located:
    """Find the file of a video's rows, which are sorted by clip_id and row.

    A template with {label} may lead to several files of one id. The first row with a file decides,
    because a clip_id and the takedown know a video by its id alone.
    """
    video_id, first = requests[0].video_id, requests[0].labels[:1]
    if not lookup.by_label:
        return _Located(lookup.find(video_id, *first), requests, [])
    in_order = sorted(requests, key=lambda request: row_order(request.source_row))
    found = {
        label: lookup.find(video_id, *label)
        for label in dict.fromkeys(request.labels[:1] for request in in_order)
    }
    file = next((one for one in found.values() if isinstance(one, video_file.Video)), found[first])
    if isinstance(file, video_file.Failure):
        return _Located(file, requests, [])
    rows, elsewhere = [], []
    for request in requests:
        other = found[request.labels[:1]]
        if isinstance(other, video_file.Failure):
            elsewhere.append(_reject("decode", *other, request))
        elif other != file:
            names = [repr("/".join(one.path.split("/")[-2:])[-100:]) for one in (other, file)]
            message = f"{' and '.join(names)} have one id: give each file its own, and its rows"
            elsewhere.append(_reject("decode", "video_ambiguous", message, request))
        else:
            rows.append(request)
    return _Located(file, rows, elsewhere)


def _fingerprint(
    requests: list[ClipRequest],
    gone: int,  # number of rows of removed videos
    located: dict[str, _Located],
    plan: Plan,
) -> str:
    digest = hashlib.sha256(plan.config_sha256.encode())
    if plan.base:  # Its records determine which rows are duplicates.
        digest.update(f"{plan.base_sha256}\n".encode())
    if gone:
        digest.update(f"{gone} removed\n".encode())
    for request in requests:
        digest.update(to_json(request).encode() + b"\n")
    for video_id, (file, _, elsewhere) in located.items():
        what = video_file.identity(file) if isinstance(file, video_file.Video) else file.reason
        rejected = [[one.source_row, one.reason, one.message] for one in elsewhere]
        digest.update(json.dumps([video_id, what, *rejected]).encode() + b"\n")
    return digest.hexdigest()


def _finished(stem: str, fingerprint: str, plan: Plan) -> ShardSummary | None:
    path = os.path.join(plan.out, f"{stem}.json")
    try:
        summary = snapshot.read_json(path, ShardSummary)
    except snapshot.SnapshotError:
        return None
    if summary.fingerprint != fingerprint:
        return None
    if any(snapshot.fault(plan.out, entry) for entry in (summary.data, summary.index)):
        return None
    return summary


def _check_failures(seen: int, rejects: Iterable[Reject], maximum: float) -> None:
    reasons = collections.Counter(reject.reason for reject in rejects if reject.stage == "decode")
    failed = reasons.total()
    if seen >= _ENOUGH_ROWS and failed > maximum * seen:
        reason, count = reasons.most_common(1)[0]
        raise TooManyFailuresError(
            f"{failed} of the first {seen} rows of a shard failed, {count} of them as {reason}, "
            f"more than --max-failures {maximum:g}: check --videos, or raise --max-failures"
        )


def _new(
    requests: list[ClipRequest], present: Mapping[str, str], rejects: MutableSequence[Reject]
) -> list[ClipRequest]:
    """Return the rows whose clips are not `present`, and append a reject for each other row."""
    for request in requests:
        if version := present.get(request.clip_id):
            message = f"the clip came with version {version}; annotations are not merged"
            rejects.append(_reject("plan", "already_present", message, request))
    return [request for request in requests if request.clip_id not in present]


def _without_duplicates(
    requests: list[ClipRequest], rejects: MutableSequence[Reject]
) -> list[ClipRequest]:
    """Return the first row of each clip_id, and append a reject for each duplicate.

    Args:
      requests: rows sorted by clip_id and row.
      rejects: the list to extend.
    """
    distinct: list[ClipRequest] = []
    for request in requests:
        if distinct and request.clip_id == distinct[-1].clip_id:
            reason, message = "duplicate", f"the same clip as {distinct[-1].source_row}"
            if lost := lacking(distinct[-1], request):
                reason, message = "duplicate_differs", f"{lost} are lost: {message}"
            rejects.append(_reject("plan", reason, message, request))
        else:
            distinct.append(request)
    return distinct


def _clips(
    found: video_file.Video | video_file.Failure,
    requests: list[ClipRequest],
    chunks: dict[str, list[NounChunk]],
    plan: Plan,
    summary: ShardSummary,
) -> list[Clip]:
    """Return a video's records by clip_id, and append its rejects and file to `summary`."""
    if isinstance(found, video_file.Failure):
        summary.rejects.extend(_reject("decode", *found, request) for request in requests)
        return []
    with video_file.fetched(found, plan.max_video_bytes) as here:
        sha256 = video_file.sha256(here) if isinstance(here, video_file.Video) else here
        if isinstance(sha256, video_file.Failure) or isinstance(here, video_file.Failure):
            assert isinstance(sha256, video_file.Failure)
            summary.rejects.extend(_reject("decode", *sha256, request) for request in requests)
            return []
        summary.videos.append(
            VideoFile(video_id=requests[0].video_id, bytes=here.bytes, sha256=sha256)
        )
        return _decoded(here.path, requests, chunks, plan, summary)


def _decoded(
    path: str,
    requests: list[ClipRequest],
    chunks: dict[str, list[NounChunk]],
    plan: Plan,
    summary: ShardSummary,
) -> list[Clip]:
    """Return a local video's records by clip_id, and append its rejects to `summary`."""
    config, minimum = plan.config, plan.config.filters.min_motion
    clips: list[Clip] = []
    by_span: dict[tuple[int, int], list[ClipRequest]] = {}
    for request in requests:
        by_span.setdefault((request.start_us, request.end_us), []).append(request)
    spans = [*by_span]
    decoded = video.decode(
        path,
        spans,
        min_us=[_min_us(*span, plan) for span in spans],
        frames=config.frames_per_clip,
        short_side=config.short_side,
        decoder=plan.decoder,
        limits=video.Limits(seconds=plan.decode_seconds, confined=plan.require_sandbox),
    )
    for i, frames in decoded:
        same = by_span[spans[i]]
        if isinstance(frames, video_file.Failure):
            summary.rejects.extend(_reject("decode", *frames, request) for request in same)
            continue
        if spans[i][1] == TO_THE_END and (
            dropped := filters.dropped_by_length(frames.end_us - spans[i][0], config.filters)
        ):
            summary.rejects.extend(_reject("filter", *dropped, request) for request in same)
            continue
        if config.square:
            frames = frames._replace(pixels=frame_codec.square(frames.pixels))
        if minimum and (moved := filters.motion(frames.pixels)) < minimum:
            message = f"pixels change by {moved:.2f} where {minimum:g} are wanted"
            summary.rejects.extend(
                _reject("filter", "clip_static", message, request) for request in same
            )
            continue
        encoded = frame_codec.encode(frames.pixels, config.frame_encoding, config.jpeg_quality)
        clips.extend(_clip(request, frames, encoded, chunks, plan) for request in same)
    return sorted(clips, key=lambda clip: clip.clip_id)


def _min_us(start_us: int, end_us: int, plan: Plan) -> int:
    """Return the minimum length in µs of a span that is cut at the end of its video."""
    if end_us == TO_THE_END:
        return 1
    left = 1 - plan.config.max_past_end_share
    left_us = math.ceil(left * (end_us - start_us))
    return max(1, left_us, plan.config.filters.min_clip_us)


def _clip(
    request: ClipRequest,
    frames: video.Frames,
    encoded: list[bytes],
    chunks: dict[str, list[NounChunk]],
    plan: Plan,
) -> Clip:
    _, height, width, _ = frames.pixels.shape
    return Clip(
        clip_id=request.clip_id,
        video_id=request.video_id,
        start_us=request.start_us,
        end_us=frames.end_us,
        end_cut_from_us=request.end_us if frames.end_us < request.end_us else 0,
        caption=request.caption,
        noun_chunks=chunks[request.caption],
        frames=encoded,
        frame_time_us=frames.times_us,
        frame_encoding=plan.config.frame_encoding,
        height=height,
        width=width,
        labels=request.labels,
        source_row=request.source_row,
        caption_cut_from=request.caption_cut_from,
        captions=request.captions,
        questions=[Question(**question._asdict()) for question in request.questions],
        segments=[Segment(**segment._asdict()) for segment in request.segments],
        boxes=[Box(**box._asdict()) for box in request.boxes],
        video_duration_us=request.video_duration_us,
    )


def _reject(stage: str, reason: str, message: str, request: ClipRequest) -> Reject:
    return reject(stage, reason, message, source_row=request.source_row, video_id=request.video_id)


def _outcome(shard: int, summary: ShardSummary, plan: Plan, *, reused: bool) -> ShardOutcome:
    data = snapshot.to_json(summary)
    name = f"{plan.stem(shard)}.json"
    return ShardOutcome(
        shard=shard,
        rows=summary.rows,
        rejects=dict(collections.Counter(reject.reason for reject in summary.rejects)),
        entry=ShardEntry(
            records=summary.records,
            data=summary.data,
            index=summary.index,
            summary=FileEntry(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
        ),
        videos_sha256=snapshot.videos_sha256(summary),
        reused=reused,
    )
