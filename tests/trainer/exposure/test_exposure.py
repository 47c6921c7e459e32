"""The exposure of a run, computed by arithmetic, is what its input and splices log step by step."""

import json
import shutil
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from trainer.cli.main import main
from trainer.configs.overrides import override
from trainer.data import columns
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.selection import select
from trainer.data.snapshot import Snapshot
from trainer.exposure.chain import ExposureError
from trainer.exposure.exposure import exposure, listed
from trainer.method.cut_and_paste import splice_at_step
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import SPLICE, clip_keys, for_purpose
from trainer.runs import lineage, run_folder
from trainer.runs.run_folder import Origin, RunError
from trainer.training import jsonl_log
from trainer.training.skipped_clips import SkippedClips

STEPS = 11


def rename(clip, number):
    """Give a clip an id of the form that builds write; a video with an extension has two clips."""
    clip.video_id = f"video {number // 2}.mp4"
    clip.clip_id = f"video%20{number // 2}.mp4_{clip.start_us}_{clip.end_us}_{number:08x}"


def irregular(clip, number):
    clip.video_id = f"other{number // 2}"  # its clip's id has no part of it


def third(clip, number):
    clip.video_id = f"third{number // 2}"
    clip.clip_id = f"third{number // 2}_{clip.start_us}_{clip.end_us}_{number:08x}"


class Logged(NamedTuple):
    run: object
    config: object
    snapshots: list
    columns: list
    rows: list  # of each step the clip ids, in the order of the global batch


