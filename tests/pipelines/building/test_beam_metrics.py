"""Progress and metrics of a build."""

import re
import threading

import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.building import beam_metrics, graph, nouns
from pipelines.cli import main
from pipelines.cli.progress import Progress, Shards
from pipelines.planning import plan
from pipelines.snapshots import snapshot
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import BuildConfig, Filters, ShardSummary, SourceOptions

SHARDS = 3
LONG, SHORT, MISSING = "long_video_", "short_video", "no_video___"
ROWS = [
    (LONG, 0, 1_000_000, "a man"),
    (LONG, 1_000_000, 2_000_000, "a dog"),
    (LONG, 2_000_000, 3_000_000, "a"),  # dropped by a filter
    (LONG, 90_000_000, 91_000_000, "past the end"),
    (SHORT, 0, 1_000_000, "a cat"),
    (MISSING, 0, 1_000_000, "nothing at all"),
    (LONG, 2, 1, "no span"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_video):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / f"{LONG}.mkv")
    make_video(folder / "videos" / f"{SHORT}.mkv", seconds=1)
    lines = [",".join(map(str, row)) for row in ROWS]
    (folder / "rows.csv").write_text("url,start,end,caption\n" + "\n".join(lines) + "\n")
    return folder


def planned(inputs, out):
    survey = plan.survey("videocc", (str(inputs / "rows.csv"),), SourceOptions())
    return plan.Plan(
        source="videocc",
        annotations=survey.paths,
        annotation_files=survey.files,
        videos=str(inputs / "videos"),
        out=str(out),
        data_version="1.0.0",
        config=BuildConfig(
            frames_per_clip=4,
            short_side=24,
            frame_encoding=FRAME_ENCODING_JPEG,
            jpeg_quality=90,
            prompt_templates=contract.PROMPT_TEMPLATES,
            num_shards=SHARDS,
            filters=Filters(min_caption_words=2),
        ),
        versions={},
        spacy_model=nouns.default_model(),
        decoder="pyav",
        decode_seconds=60,
    )


def run(inputs, out):
    out.mkdir(exist_ok=True)
    return graph.run(planned(inputs, out), FnApiRunner(), PipelineOptions([]))


def counted(result) -> dict:
    found = result.metrics().query(MetricsFilter().with_namespace(beam_metrics.NAMESPACE))
    return {m.key.metric.name: m.committed for kind in found.values() for m in kind}


