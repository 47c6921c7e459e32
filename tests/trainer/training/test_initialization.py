"""A run that starts from known weights: its initialization and its resumption."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.configs.overrides import override
from trainer.distributed.mesh import one_device
from trainer.method.train_step import init_state, state_shapes
from trainer.runs import checkpoint, run_folder
from trainer.training import loop
from trainer.training.initialization import Start
from trainer.weights import bert, hf_format, video
from trainer.weights.hf_format import WeightsError

pytestmark = pytest.mark.usefixtures("step_without_model")

DATA = pathlib.Path(__file__).parents[2] / "data" / "parity"


@pytest.fixture
def config(small_config):
    """A configuration with the parity checkpoints' layers, whose steps change nothing."""
    return override(
        small_config,
        [
            *("video.layers=2", "video.grouping_after=2", "video.group_tokens=4"),
            *("on_bad_step=skip", "spike.gradient_norm=1e-30", "max_steps=1"),
        ],
    )


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_known_weights_replace_only_their_random_ones(config):
    start = Start(video=DATA / "vivit", text=DATA / "bert")
    config = start.configure(config)
    fresh = init_state(config, one_device()).params
    filled = start.fill(fresh, config)
    known = video.params(hf_format.read(DATA / "vivit"), config.video)
    assert_same({name: filled["video"][name] for name in known}, known)
    assert_same(filled["text"], bert.params(hf_format.read(DATA / "bert"), config.text))
    for name in ("group_tokens", "grouping_2", "norm_groups"):
        assert_same(filled["video"][name], fresh["video"][name])
    assert_same(filled["project_text"], fresh["project_text"])


def test_a_run_gives_the_settings_that_its_parameters_need(config, tokenizer, tmp_path):
    settings = [
        *("video.gelu=erf", "video.norm_eps=1e-3", "video.grouping=kmax", "text.norm_eps=1e-4"),
        *("video.pixel_mean=0.1,0.2,0.3", "video.pixel_std=0.4,0.5,0.6"),
    ]
    known = override(config, [*settings, f"text.vocabulary={len(tokenizer.pieces)}"])
    (tmp_path / "config.json").write_text(known.to_json())
    tokenizer.save(tmp_path / "vocab.txt")
    found = Start(run=tmp_path).configure(override(config, ["video.frames=8", "seed=9"]))
    assert found == override(known, ["video.frames=8", "seed=9"])


def test_a_vocabulary_may_have_fewer_pieces_than_the_weights_have_rows(
    config, write_snapshot, tmp_path
):
    """Published vocabularies are padded. One with more pieces than rows is another model's."""
    snapshot = write_snapshot(clips=8, frames=4, height=32, width=32).folder
    start = Start(text=DATA / "bert")
    for pieces, fits in ((55, True), (61, False)):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words += [f"word{number}" for number in range(pieces - 5)]
        vocabulary, run = tmp_path / f"{pieces}.txt", tmp_path / str(pieces)
        vocabulary.write_text("".join(f"{word}\n" for word in words))
        if fits:
            loop.pretrain(config, snapshot, run, vocabulary, start)
            assert checkpoint.load(run).params["text"]["words"].shape == (60, 24)
        else:
            with pytest.raises(loop.TrainingError, match="61 pieces, but the starting weights"):
                loop.pretrain(config, snapshot, run, vocabulary, start)


def test_texts_may_become_longer(untrained_run):
    plain = checkpoint.load(untrained_run)
    longer = override(plain.config, ["text.positions=15", "text.tokens=15", "seed=9"])
    fresh = init_state(longer, one_device()).params
    found = Start(run=untrained_run).fill(fresh, longer)["text"]["positions"]
    assert (found[:12] == plain.params["text"]["positions"]).all()
    assert (found[12:] == fresh["text"]["positions"][12:]).all()


def test_a_tensor_of_another_size_is_refused(config):
    start = Start(text=DATA / "bert")
    other = override(start.configure(config), ["text.vocabulary=70"])
    with pytest.raises(
        WeightsError, match=r"word_embeddings\.weight has shape \(60, 24\), expected \(70, 24\)"
    ):
        start.fill(init_state(other, one_device()).params, other)


