"""Sentences about the motions in *Shapes*' untrimmed videos, in ActivityNet Captions' format.

    activitynet_captions/{train,val_1}.json     {"v_<id>": {"duration", "timestamps", "sentences"}}

Each segment of `segments.py` has one sentence about both objects. The test split is val_1.
"""

import json
from collections.abc import Sequence

from pipelines.shapes import draws, grammar, lines
from pipelines.shapes.draws import SPLIT_KEYS, Split
from pipelines.shapes.scene import Piece, Untrimmed

_FILES: dict[Split, str] = {"train": "train", "test": "val_1"}


def files(videos: Sequence[Untrimmed], seed: int) -> dict[str, str]:
    """Return the texts of the annotation files by their paths in the tasks' folder."""
    return {
        f"activitynet_captions/{name}.json": json.dumps(
            {f"v_{one.video_id}": _entry(one, seed) for one in videos if one.split == split}
        )
        for split, name in _FILES.items()
    }


def _entry(video: Untrimmed, seed: int) -> dict[str, object]:
    pieces = [(place, piece) for place, piece in enumerate(video.pieces) if piece.motion]
    return {
        "duration": video.end_us / 1e6,
        "timestamps": [[piece.start_us / 1e6, piece.end_us / 1e6] for _, piece in pieces],
        "sentences": [_sentence(piece, place, seed) for place, piece in pieces],
    }


def _sentence(piece: Piece, place: int, seed: int) -> str:
    """Describe a piece with any words for its concepts: the pieces' own captions have only one."""
    split = SPLIT_KEYS[piece.clip.split]
    rng = draws.generator(seed, draws.MOMENTS_KEY, split, piece.clip.index, place)
    first, second = (lines.synonyms(rng, thing.concepts) for thing in piece.clip.things)
    return grammar.caption(draws.choice(rng, grammar.FORMS), first, second)
