"""Messages of a build about its decoder sandbox: one at the start, one at the end."""

import sys
from collections.abc import Mapping, Sequence

from pipelines.cli.commands import PROGRAM, CommandError


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
    told = f"{fork_client.told(missing)}; see `{PROGRAM} doctor`"
    if required:
        raise CommandError(f"--require-sandbox: {told}")
    print(
        f"{PROGRAM}: warning: decoders are confined less than they could be: {told}",
        file=sys.stderr,
    )


def told(unconfined: Sequence[str]) -> str:
    """Return a line that states which sandbox layers the decoders lacked.

    Args:
      unconfined: layers that were missing in at least one worker.

    >>> told(("landlock",))
    'videos were decoded in a sandbox without landlock'
    """
    if unconfined:
        return f"videos were decoded in a sandbox without {', '.join(unconfined)}"
    return "videos were decoded in the sandbox, of which every layer held"


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
