"""Sentences about *Shapes* clips in MSR-VTT's and MSVD's formats, several per clip.

MSRVTT_data.json            all clips: {"videos": […], "sentences": […]}
MSRVTT_train.csv            train clips, a list with the column video_id
MSRVTT_JSFUSION_test.csv    test clips with one sentence each, in 1k-A's format
MSR_VTT.json, train_list_jsfusion.txt, val_list_jsfusion.txt    the same in Frozen in Time's format
AllVideoDescriptions.txt, train_list.txt, test_list.txt         the same in MSVD's format
"""

import json
from collections.abc import Sequence

import numpy as np

from pipelines.shapes import draws, grammar, lines, scene
from pipelines.shapes.scene import Clip

SENTENCES = 4  # number of sentences per clip


def files(train: Sequence[Clip], test: Sequence[Clip], seed: int) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    clips = [*train, *test]
    names = [f"video{number}" for number in range(len(clips))]
    said = [sentences(clip, seed) for clip in clips]
    pairs = [(name, one) for name, each in zip(names, said, strict=True) for one in each]
    trained, tested = names[: len(train)], names[len(train) :]
    videos = [
        {
            "id": number,
            "video_id": name,
            "category": 0,
            "url": "",
            "start time": 0.0,
            "end time": clip.format.clip_us / 1e6,
            "split": "train" if number < len(train) else "test",
        }
        for number, (name, clip) in enumerate(zip(names, clips, strict=True))
    ]
    sentence_entries = [
        {"sen_id": number, "video_id": name, "caption": one}
        for number, (name, one) in enumerate(pairs)
    ]
    annotations = [
        {"id": number, "image_id": name, "caption": one} for number, (name, one) in enumerate(pairs)
    ]
    rows = [
        f'ret{number},msr{name.removeprefix("video")},{name},"{each[0]}"\n'
        for number, (name, each) in enumerate(zip(tested, said[len(train) :], strict=True))
    ]
    return {
        "msrvtt/MSRVTT_data.json": json.dumps({"videos": videos, "sentences": sentence_entries}),
        "msrvtt/MSRVTT_train.csv": _lines(["video_id", *trained]),
        "msrvtt/MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\n" + "".join(rows),
        "msrvtt/MSR_VTT.json": json.dumps({"annotations": annotations}),
        "msrvtt/train_list_jsfusion.txt": _lines(trained),
        "msrvtt/val_list_jsfusion.txt": _lines(tested),
        "msvd/AllVideoDescriptions.txt": _lines([f"{name} {one}" for name, one in pairs]),
        "msvd/train_list.txt": _lines(trained),
        "msvd/test_list.txt": _lines(tested),
    }


def sentences(clip: Clip, seed: int) -> list[str]:
    """Return the clip's caption, and sentences with other words, forms and orders for its scene.

    >>> for one in sentences(scene.sample_clips("train", 1, seed=0)[0], seed=0)[:2]: print(one)
    While a yellow cross is falling, a white pyramid is blinking.
    A white triangle is blinking while a yellow crucifix is sinking.
    """
    said = [clip.caption]
    for number in range(1, SENTENCES):
        rng = scene.generator_of(clip, seed, draws.SENTENCES_KEY, number)
        said.append(_sentence(clip, rng))
    return said


def _sentence(clip: Clip, rng: np.random.Generator) -> str:
    form = draws.choice(rng, grammar.FORMS)
    words = [lines.synonyms(rng, thing.concepts) for thing in clip.things]
    first = int(rng.integers(2))
    return grammar.caption(form, words[first], words[1 - first])


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
