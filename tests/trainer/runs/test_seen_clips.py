"""A run records its training clips, and is evaluated on them only with --allow-seen."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.v1 import manifest_pb2
from trainer.cli.main import main
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.runs import checkpoint, seen_clips
from trainer.runs.provenance import SubjectError, check_same, subject
from trainer.runs.run_folder import RunError

IDS = ("a", "b", "video7010", "dQw4w9WgXcQ", "VH4jy0DzMCE")
YOUTUBE = IDS[3:]


class Listed(Snapshot):
    """A snapshot that has only the list of videos."""

    def __init__(self, videos, dataset="msrvtt"):
        self.folder = "snapshots/x"
        self.manifest = manifest_pb2.Manifest(dataset=dataset)
        self._videos = videos

    def videos(self):
        return iter(self._videos)


def sha(name):
    return f"{int.from_bytes(name.encode()):064x}"[::-1] if name else ""


videos = st.dictionaries(st.sampled_from(IDS), st.sampled_from(["", "f1", "f2", "f3"]), max_size=5)
datasets = st.sampled_from(["msrvtt", "msvd"])


@pytest.mark.parametrize("dataset", ["generic", "msrvtt"])
@pytest.mark.parametrize("trained", ["", "f1"])
@pytest.mark.parametrize("asked", ["", "f1", "f2"])
@pytest.mark.parametrize("name", ["1", YOUTUBE[0]])
def test_the_ids_of_tables_say_nothing_where_files_are_known(dataset, trained, asked, name):
    """All tables belong to the data set "generic", even if their video ids coincide."""
    found = seen_clips.overlap(
        seen_clips.gather([Listed([(name, sha(trained)), ("2", "")], dataset)]),
        Listed([(name, sha(asked))], dataset),
    )
    same_file = asked == trained != ""
    differ = bool(asked and trained) and not same_file
    assert found.seen_videos == (not (differ and dataset == "generic" and name == "1"))
    assert found.by_id_alone == (found.seen_videos and not same_file)
    assert ("ids" in found.sentence() and "by id alone" in found.sentence()) == found.by_id_alone


def test_a_run_tuned_on_a_table_is_tested_on_another_with_its_ids():
    task = {"trained_on": {"datasets": ["generic"], "videos": ["1"]}}
    test = Listed([("1", sha("f2"))], "generic")
    tuned = seen_clips.gather([Listed([("1", sha("f1"))], "generic")])
    assert not seen_clips.overlap(tuned, test, task).seen_videos
    found = seen_clips.overlap(None, test, task)  # a checkpoint alone does not have the files
    assert (found.seen_videos, found.by_id_alone) == (1, 1)


@given(videos, datasets, videos, datasets, videos, datasets)
def test_a_video_is_seen_by_its_file_or_by_its_id(first, of_first, more, of_more, test, of_test):
    trained = [Listed([(name, sha(file)) for name, file in some.items()], dataset)
               for some, dataset in ((first, of_first), (more, of_more))]  # fmt: skip
    found = seen_clips.overlap(
        seen_clips.gather(trained),
        Listed([(name, sha(file)) for name, file in test.items()], of_test),
    )
    known_ids = {(of, name) for some, of in ((first, of_first), (more, of_more)) for name in some}
    files = {file for some in (first, more) for file in some.values() if file}
    expected = {
        name
        for name, file in test.items()
        if file in files
        or (of_test, name) in known_ids
        or (name in YOUTUBE and name in {one for _, one in known_ids})
    }
    assert (found.seen_videos, found.videos) == (len(expected), len(test))
    assert set(found.examples) <= expected
    assert found.by_id_alone == sum(test[name] not in files for name in expected)
    assert len(found.examples) == min(3, len(expected))
    assert found.known and not found.unknown


def test_a_run_records_its_and_its_predecessors_clips(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for run in (first, second, third):
        run.mkdir()
        (run / "data.json").write_text('{"snapshot.dataset": "x"}')
    seen_clips.keep(first, seen_clips.gather([Listed([("a", sha("f1"))])], weights=["vivit"]))
    seen_clips.keep(second, seen_clips.gather([Listed([("b", sha("f2"))])], earlier=first))
    kept = seen_clips.of_run(second)
    assert kept is not None
    assert kept.videos == 1 and kept.unknown == ("vivit",)
    assert (second / "seen.bin").stat().st_size == 2 * 2 * 8
    assert json.loads((second / "data.json").read_text())["snapshot.dataset"] == "x"
    test = Listed([("a", ""), ("x", sha("f2")), ("y", "")])
    found = seen_clips.overlap(kept, test)
    assert (found.seen_videos, found.examples) == (2, ("a", "x"))
    assert found.sentence() == (
        "the run was trained on 2 of the 3 videos of snapshots/x, such as a, x (1 by id alone: the "
        "files differ or are unknown); the training clips of vivit are unknown"
    )
    # A run from a predecessor without a record still records its own clips.
    seen_clips.keep(third, seen_clips.gather([Listed([("c", "")])], earlier=tmp_path / "gone"))
    of_third = seen_clips.of_run(third)
    assert of_third is not None and of_third.unknown == (str(tmp_path / "gone"),)

    (first / "seen.bin").write_bytes((first / "seen.bin").read_bytes()[:-1])
    with pytest.raises(RunError, match=r"first/seen\.bin does not match data\.json"):
        seen_clips.of_run(first)
    (first / "seen.bin").unlink()
    with pytest.raises(RunError, match=r"first/seen\.bin does not match data\.json"):
        seen_clips.of_run(first)
    (first / "data.json").write_text("{}")
    assert seen_clips.of_run(first) is None


def test_a_snapshot_lists_its_videos_also_without_its_summaries(write_snapshot):
    written = write_snapshot(clips=7)
    expected = {clip.video_id for clip in written.clips}
    found = list(Snapshot.open(written.folder).videos())
    assert {name for name, _ in found} == expected
    assert all(len(sha256) == 64 for _, sha256 in found)
    summary = next(iter(written.folder.glob("shard-*.json")))
    summary.write_text(summary.read_text().replace("video_id", "video-id"))
    with pytest.raises(SnapshotError, match=r"summary .* is damaged \(its sha256 differs"):
        list(Snapshot.open(written.folder).videos())
    for path in written.folder.glob("shard-*.json"):
        path.unlink()
    (index,) = list(written.folder.glob("shard-00000-*.index"))
    entries = manifest_pb2.ShardIndex.FromString(index.read_bytes()).records
    assert {name for name, sha256 in Snapshot.open(written.folder).videos() if not sha256} >= {
        entry.clip_id
        for entry in entries  # their form is not the other stage's
    }


def test_a_video_of_which_no_clip_was_kept_is_none_of_a_snapshots(write_snapshot):
    def renamed(clip, number):
        clip.clip_id = f"{clip.clip_id}_{number:08x}"

    written = write_snapshot(clips=7, shards=1, annotate=renamed)
    (path,) = written.folder.glob("shard-*.json")
    summary = json.loads(path.read_text())
    kept = [video["video_id"] for video in summary["videos"]]
    summary["videos"] += [{"video_id": name, "sha256": "0" * 64} for name in ("none", "more")]
    summary["rejects"] = [{"video_id": name, "reason": "too_short"} for name in (kept[0], "none")]

    def listed():
        path.write_text(json.dumps(summary))
        manifest = json.loads((written.folder / "manifest.json").read_text())
        manifest["shards"][0]["summary"] |= {
            "bytes": str(path.stat().st_size),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        (written.folder / "manifest.json").write_text(json.dumps(manifest))
        return [name for name, _ in Snapshot.open(written.folder).videos()]

    assert listed() == [*kept, "more"]  # of "more" no row was rejected
    summary["rejects"] = ["none"]
    with pytest.raises(SnapshotError, match=r"summary .* is damaged"):
        listed()


def test_a_rejected_video_counts_where_clips_have_ids_of_another_form(write_snapshot):
    written = write_snapshot(clips=7, shards=1)
    (path,) = written.folder.glob("shard-*.json")
    summary = json.loads(path.read_text())
    summary["rejects"] = [{"video_id": summary["videos"][0]["video_id"]}]
    path.write_text(json.dumps(summary))
    manifest = json.loads((written.folder / "manifest.json").read_text())
    manifest["shards"][0]["summary"] |= {
        "bytes": str(path.stat().st_size),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (written.folder / "manifest.json").write_text(json.dumps(manifest))
    names = [name for name, _ in Snapshot.open(written.folder).videos()]
    assert names == [video["video_id"] for video in summary["videos"]]


@pytest.fixture
def run_on(untrained_run, tmp_path):
    """Copy a run, recording that it was trained on a snapshot."""

    def make(snapshot, name="run", **more):
        run = tmp_path / name
        shutil.copytree(untrained_run, run)
        (run / "data.json").write_text("{}")
        seen_clips.keep(run, seen_clips.gather([Snapshot.open(snapshot)], **more))
        return run

    return make


def commands(run, snapshot, tmp_path):
    on, out = [f"--run={run}", f"--snapshot={snapshot}"], tmp_path / "out"
    return {
        "evaluate": ["evaluate", *on, f"--out={out}.json"],
        "retrieval": ["evaluate", "--task=retrieval", *on, f"--out={out}.json"],
        "figures": ["figures", *on, f"--out={out}"],
    }


@pytest.mark.parametrize("command", ["evaluate", "retrieval", "figures"])
def test_clips_that_were_trained_on_are_refused(command, run_on, write_snapshot, tmp_path, capsys):
    folder = write_snapshot(clips=6, frames=4, shards=1).folder
    run = run_on(folder)
    for form in (run, run / "checkpoints" / "0"):
        assert main(commands(form, folder, tmp_path)[command]) == 1
        said = capsys.readouterr().err
        assert "the run was trained on 2 of the 2 videos of" in said
        assert "such as video-00000, video-00001: evaluate the run on its own" in said
        assert "--allow-seen" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.json").exists()


def test_a_control_that_saw_the_clips_is_refused(run_on, write_snapshot, tmp_path, capsys):
    folder = write_snapshot(clips=6, frames=8, shards=1).folder
    other = write_snapshot("other", clips=6, frames=8, shards=1).folder
    values = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(values | {"dataset": "other"}))
    for summary in other.glob("*.json"):
        if summary.name != "manifest.json":
            summary.unlink()
    argv = commands(run_on(other), folder, tmp_path)["evaluate"]
    assert main([*argv, f"--control={run_on(folder, 'control')}"]) == 1
    assert "the run was trained on 2 of the 2" in capsys.readouterr().err


def test_with_allow_seen_figures_say_so(run_on, write_snapshot, tmp_path, capsys):
    folder = write_snapshot(clips=6, frames=4, height=18, width=24, shards=1).folder
    run = run_on(folder)
    argv = commands(run, folder, tmp_path)["retrieval"]
    assert main([*argv, "--allow-seen"]) == 0
    assert "the run was trained on 2 of the 2 videos" in capsys.readouterr().err
    of = json.loads((tmp_path / "out.json").read_text())["subject"]
    assert (of["run"], of["step"], of["records"]) == (str(run), 0, 6)
    assert (of["seen"]["seen_videos"], of["seen"]["videos"], of["seen"]["known"]) == (2, 2, True)


def test_a_run_of_an_earlier_release_is_measured_and_says_that_it_does_not_tell(
    untrained_run, write_snapshot, tmp_path, capsys
):
    folder = write_snapshot(clips=6, frames=4, height=18, width=24, shards=1).folder
    assert main(commands(untrained_run, folder, tmp_path)["retrieval"]) == 0
    assert "the run has no record of its training clips" in capsys.readouterr().err
    of = json.loads((tmp_path / "out.json").read_text())["subject"]
    assert not of["seen"]["known"]


def test_a_report_takes_figures_of_its_own_run_and_snapshot_alone(
    run_on, untrained_run, write_snapshot, tmp_path, capsys
):
    folder, other = (
        write_snapshot(name, clips=clips, frames=4, height=18, width=24).folder
        for name, clips in (("one", 6), ("two", 9))
    )
    run = checkpoint.load(untrained_run)
    one, two = Snapshot.open(folder), Snapshot.open(other)
    of_one = subject(run, one, seen_clips.of_loaded(run, one))
    check_same("m.json", json.loads(json.dumps(of_one)), of_one)
    for theirs, message in (
        (subject(run, two, seen_clips.of_loaded(run, two)), "the snapshot is"),
        (
            subject(run._replace(step=9), one, seen_clips.of_loaded(run, one)),
            "step is 9 there, but 0",
        ),
        (of_one | {"parameters_sha256": "0"}, "the run's parameters is 0 there"),
        (None, "the snapshot is None there"),
    ):
        with pytest.raises(SubjectError, match=message):
            check_same("m.json", theirs, of_one)

    # Figures with a control run are not shown beside another one.
    controlled = subject(run, one, seen_clips.of_loaded(run, one), control=run)
    check_same("m.json", controlled, controlled)
    check_same("m.json", controlled, of_one)
    for theirs in (of_one, controlled | {"control_sha256": "0"}):
        with pytest.raises(SubjectError, match="the control run's parameters is"):
            check_same("m.json", theirs, controlled)

    direction = {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "MedR": 1.0}
    figures = {
        "subject": of_one | {"step": 9},
        "step": 9,
        "zero_shot": {"n": 6, "t2v": direction, "v2t": direction},
        "grounding": None,
        "temporal": {"window_accuracy": 0.5},
        "controls": {"single_frame": 1.0},
    }
    path = tmp_path / "metrics.json"
    argv = ["report", f"--run={untrained_run}", f"--snapshot={folder}", f"--metrics={path}",
            f"--out={tmp_path / 'page.html'}"]  # fmt: skip
    for values, message in (
        (figures, "the run's step is 9 there, but 0 here: run svilm-train evaluate again"),
        (
            {**figures, "controls": {"single_frame": np.nan}},
            "controls.single_frame is nan, not a fin",
        ),
        (
            {**figures, "controls": {"single_frame": "1"}},
            "controls.single_frame is '1', not a finite",
        ),
        ({name: figures[name] for name in figures if name != "subject"}, "lacks subject"),
    ):
        path.write_text(json.dumps(values))
        assert main(argv) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_retrieval_is_not_measured_on_the_way_on_clips_of_the_training(
    write_snapshot, tmp_path, capsys
):
    train = write_snapshot(clips=6, frames=4).folder
    argv = ["pretrain", "--preset=tiny", f"--snapshot={train}", f"--eval-snapshot={train}"]
    argv += ["--set=batch=2", "--set=cut_and_paste.pair_group=2", f"--out={tmp_path / 'run'}"]
    assert main(argv) == 1
    assert "the run was trained on 2 of the 2 videos of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_empty_eval_snapshot_is_refused(untrained_run, write_snapshot, tmp_path, capsys):
    train = write_snapshot(clips=6, frames=4).folder
    empty = write_snapshot("empty", clips=0, frames=4, shards=1).folder
    argv = ["pretrain", "--preset=tiny", f"--snapshot={train}", f"--eval-snapshot={empty}"]
    argv += ["--set=batch=2", "--set=cut_and_paste.pair_group=2", "--set=video.frames=4"]
    argv += ["--set=video.resolution=36", "--set=input.short_side=36", "--set=input.scale=1,1"]
    assert main([*argv, f"--out={tmp_path / 'run'}"]) == 1
    assert "empty has 0 clips, but retrieval needs two" in capsys.readouterr().err
