"""8-bit weights keep the answers of an ONNX export nearly, in a third of the size."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.interop.conftest import CAPTIONS
from tests.interop.test_transformers import random_frames
from tests.trainer.conftest import make_clip, write_clips
from trainer.cli.main import main

# Elements of a tensor that counts as large.
_LARGE = 2**14


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def large_bytes(path):
    """Return the bytes of a program's large parameters."""
    tensors = onnx.load(path).graph.initializer
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
    return sum(array.nbytes for array in arrays if array.size >= _LARGE)


def cosines(left, right):
    return (left * right).sum(-1) / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    rng = np.random.default_rng(0)
    clips = [make_clip(rng, number, frames=12, height=64, width=64) for number in range(11)]
    return write_clips(tmp_path_factory.mktemp("data") / "test", clips, 12, 64, shards=2).folder


@pytest.mark.parametrize("pair", ["tiny"], indirect=True)
def test_int8_programs_answer_nearly_as_the_run_and_say_what_they_lose(
    pair, snapshot, tmp_path, capsys
):
    jax, folder = pair
    run = folder.parent / "run"
    whole, out = tmp_path / "float32", tmp_path / "int8"
    export = ["export", f"--run={run}", "--format=onnx"]
    assert main([*export, f"--out={whole}"]) == 0
    assert main([*export, f"--out={out}", "--weights=int8", f"--eval-snapshot={snapshot}"]) == 0
    printed = capsys.readouterr().out

    for name in ("video.onnx", "text.onnx"):
        assert large_bytes(out / name) < 0.35 * large_bytes(whole / name)
        assert not (out / f"{name}.data").exists()
    video, text = session(out / "video.onnx"), session(out / "text.onnx")
    frames = random_frames(jax.config, 3)
    expected = jax._encoder.clips(frames)
    for count in (1, 3):
        clip, groups = video.run(["clip", "groups"], {"frames": frames[:count]})
        assert np.asarray(clip).shape == expected.clip[:count].shape
        assert cosines(clip, expected.clip[:count]).min() > 0.98
        assert cosines(groups, expected.groups[:count]).mean() > 0.98
    ids, mask = jax._encoder.tokenizer.encode(CAPTIONS, jax.config.text.tokens)
    inputs = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
    for some in (slice(1), slice(3)):
        (embedded,) = text.run(None, {name: values[some] for name, values in inputs.items()})
        assert cosines(embedded, jax.embed_texts(CAPTIONS[some])).min() > 0.98

    about = json.loads((out / "programs.json").read_text())
    assert about["weights"] == "int8" and about["onnxruntime"] == onnxruntime.__version__
    compared = about["compared"]
    assert compared["snapshot"]["records"] == 11 and len(compared["snapshot"]["manifest_sha256"])
    assert compared["int8"]["bytes"] == sum(path.stat().st_size for path in out.glob("*.onnx*"))
    assert compared["int8"]["bytes"] < compared["float32"]["bytes"]
    for weights in ("float32", "int8"):
        for direction in ("t2v_R@1", "v2t_R@1"):
            assert 0 <= compared[weights][direction] <= 100
            assert f"{compared[weights][direction]:.1f} %" in printed
        assert compared[weights]["clips_per_second"] > 0

    # The same folder may get float32 weights again.
    assert main([*export, f"--out={out}"]) == 0
    (same,) = session(out / "video.onnx").run(["clip"], {"frames": frames})
    np.testing.assert_allclose(np.asarray(same), expected.clip, atol=1e-4)
    assert json.loads((out / "programs.json").read_text())["weights"] == "float32"


def test_a_snapshot_that_does_not_suit_is_refused_before_the_folder_is_complete(
    make_run, snapshot, tmp_path, capsys
):
    from trainer.configs import PRESETS
    from trainer.configs.overrides import override

    settings = ["video.frames=16", "video.width=32", "video.layers=1", "video.mlp_width=64"]
    settings += ["video.grouping_after=1", "text.width=32", "text.layers=1", "text.mlp_width=64"]
    run, _ = make_run(override(PRESETS["tiny"], settings))
    words = ["export", f"--run={run}", f"--out={tmp_path / 'out'}", "--format=onnx"]
    assert main([*words, "--weights=int8", f"--eval-snapshot={snapshot}"]) == 1
    assert "has 12 frames per clip" in capsys.readouterr().err
    assert not (tmp_path / "out" / "programs.json").exists()
