"""Versions of all software that affects a snapshot's bytes, as recorded in its manifest."""

from pipelines.building import nouns
from pipelines.decoding import frame_codec, video
from pipelines.errors import UserError
from pipelines.planning import plan
from protos.v1.clip_pb2 import FrameEncoding


class WorkerError(UserError, RuntimeError):
    """A worker whose software would write other bytes than planned."""


def here(spacy_model: str, encoding: FrameEncoding, decoder: str) -> dict[str, str]:
    """Return the software versions of this process.

    Args:
      spacy_model: package name of the spaCy pipeline.
      encoding: encoding of the frames.
      decoder: a key of video.DECODERS.

    Raises:
      FfmpegError: no ffmpeg program can be run.
      NounModelError: the English pipeline is not installed.
    """
    return {
        **video.DECODERS[decoder].version(),
        "pipeline": plan.PIPELINE_VERSION,
        **frame_codec.versions(encoding),
        **nouns.versions(spacy_model),
    }


def check(planned: plan.Plan) -> None:
    """Raise an error if this worker's software versions differ from the planned ones.

    Raises:
      WorkerError: a version differs. The message names both versions.
    """
    own = here(planned.spacy_model, planned.config.frame_encoding, planned.decoder)
    for what, version in planned.versions.items():
        if own.get(what) != version:
            raise WorkerError(
                f"a worker has {what} {own.get(what)}, but the build was planned with {version}: "
                "install the same constraints.txt in the workers' image and on this machine"
            )
