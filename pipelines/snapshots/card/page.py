"""Self-contained HTML pages: a snapshot's data card, and a contact sheet."""

import html
import math
import pathlib
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipelines.decoding import frame_codec
from pipelines.formatting import format_bytes
from pipelines.snapshots import build_options, increments
from pipelines.snapshots import records as reading
from pipelines.snapshots.card import statistics, strips
from pipelines.snapshots.card.statistics import RecordStatistics
from pipelines.snapshots.card.strips import Entry
from pipelines.sources.reject_reasons import REASONS
from protos.v1.manifest_pb2 import BuildConfig, Manifest

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
_PHRASES, _SIZES = 24, 8


def data_card(
    folder: str,
    manifest: Manifest,
    *,
    clips: int,
    records: int,
    name: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the data card of a snapshot as HTML.

    Args:
      folder: the snapshot's folder.
      manifest: the manifest that `read_manifest` returned for the folder.
      clips: number of clips to show.
      records: number of records to read for the statistics.
      name: name of the data set, instead of its source's name.
      progress: called with the number of records read and the number to read.

    Raises:
      SnapshotError: a file of the snapshot is missing or damaged.
    """
    figures = RecordStatistics()
    places = reading.evenly_spaced(manifest, records)
    for done, clip in enumerate(reading.read(folder, manifest, places), 1):
        figures.add(clip)
        progress(done, len(places))
    sheet = strips.entries(folder, manifest, reading.evenly_spaced(manifest, clips))
    videos = sum(len(summary.videos) for summary in reading.summaries(folder, manifest))
    of = _of(folder, manifest)
    return _page(
        f"{name or manifest.dataset} {manifest.data_version}",
        f"A snapshot of {manifest.counts.records:,} captioned clips from {videos:,} videos, with "
        f"{manifest.config.frames_per_clip} frames per clip, {_frame(manifest.config)}.",
        [
            _counts(manifest, figures, of),
            _clips(sheet, of),
            _rejects(manifest, statistics.by_reason(reading.rejects(folder, manifest)), of),
            _distributions(manifest, figures, of),
            _provenance(manifest, of),
        ],
    )


def contact_sheet(folder: str, manifest: Manifest, sheet: Sequence[Entry]) -> str:
    """Return a page that shows only clips."""
    title = f"Clips of {manifest.dataset} {manifest.data_version}"
    subtitle = f"{len(sheet):,} of {manifest.counts.records:,} clips"
    return _page(title, subtitle, [_clips(sheet, _of(folder, manifest))])


def _of(folder: str, manifest: Manifest) -> str:
    """Return a description of the snapshot for captions, without the path of its folder."""
    name = folder.rstrip("/").rpartition("/")[2]
    return (
        f"snapshot {name}: {manifest.dataset} {manifest.data_version}, inputs’ sha256 "
        f"{manifest.inputs_sha256[:12]}"
    )


def _page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title), subtitle=html.escape(subtitle), sections="\n".join(sections)
    )


def _section(heading: str, sentence: str, body: str, of: str) -> str:
    """Return a section of the page, in which `of` names the data behind its figures."""
    data = f'<p class="of">Data: {html.escape(of)}</p>'
    return f"<section><h2>{heading}</h2><p>{sentence}</p>{body}{data}</section>"


def _table(rows: Iterable[Sequence[str]], caption: str, header: Sequence[str] = ()) -> str:
    """Return an HTML table of texts, which this function escapes."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{html.escape(caption)}</caption>'
        f"<tr>{head}</tr>{body}</table></div>"
    )


def _counts(manifest: Manifest, figures: RecordStatistics, of: str) -> str:
    counts = manifest.counts
    rejected = sum(counts.rejects.values())
    hours = sum(figures.seconds) / len(figures.seconds) * counts.records / 3600
    size = sum(shard.data.bytes for shard in manifest.shards)
    tiles = (
        (f"{counts.rows:,}", "annotation rows"),
        (f"{counts.records:,}", f"records, {counts.records / counts.rows:.1%} of the rows"),
        (f"{rejected:,}", f"rejects, {rejected / counts.rows:.1%} of the rows"),
        (f"{hours:,.3g} h", "total length of the clips, estimated from the mean"),
        (format_bytes(size), f"in {len(manifest.shards):,} shards"),
        (
            f"{figures.near_duplicates:,}",
            f"near duplicates among {len(figures.words):,} captions",
        ),
    )
    body = "".join(f'<div class="card"><b>{figure}</b>{what}</div>' for figure, what in tiles)
    return _section(
        "Contents",
        "Every annotation row is either a record, or a reject with a reason.",
        f'<div class="tiles">{body}</div>',
        of,
    )


def _clips(sheet: Sequence[Entry], of: str) -> str:
    return _section(
        "Clips",
        "Each clip shows evenly spaced frames, the caption with its noun chunks marked, and the "
        "shard and record number, video, span and annotation row.",
        "".join(strips.figure(entry) for entry in sheet),
        f"{len(sheet):,} clips of {of}",
    )


def _rejects(manifest: Manifest, reasons: Mapping[str, statistics.Reason], of: str) -> str:
    if not reasons:
        return _section("Rejects", "No row was rejected.", "", of)
    maximum = max(reason.count for reason in reasons.values())
    parts = []
    for code, reason in reasons.items():
        examples = _table(
            [
                (reject.source_row, reject.video_id or "–", reject.message, reject.row or "–")
                for reject in reason.examples
            ],
            f"{len(reason.examples):,} of the {reason.count:,} rows rejected as {code}",
            header=("row", "video", "error", "text"),
        )
        share = reason.count / manifest.counts.rows
        parts.append(
            f'<div class="card reject"><h3>{html.escape(code)} '
            f"<span>{html.escape(REASONS.get(code, ''))}</span></h3>"
            f"{_bar(f'{reason.count:,}', reason.count / maximum, f'{share:.2%} of the rows')}"
            f"<details><summary>examples</summary>{examples}</details></div>"
        )
    return _section("Rejects", "Rejected rows by reason.", "".join(parts), of)


