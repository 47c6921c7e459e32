"""Localisation end to end, on features of noise plus a sign for each class."""

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import safetensors.numpy

from trainer.ablation import measures
from trainer.cli.main import main
from trainer.configs.overrides import override
from trainer.evaluation import segment_files
from trainer.runs import run_lock
from trainer.tasks.localisation import training
from trainer.tasks.localisation.features import VideoFeatures
from trainer.tasks.localisation.gtad import sampling_of

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
    trains = any(word.startswith("--features") for word in arguments)
    return main(["localise", *(["--preset=shapes"] if trains else []), *argv])


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
def test_an_interrupted_training_resumes_bit_for_bit(
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
    assert "the same command resumes" in capsys.readouterr().err
    assert next(steps) == 9
    assert not (tmp_path / "model.safetensors").exists()
    assert localise(corpus, tmp_path, *arguments, *settings) == 1
    assert re.search(
        r"configuration: best epoch was by features of sha256 \w{64}, now none\. Repeat",
        capsys.readouterr().err,
    )
    assert localise(corpus, tmp_path, *arguments, "--best-epoch", *settings) == 0
    assert next(steps) == 10 + 16 * 3 - 8
    for name in ("metrics.jsonl", "model.safetensors", "localisation.json", "figures.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_refused_command_leaves_a_finished_training_as_it_is(corpus, trained, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    arguments = (f"--features={corpus / 'train'}", f"--test-features={corpus / 'test'}")
    settings = [f"--set={setting}" for setting in SMALL]
    assert localise(corpus, trained, *arguments, *settings) == 1
    assert "was started with another configuration: best epoch" in capsys.readouterr().err
    with run_lock.held(trained, "localise"):
        again = localise(corpus, trained, *arguments, "--best-epoch", *settings)
    assert again == os.EX_TEMPFAIL
    assert (
        f"is writing to {trained}: run the same command again when it has ended"
        in capsys.readouterr().err
    )
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert len(before[trained / "metrics.jsonl"].splitlines()) == 16


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    corpus, trained, tmp_path, capsys
):
    out = shutil.copytree(trained, tmp_path / "out")
    (last, *_) = sorted((out / "checkpoints" / "48" / "progress" / "d").iterdir())
    whole = bytearray(last.read_bytes())
    whole[len(whole) // 2] ^= 1
    last.write_bytes(whole)
    (out / "metrics.jsonl").unlink()
    arguments = (f"--features={corpus / 'train'}", f"--test-features={corpus / 'test'}")
    settings = [f"--set={setting}" for setting in SMALL]
    assert localise(corpus, out, *arguments, "--best-epoch", *settings) == 0
    told = capsys.readouterr().err
    assert f"checkpoints/48 is unusable: progress/d/{last.name} has CRC-32C" in told
    assert "resuming from step 45" in told
    for name in ("metrics.jsonl", "model.safetensors", "localisation.json", "figures.json"):
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name
    # Both are damaged: one line, and nothing is removed.
    for step in ("45", "48"):
        (out / "checkpoints" / step / "settings" / "metadata").write_text("{")
    before = sorted(out.rglob("*"))
    assert localise(corpus, out, *arguments, "--best-epoch", *settings) == 1
    told = capsys.readouterr().err
    assert re.search("no checkpoint in .* is usable .*nothing was removed", told)
    assert sorted(out.rglob("*")) == before


def test_its_predictions_are_scored_alike_from_their_file(corpus, trained):
    found = json.loads((trained / "figures.json").read_text())
    again = segment_files.score([trained / "predictions.json"], [corpus / "truth.json"])
    assert again["sets"] == found["sets"]


def test_a_trained_model_is_tested_again_and_with_given_class_scores(corpus, trained, capsys):
    before = (trained / "predictions.json").read_bytes()
    test = f"--test-features={corpus / 'test'}"
    assert localise(corpus, trained, test) == 0
    assert (trained / "predictions.json").read_bytes() == before
    truth = segment_files.read_truths([corpus / "truth.json"])[0]
    sure = {
        name: np.eye(2)[CLASSES.index(video.actions[0].label)].tolist()
        for name, video in truth.videos.items()
    }
    scores = trained / "true_classes.json"
    scores.write_text(json.dumps({"class": list(CLASSES), "results": sure}))
    assert localise(corpus, trained, test, f"--class-scores={scores}") == 0
    assert "with external data: class scores of true_classes.json" in capsys.readouterr().out


def test_contradictory_inputs_are_refused(corpus, tmp_path, capsys):
    for arguments, message in (
        ([], "give --features to train on"),
        ([f"--features={corpus / 'train'}", "--best-epoch"], "--best-epoch requires"),
        ([f"--features={corpus / 'test'}"], "12 training videos are also test videos"),
        ([f"--test-features={corpus / 'test'}"], "localisation.json is missing"),
        (["--features=x", "--set=network.length=a"], "network.length takes an integer"),
    ):
        assert localise(corpus, tmp_path, *arguments) in (1, 2)
        assert message in capsys.readouterr().err


def retold(corpus, folder, split, **told):
    """Copy a split's features with more fields in features.json."""
    shutil.copytree(corpus / split, folder / split)
    path = folder / split / "features.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    return folder / split


def test_features_of_another_encoder_are_refused(corpus, trained, tmp_path, capsys):
    one, other = ({"made_from": {"parameters_sha256": letter * 64}} for letter in "ab")
    train, test = (
        retold(corpus, tmp_path, split, **of) for split, of in (("train", one), ("test", other))
    )
    out = tmp_path / "out"
    assert localise(corpus, out, f"--features={train}", f"--test-features={test}") == 1
    assert "the test features are from another encoder (sha256 bbbb" in (capsys.readouterr().err)
    assert not out.exists()
    shutil.copytree(trained, out)
    settings = json.loads((out / "localisation.json").read_text())
    (out / "localisation.json").write_text(json.dumps(settings | {"encoder": "a" * 64}))
    assert localise(corpus, out, f"--test-features={test}") == 1
    assert "than the training features (sha256 aaaa" in capsys.readouterr().err
    (out / "localisation.json").write_text(json.dumps(settings | {"encoder": "b" * 64}))
    assert localise(corpus, out, f"--test-features={test}") == 0
    assert "the run has no record of its training clips" in capsys.readouterr().err
    assert json.loads((out / "figures.json").read_text())["subject"]["parameters_sha256"] == (
        "b" * 64
    )


def test_features_of_videos_that_the_encoder_saw_are_refused(corpus, trained, tmp_path, capsys):
    seen = {"known": True, "unknown": [], "videos": 12, "seen_videos": 2, "examples": ["test0"]}
    test = retold(corpus, tmp_path, "test", seen=seen)
    out = shutil.copytree(trained, tmp_path / "out")
    before = (out / "figures.json").read_bytes()
    assert localise(corpus, out, f"--test-features={test}") == 1
    assert "the run was trained on 2 of the 12 videos of" in capsys.readouterr().err
    assert (out / "figures.json").read_bytes() == before
    assert localise(corpus, out, f"--test-features={test}", "--allow-seen") == 0
    assert "the run was trained on 2 of the 12 videos of" in capsys.readouterr().err
    assert json.loads((out / "figures.json").read_text())["subject"]["seen"] == seen


def test_a_diverged_training_fails_and_saves_no_model(corpus, tmp_path, capsys):
    settings = [f"--set={setting}" for setting in (*SMALL, "learning_rate=1e30")]
    arguments = (f"--features={corpus / 'train'}", f"--test-features={corpus / 'test'}")
    assert localise(corpus, tmp_path, *arguments, "--best-epoch", *settings) == 1
    said = capsys.readouterr().err
    assert "not finite" in said and "train again with a learning_rate below 1e+30" in said
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "predictions.json").exists()


def test_trainings_of_equal_settings_share_a_step(monkeypatch):
    config = override(training.PRESETS["shapes"], SMALL)
    video = VideoFeatures(np.zeros((WINDOWS, CHANNELS), np.float32), 12.0)
    annotated = segment_files.Video(12.0, [segment_files.Action("run", 1.0, 7.0)])
    (example,) = training.examples({"a": video}, {"a": annotated}, ["run"], config)
    traced, losses_of = [], training._losses
    monkeypatch.setattr(
        training, "_losses", lambda *given: traced.append(None) or losses_of(*given)
    )

    def step(config):
        key, sampling = jax.random.key(0), sampling_of(config.network)
        features = jax.ShapeDtypeStruct((1, *example.features.shape), np.float32)
        state = training._begin.eval_shape(key, features, sampling, config=config, steps=3)
        arrays = training._stacked([example])
        return training._step.eval_shape(*state, arrays, sampling, key, config=config, steps=3)

    first = step(config)
    once = len(traced)
    assert once and step(dataclasses.replace(config)) == first
    assert len(traced) == once
    step(dataclasses.replace(config, learning_rate=0.02))
    assert len(traced) > once
