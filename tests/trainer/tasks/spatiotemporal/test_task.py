"""The commands from a snapshot of keyframes to a file of detections."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.cli.main import main
from trainer.data.annotations import read_annotations
from trainer.data.snapshot import Snapshot
from trainer.data.types import ExampleBatch
from trainer.distributed.mesh import on_each_device, one_device
from trainer.runs import checkpoint
from trainer.tasks.spatiotemporal import task
from trainer.tasks.spatiotemporal.task import Config
from trainer.tasks.task import TaskError, Views

CUT_AT = 900  # seconds: where the videos begin
FIRST, SECOND = (0.125, 0.25, 0.5, 0.75), (0.5, 0.1, 0.9, 0.9)
NEAR_FIRST = (0.125, 0.25, 0.5, 0.7656)
CLIPS, NOBODY = 7, 5  # that many keyframes; at this one the detector alone sees somebody


def annotate(clip, number):
    """A keyframe at the clip's start, of two persons, of one, or of a detection alone."""

    def add(box, labels, score=0.0):
        x1, y1, x2, y2 = box
        clip.boxes.add(
            time_us=clip.start_us, x1=x1, y1=y1, x2=x2, y2=y2, labels=labels, score=score
        )

    if number != NOBODY:
        add(FIRST, ["1", "80"] if number % 2 else ["3"])
        if number % 3 == 0:
            add(SECOND, ["4"])
    add(NEAR_FIRST, [], 0.95)
    add((0.0, 0.0, 0.2, 0.2), [], 0.99)  # of nobody
    add(FIRST, [], 0.5)  # too unsure


def written(folder, write_snapshot_at, video_id):
    def annotate_video(clip, number):
        annotate(clip, number)
        clip.video_id = video_id

    made = write_snapshot_at(folder, clips=CLIPS, height=18, width=30, annotate=annotate_video)
    config = json.loads(made.manifest.read_text())["config"]
    made.edit_manifest(config=config | {"source": {"cutAtUs": str(CUT_AT * 1_000_000)}})
    return str(made.folder)


@pytest.fixture(scope="module")
def training(tmp_path_factory, write_snapshot_at):
    return written(tmp_path_factory.mktemp("data") / "training", write_snapshot_at, "seen")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, write_snapshot_at):
    """A test snapshot of another video, whose name CSV must quote."""
    return written(tmp_path_factory.mktemp("data") / "test", write_snapshot_at, "a,b")


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    rows = []
    for number in range(CLIPS):
        if number != NOBODY:
            for action in (1, 80) if number % 2 else (3,):
                rows.append((number, FIRST, action))
            if number % 3 == 0:
                rows.append((number, SECOND, 4))
    path = tmp_path_factory.mktemp("truth") / "ava_val_v2.2.csv"
    path.write_text(
        "".join(
            f'"a,b",{CUT_AT + second:04d},{",".join(map(str, box))},{action},0\n'
            for second, box, action in rows
        )
    )
    return str(path)


def finetune(preset, run, snapshot, out, *settings, steps=2):
    more = ["batch=4", "log_every=1", "optimizer.name=adamw", "input.short_side=18", *settings]
    argv = ["finetune", "--task=spatiotemporal", f"--preset={preset}", f"--run={run}"]
    argv += [f"--snapshot={snapshot}", f"--out={out}", f"--max-steps={steps}"]
    return main([*argv, *(f"--set={setting}" for setting in more)])


@pytest.fixture(scope="module")
def trained(untrained_run, training, tmp_path_factory):
    """A run end to end."""
    out = tmp_path_factory.mktemp("runs") / "ava"
    assert finetune("ava", untrained_run, training, out, "input.scale=1,1.5") == 0
    return str(out)


def evaluate(run, snapshot, tmp_path, *more):
    argv = ["evaluate", "--task=spatiotemporal", f"--run={run}", f"--snapshot={snapshot}"]
    return main([*argv, f"--out={tmp_path / 'figures.json'}", *more])


def figures(tmp_path):
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found.pop("subject")["seen"]["known"]
    return found


def alone(csv, truth, tmp_path):
    """Return the metrics of a file of detections."""
    out = tmp_path / "alone.json"
    argv = ["evaluate", "--task=spatiotemporal", f"--predictions={csv}", f"--truth={truth}"]
    assert main([*argv, f"--out={out}"]) == 0
    return json.loads(out.read_text())


