"""The public Python API of both stages. Each name imports its stage at its first use.

import svilm

model = svilm.load("runs/first")
videos = model.embed_videos(["a.mp4", ("b.mp4", 3.0, 9.5)])  # [2, E]; the second is a span
texts = model.embed_texts(["a red ring is rising"])  # [1, E]
index = svilm.load("indices/test")  # of `svilm-train index`
print(index.search("a red ring is rising", top=3))
snapshot = svilm.open_snapshot("snapshots/train")
print(len(snapshot), snapshot.clip(0).caption)
"""

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protos.v1.clip_pb2 import Clip
    from protos.v1.manifest_pb2 import Manifest
    from trainer.data.snapshot import Snapshot, SnapshotError
    from trainer.index.files import SearchIndexError
    from trainer.index.index import Hit, Index
    from trainer.index.load import load
    from trainer.index.moments import MomentHit
    from trainer.index.queries import Filters, QueryError
    from trainer.inference.api import Model, VideoEmbeddings
    from trainer.inference.video_files import VideoError
    from trainer.runs.checkpoint import CheckpointError
    from trainer.runs.run_folder import RunError
    from trainer.weights.hf_format import WeightsError

__all__ = [
    "CheckpointError",
    "Clip",
    "Filters",
    "Hit",
    "Index",
    "Manifest",
    "Model",
    "MomentHit",
    "QueryError",
    "RunError",
    "SearchIndexError",
    "Snapshot",
    "SnapshotError",
    "VideoEmbeddings",
    "VideoError",
    "WeightsError",
    "load",
    "open_snapshot",
]
__version__ = importlib.metadata.version("svilm")

_MODULES = {
    "CheckpointError": "trainer.runs.checkpoint",
    "Clip": "protos.v1.clip_pb2",
    "Filters": "trainer.index.queries",
    "Hit": "trainer.index.index",
    "Index": "trainer.index.index",
    "Manifest": "protos.v1.manifest_pb2",
    "Model": "trainer.inference.api",
    "MomentHit": "trainer.index.moments",
    "QueryError": "trainer.index.queries",
    "RunError": "trainer.runs.run_folder",
    "SearchIndexError": "trainer.index.files",
    "Snapshot": "trainer.data.snapshot",
    "SnapshotError": "trainer.data.snapshot",
    "VideoEmbeddings": "trainer.inference.api",
    "VideoError": "trainer.inference.video_files",
    "WeightsError": "trainer.weights.hf_format",
    "load": "trainer.index.load",
}
_ROOT = pathlib.Path(__file__).resolve().parents[1]


def open_snapshot(folder: str | os.PathLike[str]) -> "Snapshot":
    """Open a snapshot, whose clips can then be read by index.

    Args:
      folder: a local folder, gs://bucket/folder or s3://bucket/folder.

    Raises:
      SnapshotError: the folder has no complete snapshot of a readable version.
      ImportError: the packages of svilm[trainer] are not installed.
    """
    snapshot: type[Snapshot] = __getattr__("Snapshot")
    return snapshot.open(folder)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'svilm' has no attribute {name!r}")
    module = _MODULES[name]
    for package in dict.fromkeys(("protos", module.partition(".")[0])):
        _import_own(package)
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"svilm.{name} requires the package {error.name}: pip install 'svilm[trainer]'"
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _real(path: str) -> pathlib.Path:
    return pathlib.Path(path).resolve()


def _import_own(package: str) -> None:
    """Import a package from the folder that contains this one, ignoring sys.path.

    A script's own folder comes first on sys.path, and it may well contain a `trainer.py`.
    """
    known = sys.modules.get(package)
    if known is None:
        spec = importlib.machinery.PathFinder.find_spec(package, [os.fspath(_ROOT)])
        assert spec is not None and spec.loader is not None
        known = sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(known)
    elif _ROOT / package not in map(_real, getattr(known, "__path__", ())):
        where = getattr(known, "__file__", None) or "this process"
        raise ImportError(
            f"the module {package!r} of {where} hides svilm's package of the same name: rename it, "
            "or use svilm before importing it"
        )
