"""Messages of a build about its decoder sandbox: one at the start, one at the end."""

from collections.abc import Mapping, Sequence

from pipelines.cli.commands import PROGRAM, CommandError
from pipelines.messages import warn


def check(decoder: str, required: bool) -> None:
    """Warn about sandbox layers that are missing on this machine.

    Args:
      decoder: a key of video.DECODERS.
      required: raise an error instead of a warning.

    Raises:
      CommandError: a layer is missing and `required` is true.
    """
    from pipelines.decoding.sandbox import fork_client

    if not (missing := _missing(decoder)):
        return
    layers = f"{fork_client.described(missing)}: run `{PROGRAM} doctor` for details"
    if required:
        raise CommandError(f"--require-sandbox: {layers}")
    warn(f"{PROGRAM}: warning: the decoders' sandbox is incomplete: {layers}")


def summary(unconfined: Sequence[str]) -> str:
    """Return a line that states which sandbox layers the decoders lacked.

    Args:
      unconfined: layers that were missing in at least one worker.

    >>> summary(("landlock",))
    'the sandbox of the decoders lacked landlock'
    """
    if unconfined:
        return f"the sandbox of the decoders lacked {', '.join(unconfined)}"
    return "the sandbox of the decoders had all layers"


def _missing(decoder: str) -> Mapping[str, str]:
    from pipelines.decoding import ffmpeg
    from pipelines.decoding.sandbox import fork_client

    missing = fork_client.missing_here()
    if decoder == "ffmpeg":
        try:
            return {**ffmpeg.known().program.missing, **missing}
        except ffmpeg.FfmpegError as error:
            raise CommandError(str(error)) from None
    return missing
