"""Python child processes that import the parent's modules and no others.

Python puts the working folder first on the module search path, where a user may have a random.py.
A child must neither run that file nor fail because of it. `pipelines` has a copy of this module:
the stages share only schemas.
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
    """Apply the same rule to processes that libraries start, such as multiprocessing's."""
    os.environ["PYTHONSAFEPATH"] = "1"


def command(module: str) -> tuple[str, ...]:
    """Return a command that runs a module as a program. Arguments may follow."""
    return (sys.executable, "-P", "-c", _START, json.dumps(module_path()), module)


@functools.cache
def module_path() -> list[str]:
    """Return the module search path, without the working folder at its start.

    The working folder stays only if it is one of Python's own module folders. The folder of this
    project is appended if it is missing.

    >>> os.getcwd() in module_path()[:1]
    False
    """
    own = str(Path(__file__).resolve().parents[1])
    installed = {*sysconfig.get_paths().values(), *site.getsitepackages()}
    installed.add(site.getusersitepackages())
    folders = [os.path.abspath(place) for place in sys.path]
    kept = [folder for folder in folders if folder != os.getcwd() or folder in installed]
    return [*dict.fromkeys(kept if own in kept else [*kept, own])]
