"""Reader of one feature of a whole snapshot, from a folder of `svilm-train embed`, row by row.

Rows are read from the shards on demand, so memory does not grow with the snapshot.
"""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from protos.strict_json import first_line, parse_object
from trainer.data.snapshot import Snapshot
from trainer.inference.features import MANIFEST, FeaturesError


class FeatureRows:
    """The rows of a feature, one per record of its snapshot, in the snapshot's order."""

    def __init__(self, folder: pathlib.Path, name: str, snapshot: Snapshot) -> None:
        """Open a feature.

        Args:
          folder: a complete folder of `svilm-train embed`.
          name: the feature, such as "clip".
          snapshot: the snapshot that the features are of.

        Raises:
          FeaturesError: the folder is incomplete, damaged or of another snapshot, or lacks the
            feature.
        """
        self._folder, self._name = folder, name
        try:
            manifest = parse_object((folder / MANIFEST).read_bytes())
            shapes, self.made_from = manifest["features"], manifest["made_from"]
            shards = [(str(shard["name"]), int(shard["clips"])) for shard in manifest["shards"]]
            of = self.made_from["manifest_sha256"]
            shape = shapes.get(name)
        except FileNotFoundError:
            raise FeaturesError(
                f"{folder / MANIFEST} is missing: check that svilm-train embed has completed "
                f"{folder}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(MANIFEST, error) from None
        if of != snapshot.manifest_sha256:
            raise FeaturesError(
                f"{folder} has features of another snapshot than {snapshot.folder}: run "
                "svilm-train embed on this one"
            )
        if shape is None:
            raise FeaturesError(
                f"{folder} has no feature {name}, only {', '.join(shapes)}: run svilm-train embed "
                f"--feature {name} with another --out"
            )
        self.shape: tuple[int, ...] = tuple(shape)  # of a row
        self._names = [pathlib.PurePath(shard).name for shard, _ in shards]
        self._starts = np.cumsum([0, *(clips for _, clips in shards)])
        if len(self) != len(snapshot):
            why = ValueError(f"it has {len(self)} rows for {len(snapshot)} clips")
            raise self._damaged(MANIFEST, why)
        self._offsets: dict[int, int] = {}  # of the tensor in each shard's file, in bytes

    def __len__(self) -> int:
        return int(self._starts[-1])

    def at(self, records: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n *shape"]:
        """Return the rows of some records, in their order.

        Raises:
          FeaturesError: a shard is missing or damaged.
        """
        found = np.empty((len(records), *self.shape), np.float32)
        shards = np.searchsorted(self._starts, records, side="right") - 1
        for shard in np.unique(shards):
            mine = shards == shard
            found[mine] = self._open(int(shard))[records[mine] - self._starts[shard]]
        return found

    def _open(self, shard: int) -> np.ndarray:
        path = self._folder / self._names[shard]
        shape = (int(self._starts[shard + 1] - self._starts[shard]), *self.shape)
        try:
            if shard not in self._offsets:
                self._offsets[shard] = self._offset(path, shape)
            return np.memmap(path, "<f4", "r", self._offsets[shard], shape)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path.name, error) from None

    def _offset(self, path: pathlib.Path, shape: tuple[int, ...]) -> int:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < path.stat().st_size:
                raise ValueError("its header has no length")
            header: dict[str, Any] = parse_object(file.read(length))
        about = header[self._name]
        begin, end = about["data_offsets"]
        rows = (about["dtype"], tuple(about["shape"]), end - begin)
        if rows != ("F32", shape, 4 * int(np.prod(shape))) or begin < 0:
            raise ValueError(f"its {self._name} is {rows}, not float32 {shape}")
        if parse_object(header["__metadata__"]["made_from"]) != self.made_from:
            raise ValueError("it was made from something else than features.json states")
        return 8 + length + begin

    def _damaged(self, name: str, error: Exception) -> FeaturesError:
        return FeaturesError(
            f"{self._folder / name} is missing or damaged ({first_line(error)}): run svilm-train "
            "embed again"
        )
