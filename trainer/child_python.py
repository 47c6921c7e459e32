"""How this project starts Python: with the modules that it has itself, and no others.

Python puts the working folder first among the places of modules, where a user may well have a
random.py; a child must neither run that nor stumble over it. `pipelines` has a copy: the stages
share only schemas.
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


def keep_to_it() -> None:
    """Keeps what libraries start from here on, as multiprocessing does, to the same rule."""
    os.environ["PYTHONSAFEPATH"] = "1"


def command(module: str) -> tuple[str, ...]:
    """What runs a module as a program; arguments may follow."""
    return (sys.executable, "-P", "-c", _START, json.dumps(places()), module)


@functools.cache
def places() -> list[str]:
    """Where modules are imported from: as here, but from the working folder last, if at all.

    >>> os.getcwd() in places()[:1]
    False
    """
    own = str(Path(__file__).resolve().parents[1])
    installed = {*sysconfig.get_paths().values(), *site.getsitepackages()}
    installed.add(site.getusersitepackages())
    folders = [os.path.abspath(place) for place in sys.path]
    kept = [folder for folder in folders if folder != os.getcwd() or folder in installed]
    return [*dict.fromkeys(kept if own in kept else [*kept, own])]
