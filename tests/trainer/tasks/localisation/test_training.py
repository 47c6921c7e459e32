"""The whole of localisation on features in which actions can be seen: noise, and a class's sign."""

import itertools
import json
import os
import re
import signal

import numpy as np
import pytest
import safetensors.numpy

from trainer.main import main
from trainer.study import measures
from trainer.tasks.localisation import files, training

SMALL = (
    "network.length=12", "network.width=16", "network.groups=4", "network.group_width=2",
    "network.map_width=16", "network.map_hidden=16", "batch=8", "epochs=16", "decay_after=12",
    "learning_rate=0.01",
)  # fmt: skip
CLASSES, CHANNELS, WINDOWS = ("run", "sit"), 8, 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Videos of 12 s in windows of a second, with an action of 4 s or more each."""
    folder = tmp_path_factory.mktemp("corpus")
    rng, database = np.random.default_rng(1), {}
    signs = rng.normal(size=(len(CLASSES), CHANNELS)) * 3
    for split, subset, count in (("train", "training", 24), ("test", "validation", 12)):
        rows, clips = [], []
        for number in range(count):
            label, start = int(rng.integers(2)), int(rng.integers(0, 6))
            end = start + int(rng.integers(4, 12 - start if start > 5 else 6))
            features = rng.normal(size=(WINDOWS, CHANNELS)).astype(np.float32) * 0.3
            features[start:end] += signs[label]
            name = f"{split}{number}"
            rows.append(features)
            clips += [
                {"video_id": name, "start_us": k * 1_000_000, "end_us": (k + 1) * 1_000_000}
                for k in range(WINDOWS)
            ]
            annotation = {"label": CLASSES[label], "segment": [start, end]}
            database[name] = {"subset": subset, "duration": 12.0, "annotations": [annotation]}
        (folder / split).mkdir()
        shard = "features-00000-of-00001.safetensors"
        safetensors.numpy.save_file(
            {"groups": np.concatenate(rows)},
            folder / split / shard,
            metadata={"clips": json.dumps(clips)},
        )
        manifest = {
            "features": {"groups": [CHANNELS]}, "shards": [{"name": shard, "clips": len(clips)}]
        }  # fmt: skip
        (folder / split / "features.json").write_text(json.dumps(manifest))
    truth = {"version": "1.3", "taxonomy": [], "database": database}
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


def localise(corpus, out, *arguments):
    argv = [f"--truth={corpus / 'truth.json'}", f"--out={out}", *arguments]
    return main(["localise", "--preset=shapes", *argv])


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "localisation"
    settings = [f"--set={setting}" for setting in SMALL]
    arguments = (f"--features={corpus / 'train'}", f"--test-features={corpus / 'test'}")
    assert localise(corpus, out, *arguments, "--best-epoch", *settings) == 0
    return out


def test_actions_that_can_be_seen_are_found(trained):
    found = json.loads((trained / "figures.json").read_text())
    assert found["sets"][0]["mAP"]["0.50"] > 60
    assert found["sets"][0]["average_mAP"] > 3 * found["chance"][0]
    (of_study,) = measures.localised("shapes,a,b,c").measures
    assert of_study._replace(file="figures.json").read(trained) == found["sets"][0]["average_mAP"]
    assert "own linear classifier" in found["external_data"]["details"]
    losses = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1]["total"] < losses[0]["total"]
    kept = json.loads((trained / "localisation.json").read_text())["epoch"]
    assert losses[kept - 1]["validation"] == min(one["validation"] for one in losses)


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    corpus, trained, tmp_path, capsys, monkeypatch
):
    settings = [f"--set={setting}" for setting in SMALL]
    arguments = (f"--features={corpus / 'train'}", f"--test-features={corpus / 'test'}")
    step, steps = training._step, itertools.count(1)

    def step_with_a_signal(*given, **named):
        if next(steps) == 8:  # of three an epoch
            signal.raise_signal(signal.SIGTERM)
        return step(*given, **named)

    monkeypatch.setattr(training, "_step", step_with_a_signal)
    assert localise(corpus, tmp_path, *arguments, "--best-epoch", *settings) == os.EX_TEMPFAIL
    assert "the same command continues" in capsys.readouterr().err
    assert next(steps) == 9
    assert not (tmp_path / "model.safetensors").exists()
    assert localise(corpus, tmp_path, *arguments, *settings) == 1
    assert re.search(
        r"configuration: best epoch was by features of sha256 \w{64}, now none\. To continue",
        capsys.readouterr().err,
    )
    assert localise(corpus, tmp_path, *arguments, "--best-epoch", *settings) == 0
    assert next(steps) == 10 + 16 * 3 - 8
    for name in ("metrics.jsonl", "model.safetensors", "localisation.json", "figures.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_its_predictions_are_scored_alike_from_their_file(corpus, trained):
    found = json.loads((trained / "figures.json").read_text())
    again = files.score([trained / "predictions.json"], [corpus / "truth.json"])
    assert again["sets"] == found["sets"]


def test_a_trained_model_is_tested_again_and_with_given_class_scores(corpus, trained, capsys):
    before = (trained / "predictions.json").read_bytes()
    test = f"--test-features={corpus / 'test'}"
    assert localise(corpus, trained, test) == 0
    assert (trained / "predictions.json").read_bytes() == before
    truth = files.read_truths([corpus / "truth.json"])[0]
    sure = {
        name: np.eye(2)[CLASSES.index(video.actions[0].label)].tolist()
        for name, video in truth.videos.items()
    }
    scores = trained / "true_classes.json"
    scores.write_text(json.dumps({"class": list(CLASSES), "results": sure}))
    assert localise(corpus, trained, test, f"--class-scores={scores}") == 0
    assert "with external data: class scores of true_classes.json" in capsys.readouterr().out


def test_what_does_not_go_together_is_told(corpus, tmp_path, capsys):
    for arguments, message in (
        ([], "give --features to train on"),
        ([f"--features={corpus / 'train'}", "--best-epoch"], "--best-epoch wants"),
        ([f"--features={corpus / 'test'}"], "12 of the videos to train on are validation videos"),
        ([f"--test-features={corpus / 'test'}"], "localisation.json is not there"),
        (["--features=x", "--set=network.length=a"], "network.length takes a whole number"),
    ):
        assert localise(corpus, tmp_path, *arguments) in (1, 2)
        assert message in capsys.readouterr().err
