"""Drawings of Shapes, compared with the ground truth."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from pipelines.shapes import grammar, render, truth
from pipelines.shapes.film import Format
from pipelines.shapes.scene import sample_clips


@pytest.fixture(scope="module")
def clips():
    return sample_clips("train", 120, seed=1)


def colour_of(thing):
    return np.array(render.RGB[thing.concepts.colour], float)


def from_run_lengths(lengths, height, width):
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(height, width)


def test_masks_match_the_objects_colour(clips):
    assert {t.concepts.kind for c in clips for t in c.things} == set(grammar.KINDS)
    for clip in clips:
        pixels, masks = render.frames(clip).astype(float), render.masks(clip)
        for thing, mask in zip(clip.things, masks, strict=True):
            distance = np.abs(pixels - colour_of(thing)).max(-1)
            assert np.median(distance[mask]) <= render.PIXEL_NOISE + 1
            # Edge pixels have a share of at most half of the background.
            assert distance[mask].max() < 140
            assert np.mean(distance[~mask] <= render.PIXEL_NOISE) < 0.002


def test_masks_never_overlap_and_are_large_enough_to_see(clips):
    for clip in clips:
        masks = render.masks(clip)
        assert masks.shape == (2, 12, 64, 64)
        assert masks.sum(0).max() <= 1
        for thing, mask in zip(clip.things, masks, strict=True):
            visible = mask.any((1, 2))
            assert visible.tolist() == [pose.visible for pose in thing.poses]
            assert mask[visible].mean() > 0.015, thing
            assert 0 < visible.sum() < 12 if thing.concepts.motion == "blinking" else visible.all()


def test_motions_look_like_their_names(clips):
    for clip in clips:
        for thing, mask in zip(clip.things, render.masks(clip), strict=True):
            area = mask.sum((1, 2))
            rows = [np.flatnonzero(frame.any(1)).mean() for frame in mask if frame.any()]
            columns = [np.flatnonzero(frame.any(0)).mean() for frame in mask if frame.any()]
            match thing.concepts.motion:
                case "rising":
                    assert rows[0] - rows[-1] > 30
                case "falling":
                    assert rows[-1] - rows[0] > 30
                case "growing":
                    assert area[-1] > 3 * area[0]
                case "shrinking":
                    assert area[0] > 3 * area[-1]
                case "swaying":
                    assert np.ptp(columns) > 8 > 2 > np.ptp(rows)
                case "circling":
                    assert np.ptp(columns) > 8 < np.ptp(rows)
                case "blinking":
                    assert 4 <= np.count_nonzero(area == 0) <= 12


def test_backgrounds_do_not_identify_clips(clips):
    colour = np.array([clip.background.colours for clip in clips])
    assert np.abs(colour.mean(1) - 118).max() < 0.01, "the same mean over every clip"
    assert np.ptp(colour, axis=1).max(-1).min() > 20


@pytest.mark.parametrize("kind", grammar.KINDS)
def test_silhouettes_are_distinct(kind, clips):
    """Centred silhouettes of equal area overlap by at most 83 %, like a square and a disc."""
    clip = clips[0]

    def silhouette(kind):
        thing = clip.things[0]
        pose = dataclasses.replace(thing.poses[0], x=32.0, y=32.0, radius=10.0, visible=True)
        drawn = dataclasses.replace(
            thing,
            concepts=thing.concepts._replace(kind=kind),
            poses=(pose,) * clip.format.frames,
        )
        return render.masks(dataclasses.replace(clip, things=(drawn, drawn)))[0, 0]

    one = silhouette(kind)
    for other in set(grammar.KINDS) - {kind}:
        two = silhouette(other)
        assert (one & two).sum() / (one | two).sum() < 0.84, other


def test_frames_have_a_fixed_checksum():
    """After a deliberate change of the drawing, update the checksum; otherwise it is a bug."""
    clips = sample_clips("train", 6, seed=0) + sample_clips("test", 6, seed=0)
    digest = hashlib.sha256(b"".join(render.frames(clip).tobytes() for clip in clips))
    assert digest.hexdigest() == "f3603a9088c58b2dbbefda696a197931f98b08430a1f05e6bada8268cb93a016"


def test_other_formats_have_the_same_drawing():
    film = Format(frames=10, fps=5, side=96, clips_per_video=2)
    clip = sample_clips("train", 1, seed=0, format=film)[0]
    assert render.frames(clip).shape == (10, 96, 96, 3)
    assert clip.end_us == 2_000_000


def test_truth_lines_have_masks_boxes_and_words(clips):
    for clip in clips[:12]:
        record = json.loads(truth.line(clip))
        assert (record["video_id"], record["start_us"]) == (clip.video_id, clip.start_us)
        for thing, mask, told in zip(
            clip.things, render.masks(clip), record["objects"], strict=True
        ):
            assert told["phrase"] in clip.caption
            assert (told["colour"], told["kind"], told["motion"]) == thing.concepts
            decoded = np.stack([from_run_lengths(runs, 64, 64) for runs in told["masks"]])
            np.testing.assert_array_equal(decoded, mask)
            np.testing.assert_allclose(told["area_share"], mask.mean((1, 2)), atol=1e-6)
            for box, frame in zip(told["boxes"], mask, strict=True):
                if box is None:
                    assert not frame.any()
                    continue
                x0, y0, x1, y1 = box
                assert frame[y0:y1, x0:x1].sum() == frame.sum()
                assert frame[y0].any() and frame[y1 - 1].any()
                assert frame[:, x0].any() and frame[:, x1 - 1].any()
