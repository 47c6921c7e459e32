"""Published weights whose sizes presets have: what they are meant to start from."""

from typing import NamedTuple


class Weights(NamedTuple):
    """Names on huggingface.co, to be given as --video-weights and --text-weights once there."""

    video: str | None  # None: none of the size is published
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
"""By preset; one that is not here starts at random."""


def describe_missing(preset: str, *, video: bool, text: bool) -> str | None:
    """Return what a preset is meant to start from and does not; None: it has all of it.

    Args:
      preset: its name.
      video: whether the video encoder starts from weights.
      text: whether the text encoder does.

    >>> describe_missing("small", video=True, text=False)
    'small is meant to start from published weights: --text-weights all-MiniLM-L6-v2 \
(huggingface.co/sentence-transformers); without them its text encoder starts at random'
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
        f"{preset} is meant to start from published weights: {', '.join(options)}; without them "
        f"{encoders} start{'s' * (len(missing) == 1)} at random"
    )
