"""The program `python -m svilm`, which lists the commands."""

import sys

import svilm

_COMMANDS = f"""\
svilm {svilm.__version__}: video-language pre-training with spatial grounding and temporal grouping.

  svilm-pipelines   builds a snapshot from annotation files and videos: --help lists its commands
  svilm-train       trains on snapshots, evaluates and exports: --help lists its commands
  import svilm      loads a trained model in Python: help(svilm)
"""


def main() -> int:
    """Print the version or the list of commands.

    Returns:
      The exit status: 0 for no argument, --help and --version, 2 for others.
    """
    words = sys.argv[1:]
    if words == ["--version"]:
        print(f"svilm {svilm.__version__}")
        return 0
    if words in ([], ["--help"], ["-h"]):
        print(_COMMANDS, end="")
        return 0
    print(
        f"svilm: error: unknown argument {words[0]!r}: use one of these commands\n{_COMMANDS}",
        end="",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