@pytest.fixture(scope="module")
def logged(tmp_path_factory, write_snapshot_at, noisy_config):
    """The folder of a run, and a log of its batches by the real input.

    It is a mixture in unequal parts, one with all its clips, one with a weight for each, and one of
    which a column keeps some, with corrupt records whose replacements are corrupt, too. It
    was killed after step 7, resumed from step 5, and has two processes.
    """
    folder = tmp_path_factory.mktemp("logged")
    sizes = {"frames": 4, "height": 18, "width": 24}
    folders = [
        write_snapshot_at(folder / "a", clips=13, annotate=rename, shards=4, **sizes).folder,
        write_snapshot_at(folder / "b", clips=6, annotate=irregular, shards=2, **sizes).folder,
        write_snapshot_at(folder / "c", clips=9, annotate=third, shards=2, **sizes).folder,
    ]
    snapshots = [Snapshot.open(one) for one in folders]
    files = [folder / "weight.safetensors", folder / "score.safetensors"]
    weights, scores = np.arange(6, dtype=np.float32), np.arange(9, dtype=np.int64)
    columns.write(files[0], snapshots[1], "weight", weights, {})
    columns.write(files[1], snapshots[2], "score", scores, {})
    config = override(
        noisy_config,
        [
            *("cut_and_paste.pair_group=4", "cut_and_paste.from_step=3", "batch=8"),
            *("input.weights=1,2.5,1", "input.on_corrupt=skip", f"max_steps={STEPS}", "epochs=9"),
            *("input.where=,,score > 3", "input.weights_column=,weight,"),
        ],
    )
    selections = select(snapshots, map(columns.read, files), config.input)
    mixture = Mixture(snapshots, config.input.weights, selections)
    run = folder / "run"
    config, tokenizer = run_folder.start_or_continue(
        run, config, mixture, None, Origin({}, {}, {}), steps=STEPS
    )
    lineage.keep(run, mixture, None)
    # The vocabulary is trained: now bits rot, so that some records and replacements are corrupt.
    for record in (1, 4, 5, 9, 11):
        where = mixture.locate(record)
        with open(where.shard, "r+b") as shard:
            shard.seek(where.offset + where.length // 2)
            shard.write(b"\xff\x00\xff\x00")
    rows: list = [None] * STEPS
    for start, end in ((0, 7), (5, STEPS)):
        skipped = SkippedClips(run, start=start, writes=True)
        halves = [
            train_batches(
                mixture,
                tokenizer,
                config,
                start_step=start,
                host=host,
                hosts=2,
                on_skip=skipped.add,
            )
            for host in (0, 1)
        ]
        for step in range(start, end):
            (at, _, first), (_, _, second) = next(halves[0]), next(halves[1])
            assert at == step
            rows[step] = first + second
            skipped.write(step + 1)
        for half in halves:
            half.close()
    for step in (2, 5, 8, STEPS):
        (run / "checkpoints" / str(step)).mkdir(parents=True)
    return Logged(run, config, folders, files, rows)


def spliced_log(logged, videos):
    """Return what `listed` is to return, from the log and the splices of whole batches."""
    config, lines = logged.config, []
    scalars = run_scalars(config, STEPS)
    for step, rows in enumerate(logged.rows):
        index = jnp.arange(config.batch, dtype=jnp.int32)
        keys = clip_keys(scalars.key(), jnp.int32(step), index)
        splice = splice_at_step(
            for_purpose(keys, SPLICE),
            jnp.int32(step),
            config.video.windows,
            config.cut_and_paste,
            jnp.int32(scalars.first_spliced_step),
        )
        partner, shares = np.asarray(splice.partner), np.asarray(splice.mask).mean(axis=1)
        for row, clip_id in enumerate(rows):
            if clip_id not in videos:
                continue
            line = {"step": step + 1, "row": row, "clip_id": clip_id, "video_id": videos[clip_id]}
            line |= {"foreground": None, "background": None}
            if partner[row] != row:
                (other,) = np.flatnonzero(partner == row)
                line["foreground"] = {
                    "share": shares[row],
                    "background_row": partner[row],
                    "background_clip": rows[partner[row]],
                }
                line["background"] = {
                    "share": 1 - shares[other],
                    "foreground_row": other,
                    "foreground_clip": rows[other],
                }
            lines.append(line)
    return lines


@pytest.fixture(scope="module")
def video_ids(logged):
    """The video of each clip, by its id."""
    found = {}
    of_folders = {"a": ("video ", ".mp4"), "b": ("other", ""), "c": ("third", "")}
    for snapshot in map(Snapshot.open, logged.snapshots):
        before, after = of_folders[snapshot.folder[-1]]
        for number, clip_id in enumerate(snapshot.clip_ids(np.arange(len(snapshot)))):
            found[clip_id] = f"{before}{number // 2}{after}"
    return found


def test_a_run_saw_what_its_input_and_splices_log(logged, video_ids):
    corrupt = jsonl_log.read(logged.run / "skipped_clips.jsonl")
    rows = [(line["step"], line["row"]) for line in corrupt]
    assert len(rows) > len(set(rows)) > 4  # also a replacement was corrupt
    for wanted in ({"video 0.mp4", "video 2.mp4", "other1", "third2"}, set(video_ids.values())):
        found = exposure(logged.run, wanted)
        (only,) = found.runs
        named = {clip: video for clip, video in video_ids.items() if video in wanted}
        expected = spliced_log(logged, named)
        assert len(expected) > 10 and {line["foreground"] is None for line in expected} == {
            False,
            True,
        }
        assert listed(only) == expected
        assert only.first_step == expected[0]["step"]
        drawn = only.of_videos()
        assert not drawn["third2"].draws or drawn["third2"].clips == 2
        for video in wanted:
            mine = [line for line in expected if line["video_id"] == video]
            assert drawn[video].draws == len(mine)
            assert drawn[video].spliced == sum(line["foreground"] is not None for line in mine)
    assert not found.unknown and not found.missing
    (only,) = found.runs
    clips = only.mixture.clip_ids(only.found.record)
    assert {clip for clip in clips if clip.startswith("third")} == {
        *(clip for clip, video in video_ids.items() if video in ("third2", "third3", "third4"))
    }  # the score of clips 4 to 8 is above 3
    # One of clips 0 and 1 has weight 0. The vocabulary was trained on neither it nor dropped clips.
    assert len(only.captions) == 13 + 5 + 5


def test_checkpoints_from_before_the_first_draw(logged, video_ids):
    first = {}
    for step, rows in enumerate(logged.rows, 1):
        for clip_id in rows:
            first.setdefault(video_ids[clip_id], step)
    assert len(set(first.values())) > 2
    for video, step in first.items():
        found = exposure(logged.run, {video})
        before = [saved for saved in (2, 5, 8, STEPS) if saved < step]
        assert found.checkpoints(0) == (before, [2, 5, 8, STEPS][len(before) :])
        # A checkpoint alone saw no later step.
        of_checkpoint = exposure(logged.run / "checkpoints" / "2", {video})
        assert of_checkpoint.runs[0].first_step == (step if step <= 2 else None)
        assert of_checkpoint.checkpoints(0)[0] == ([2] if step > 2 else [])


def test_other_spellings_of_an_id_and_unknown_ids(logged):
    found = exposure(logged.run, {"video 3.webm", "absent"})
    assert set(found.runs[0].of_videos()) == {"video 3.mp4"} and found.missing == ["absent"]


def test_the_command_has_an_exit_code_for_scripts(logged, video_ids, tmp_path, capsys):
    videos, out = tmp_path / "gone.txt", tmp_path / "seen.json"
    command = ["exposure", "--run", str(logged.run), "--videos", str(videos), "--json", str(out)]
    videos.write_text("absent\n\nnor this\n")
    assert main(command) == 0
    assert "2 videos are in no training snapshot: absent, nor this" in capsys.readouterr().out
    assert json.loads(out.read_text())["exposed"] is False
    videos.write_text("video 1.mp4\n")
    assert main(command) == 3
    printed = capsys.readouterr().out
    (of_run,) = json.loads(out.read_text())["runs"]
    assert f"video 1.mp4      2  {len(of_run['draws']):6,}" in printed
    assert of_run["checkpoints"]["exposed"] == [
        step for step in (2, 5, 8, STEPS) if step >= of_run["first_step"]
    ]
    # The vocabulary was trained on all captions.
    assert [video_ids[clip_id] for clip_id in of_run["vocabulary"]] == ["video 1.mp4"] * 2
    videos.write_bytes(b"\xff")
    assert main(command) == 1
    videos.write_text("\n")
    assert main(command) == 1
    assert "is empty" in capsys.readouterr().err


def test_a_moved_or_changed_snapshot_is_not_read_as_the_runs(logged, tmp_path):
    run = shutil.copytree(logged.run, tmp_path / "run")
    moved = [shutil.copytree(folder, tmp_path / folder.name) for folder in logged.snapshots]
    data = json.loads((run / "data.json").read_text())
    del data["lineage"]
    (run / "data.json").write_text(json.dumps(data))
    with pytest.raises(ExposureError, match=r"snapshot 1 of .* is missing"):
        exposure(run, {"other1"})
    opened = [Snapshot.open(folder) for folder in reversed(moved)]
    with pytest.raises(ExposureError, match=r"column weight of .* is missing or has other values"):
        exposure(run, {"other1"}, opened)
    columns.write(tmp_path / "weight", opened[1], "weight", np.ones(6, np.float32), {})
    files = [tmp_path / "weight", logged.columns[1]]
    with pytest.raises(ExposureError, match=r"column weight of .* is missing or has other values"):
        exposure(run, {"other1"}, opened, columns=files)
    assert listed(exposure(run, {"other1"}, opened, columns=logged.columns).runs[0]) == listed(
        exposure(logged.run, {"other1"}).runs[0]
    )
    values = json.loads((moved[1] / "manifest.json").read_text())
    (moved[1] / "manifest.json").write_text(json.dumps(values | {"inputsSha256": "ab" * 32}))
    with pytest.raises(ExposureError, match=r"snapshot 2 of .* is missing"):
        exposure(run, {"other1"}, [Snapshot.open(folder) for folder in moved])


def test_replacements_that_an_earlier_release_did_not_record_are_reported(logged, tmp_path, capsys):
    run = shutil.copytree(logged.run, tmp_path / "run")
    (run / "skipped_clips.jsonl").unlink()
    (run / "metrics.jsonl").write_text('{"step": 9, "corrupt_records": 2}\n')
    found = exposure(run, {"absent"})
    assert "2 clips replaced corrupt ones" in found.unknown[0]
    videos = tmp_path / "gone.txt"
    videos.write_text("absent\n")
    assert main(["exposure", "--run", str(run), "--videos", str(videos)]) == 1
    assert "2 clips replaced corrupt ones" in capsys.readouterr().err


def test_a_run_inherits_what_the_run_that_it_started_from_saw(logged, video_ids, tmp_path, capsys):
    first = shutil.copytree(logged.run, tmp_path / "first")
    known = exposure(logged.run, set(video_ids.values())).runs[0]
    videos = known.of_videos()
    video = known.videos[int(known.found.record[0])]  # of the first draw of all
    about = videos[video]
    child = tmp_path / "child"
    clips = Mixture([Snapshot.open(logged.snapshots[1])])
    origin = Origin({"run": str(first)}, {}, {"start.run": "ab"}, step=5)
    alone = ["input.weights=", "input.where=", "input.weights_column=", "batch=4", "seed=9"]
    config = override(logged.config, alone)
    tokenizer = run_folder.read(first)[1]
    run_folder.start_or_continue(child, config, clips, tokenizer, origin, steps=STEPS)
    lineage.keep(child, clips, first)
    (child / "checkpoints" / "3").mkdir(parents=True)

    found = exposure(child, {video})
    own, earlier = found.runs
    assert (own.trained.steps, earlier.trained.steps) == (3, 5)
    assert [line["step"] for line in listed(earlier)] == [
        line["step"] for line in listed(exposure(logged.run, {video}).runs[0]) if line["step"] <= 5
    ]
    assert found.exposed and about.first_step == 1
    assert found.checkpoints(0) == ([], [3])  # none is from before
    assert (own.first_step is None) == (not video.startswith("other"))
    assert not found.unknown

    # Moved, it is found where it is said to be; another run in its place is not read as it.
    first.rename(tmp_path / "moved")
    assert "cannot be read" in exposure(child, {video}).unknown[0]
    assert exposure(child, {video}, moved=[tmp_path / "moved"]).runs[1].first_step
    (tmp_path / "gone.txt").write_text(f"{video}\n")
    command = ["exposure", "--run", str(child), "--videos", str(tmp_path / "gone.txt")]
    assert main([*command, "--earlier-run", str(tmp_path / "moved")]) == 3
    assert "from which the run before started" in capsys.readouterr().out
    assert main([*command, "--earlier-run", str(child), "--earlier-run", str(child)]) in (1, 3)
    values = json.loads((tmp_path / "moved" / "config.json").read_text())
    (tmp_path / "moved" / "config.json").write_text(json.dumps(values | {"seed": 123}))
    found = exposure(child, {video}, moved=[tmp_path / "moved"])
    assert "is another run" in found.unknown[0] and len(found.runs) == 1

    # Earlier releases recorded neither the step nor the run's identity: all steps are counted.
    data = json.loads((child / "data.json").read_text())
    del data["lineage"], data["start"]["step"]
    data["start"]["options"]["run"] = str(tmp_path / "moved")
    (child / "data.json").write_text(json.dumps(data))
    opened = [Snapshot.open(folder) for folder in logged.snapshots]
    own, earlier = exposure(child, {video}, opened, columns=logged.columns).runs
    assert earlier.trained.steps == STEPS and "not recorded" in own.trained.notes[0]


def test_published_weights_are_noted(logged, tmp_path):
    run = shutil.copytree(logged.run, tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    data["start"]["options"] = {"text": "weights/bert"}
    (run / "data.json").write_text(json.dumps(data))
    found = exposure(run, {"absent"})
    assert found.runs[0].trained.notes == ["the training clips of weights/bert are unknown"]
    assert not found.unknown


def test_damaged_records_of_a_run_are_named(logged, tmp_path):
    run = shutil.copytree(logged.run, tmp_path / "run")
    with open(run / "skipped_clips.jsonl", "a") as file:
        file.write('{"step": 3, "row": "1"}\n')
    with pytest.raises(RunError, match=r"skipped_clips\.jsonl:\d+ is damaged"):
        exposure(run, {"other1"})
    (run / "data.json").unlink()
    with pytest.raises(ExposureError, match=r"no data\.json"):
        exposure(run, {"other1"})