def test_end_to_end_training_moves_the_encoder(trained, untrained_run):
    run, before = checkpoint.load(trained), checkpoint.load(untrained_run)
    assert run.task is not None
    assert run.task["classes"] == ["1", "3", "4", "80"]
    assert run.params["head"]["kernel"].shape == (16, 4)
    assert np.any(
        run.params["video"]["embed"]["kernel"] != before.params["video"]["embed"]["kernel"]
    )


def test_a_frozen_encoder_is_not_trained():
    assert task.trained(Config(frozen=True)) == ("head",)
    assert task.trained(Config()) is None


def test_detections_on_true_boxes_score_the_same_alone(trained, snapshot, truth, tmp_path, capsys):
    csv = tmp_path / "detections.csv"
    assert evaluate(trained, snapshot, tmp_path, f"--write-predictions={csv}") == 0
    found = figures(tmp_path)
    assert "on boxes of ground truth" in capsys.readouterr().out
    assert (found["images"], found["boxes"], found["classes"]) == (6, 2 * 2 + 4 + 3, 60)
    assert found["detections"] == 9 * 4  # boxes of six keyframes, each with every action
    assert found["boxes_from"] == "ground truth"
    assert alone(csv, truth, tmp_path) | {"boxes_from": "ground truth", "missing": 0} == found
    assert csv.read_text().startswith('"a,b",0900,0.125,0.25,0.5,0.75,1,0.')


def test_detections_on_a_detectors_boxes_score_the_same_alone(
    trained, snapshot, truth, tmp_path, capsys
):
    boxes, csv = tmp_path / "boxes.csv", tmp_path / "detections.csv"
    rows = [(900, SECOND, 0.9), (901, NEAR_FIRST, 0.8), (902, FIRST, 0.79), (905, FIRST, 1)]
    rows += [(905, FIRST, 0.9), (950, FIRST, 0.99)]
    boxes.write_text(
        "".join(
            f'"a,b",{second:04d},{",".join(map(str, box))},,{score}\n'
            for second, box, score in rows
        )
    )
    more = (f"--boxes={boxes}", f"--write-predictions={csv}")
    assert evaluate(trained, snapshot, tmp_path, *more) == 0
    found = figures(tmp_path)
    # The detector is unsure at 902. 905 shows nobody, and has one duplicate detection. 950 is not
    # in the snapshot.
    assert (found["detections"], found["unlabelled"], found["missing"]) == (3 * 4, 4, 1)
    assert found["boxes_from"] == "boxes.csv"
    assert found["slowfast"] < found["official"]
    assert "1 more keyframes with such boxes are not in the snapshot" in capsys.readouterr().out
    assert alone(csv, truth, tmp_path) | {"boxes_from": "boxes.csv", "missing": 1} == found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,0902,0.1,0.2,0.3,0.4", "6 columns, expected video,second,x1,y1,x2,y2,,score"),
        ("a,9.5,0.1,0.2,0.3,0.4,,0.9", "'9.5' must be a second such as 0902"),
        ("a,0902,0.1,0.2,0.3,x,,0.9", "'x' is not a finite number"),
        ("a,0902,0.5,0.2,0.3,0.4,,0.9", "the box ends before it starts: 0.5,0.2,0.3,0.4"),
        ("a,0902,0.1,0.2,0.3,240,,0.9", "the box must be within 0 … 1, got 0.1,0.2,0.3,240"),
        ("a,0902,0.1,0.2,0.3,0.4,,90", "'90' must be a score in 0 … 1"),
        ('a,0902,"0.1,0.2', "not CSV"),
    ],
)
def test_faults_of_a_file_of_boxes_name_the_row(row, message, trained, snapshot, tmp_path, capsys):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(f"a,0902,0.1,0.2,0.3,0.4,0.9\n{row}\n")
    assert evaluate(trained, snapshot, tmp_path, f"--boxes={boxes}") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "boxes.csv" in line]
    assert f"boxes.csv:2: {message}" in line


