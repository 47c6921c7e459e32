import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from trainer.inference.features import FeaturesError
from trainer.tasks.localisation.features import interpolated, read_features


@given(st.integers(1, 9), st.integers(1, 12))
def test_interpolation_is_between_the_two_nearest_middles(old, new):
    features = np.random.default_rng(old).normal(size=(old, 2))
    found = interpolated(features, new)
    for i in range(new):
        place = max((i + 0.5) * old / new - 0.5, 0)
        low = int(place)
        high = min(low + 1, old - 1)
        expected = features[low] * (1 - (place - low)) + features[high] * (place - low)
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def write(folder, windows, rows):
    folder.mkdir()
    clips = [dict(zip(("video_id", "start_us", "end_us"), one, strict=True)) for one in windows]
    safetensors.numpy.save_file(
        {"groups": rows}, folder / "features-00000-of-00001.safetensors",
        metadata={"clips": json.dumps(clips)},
    )  # fmt: skip
    manifest = {
        "features": {"groups": [rows.shape[1]], "windows": [4, 2]},
        "shards": [{"name": "features-00000-of-00001.safetensors", "clips": len(rows)}],
    }
    (folder / "features.json").write_text(json.dumps(manifest))
    return folder


def test_windows_are_put_together_in_the_order_of_time(tmp_path):
    second = 1_000_000
    windows = [("a", 2 * second, 4 * second), ("b", 0, 3 * second), ("a", 0, 2 * second)]
    folder = write(tmp_path / "features", windows, np.arange(6, dtype=np.float32).reshape(3, 2))
    videos = read_features(folder, "groups")
    assert videos["a"].features.tolist() == [[4, 5], [0, 1]]
    assert (videos["a"].seconds, videos["b"].seconds) == (4, 3)


@pytest.mark.parametrize("windows", [1, 2, 3, 6])
def test_a_missing_window_is_refused(tmp_path, windows):
    """Its row would be missing, and all later rows would be of earlier times."""
    spans = [("a", 4_000_000 * i, 4_000_000 * (i + 1)) for i in range(windows + 1)]
    for dropped in range(windows):
        kept = spans[:dropped] + spans[dropped + 1 :]
        folder = write(tmp_path / str(dropped), kept, np.zeros((windows, 2), np.float32))
        with pytest.raises(FeaturesError, match="video 'a' has no window between"):
            read_features(folder, "groups")


def test_cut_and_shifted_windows_are_not_missing(tmp_path):
    for name, spans in {
        "centred": [(0, 3), (1, 5), (3, 7), (5, 8)],
        "cut": [(0, 4), (4, 8), (8, 9)],
        "shifted": [(0, 4), (4, 8), (8, 12), (9, 13)],
        "one": [(0, 3)],
    }.items():
        windows = [("a", start * 1_000_000, end * 1_000_000) for start, end in spans]
        folder = write(tmp_path / name, windows, np.zeros((len(spans), 2), np.float32))
        assert len(read_features(folder, "groups")["a"].features) == len(spans)


def test_invalid_features_are_refused(tmp_path):
    with pytest.raises(FeaturesError, match=r"features\.json is missing"):
        read_features(tmp_path, "groups")
    folder = write(tmp_path / "features", [("a", 0, 1)], np.zeros((1, 2), np.float32))
    with pytest.raises(
        FeaturesError, match="no feature 'clip' with one row per window, only groups"
    ):
        read_features(folder, "clip")
    with pytest.raises(FeaturesError, match="no feature 'windows' with one row"):
        read_features(folder, "windows")
    next(folder.glob("*.safetensors")).write_bytes(b"{")
    with pytest.raises(FeaturesError, match="is damaged"):
        read_features(folder, "groups")
