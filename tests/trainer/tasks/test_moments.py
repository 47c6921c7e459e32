import json

import numpy as np
import pytest

from trainer.cli.main import main
from trainer.data.snapshot import Snapshot
from trainer.evaluation import moment_files
from trainer.evaluation.moment_files import Query, Truth
from trainer.inference import moments as search
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs import checkpoint
from trainer.tasks import moments
from trainer.tasks.task import TaskError
from trainer.tasks.zero_shot import fresh_encoder

CLIPS = 11
TRUTH = {
    "v_video-00000": {
        "duration": 2.5,
        "timestamps": [[0, 0.9], [1, 2]],
        "sentences": ["a red ring", "a blue disc"],
    },
    "v_video-00002": {"duration": 9, "timestamps": [[6, 7.5]], "sentences": ["a red ring"]},
    "v_lost": {"duration": 9, "timestamps": [[0, 1]], "sentences": ["a violet star"]},
}


def window(clip, number):
    clip.caption = ""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    folder = tmp_path_factory.mktemp("data") / "windows"
    return write_snapshot_at(folder, clips=CLIPS, height=18, width=24, annotate=window).folder


@pytest.fixture(scope="module")
def run(untrained_run):
    return checkpoint.load(untrained_run)


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "val_1.json"
    path.write_text(json.dumps(TRUTH))
    return path


def test_each_video_is_searched_by_its_own_windows(run, snapshot, truth):
    seen = []
    of_truth = moment_files.read_truth(truth)
    found = moments.predict(run, Snapshot.open(snapshot), of_truth, lambda *done: seen.append(done))
    assert seen[-1] == (6, 6)  # Other videos are not encoded.
    for spans, encoder in (
        (found.found, Encoder(run.config, run.tokenizer, run.params)),
        (found.random_encoder, fresh_encoder(run)),
    ):
        records = np.array([*range(3), *range(6, 9)])
        texts, clips = embed_clips(Snapshot.open(snapshot), encoder, lambda *_: None, records)
        for query, got in zip(of_truth.queries, spans, strict=True):
            rows = [row for row, one in enumerate(texts) if one.video_id == query.video_id]
            if not rows:
                assert (query.video_id, got) == ("lost", [])
                continue
            times = np.array([(texts[row].start_us, texts[row].end_us) for row in rows])
            (vector,) = encoder.texts([query.text])
            expected = search.find(clips.clip[rows], times, vector)
            assert [one.start for one in got] == [one.start_us / 1e6 for one in expected]
            ends = [min(one.end_us / 1e6, query.duration) for one in expected]
            assert [one.end for one in got] == ends
            np.testing.assert_allclose(
                [one.score for one in got], [one.score for one in expected], atol=1e-5
            )


def test_the_command_prints_the_prior_and_scores_its_own_file_alike(
    untrained_run, snapshot, truth, tmp_path, capsys
):
    spans = tmp_path / "spans.jsonl"
    argv = ["evaluate", "--task=moments", f"--truth={truth}"]
    with_run = [*argv, f"--run={untrained_run}", f"--snapshot={snapshot}"]
    files = [f"--write-predictions={spans}", f"--out={tmp_path / 'figures.json'}"]
    assert main([*with_run, *files]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["missed"] == 1
    assert figures["random_encoder"]["mIoU"] >= 0
    shown = capsys.readouterr().out
    for row in ("spans found", "the same for all", "random encoder", "1 texts have no span"):
        assert row in shown
    assert main([*argv, f"--predictions={spans}"]) == 0
    alone = capsys.readouterr().out.splitlines()
    assert alone == [line for line in shown.splitlines() if "random" not in line]


def test_snapshots_with_other_clips_are_refused(run, snapshot, truth, write_snapshot):
    of_truth = moment_files.read_truth(truth)
    captioned = Snapshot.open(write_snapshot(clips=4, height=18, width=24).folder)
    with pytest.raises(TaskError, match="clip 'video-00000_0_900000' has a caption"):
        moments.predict(run, captioned, of_truth, lambda *_: None)
    other = Truth("val_2", [Query("elsewhere", "a cat", 0, 1, 2)], 0)
    with pytest.raises(TaskError, match="none of the 1 videos of val_2"):
        moments.predict(run, Snapshot.open(snapshot), other, lambda *_: None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--run=r", "--snapshot=s"], "requires --snapshot and one --truth"),
        (["--run=r", "--truth=t"], "requires --snapshot and one --truth"),
        (["--run=r", "--snapshot=s", "--truth", "t", "u"], "requires --snapshot and one --truth"),
        (["--run=r", "--snapshot=s", "--truth=t", "--predictions=p"], "requires --snapshot and"),
        (["--predictions=p"], "requires either --run and --snapshot, or --predictions and"),
    ],
)
def test_a_command_line_that_lacks_a_file_is_refused(argv, message, capsys):
    assert main(["evaluate", "--task=moments", *argv]) == 2
    assert message in capsys.readouterr().err