def test_contradictory_inputs_are_refused(
    trained, untrained_run, snapshot, training, write_snapshot, tmp_path, capsys
):
    assert evaluate(trained, training, tmp_path) == 1
    assert "the run was trained on 1 of the 1 videos" in capsys.readouterr().err
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a,0902,0.1,0.2,0.3,0.4,,0.9\n")
    assert evaluate(trained, snapshot, tmp_path, f"--boxes={boxes}") == 1
    assert "no box of boxes.csv is at any of the 7 keyframes" in capsys.readouterr().err
    argv = ["evaluate", "--task=qa", f"--run={trained}", f"--snapshot={snapshot}"]
    assert main([*argv, f"--boxes={boxes}"]) == 2
    assert "--boxes applies only to --task spatiotemporal" in capsys.readouterr().err
    with pytest.raises(TaskError, match="one clip and the whole frame"):
        task.predict(
            checkpoint.load(trained), Snapshot.open(snapshot), lambda *_: None, Views(crops=3)
        )

    plain = write_snapshot(clips=4, height=18, width=18).folder
    assert finetune("ava", untrained_run, plain, tmp_path / "run") == 1
    assert "have no labelled box: build a snapshot of AVA" in capsys.readouterr().err
    assert evaluate(trained, plain, tmp_path) == 1
    assert "has boxes at 0 times, but must be a keyframe" in capsys.readouterr().err

    def named(clip, _):
        clip.boxes.add(x2=0.5, y2=0.5, labels=["walk"])

    words = write_snapshot("words", clips=4, height=18, width=18, annotate=named).folder
    assert finetune("ava", untrained_run, words, tmp_path / "run") == 1
    assert "has the label 'walk': AVA's actions are the numbers 1 … 80" in capsys.readouterr().err


def test_a_keyframe_is_trained_on_with_its_own_boxes_and_those_that_fit(snapshot):
    clips = read_annotations(Snapshot.open(snapshot))
    classes = task.classes(clips, Config())
    found = task.examples(clips, classes, Config())
    assert found.records.tolist() == [0, 1, 2, 3, 4, 6]  # not the one of nobody
    assert found.boxes is not None
    assert found.boxes.counts.tolist() == [3, 2, 2, 3, 2, 3]
    corners, labels = found.boxes.of(np.array([0, 1]))
    np.testing.assert_allclose(corners[0], [FIRST, SECOND, NEAR_FIRST])
    np.testing.assert_allclose(corners[1], [FIRST, NEAR_FIRST, [0] * 4])
    named = [[[classes[c] for c in np.flatnonzero(of_box)] for of_box in some] for some in labels]
    assert named == [[["3"], ["4"], ["3"]], [["1", "80"], ["1", "80"], []]]
    strict = task.examples(clips, classes, Config(train_iou=1.0))
    assert strict.boxes is not None
    assert strict.boxes.counts.tolist() == [2, 1, 1, 2, 1, 2]


def test_the_loss_is_the_mean_over_the_boxes_that_are_seen(noisy_config):
    rng = np.random.default_rng(2)
    boxes = np.tile(np.array(FIRST, np.float32), (3, 2, 1))
    boxes[0, 1], boxes[2] = 0, (0, 0.25, 0, 0.75)  # none, and those that a crop left nothing of
    labels = rng.random((3, 2, 4)) < 0.5
    batch = ExampleBatch(
        frames=np.zeros((3, 1, 1, 1, 3), np.uint8),
        text_ids=None,
        text_mask=None,
        label=None,
        index=np.arange(3, dtype=np.int32),
        boxes=boxes,
        box_labels=labels,
    )
    features = jnp.asarray(rng.normal(size=(3, 2, 8)), jnp.float32)
    params = {"head": {"kernel": jnp.ones((8, 4)) * 0.1, "bias": jnp.zeros(4)}}
    keys = jax.random.split(jax.random.key(0), 3)

    def mean_loss(batch):
        def losses(params, encoded, batch, keys):
            settings = Config(dropout=0.0)
            return task.losses(params, encoded, batch, keys, config=noisy_config, settings=settings)

        found = on_each_device(losses, one_device(), replicated=1)(params, features, batch, keys)
        return float(jnp.mean(found["loss"])), found["boxes"].tolist()

    p = 1 / (1 + np.exp(-0.1 * np.asarray(features, np.float64).sum(axis=-1, keepdims=True)))
    cost = -np.where(labels, np.log(p), np.log(1 - p)).mean(axis=-1)
    found, seen = mean_loss(batch)
    assert seen == [1, 2, 0]
    assert found == pytest.approx((cost[0, 0] + cost[1].sum()) / 3, rel=1e-5)
    assert mean_loss(batch._replace(boxes=np.zeros_like(boxes))) == (0, [0, 0, 0])