@pytest.fixture(scope="module")
def first(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("first")
    return out, run(inputs, out)


def test_beam_metrics_equal_the_manifest(first):
    out, result = first
    manifest = snapshot.read_json(str(out / contract.MANIFEST_NAME), plan.Manifest)
    found = result.metrics().query(MetricsFilter().with_namespace(beam_metrics.NAMESPACE))
    sums: dict[str, int] = {}
    for counter in found["counters"]:
        name = counter.key.metric.name
        sums[name] = sums.get(name, 0) + counter.committed
    rejects = {f"rejects_{reason}": n for reason, n in manifest.counts.rejects.items()}
    assert set(rejects) == {
        "rejects_caption_too_short",
        "rejects_span_empty",
        "rejects_span_past_end",
        "rejects_video_missing",
    }
    files = [path for path in out.iterdir() if path.name.startswith("shard-")]
    assert sums == rejects | {
        "rows": len(ROWS),
        "records": 3,
        "records_built": 3,
        "shards_built": SHARDS,
        "bytes_written": sum(path.stat().st_size for path in files),
    }


def test_distributions_cover_videos_clips_and_shards(first):
    _, result = first
    found = counted(result)
    assert (found["clips_per_shard"].count, found["clips_per_shard"].sum) == (SHARDS, 3)
    # Missing videos are not timed; both others are.
    a_video, a_clip = found["decode_ms_per_video"], found["decode_ms_per_clip"]
    assert a_video.count == a_clip.count == 3
    assert a_video.max >= a_clip.max > 0


def test_a_resumed_run_counts_reused_shards_separately(first, inputs, tmp_path):
    before, _ = first
    out = tmp_path / "out"
    out.mkdir()
    summaries = {
        path.stem: snapshot.read_json(str(path), ShardSummary)
        for path in before.glob("shard*.json")
    }
    lost = max(summaries, key=lambda stem: summaries[stem].records)
    for path in before.iterdir():
        if path.stem not in (lost, "manifest"):
            (out / path.name).write_bytes(path.read_bytes())
    result = run(inputs, out)
    found, totals = counted(result), beam_metrics.totals(result)
    assert (found["shards_built"], found["shards_reused"]) == (1, SHARDS - 1)
    assert found["records"] == 3
    assert totals is not None
    assert totals.records == summaries[lost].records == found["records_built"]
    assert totals.bytes == sum(path.stat().st_size for path in out.glob(f"{lost}.*"))
    assert (totals.built, totals.reused) == (1, SHARDS - 1)
    assert 0 < totals.ended - totals.began < 60

    nothing = run(inputs, out)  # as after a crash just before the manifest was written
    assert beam_metrics.totals(nothing) is None
    assert counted(nothing)["shards_reused"] == SHARDS


def test_a_build_prints_its_throughput(inputs, tmp_path, capsys):
    hook = threading.excepthook
    try:
        status = main.main(
            [
                *("build", "videocc", "--annotations", str(inputs / "rows.csv")),
                *("--videos", str(inputs / "videos"), "--out", str(tmp_path / "out")),
                *("--frames", "4", "--short-side", "24", "--shards", "2"),
            ]
        )
    finally:
        threading.excepthook = hook
    told = capsys.readouterr().out.splitlines()
    assert status == 0
    assert len(told) == 3
    assert told[0].startswith("build: 7 rows = 4 records + 3 rejects (span_empty 1,")
    files = (tmp_path / "out").glob("shard-*")
    kilobytes = sum(path.stat().st_size for path in files) / 1000
    assert re.fullmatch(
        rf"build: 4 clips, {kilobytes:.3g} kB in 2 shards, \d+\.\d\d clips/s after \d+\.\d s of "
        "start-up",
        told[1],
    ), told[1]
    assert told[2].startswith("build: the sandbox of the decoders ")


def test_reused_shards_do_not_count_in_the_rate(write_snapshot, make_clip, tmp_path):
    clips = [make_clip(f"video {i}") for i in range(12)]
    write_snapshot(tmp_path / "out", clips)
    folder = tmp_path / "out"
    (late,) = folder.glob("shard-00001-*.json")
    data = late.read_bytes()
    late.unlink()
    stems = [f"shard-{number:05d}-of-{SHARDS:05d}" for number in range(SHARDS)]
    shards = Shards(str(folder), stems)
    assert (shards.before, shards.done) == (2, 2)
    assert shards.detail.startswith(" (2 reused), 0 clips, 0 rejects, 0.0 clips/s")
    late.write_bytes(data)
    shards.update()
    shards.update()
    assert (shards.before, shards.done) == (2, 3)
    own = snapshot.read_json(str(late), ShardSummary).records
    assert 0 < own < 12
    assert shards.detail.startswith(f" (2 reused), {own} clips, 0 rejects, ")


@pytest.mark.parametrize(
    ("before", "done", "left"),
    [
        (0, 5, ", 0:10 left"),  # 5 shards in 10 s, 5 left
        (4, 5, ", 0:50 left"),  # 1 shard in 10 s
        (5, 5, ""),  # no estimate yet
        (4, 10, ""),
    ],
)
def test_the_remaining_time_follows_the_remaining_shards(monkeypatch, capsys, before, done, left):
    now = iter((100.0, 110.0))
    monkeypatch.setattr("pipelines.cli.progress.time.monotonic", lambda: next(now))
    Progress("build", "shards").update(done, 10, before=before)
    assert capsys.readouterr().err == f"build: {done}/10 shards{left}\n"
