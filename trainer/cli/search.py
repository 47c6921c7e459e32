"""The commands `index` and `search`."""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer import progress
from trainer.cli.arguments import count, on_disk, phrase, refuse_ignored
from trainer.cli.commands import add_parser, add_run, load_run
from trainer.cli.export_commands import add_sharing, check_sharing
from trainer.cli.outputs import FIGURES, INDEX, check_folder, output_file
from trainer.cli.search_moments import add_moments, check_moments, search_moments
from trainer.cli.terminal_text import one_line
from trainer.errors import ExitCode

if TYPE_CHECKING:
    from trainer.index.index import Hit, Index
    from trainer.inference.search import Found

_INDEX_EPILOG = """\
Embeds each clip once. INDEX gets the clips' vectors, those of their groups and windows, and their
captions, spans and labels. trainer/index/files.py describes the format.

The same command resumes an interrupted one. With another version of a snapshot, it embeds only the
clips whose records changed, and removes those that left. Searches with an index of up to a million
clips are exact. For larger ones they are approximate, which requires the packages of the extra
[search]. The recall is then measured with captions, and is part of index.json.

To share the work, start the command N times with --processes N and --process 0 … N − 1 on one file
system, at any times.

example:
  svilm-train index --run runs/first --snapshot snapshots/test --out indices/test
"""

_SEARCH_EPILOG = """\
With --index, the query is the mean of the embeddings of all texts and of --like, minus the mean of
those of --minus. Clips rank by their cosine with it. --noun adds each noun's cosine with the clip's
most similar group. A query of nouns alone is the mean of their embeddings.

With --snapshot alone, every clip is embedded for this one query, of one text.

examples:
  svilm-train search "a red ring is rising" --index indices/test
  svilm-train search "a ring" --minus "a red ring" --index indices/test --each-video --top 20
  svilm-train search --like holiday.mp4 --span 3:9.5 --index indices/test --out found.png
  svilm-train search --noun "red ring" --index indices/test --heat-maps heat/
  svilm-train search "a red ring is rising" --moments --index indices/windows
  svilm-train search "a red ring is rising" --run runs/first --snapshot snapshots/test
"""


def add_index(commands: Any) -> None:
    """Add the command `svilm-train index`."""
    parser = add_parser(
        commands,
        "index",
        "embed clips once, to search them often",
        "Builds or updates an index of a run and the clips of snapshots, for `svilm-train search`.",
        _INDEX_EPILOG,
    )
    parser.set_defaults(command=_index)
    add_run(parser)
    parser.add_argument(
        "--snapshot",
        required=True,
        action="append",
        metavar="DIR",
        help="a snapshot of `svilm-pipelines build`, on a disk, gs://BUCKET/FOLDER or "
        "s3://BUCKET/FOLDER; may be repeated",
    )
    parser.add_argument(
        "--out", type=on_disk, required=True, metavar="INDEX", help="folder of the index"
    )
    parser.add_argument(
        "--vectors",
        choices=("float16", "int8"),
        default="float16",
        help="type of the vectors; int8 takes half the space (default: float16)",
    )
    add_sharing(parser)


def _index(arguments: argparse.Namespace) -> int:
    check_sharing(arguments)
    check_folder(arguments, "out", INDEX)

    from trainer.data.snapshot import Snapshot
    from trainer.index import build
    from trainer.index.index import Index

    run = load_run(arguments.run)
    snapshots = [Snapshot.open(folder) for folder in arguments.snapshot]
    with progress.shown("index") as show:
        whole = build.build(
            run,
            snapshots,
            arguments.out,
            show,
            dtype=arguments.vectors,
            shard_clips=arguments.shard_clips,
            process=arguments.process,
            processes=arguments.processes,
        )
    if whole:
        print(f"index: {Index.open(arguments.out)!r}")
    else:
        print(f"index: process {arguments.process} of {arguments.out} is done, others are not")
    return ExitCode.OK


