"""Start of child Python processes with the parent's module path, without the working folder.

Python puts the working folder first on sys.path, and a user may have a random.py there. A child
must not import it. `trainer` has a copy because the stages share only schemas.
"""

import functools
import json
import os
import site
import sys
import sysconfig
from pathlib import Path

_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); module = sys.argv[2]; "
    "del sys.argv[1:3]; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def hide_working_folder() -> None:
    """Keep the working folder off sys.path in child processes that libraries start from now on.

    One such library is multiprocessing.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module as a program; arguments may be appended."""
    return (sys.executable, "-P", "-c", _START, json.dumps(module_path()), module)


@functools.cache
def module_path() -> list[str]:
    """Return sys.path without the working folder, or with it last if it holds this project.

    A folder of installed packages keeps its position, even if it is the working folder.

    >>> os.getcwd() in module_path()[:1]
    False
    """
    own = str(Path(__file__).resolve().parents[2])
    installed = {*sysconfig.get_paths().values(), *site.getsitepackages()}
    installed.add(site.getusersitepackages())
    folders = [os.path.abspath(place) for place in sys.path]
    kept = [folder for folder in folders if folder != os.getcwd() or folder in installed]
    return [*dict.fromkeys(kept if own in kept else [*kept, own])]
