"""The commands that benchmarks/kills.py kills, on tiny data, and the outputs that it compares."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_SCRIPTS = pathlib.Path(sys.executable).parent
# A training run's time metrics, which differ between runs.
_TIMES = ("seconds", "step_seconds", "clips_per_second", "input_wait", "utilisation")


class Command(NamedTuple):
    """A command, its arguments, and the parts of its output that must be equal."""

    name: str
    stage: str  # "pipelines" or "trainer"
    arguments: Callable[[pathlib.Path, pathlib.Path], list[str]]  # from the data and output paths
    outcome: Callable[[pathlib.Path], dict[str, Any]]  # from the output path

    @property
    def module(self) -> str:
        """The module whose `main` is the console script."""
        return f"{self.stage}.cli.main"

    @property
    def preload(self) -> tuple[str, ...]:
        """The modules that the forking process imports."""
        return _PRELOAD[self.stage]


_PRELOAD = {
    "pipelines": (
        "pipelines.cli.main",
        "pipelines.building.graph",
        "pipelines.building.runners",
        "pipelines.snapshots.export.parquet",
        "pipelines.snapshots.export.sequence_example",
        "pipelines.snapshots.export.webdataset",
    ),
    "trainer": (
        "trainer.cli.main",
        "trainer.training.loop",
        "trainer.inference.features",
        "trainer.index.build",
        "trainer.figures.write",
        "trainer.report.page",
        "trainer.tasks.finetuning",
        "trainer.tasks.localisation.training",
        "trainer.data.cpu_tensorflow",
    ),
}

_FRAMES = ("--frames", "8", "--short-side", "24")
# These are the settings of tests/conftest.py, with which a step compiles in seconds.
_TOY = tuple(
    word
    for setting in (
        *("video.width=16", "video.layers=1", "video.heads=2", "video.mlp_width=32"),
        *("video.group_tokens=4", "video.grouping_after=1", "video.frames=8"),
        *("video.resolution=24", "input.short_side=24", "cut_and_paste.from_step=0"),
        *("text.width=16", "text.layers=1", "text.heads=2", "text.mlp_width=32"),
        *("joint_width=16", "batch=8", "optimizer.name=adamw"),
        *("log_every=1", "checkpoint_every=3", "epochs=100"),
    )
    for word in ("--set", setting)
)


def files(out: pathlib.Path) -> dict[str, Any]:
    """Return the SHA-256 of every file in the folder `out`, or of the file `out`."""
    if out.is_file():
        return {"": hashlib.sha256(out.read_bytes()).hexdigest()}
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def run(out: pathlib.Path) -> dict[str, Any]:
    """Return a training run's array digests, other files' digests, and metrics without times."""
    found = {
        name: digest
        for name, digest in files(out).items()
        if not name.startswith(("checkpoints/", "tensorboard/")) and name != "metrics.jsonl"
    }
    lines = (out / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [
        {key: value for key, value in json.loads(line).items() if key not in _TIMES}
        for line in lines
    ]
    found["checkpoints"] = sorted(path.name for path in (out / "checkpoints").iterdir())
    for step in found["checkpoints"]:
        found[f"checkpoints/{step}"] = _arrays(out / "checkpoints" / step)
    return found


def _arrays(checkpoint: pathlib.Path) -> dict[str, str]:
    """Return the SHA-256 of each array of a checkpoint."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    digests = {}
    for part in sorted(checkpoint.iterdir()):
        if not (part / "manifest.ocdbt").exists():
            continue
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(part.absolute())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = f"{part.name}{jax.tree_util.keystr(path)}"
            digests[name] = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
    return digests


def localisation(out: pathlib.Path) -> dict[str, Any]:
    """Return the digests of a localisation run's files except checkpoints, which hold times."""
    return {
        name: digest for name, digest in files(out).items() if not name.startswith("checkpoints/")
    }


def study(out: pathlib.Path) -> dict[str, Any]:
    """Return the digests of a study's figures and table, and the outcome of each of its runs."""
    found = {name: digest for name, digest in files(out).items() if "/" not in name}
    # study.json names the output folder, which differs.
    found.pop("study.json", None)
    found["steps"] = sorted(json.loads((out / "study.json").read_text()))
    for folder in sorted(path for path in out.iterdir() if (path / "run").is_dir()):
        of_run = run(folder / "run")
        found |= {f"{folder.name}/{name}": value for name, value in of_run.items()}
    return found


