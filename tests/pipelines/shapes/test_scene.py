"""Captions of Shapes: splits, families and words."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from pipelines.building.nouns import NounParser, default_model
from pipelines.shapes import ShapesError, grammar
from pipelines.shapes.grammar import Named
from pipelines.shapes.lines import FAMILY, RESERVED_TEST_CLIPS
from pipelines.shapes.scene import sample_clips

TEST_CLIPS = 600


@pytest.fixture(scope="module")
def test_clips():
    return sample_clips("test", TEST_CLIPS, seed=0)


@pytest.fixture(scope="module")
def train_clips():
    return sample_clips("train", 2_400, seed=0)


def told(clip):
    """Return a scene's concepts, independent of the objects' order."""
    return frozenset(thing.concepts for thing in clip.things)


def slots(named):
    return [word for thing in named for word in thing]


def test_every_word_names_one_concept():
    words = [w for by_concept in grammar.WORDS.values() for ws in by_concept.values() for w in ws]
    assert len(words) == len(set(words))
    assert all(len(by_concept) > FAMILY for by_concept in grammar.WORDS.values())


def test_captions_and_scenes_of_the_test_split_are_distinct(test_clips):
    assert len({clip.caption for clip in test_clips}) == TEST_CLIPS
    assert len({told(clip) for clip in test_clips}) == TEST_CLIPS


def test_every_test_clip_has_five_others_that_differ_in_one_word(test_clips):
    words = np.array([clip.caption.rstrip(".").split() for clip in test_clips], dtype=object)
    lengths = {len(caption) for caption in words}
    changed = Counter()
    for length in lengths:
        group = [i for i, caption in enumerate(words) if len(caption) == length]
        captions = np.array([words[i] for i in group])
        differing = (captions[:, None] != captions[None]).sum(-1)
        assert (np.count_nonzero(differing == 1, axis=1) >= FAMILY - 1).all()
        for a, b in np.argwhere(differing == 1):
            first, second = test_clips[group[a]], test_clips[group[b]]
            concepts = [slots(thing.concepts for thing in clip.things) for clip in (first, second)]
            (place,) = [i for i in range(6) if concepts[0][i] != concepts[1][i]]
            changed[place] += 1
    assert set(changed) == set(range(6)), "every slot of both objects takes its turn"


def test_splits_share_no_scene_whatever_the_counts(train_clips):
    reserved = sample_clips("test", RESERVED_TEST_CLIPS, seed=0)
    assert not {told(clip) for clip in train_clips} & {told(clip) for clip in reserved}


@pytest.mark.parametrize("split", ["train_clips", "test_clips"])
def test_objects_differ_and_do_not_touch(split, request):
    sides = Counter()
    for clip in request.getfixturevalue(split):
        first, second = clip.things
        assert first.concepts.colour != second.concepts.colour
        assert first.concepts.kind != second.concepts.kind
        for thing in clip.things:
            assert len(thing.poses) == clip.format.frames
            for pose in thing.poses:
                reach = pose.radius * 1.08
                assert reach <= pose.x <= clip.format.side - reach
                assert reach <= pose.y <= clip.format.side - reach
        for a, b in zip(first.poses, second.poses, strict=True):
            assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius
        sides[first.poses[0].x < second.poses[0].x] += 1
    assert 0.4 < sides[True] / sides.total() < 0.6, "order of mention must not tell the side"


def test_clips_depend_only_on_seed_split_and_index():
    few, many = sample_clips("train", 7, seed=3), sample_clips("train", 20, seed=3)
    assert few == many[:7]
    assert sample_clips("train", 7, seed=4) != few
    assert {c.video_id for c in few}.isdisjoint(
        c.video_id for seed in (3, 4) for c in sample_clips("test", 12, seed=seed)
    )


def test_clips_of_a_video_are_contiguous():
    clips = sample_clips("train", 14, seed=0)
    for _, video in itertools.groupby(clips, key=lambda clip: clip.video_id):
        video = list(video)
        assert video[0].start_us == 0
        assert all(a.end_us == b.start_us for a, b in itertools.pairwise(video))


@pytest.mark.parametrize("count", [-6, 7, RESERVED_TEST_CLIPS + FAMILY])
def test_impossible_test_counts_are_refused(count):
    with pytest.raises(ShapesError, match=f"is {count}: it must be a multiple of {FAMILY}"):
        sample_clips("test", count, seed=0)


def test_spacy_finds_exactly_the_two_objects_in_every_form_with_every_word():
    words = {
        slot: [word for synonyms in grammar.WORDS[slot].values() for word in synonyms]
        for slot in grammar.SLOTS
    }
    rng = random.Random(0)
    sentences, phrases = [], []
    for form, colour, kind in itertools.product(grammar.FORMS, words["colour"], words["kind"]):
        for one_first in (True, False):
            one = Named(colour, kind, rng.choice(words["motion"]))
            other = Named(*(rng.choice(words[slot]) for slot in grammar.SLOTS))
            pair = (one, other) if one_first else (other, one)
            sentences.append(grammar.caption(form, *pair))
            phrases.append([thing.phrase for thing in pair])
    for form, motion, kind in itertools.product(grammar.FORMS, words["motion"], words["kind"]):
        one = Named(rng.choice(words["colour"]), kind, motion)
        other = Named(*(rng.choice(words[slot]) for slot in grammar.SLOTS))
        sentences.append(grammar.caption(form, one, other))
        phrases.append([one.phrase, other.phrase])
    parser = NounParser(default_model(), templates=())
    chunks = parser.parse(sentences)
    wrong = {
        sentence: found
        for sentence, expected in zip(sentences, phrases, strict=True)
        if (found := [chunk.text for chunk in chunks[sentence]]) != expected
    }
    assert not wrong
