import dataclasses
import json

import jax
import numpy as np
import pytest

from trainer.configs.overrides import override
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.distributed.mesh import one_device
from trainer.evaluation import retrieval, temporal
from trainer.evaluation.ground_truth import ClipKey, TrueObject, TruthError
from trainer.inference.encoder import Encoder, embed_clips, frames_of
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Loaded
from trainer.tasks import zero_shot

CLIPS = 11


@pytest.fixture
def config(small_config, tokenizer):
    settings = ["video.frames=8", "video.group_tokens=4", "joint_width=16"]
    return override(small_config, [*settings, f"text.vocabulary={len(tokenizer.pieces)}"])


@pytest.fixture
def run(config, tokenizer):
    params = init_state(config, one_device()).params
    return Loaded(config, tokenizer, params, step=5, averaged=False)


@pytest.fixture
def snapshot(write_snapshot, monkeypatch):
    # Three batches, the last of 3 clips.
    monkeypatch.setattr("trainer.inference.encoder.CLIPS_AT_ONCE", 4)
    return Snapshot.open(write_snapshot(clips=CLIPS, frames=8).folder)


def texts_of(snapshot, run):
    encoder = Encoder(run.config, run.tokenizer, run.params)
    return embed_clips(snapshot, encoder, no_progress)[0]


def no_progress(done, total):
    pass


def truth_of(snapshot, run):
    """Each noun of a caption over the whole frame; of every clip."""
    everywhere = np.ones((8, 32, 32), bool)
    return {
        ClipKey(text.video_id, text.start_us, text.end_us, text.caption): [
            TrueObject(noun, everywhere) for noun in text.nouns
        ]
        for text in texts_of(snapshot, run)
    }


def test_figures_equal_those_of_all_clips_encoded_at_once(snapshot, run):
    seen = []
    metrics = zero_shot.evaluate(run, snapshot, lambda done, total: seen.append((done, total)))
    assert seen == [(4, CLIPS), (8, CLIPS), (CLIPS, CLIPS)]

    encoder = Encoder(run.config, run.tokenizer, run.params)
    frames = frames_of(snapshot, range(CLIPS), run.config)
    captions = [text.caption for text in texts_of(snapshot, run)]
    similarity = encoder.similarity(captions, encoder.clips(frames).clip)
    assert metrics["zero_shot"] == retrieval.zero_shot(similarity)

    middle = encoder.clips(np.repeat(frames[:, 4:5], 8, axis=1)).clip
    alone = retrieval.zero_shot(encoder.similarity(captions, middle))
    assert metrics["controls"]["single_frame"] == alone["t2v"]["R@1"]
    # All clips alike: every caption ties with all, but for last bits that differ by batch.
    assert metrics["controls"]["blank_frames"] == pytest.approx(100 / CLIPS, rel=0.5)

    other = frames[[2, 3, 0, 1, *range(7)]]  # half the first batch away, then a batch before
    masks = temporal.draw_masks(CLIPS, 4, seed=0)
    windows = encoder.clips(temporal.splice(frames, other, masks)).windows
    expected = temporal.window_accuracy(windows, masks)
    assert metrics["temporal"]["window_accuracy"] == pytest.approx(expected)
    assert metrics["temporal"]["position_prior"] == temporal.position_prior(4)
    assert metrics["temporal"]["no_temporal_loss"] is None
    assert metrics["grounding"] is None
    assert metrics["step"] == 5
    assert json.loads(json.dumps(metrics)) == metrics


def test_the_control_and_the_untrained_model_are_other_models(snapshot, run):
    run = run._replace(config=override(run.config, ["loss.temporal_weight=0"]))
    other = dataclasses.replace(run.config, seed=99)
    control = run._replace(params=init_state(other, one_device()).params)
    figures = zero_shot.evaluate(run, snapshot, no_progress, control=control)["temporal"]
    again = zero_shot.evaluate(control, snapshot, no_progress, control=run)["temporal"]
    assert figures["no_temporal_loss"] == again["window_accuracy"]
    assert again["no_temporal_loss"] == figures["window_accuracy"]
    last = run._replace(config=dataclasses.replace(run.config, seed=2**32 - 1))
    fresh = zero_shot.fresh_encoder(last).params
    differing = jax.tree.map(lambda a, b: bool((a != b).any()), fresh, run.params)
    assert any(jax.tree.leaves(differing))