def _build(workers: int, *more: str, videos: str = "videos") -> Callable[..., list[str]]:
    def arguments(data: pathlib.Path, out: pathlib.Path) -> list[str]:
        source = data / "corpus" / "train"
        return [
            *("build", "videocc", "--annotations", str(source / "video_cc_public.csv")),
            *("--videos", str(source / videos), "--out", str(out), "--workers", str(workers)),
            *(*_FRAMES, "--shards", "4", *(word.format(data=data) for word in more)),
        ]

    return arguments


def _append(workers: int) -> Callable[..., list[str]]:
    def arguments(data: pathlib.Path, out: pathlib.Path) -> list[str]:
        source = data / "corpus" / "test"
        return [
            *("append", str(data / "train"), "videocc", "--out", str(out), "--shards", "3"),
            *("--annotations", f"{data}/more.csv", "--videos", str(source / "videos")),
            *("--workers", str(workers)),
        ]

    return arguments


def _of_snapshot(name: str, *more: str) -> Callable[..., list[str]]:
    return lambda data, out: [
        name, str(data / "train"), "--out", str(out), *(word.format(data=data) for word in more)
    ]  # fmt: skip


def _of_run(name: str, *more: str) -> Callable[..., list[str]]:
    return lambda data, out: [
        *(name, "--run", str(data / "run")),
        *(word.format(data=data, out=out) for word in more),
    ]


_TEST = ("--snapshot", "{data}/test", "--out", "{out}")
_PRETRAIN = ("--preset", "tiny", *_TOY)
_LOCALISE = tuple(
    word
    for setting in (
        *("network.length=12", "network.width=16", "network.groups=4", "network.group_width=2"),
        *("network.map_width=16", "network.map_hidden=16", "batch=8", "epochs=6"),
        *("decay_after=4", "learning_rate=0.01"),
    )
    for word in ("--set", setting)
)

COMMANDS = {
    command.name: command
    for command in (
        Command("build", "pipelines", _build(1), files),
        Command("build-2-workers", "pipelines", _build(2), files),
        Command(
            "retry",
            "pipelines",
            _build(1, "--retry-rejects", "{data}/partial", "--data-version", "1.1.0"),
            files,
        ),
        Command("append", "pipelines", _append(1), files),
        Command("append-2-workers", "pipelines", _append(2), files),
        Command(
            "remove",
            "pipelines",
            _of_snapshot("remove", "--videos", "{data}/removed.txt", "--workers", "1"),
            files,
        ),
        Command(
            "remove-2-workers",
            "pipelines",
            _of_snapshot("remove", "--videos", "{data}/removed.txt", "--workers", "2"),
            files,
        ),
        Command("export-webdataset", "pipelines", _of_snapshot("export", "--workers", "1"), files),
        Command(
            "export-sequence-example",
            "pipelines",
            _of_snapshot("export", "--format", "sequence-example", "--workers", "2"),
            files,
        ),
        Command(
            "export-parquet",
            "pipelines",
            _of_snapshot("export", "--format", "parquet", "--workers", "2"),
            files,
        ),
        Command("describe", "pipelines", _of_snapshot("describe"), files),
        Command("embed", "trainer", _of_run("embed", *_TEST, "--shard-clips", "5"), files),
        Command("index", "trainer", _of_run("index", *_TEST, "--shard-clips", "5"), files),
        Command(
            "export-weights",
            "trainer",
            _of_run("export", "--video", "{out}/video", "--text", "{out}/text"),
            files,
        ),
        Command(
            "pretrain",
            "trainer",
            lambda data, out: [
                *("pretrain", *_PRETRAIN, "--max-steps", "8"),
                *("--snapshot", str(data / "train"), "--out", str(out)),
            ],
            run,
        ),
        Command(
            "finetune",
            "trainer",
            _of_run(
                *("finetune", "--task", "retrieval", "--preset", "shapes"),
                *("--snapshot", "{data}/train", "--out", "{out}", "--max-steps", "8"),
                *("--set", "batch=8", "--set", "log_every=1", "--set", "checkpoint_every=3"),
                *("--set", "epochs=100", "--set", "optimizer.name=adamw"),
            ),
            run,
        ),
        Command(
            "localise",
            "trainer",
            lambda data, out: [
                *("localise", "--preset", "shapes", "--truth", str(data / "windows/truth.json")),
                *("--features", str(data / "windows/train"), "--out", str(out)),
                *("--test-features", str(data / "windows/test"), *_LOCALISE),
            ],
            localisation,
        ),
        Command(
            "figures",
            "trainer",
            _of_run("figures", *_TEST, "--clips", "2"),
            files,
        ),
        Command(
            "report",
            "trainer",
            _of_run("report", *_TEST, "--metrics", "{data}/evaluation.json"),
            files,
        ),
        Command(
            "evaluate",
            "trainer",
            _of_run("evaluate", *_TEST),
            files,
        ),
        Command(
            "study",
            "trainer",
            lambda data, out: [
                *("study", "frames", *_PRETRAIN, "--frames", "8", "--seeds", "1"),
                *("--snapshot", str(data / "train"), "--test", str(data / "test")),
                *("--max-steps", "5", "--out", str(out)),
            ],
            study,
        ),
    )
}


