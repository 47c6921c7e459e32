"""Published weights with the sizes of the presets, from which these are meant to start."""

from typing import NamedTuple


class Weights(NamedTuple):
    """Names on huggingface.co. Pass the downloads as --video-weights and --text-weights."""

    video: str | None  # None: no weights of this size are published
    text: str


WEIGHTS = {
    "paper": Weights("google/vivit-b-16x2-kinetics400", "google-bert/bert-base-uncased"),
    "paper-large": Weights("MCG-NJU/videomae-large", "google-bert/bert-large-uncased"),
    "paper-huge": Weights(None, "google-bert/bert-large-uncased"),
    "base-16": Weights("google/vivit-b-16x2-kinetics400", "google-bert/bert-base-uncased"),
    "small": Weights(
        "MCG-NJU/videomae-small-finetuned-kinetics", "sentence-transformers/all-MiniLM-L6-v2"
    ),
}
"""Weights by preset; a preset without an entry starts at random."""


def describe_missing(preset: str, *, video: bool, text: bool) -> str | None:
    """Return a message about the weights that a preset should start from. None if none is missing.

    Args:
      preset: the name of the preset.
      video: whether the video encoder starts from weights.
      text: whether the text encoder starts from weights.

    >>> describe_missing("small", video=True, text=False)
    'preset small expects published weights, --text-weights all-MiniLM-L6-v2 \
(huggingface.co/sentence-transformers): without them its text encoder starts at random'
    >>> describe_missing("tiny", video=False, text=False)
    """
    weights = WEIGHTS.get(preset)
    if weights is None:
        return None
    missing = {
        kind: name
        for kind, name, given in (("video", weights.video, video), ("text", weights.text, text))
        if name and not given
    }
    if not missing:
        return None
    options = []
    for kind, name in missing.items():
        owner, _, model = name.partition("/")
        options.append(f"--{kind}-weights {model} (huggingface.co/{owner})")
    encoders = f"its {' and '.join(missing)} encoder{'s' * (len(missing) > 1)}"
    return (
        f"preset {preset} expects published weights, {', '.join(options)}: without them "
        f"{encoders} start{'s' * (len(missing) == 1)} at random"
    )
