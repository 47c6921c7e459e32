"""The versions of everything that shapes a snapshot's bytes: its manifest names them."""

from pipelines.building import nouns
from pipelines.decoding import frame_codec, video
from pipelines.planning import plan
from protos.v1.clip_pb2 import FrameEncoding


class WorkerError(RuntimeError):
    """A worker that would write other bytes than were planned."""


def here(spacy_model: str, encoding: FrameEncoding, decoder: str) -> dict[str, str]:
    """Those of this process, for a choice of each: `decoder` is a name of video.DECODERS.

    Raises:
      FfmpegError: there is no ffmpeg that runs.
      NounModelError: the English pipeline is not installed.
    """
    return {
        **video.DECODERS[decoder].version(),
        "pipeline": plan.PIPELINE_VERSION,
        **frame_codec.versions(encoding),
        **nouns.versions(spacy_model),
    }


def check(planned: plan.Plan) -> None:
    """Refuses to work where another version is than where the build was planned.

    Raises:
      WorkerError: naming both.
    """
    own = here(planned.spacy_model, planned.config.frame_encoding, planned.decoder)
    for what, version in planned.versions.items():
        if own.get(what) != version:
            raise WorkerError(
                f"this worker has {what} {own.get(what)}, and the build was planned with "
                f"{version}: make the workers' image and the environment of the command from the "
                "same constraints.txt"
            )
