"""Actions of *Shapes* in UCF101's and HMDB51's formats: clips in which both objects move alike.

    ucf101/classInd.txt, {train,test}list0{1,2,3}.txt       lines end with CR and LF, as in UCF101
    hmdb51/<Class>_test_split{1,2,3}.txt, hmdb51.csv        0: neither train nor test

A class has nine groups of clips. The test clips of split N are every third group, from the N-th on.
"""

from collections.abc import Sequence

from pipelines.shapes import grammar
from pipelines.shapes.scene import Clip

CLASSES = tuple(motion.capitalize() for motion in grammar.MOTIONS)
_GROUPS = 9
_UNUSED = 10  # One in this many clips is in neither part, as HMDB51 has such clips.


def files(clips: Sequence[Clip]) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    written = {
        "ucf101/classInd.txt": "".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, 1))
    }
    for split in (1, 2, 3):
        train, test = "", ""
        for clip in clips:
            if _is_test(clip, split):
                test += f"{path(clip)}\r\n"
            else:
                train += f"{path(clip)} {CLASSES.index(_class(clip)) + 1}\r\n"
        written[f"ucf101/trainlist0{split}.txt"] = train
        written[f"ucf101/testlist0{split}.txt"] = test
        for name in CLASSES:
            written[f"hmdb51/{name}_test_split{split}.txt"] = "".join(
                f"{_file(clip)} {_use(clip, split)} \n" for clip in clips if _class(clip) == name
            )
    rows = [
        f"{_file(clip)},{_class(clip)}_test,{','.join(_use(clip, split) for split in (1, 2, 3))}\n"
        for clip in clips
    ]
    written["hmdb51/hmdb51.csv"] = "video_id,label,split1,split2,split3\n" + "".join(rows)
    return written


def path(clip: Clip) -> str:
    """Return the path of a clip's file in the actions' folder.

    >>> from pipelines.shapes import scene
    >>> path(scene.sample_actions(8, seed=0)[7])
    'Rising/v_Rising_g02_c01.mp4'
    """
    return f"{_class(clip)}/{_file(clip)}"


def _class(clip: Clip) -> str:
    return clip.things[0].concepts.motion.capitalize()


def _group(clip: Clip) -> int:
    return clip.index // len(CLASSES) % _GROUPS + 1


def _file(clip: Clip) -> str:
    number = clip.index // (len(CLASSES) * _GROUPS) + 1
    return f"v_{_class(clip)}_g{_group(clip):02d}_c{number:02d}.mp4"


def _is_test(clip: Clip, split: int) -> bool:
    return (_group(clip) - split) % 3 == 0


def _use(clip: Clip, split: int) -> str:
    if clip.index % _UNUSED == _UNUSED - 1:
        return "0"
    return "2" if _is_test(clip, split) else "1"
