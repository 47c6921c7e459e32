"""Questions about *Shapes* clips in MSRVTT-QA's and MSVD-QA's formats.

    msrvtt_qa/{train,val,test}_qa.json      video_id N is videoN; val is the last tenth of train
    msvd_qa/{train,val,test}_qa.json        video_id N is vidN, from 1
    msvd_qa/youtube_mapping.txt             the video of each vidN

All answers are one word. Most are the 27 concepts, numbers and sides. Some are synonyms from the
clip's caption, so that a vocabulary of the common answers lacks about 3 % of the answers.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.shapes import draws, grammar, scene
from pipelines.shapes.scene import Clip

RARE = 0.12  # probability of answering with the caption's word instead of the concept
_NUMBERS = ("zero", "one", "two")


def files(train: Sequence[Clip], test: Sequence[Clip], seed: int) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    clips = [*train, *test]
    asked = [[*questions(clip, seed)] for clip in clips]
    val = len(train) - len(train) // 10
    splits = {
        "train": range(val),
        "val": range(val, len(train)),
        "test": range(len(train), len(clips)),
    }
    written, number = {}, 0
    for split, videos in splits.items():
        rows = []
        for video in videos:
            for question, answer in asked[video]:
                rows.append((number, video, question, answer))
                number += 1
        msrvtt = [
            {"answer": a, "category_id": 0, "id": i, "question": q, "video_id": video}
            for i, video, q, a in rows
        ]
        msvd = [
            {"answer": a, "id": i, "question": q, "video_id": video + 1} for i, video, q, a in rows
        ]
        written[f"msrvtt_qa/{split}_qa.json"] = json.dumps(msrvtt)
        written[f"msvd_qa/{split}_qa.json"] = json.dumps(msvd)
    mapping = "".join(f"video{video} vid{video + 1}\n" for video in range(len(clips)))
    return {**written, "msvd_qa/youtube_mapping.txt": mapping}


def questions(clip: Clip, seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of question and answer, of the types what, how, which and where.

    >>> for pair in questions(scene.sample_clips("train", 1, seed=0)[0], seed=0): print(*pair)
    what colour is the pyramid? white
    what is the white pyramid doing? blinking
    which object is blinking? triangle
    how many objects are growing? zero
    where is the yellow cross? right
    """
    rng = scene.generator_of(clip, seed, draws.QUESTIONS_KEY)

    def either() -> int:
        return int(rng.integers(2))

    def answer(thing: int, slot: grammar.Slot) -> str:
        of = clip.things[thing].words if rng.uniform() < RARE else clip.things[thing].concepts
        return getattr(of, slot)

    words = [thing.words for thing in clip.things]
    motions = [thing.concepts.motion for thing in clip.things]
    thing = either()
    yield f"what colour is the {words[thing].kind}?", answer(thing, "colour")
    thing = either()
    yield f"what is the {words[thing].phrase} doing?", answer(thing, "motion")
    thing = either()
    if motions[0] != motions[1]:
        yield f"which object is {words[thing].motion}?", answer(thing, "kind")
    motion = draws.choice(rng, (*motions, draws.choice(rng, [*grammar.MOTIONS])))
    yield f"how many objects are {motion}?", _NUMBERS[motions.count(motion)]
    thing = either()
    yield f"where is the {words[thing].phrase}?", _side(clip, thing)


def _side(clip: Clip, thing: int) -> str:
    """Return the half of the frame in which an object stays."""
    middle = np.mean([pose.x for pose in clip.things[thing].poses])
    return "left" if middle < clip.format.side / 2 else "right"