def test_prefix_tokens_of_a_run_follow_its_windows(config, tokenizer, tmp_path):
    known = override(config, ["video.prefix_tokens=1", "video.norm_before=true"])
    state = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state_shapes(known, one_device())
    )
    prefix = state.params["video"]["prefix_tokens"]
    assert prefix.shape == (2, 1, 32)
    state.params["video"]["prefix_tokens"] = prefix + jnp.arange(2.0)[:, None, None]
    (tmp_path / "config.json").write_text(known.to_json())
    tokenizer.save(tmp_path / "vocab.txt")
    with checkpoint.Checkpoints(tmp_path / "checkpoints", known) as checkpoints:
        checkpoints.save(state)
    start = Start(run=tmp_path)
    longer = start.configure(override(config, ["video.frames=8"]))
    filled = start.fill(state_shapes(longer, one_device()).params, longer)["video"]
    np.testing.assert_allclose(filled["prefix_tokens"][:, 0, 5], [0, 0.25, 0.75, 1])


@pytest.mark.parametrize(
    ("encoder", "setting", "start"),
    [
        ("video", "factor=0", Start(text=DATA / "bert")),
        ("text", "frozen_steps=5", Start(video=DATA / "vivit")),
    ],
)
def test_an_encoder_that_starts_at_random_is_never_locked(config, encoder, setting, start):
    locked = override(config, [f"optimizer.{encoder}_rates.{setting}"])
    with pytest.raises(WeightsError, match=f"the {encoder} encoder starts at random"):
        start.origin(locked)
    both = Start(video=DATA / "vivit", text=DATA / "bert")
    assert f"start.{encoder}" in both.origin(locked).identity


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles two steps
def test_a_run_starts_from_weights_and_another_from_that_run(config, write_snapshot, tmp_path):
    snapshot = write_snapshot(clips=8, frames=4, height=32, width=32).folder
    start = Start(video=DATA / "videomae")
    loop.pretrain(config, snapshot, tmp_path / "first", start=start)
    first = checkpoint.load(tmp_path / "first")
    assert first.config.video.gelu == "erf"
    known = video.params(hf_format.read(DATA / "videomae"), first.config.video)
    assert_same({name: first.params["video"][name] for name in known}, known)

    # It is continued with the same start only.
    assert loop.pretrain(config, snapshot, tmp_path / "first", start=start)
    with pytest.raises(run_folder.RunError, match=r"start\.video was [0-9a-f]{64}, now None"):
        loop.pretrain(start.configure(config), snapshot, tmp_path / "first")

    again = Start(run=tmp_path / "first")
    wider = override(first.config, ["joint_width=64"])
    with pytest.raises(WeightsError, match=r"project_text\.bias is \(256,\) there, but \(64,\) in"):
        again.fill(init_state(wider, one_device()).params, wider)
    longer = override(first.config, ["video.frames=8", "video.resolution=64"])
    filled = again.fill(state_shapes(longer, one_device()).params, longer)["video"]["positions"]
    grid = jnp.asarray(first.params["video"]["positions"]).reshape(2, 2, 2, -1)
    np.testing.assert_array_equal(filled, video.interpolate(grid, windows=4, rows=4, columns=4))

    loop.pretrain(override(first.config, ["seed=8"]), snapshot, tmp_path / "second", start=again)
    second = checkpoint.load(tmp_path / "second")
    assert_same(second.params, first.params)
    assert second.tokenizer.pieces == first.tokenizer.pieces


def test_a_run_resumes_without_its_starting_weights(config, write_snapshot, tmp_path):
    snapshot = write_snapshot(clips=8, frames=4, height=32, width=32).folder
    weights, earlier = tmp_path / "videomae", tmp_path / "earlier"
    shutil.copytree(DATA / "videomae", weights)
    loop.pretrain(config, snapshot, earlier, start=Start(video=weights))
    start = Start(video=weights, run=earlier)
    steps = override(config, ["max_steps=2", "checkpoint_every=1"])
    assert loop.pretrain(steps, snapshot, tmp_path / "run", start=start)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    shutil.rmtree(weights)
    shutil.rmtree(earlier)
    assert loop.pretrain(steps, snapshot, tmp_path / "run", start=start)
    assert checkpoint.load(tmp_path / "run").step == 2
    # Settings from the weights are kept, and other ones are refused.
    wider = override(steps, ["video.width=64"])
    assert loop.pretrain(wider, snapshot, tmp_path / "run", start=start)
    with pytest.raises(run_folder.RunError, match=r"start\.video was [0-9a-f]{64}, now [0-9a-f]"):
        loop.pretrain(
            steps,
            snapshot,
            tmp_path / "run",
            start=Start(video=DATA / "vivit", run=tmp_path / "run"),
        )