def test_objects_that_fill_the_frame_are_hit_by_every_group_that_holds_tokens(snapshot, run):
    grounding = zero_shot.evaluate(run, snapshot, no_progress, truth_of(snapshot, run))["grounding"]
    assert grounding is not None
    assert grounding["objects"] == sum(len(text.nouns) for text in texts_of(snapshot, run))
    assert grounding["chance"] == 1
    assert grounding["pointing_accuracy"] == pytest.approx(1 - grounding["empty_groups"])


def test_mismatched_inputs_are_refused(snapshot, run, write_snapshot, tokenizer):
    truth = truth_of(snapshot, run)
    truth.popitem()
    with pytest.raises(TruthError, match="no line for clip 'video-00003_10000000_10900000'"):
        zero_shot.evaluate(run, snapshot, no_progress, truth)
    nothing = {key: [] for key in truth_of(snapshot, run)}
    with pytest.raises(TruthError, match="has no object in any clip"):
        zero_shot.evaluate(run, snapshot, no_progress, nothing)

    longer = run._replace(config=override(run.config, ["video.frames=16"]))
    with pytest.raises(zero_shot.EvaluationError, match=r"video\.frames 16, but the run 8"):
        zero_shot.evaluate(run, snapshot, no_progress, control=longer)
    with pytest.raises(temporal.TemporalError, match="this model has 2 "):
        short = run._replace(config=override(run.config, ["video.frames=4"]))
        zero_shot.evaluate(short, snapshot, no_progress)
    one = Snapshot.open(write_snapshot("one", clips=1, frames=8, shards=1).folder)
    with pytest.raises(zero_shot.EvaluationError, match="has 1 clips"):
        zero_shot.evaluate(run, one, no_progress)


def test_a_control_is_trained_without_the_temporal_loss(config, tokenizer):
    run = Loaded(config, tokenizer, {}, step=5, averaged=False)
    with pytest.raises(zero_shot.EvaluationError, match=r"loss\.temporal_weight 1\.0"):
        zero_shot.check_control(run, run)
    without = run._replace(config=override(config, ["loss.temporal_weight=0"]))
    zero_shot.check_control(run, without)


def test_clips_without_captions_are_refused(run, write_snapshot):
    def annotate(clip, number):
        clip.caption = f"a ring {number}" if number else ""

    undescribed = Snapshot.open(write_snapshot(clips=3, frames=8, annotate=annotate).folder)
    with pytest.raises(SnapshotError, match="1 of 3 captions are empty"):
        zero_shot.evaluate(run, undescribed, no_progress)


def test_equal_texts_have_equal_embeddings_and_similarities(run):
    encoder = Encoder(run.config, run.tokenizer, run.params)
    texts = ["red ring", "green disc", "red ring"] + [f"star {place}" for place in range(70)]
    embedded = encoder.texts(texts)
    assert embedded.shape == (73, 16)
    assert (embedded[0] == embedded[2]).all()
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(np.ones(73), abs=1e-5)
    alone = encoder.texts(["star 69"])[0]
    assert embedded[-1] == pytest.approx(alone, abs=1e-6)
    similarity = encoder.similarity(texts, embedded)
    assert (similarity[0] == similarity[2]).all()


def test_the_table_shows_every_figure(snapshot, run):
    metrics = zero_shot.evaluate(run, snapshot, no_progress, truth_of(snapshot, run))
    table = zero_shot.table(metrics)
    assert "zero-shot retrieval, 11 clips" in table
    assert f"{metrics['zero_shot']['t2v']['R@5']:7.1f}" in table
    assert f"{metrics['temporal']['random_encoder']:7.3f}" in table
    assert table.splitlines()[-1].endswith("–")  # no control