def add_search(commands: Any) -> None:
    """Add the command `svilm-train search`."""
    parser = add_parser(
        commands,
        "search",
        "find clips by text, noun, clip or video",
        "Finds the clips of an index or a snapshot that are most similar to a query.",
        _SEARCH_EPILOG,
    )
    parser.set_defaults(command=_search, misused=parser.error)
    parser.add_argument(
        "text", nargs="*", type=phrase, help="a description of the clip; several are averaged"
    )
    add_run(parser, required=False)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--index", type=on_disk, metavar="INDEX", help="an index of the run")
    subject.add_argument(
        "--snapshot",
        metavar="DIR",
        help="a snapshot of `svilm-pipelines build`, on a disk, gs://BUCKET/FOLDER or "
        "s3://BUCKET/FOLDER",
    )
    _add_query(parser)
    add_moments(parser)
    parser.add_argument(
        "--top", type=count(1), default=5, metavar="N", help="number of clips (default: 5)"
    )
    parser.add_argument(
        "--offset",
        type=count(1),
        metavar="N",
        help="number of best clips to leave out, for further pages (default: 0)",
    )
    parser.add_argument(
        "--each-video", action="store_true", help="show only the best clip of each video"
    )
    parser.add_argument(
        "--out", type=_png, metavar="PNG", help="file for a contact sheet (default: none)"
    )
    parser.add_argument("--json", metavar="FILE", help="file for the results (default: none)")
    parser.add_argument(
        "--heat-maps",
        type=on_disk,
        metavar="DIR",
        help="folder for heat maps of the nouns in the found clips (default: none)",
    )


def _add_query(parser: argparse.ArgumentParser) -> None:
    for name, word, use in (
        ("--minus", "TEXT", "a description of what the clip should not be"),
        ("--noun", "PHRASE", "a noun phrase such as 'red ring', located in each found clip"),
    ):
        parser.add_argument(
            name,
            type=phrase,
            action="append",
            default=[],
            metavar=word,
            help=f"{use}; may be repeated (default: none)",
        )
    parser.add_argument(
        "--like",
        metavar="CLIP",
        help="find clips that are like this one: a clip id of the index, or a video file, which "
        "svilm-pipelines decodes (default: none)",
    )
    parser.add_argument(
        "--span",
        type=_seconds,
        metavar="START:END",
        help="the span of the video file of --like, in seconds (default: the whole video)",
    )
    for name, word, use in (
        ("--dataset", "NAME", "data set"),
        ("--video", "ID", "video"),
        ("--label", "LABEL", "label"),
    ):
        parser.add_argument(
            name,
            action="append",
            default=[],
            metavar=word,
            help=f"find only clips of this {use}; may be repeated (default: any)",
        )
    parser.add_argument(
        "--length",
        type=_seconds,
        metavar="MIN:MAX",
        help="find only clips of this length in seconds; either end may be left out, as in 2: "
        "(default: any)",
    )
    parser.add_argument(
        "--min-score",
        type=_score,
        metavar="X",
        help="find only clips with at least this cosine, such as 0.25 (default: any)",
    )


def _png(text: str) -> str:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} must end with .png")
    return text


def _seconds(text: str) -> tuple[int, int | None]:
    """Parse a range of seconds, as an argparse type; returns microseconds.

    >>> _seconds("3:9.5"), _seconds(":2"), _seconds("2:")
    ((3000000, 9500000), (0, 2000000), (2000000, None))
    """
    number = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)?"
    found = re.fullmatch(f"{number}:{number}", text)
    ends = (
        [None if one is None else round(float(one) * 1e6) for one in found.groups()]
        if found
        else []
    )
    if ends and (ends[1] is None or (ends[0] or 0) < ends[1]):
        return ends[0] or 0, ends[1]
    raise argparse.ArgumentTypeError(f"{text!r} is not START:END in seconds, such as 3:9.5")


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a cosine from -1 to 1")
    return value


def _search(arguments: argparse.Namespace) -> int:
    refuse_ignored(
        arguments,
        *((name, arguments.index, "--index") for name in _OF_INDEX),
        ("span", arguments.like, "--like"),
        ("heat_maps", arguments.noun, "--noun"),
    )
    check_moments(arguments)
    if arguments.snapshot and (not arguments.run or len(arguments.text) != 1):
        arguments.misused("--snapshot requires --run and one text: --index takes other queries")
    if arguments.heat_maps:
        check_folder(arguments, "heat_maps", FIGURES)
    with output_file(arguments) as sheet, output_file(arguments, "json") as listed:
        find = _search_index if arguments.index else _search_snapshot
        results = find(arguments, sheet)
        if listed:
            text = json.dumps({"results": results}, indent=1, allow_nan=False)
            listed.write_text(f"{text}\n", encoding="utf-8")
    return ExitCode.OK


