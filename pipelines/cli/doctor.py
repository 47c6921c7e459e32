"""Report of what a build needs from a machine: sandbox layers, decoders and parsers."""

import importlib.metadata
from collections.abc import Iterator, Mapping

from pipelines.decoding import ffmpeg
from pipelines.decoding.sandbox import LAYERS, fork_client


def lines(missing: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table of sandbox layers, then of program and package versions.

    Args:
      missing: reason by layer, for each layer that does not hold.

    >>> print([*lines({"landlock": "Function not implemented"})][7])
    landlock           no   Function not implemented
    """
    yield f"{'layer':18} active"
    for layer, purpose in LAYERS.items():
        if why := missing.get(layer):
            yield f"{layer:18} no   {why}"
        else:
            yield f"{layer:18} yes  {purpose}"
    for package in ("av", "spacy", "apache-beam"):
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} is not installed: pip install 'svilm[pipelines]'"
    try:
        line = f"ffmpeg {ffmpeg.version()} ({ffmpeg.executable()})"
        less = ffmpeg.known().program.missing
        yield f"{line}: {fork_client.described(less)} around it" if less else line
    except ffmpeg.FfmpegError as error:
        yield str(error)