def _distributions(manifest: Manifest, figures: RecordStatistics, of: str) -> str:
    read = len(figures.seconds)
    whole = read == manifest.counts.records
    charts = "".join(
        (
            _chart("Clip length, seconds", figures.seconds),
            _chart("Caption length, words", figures.words),
            _chart("Noun chunks per caption", figures.nouns),
            _chart("Bytes per frame", figures.frame_bytes),
            _ranking("Frame size, pixels", figures.sizes.most_common(_SIZES), read),
            _ranking("Noun chunks, share of captions", figures.phrases.most_common(_PHRASES), read),
        )
    )
    return _section(
        "Statistics",
        f"Statistics of all {read:,} records."
        if whole
        else f"Statistics of {read:,} evenly spaced records out of {manifest.counts.records:,}.",
        f'<div class="charts">{charts}</div>',
        f"{read:,} records of {of}",
    )


def _chart(name: str, values: Sequence[float]) -> str:
    bars = statistics.histogram(values)
    maximum = max(count for _, _, count in bars)
    columns = "".join(
        f'<rect x="{i}" y="{100 * (1 - count / maximum):.2f}" width=".86" '
        f'height="{100 * count / maximum:.2f}"><title>{_number(low)} to {_number(high)}: {count:,}'
        "</title></rect>"
        for i, (low, high, count) in enumerate(bars)
    )
    median = statistics.quantile(values, 0.5)
    return (
        f'<div class="card"><h3>{html.escape(name)} <span>median {_number(median)}, '
        f"5th percentile {_number(statistics.quantile(values, 0.05))}, "
        f"95th percentile {_number(statistics.quantile(values, 0.95))}</span></h3>"
        f'<svg viewBox="0 0 {len(bars)} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="histogram of {html.escape(name)}">{columns}</svg>'
        f'<div class="axis"><i>{_number(min(values))}</i><i>{_number(max(values))}</i></div></div>'
    )


def _ranking(name: str, ranked: Sequence[tuple[str, int]], of: int) -> str:
    bars = "".join(
        _bar(text, count / max(ranked[0][1], 1), f"{count / of:.1%}") for text, count in ranked
    )
    return f'<div class="card"><h3>{html.escape(name)}</h3>{bars or "none"}</div>'


def _bar(name: str, share: float, text: str) -> str:
    return (
        f'<div class="bar"><span dir="auto">{html.escape(name)}</span>'
        f'<i><b style="width:{100 * share:.2f}%"></b></i><em>{html.escape(text)}</em></div>'
    )


def _number(value: float) -> str:
    """Return a number with three significant digits, or with all digits if it is whole.

    >>> _number(12345), _number(2.0), _number(0.12345)
    ('12,345', '2', '0.123')
    """
    if value == math.floor(value):
        return f"{int(value):,}"
    return f"{value:,.3g}"


def _frame(config: BuildConfig) -> str:
    """Return the size and the encoding of a frame.

    >>> _frame(BuildConfig(short_side=256, frame_encoding=1, jpeg_quality=95))
    'short side 256 pixels, jpeg quality 95'
    >>> _frame(BuildConfig(short_side=224, square=True, frame_encoding=2))
    '224 × 224 pixels, png'
    """
    side, encoding = config.short_side, frame_codec.name(config.frame_encoding)
    size = f"{side} × {side} pixels" if config.square else f"short side {side} pixels"
    quality = f" quality {config.jpeg_quality}" if encoding == "jpeg" else ""
    return f"{size}, {encoding}{quality}"


def _increments(manifest: Manifest) -> str:
    """Return a table of the build and its appends, or an empty string if nothing was appended."""
    rows = [
        (
            part.data_version,
            part.manifest.dataset,
            f"{sum(shard.records for shard in part.manifest.shards):,}",
            ", ".join(file.name for file in part.manifest.annotations),
            part.previous_sha256 or "none",
        )
        for part in increments.split(manifest)
    ]
    header = ("came with version", "source", "records", "annotation files", "appended to manifest")
    return _table(rows, "Increments", header) if len(rows) > 1 else ""


def _provenance(manifest: Manifest, of: str) -> str:
    config = manifest.config
    chosen = {"frame": _frame(config), **build_options.chosen(config)}
    if manifest.dataset == "generic":
        chosen.setdefault("--columns", "default names")
        chosen.setdefault("--time-unit", "s")
    identity = {
        "source": manifest.dataset,
        "data version": manifest.data_version,
        "schema version": manifest.schema_version,
        "sha256 of the inputs": manifest.inputs_sha256,
        "sha256 of the configuration": manifest.config_sha256,
    }
    files = _table(
        [(file.name, f"{file.bytes:,}", file.sha256) for file in manifest.annotations],
        "Annotation files",
        header=("annotation file", "bytes", "sha256"),
    )
    return _section(
        "Provenance",
        "The same inputs, options and versions produce the same bytes.",
        "".join(
            (
                _table(identity.items(), "Identity"),
                files,
                _increments(manifest),
                _table(chosen.items(), "Build options", ("option", "value")),
                _table(
                    sorted(manifest.versions.items()),
                    "Software",
                    ("software", "version"),
                ),
            )
        ),
        of,
    )