_OF_INDEX = (
    *("minus", "noun", "like", "dataset", "video", "label", "length", "min_score"),
    *("offset", "each_video", "moments"),
)


def _search_snapshot(
    arguments: argparse.Namespace, sheet: pathlib.Path | None
) -> list[dict[str, Any]]:
    from trainer.data.snapshot import Snapshot
    from trainer.index.index import find_index
    from trainer.inference.search import contact_sheet, search

    (text,) = arguments.text
    run, snapshot = load_run(arguments.run), Snapshot.open(arguments.snapshot)
    known = find_index(run, snapshot)
    way = f"search with --index {known}" if known else "`svilm-train index` makes an index"
    progress.say(f"search: {snapshot.folder} is embedded for this query alone: {way}")
    with progress.shown("search") as show:
        found = search(text, run, snapshot, arguments.top, show)
    if sheet:
        clips = [snapshot.clip(one.record) for one in found]
        contact_sheet(text, found, clips).save(sheet, "png")
    _print(found)
    return [
        {"score": one.score, "record": one.record, **dataclasses.asdict(one.clip)} for one in found
    ]


def _search_index(
    arguments: argparse.Namespace, sheet: pathlib.Path | None
) -> list[dict[str, Any]]:
    from trainer.index.index import Index
    from trainer.index.queries import Filters
    from trainer.inference.search import contact_sheet

    run = load_run(arguments.run) if arguments.run else None
    index = Index.open(arguments.index, run)
    shortest, longest = arguments.length or (0, None)
    filters = Filters(
        datasets=tuple(arguments.dataset),
        videos=tuple(arguments.video),
        labels=tuple(arguments.label),
        min_us=shortest,
        max_us=longest,
        min_score=-math.inf if arguments.min_score is None else arguments.min_score,
    )
    like = _like(arguments, index)
    if arguments.moments:
        return search_moments(arguments, index, like, filters)
    hits = index.search(
        arguments.text,
        minus=arguments.minus,
        nouns=arguments.noun,
        like=like,
        filters=filters,
        top=arguments.top,
        offset=arguments.offset or 0,
        each_video=arguments.each_video,
    )
    found = [_found(hit) for hit in hits]
    if sheet:
        query = "; ".join([*arguments.text, *arguments.noun, arguments.like or ""]).strip("; ")
        clips = [index.snapshot(hit.row).clip(hit.record) for hit in hits]
        contact_sheet(query, found, clips).save(sheet, "png")
    if arguments.heat_maps:
        _write_heat_maps(index, hits, arguments.noun, arguments.heat_maps)
    _print(found)
    return [dataclasses.asdict(hit) for hit in hits]


def _found(hit: "Hit") -> "Found":
    from trainer.data.batches import ClipText
    from trainer.inference.search import Found

    clip = ClipText(hit.clip_id, hit.video_id, hit.start_us, hit.end_us, hit.caption, ())
    return Found(hit.score, hit.record, clip)


def _like(arguments: argparse.Namespace, index: "Index") -> Any:
    """Return the clip id of --like, or the vector of its video file."""
    like = arguments.like
    if like is None or (not os.path.isfile(like) and index.columns.row_of(like) is not None):
        if arguments.span:
            arguments.misused(f"--span applies only to a video file, not to the clip {like!r}")
        return like
    if arguments.span and arguments.span[1] is None:
        arguments.misused("--span must have an end, such as 3:9.5")
    if not os.path.exists(like):
        arguments.misused(f"--like {like!r} is neither a clip of the index nor a file")
    return index.embed_video(like, arguments.span)


def _write_heat_maps(
    index: "Index", hits: Sequence["Hit"], nouns: Sequence[str], out: pathlib.Path
) -> None:
    from trainer.figures import heatmap

    out.mkdir(parents=True, exist_ok=True)
    for place, (hit, found) in enumerate(zip(hits, index.ground(hits, nouns), strict=True)):
        figure = heatmap.still(one_line(hit.caption), found.frames, nouns, found.heat)
        figure.savefig(out / f"nouns-{place + 1:05d}.png")


def _print(found: Sequence["Found"]) -> None:
    from trainer.inference.search import clock

    for one in found:
        clip = one.clip
        print(
            f"{one.score:6.3f}  {one_line(clip.clip_id)}  {one_line(clip.video_id)}  "
            f"{clock(clip.start_us)}–{clock(clip.end_us)}  {one_line(clip.caption)}"
        )
