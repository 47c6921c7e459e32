"""The flex template's entry point, which runs `svilm-pipelines build` with its parameters.

The launcher passes each parameter as --name=value, including Beam's options. metadata.json has
their names.
"""

import shlex
import sys
from collections.abc import Sequence

from pipelines.cli.arguments import parsers
from pipelines.cli.main import main


def command(words: Sequence[str]) -> list[str]:
    """Return the command line of svilm-pipelines for the launcher's command line.

    A parameter is an option of `build` with _ instead of -, and `source` is its first argument. A
    parameter with several values has them as shell words. A switch is true or false.

    >>> command(["--source=generic", "--columns=video=clip caption='a text'", "--runner=X"])
    ['build', 'generic', '--columns', 'video=clip', 'caption=a text', '--runner=X']
    """
    _, build = parsers()
    actions = {option: action for action in build._actions for option in action.option_strings}
    source: list[str] = []
    rest: list[str] = []
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        option = f"--{name.replace('_', '-')}"
        action = actions.get(option)
        if name == "source":
            source = [value]
        elif action is None:
            rest.append(word)  # an option of Beam
        elif action.nargs == 0:
            rest += [option] if value == "true" else []
        elif action.nargs == "+":
            rest += [option, *shlex.split(value)]
        else:
            rest.append(f"{option}={value}")
    return ["build", *source, *rest]


if __name__ == "__main__":
    sys.exit(main(command(sys.argv[1:])))