def prepare(data: pathlib.Path, stages: set[str]) -> pathlib.Path:
    """Create the commands' missing inputs (corpus, snapshots, run, features); return `data`."""

    def do(script: str, *arguments: str, made: str) -> None:
        if not (data / made).exists():
            words = [word.format(data=data) for word in arguments]
            subprocess.run([_SCRIPTS / script, *words], check=True, stdout=subprocess.DEVNULL)

    data.mkdir(parents=True, exist_ok=True)
    clips = ("--train-clips", "32", "--test-clips", "18")
    do("svilm-pipelines", "corpus", "{data}/corpus", *clips, made="corpus/test/truth.jsonl")
    for split in ("train", "test"):
        build = _build(1)(data, data / split)
        words = [word.replace("corpus/train", f"corpus/{split}") for word in build]
        do("svilm-pipelines", *words, made=f"{split}/manifest.json")
    shutil.copyfile(data / "corpus" / "test" / "video_cc_public.csv", data / "more.csv")
    # The snapshot `partial` lacks half of the videos, so that `retry` has rejects to retry.
    whole, partial = (data / "corpus" / "train" / name for name in ("videos", "half"))
    partial.mkdir(exist_ok=True)
    videos = sorted(whole.iterdir())
    for video in videos[::2]:
        if not (partial / video.name).exists():
            os.link(video, partial / video.name)
    do(
        "svilm-pipelines",
        *_build(1, videos="half")(data, data / "partial"),
        made="partial/manifest.json",
    )
    (data / "removed.txt").write_text(f"{videos[0].stem}\n{videos[3].stem}\n")
    if "trainer" in stages:
        pretrain = COMMANDS["pretrain"].arguments(data, data / "run")
        if not (data / "run" / "checkpoints" / "8").exists():
            do("svilm-train", *pretrain, made="run/checkpoints/8")
        do(
            "svilm-train",
            *COMMANDS["evaluate"].arguments(data, data / "evaluation.json"),
            made="evaluation.json",
        )
        if not (data / "windows").exists():
            _windows(data / "windows")
    return data


def _windows(folder: pathlib.Path) -> None:
    """Write features of windows that contain detectable actions, and their ground truth."""
    import numpy as np
    import safetensors.numpy

    draw, database = np.random.default_rng(1), {}
    signs = draw.normal(size=(2, 8)) * 3
    for split, subset, count in (("train", "training", 24), ("test", "validation", 12)):
        rows, clips = [], []
        for number in range(count):
            label, start = int(draw.integers(2)), int(draw.integers(0, 6))
            features = draw.normal(size=(12, 8)).astype(np.float32) * 0.3
            features[start : start + 5] += signs[label]
            name = f"{split}{number}"
            rows.append(features)
            clips += [
                {"video_id": name, "start_us": k * 1_000_000, "end_us": (k + 1) * 1_000_000}
                for k in range(12)
            ]
            annotation = {"label": ("run", "sit")[label], "segment": [start, start + 5]}
            database[name] = {"subset": subset, "duration": 12.0, "annotations": [annotation]}
        (folder / split).mkdir(parents=True)
        shard = "features-00000-of-00001.safetensors"
        safetensors.numpy.save_file(
            {"groups": np.concatenate(rows)},
            folder / split / shard,
            metadata={"clips": json.dumps(clips)},
        )
        manifest = {
            "features": {"groups": [8]},
            "shards": [{"name": shard, "clips": len(clips)}],
        }
        (folder / split / "features.json").write_text(json.dumps(manifest))
    truth = {"version": "1.3", "taxonomy": [], "database": database}
    (folder / "truth.json").write_text(json.dumps(truth))
