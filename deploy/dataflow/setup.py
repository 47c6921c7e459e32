"""The pipelines as a package for Dataflow's workers, where there is no image of them.

    svilm-pipelines build … --runner DataflowRunner --setup_file deploy/dataflow/setup.py

In the repository it packs the sources, and the names of the very versions that are installed beside
them, as these planned the build; on a worker it installs both. Each worker does so as it starts,
for some minutes and over the network: an image (Dockerfile) starts sooner.
"""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import setuptools

REQUIREMENTS = Path("requirements.txt")  # of the package that is made, beside its setup.py
PACKAGES = ("pipelines", "protos")


def pack(folder: Path) -> None:
    """Makes a folder of which setuptools can make a package."""
    from packaging.requirements import Requirement

    from pipelines.building import nouns

    here = Path(__file__).resolve()
    for package in PACKAGES:
        shutil.copytree(
            here.parents[2] / package,
            folder / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(here, folder)
    wanted = (Requirement(line) for line in importlib.metadata.requires("svilm") or ())
    names = {
        requirement.name
        for requirement in wanted
        if not requirement.marker or requirement.marker.evaluate({"extra": "pipelines"})
    }
    pinned = {f"{name}=={importlib.metadata.version(name)}" for name in names | {nouns.BY_NAME}}
    (folder / REQUIREMENTS).write_text("\n".join(sorted(pinned)) + "\n")
    (folder / "MANIFEST.in").write_text(f"include {REQUIREMENTS}\n")


with tempfile.TemporaryDirectory() as folder:
    if not REQUIREMENTS.exists():
        pack(Path(folder))
        os.chdir(folder)
    setuptools.setup(
        name="svilm-workers",
        version="0",  # it is made for one job
        packages=setuptools.find_packages(include=[f"{package}*" for package in PACKAGES]),
        package_data={"protos": ["py.typed"], "pipelines": ["snapshots/card/page.html"]},
        install_requires=REQUIREMENTS.read_text("utf-8").split(),
    )
