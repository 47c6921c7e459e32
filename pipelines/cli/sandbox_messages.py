"""Messages of a build about the sandbox of its decoders: one at the start, one at the end."""

import sys
from collections.abc import Mapping, Sequence

from pipelines.cli.commands import PROGRAM, CommandError


def check(decoder: str, required: bool) -> None:
    """Tell which layers are missing here, around a decoder of video.DECODERS.

    Raises:
      CommandError: one is missing, and all are required.
    """
    from pipelines.decoding.sandbox import fork_server

    if not (missing := _missing(decoder)):
        return
    told = f"{fork_server.told(missing)}; see `{PROGRAM} doctor`"
    if required:
        raise CommandError(f"--require-sandbox: {told}")
    print(
        f"{PROGRAM}: warning: decoders are confined less than they could be: {told}",
        file=sys.stderr,
    )


def told(unconfined: Sequence[str]) -> str:
    """Return a line that names the sandbox layers around the decoders.

    Args:
      unconfined: layers that were missing in some worker.

    >>> told(("landlock",))
    'videos were decoded in a sandbox without landlock'
    """
    if unconfined:
        return f"videos were decoded in a sandbox without {', '.join(unconfined)}"
    return "videos were decoded in the sandbox, of which every layer held"


def _missing(decoder: str) -> Mapping[str, str]:
    from pipelines.decoding import ffmpeg
    from pipelines.decoding.sandbox import fork_server

    missing = fork_server.missing_here()
    if decoder == "ffmpeg":
        try:
            return {**ffmpeg.known().program.missing, **missing}
        except ffmpeg.FfmpegError as error:
            raise CommandError(str(error)) from None
    return missing
