"""A package of the pipelines for Dataflow workers without a custom image.

    svilm-pipelines build … --runner DataflowRunner --setup_file deploy/dataflow/setup.py

In the repository, it packs the sources and pins the dependencies to the installed versions, which
planned the build. On a worker, it installs both. Each worker spends some minutes on this at its
start, over the network. An image (Dockerfile) starts sooner.
"""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import setuptools

REQUIREMENTS = Path("requirements.txt")  # requirements of the new package, beside its setup.py
PACKAGES = ("pipelines", "protos")


def pack(folder: Path) -> None:
    """Write the sources and requirements to a folder from which setuptools builds the package."""
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
        version="0",  # The package serves only one job.
        packages=setuptools.find_packages(include=[f"{package}*" for package in PACKAGES]),
        package_data={"protos": ["py.typed"], "pipelines": ["snapshots/card/page.html"]},
        install_requires=REQUIREMENTS.read_text("utf-8").split(),
    )
