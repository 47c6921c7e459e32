"""deploy/dataflow: the template's parameters, the launch script and the workers' package."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pipelines.building import nouns
from pipelines.cli.arguments import parsers

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "dataflow"
METADATA = json.loads((FOLDER / "metadata.json").read_text(encoding="utf-8"))
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}
BEAMS = {"sdk_container_image"}
NEEDED = ("source", "annotations", "videos", "out")


@pytest.fixture(scope="module")
def flex_template():
    spec = importlib.util.spec_from_file_location("flex_template", FOLDER / "flex_template.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options():
    """Return build's options by name."""
    _, build = parsers()
    return {option: action for action in build._actions for option in action.option_strings}


def example(parameter) -> str:
    if "enumOptions" in parameter:
        return parameter["enumOptions"][-1]["value"]
    return parameter["helpText"].partition(" Example: ")[2]


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_has_a_valid_example(name):
    parameter = PARAMETERS[name]
    assert parameter["label"] and len(parameter["helpText"]) > 20
    given = example(parameter)
    (pattern,) = parameter["regexes"]
    assert re.fullmatch(pattern, given), (pattern, given)
    assert not re.fullmatch(pattern, "")
    assert not re.fullmatch(pattern, "\n")
    assert parameter.get("isOptional", False) == (name not in {*NEEDED, *BEAMS})


def test_the_parameters_are_options_of_build():
    _, build = parsers()
    known = options()
    parameters = {f"--{name.replace('_', '-')}" for name in PARAMETERS}
    assert parameters - known.keys() == {
        "--source",
        *(f"--{name.replace('_', '-')}" for name in BEAMS),
    }
    # The template's launcher ends before the job, so that it cannot tag the complete version.
    assert known.keys() - parameters == {
        *("-h", "--help", "-v", "--verbose", "--log-file", "--workers", "--tag"),
    }
    (source,) = [action for action in build._actions if action.dest == "source"]
    assert source.choices is not None
    told = [option["value"] for option in PARAMETERS["source"]["enumOptions"]]
    assert told == list(source.choices)


def test_the_examples_are_a_command_line(flex_template):
    words = [f"--{name}={example(parameter)}" for name, parameter in PARAMETERS.items()]
    command = flex_template.command([*words, "--runner=DataflowRunner", "--paragraphs=false"])
    parser, _ = parsers()
    given, rest = parser.parse_known_args(command)
    image = example(PARAMETERS["sdk_container_image"])
    assert rest == [f"--sdk_container_image={image}", "--runner=DataflowRunner"]
    assert given.source == "generic"
    assert given.annotations == ["gs://mine/train_1.csv", "gs://mine/train_2.csv"]
    assert given.columns == [("video", "clip"), ("caption", "a text")]
    assert given.paragraphs and given.keep_empty_captions
    assert (given.frames, given.max_size, given.min_clip_us) == (16, 2e13, 500_000)


def test_gcloud_accepts_the_metadata(tmp_path):
    if shutil.which("gcloud") is None:
        pytest.skip("there is no gcloud to check the template's metadata")
    done = subprocess.run(
        [
            *("gcloud", "dataflow", "flex-template", "build", "gs://mine/svilm.json"),
            *("--image=europe-docker.pkg.dev/mine/svilm/workers:1", "--sdk-language=PYTHON"),
            *(f"--metadata-file={FOLDER / 'metadata.json'}", "--print-only", "--project=mine"),
        ],
        env=os.environ | {"CLOUDSDK_CONFIG": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert all(f'"name": "{name}"' in done.stdout for name in PARAMETERS)


def run(*words, path=None):
    return subprocess.run(
        ["bash", FOLDER / "run.sh", *words],
        env=os.environ | ({"PATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


MINE = ("--project", "a-project", "--region", "europe-west4", "--staging", "gs://mine/dataflow/")
BUILD = ("webvid", "--annotations", "gs://mine/a file.csv", "--videos", "gs://mine/v", "--out", "x")


def test_a_dry_run_prints_a_valid_command():
    done = run("--dry-run", *MINE, "--image", "images/svilm:1", "--detach", *BUILD)
    assert (done.returncode, done.stderr) == (0, "")
    program, *words = shlex.split(done.stdout)
    assert program == "svilm-pipelines"
    parser, _ = parsers()
    given, rest = parser.parse_known_args(words)
    assert (given.source, given.annotations) == ("webvid", ["gs://mine/a file.csv"])

    from pipelines.building import runners

    runner, beams = runners.choose(1, rest)
    chosen = beams.get_all_options()
    assert runner == "DataflowRunner"
    assert chosen["temp_location"] == "gs://mine/dataflow/temp"
    assert chosen["sdk_container_image"] == "images/svilm:1"
    assert (chosen["machine_type"], chosen["disk_size_gb"]) == ("n2d-standard-8", 60)
    assert chosen["number_of_worker_harness_threads"] == 1
    assert not runners.waits(beams)


def test_options_after_the_source_override_defaults():
    done = run("--dry-run", *MINE, *BUILD, "--machine_type", "e2-standard-4")
    words = shlex.split(done.stdout)
    assert words[words.index("--setup_file") + 1] == str(FOLDER / "setup.py")

    from pipelines.building import runners

    parser, _ = parsers()
    _, beams = runners.choose(1, parser.parse_known_args(words[1:])[1])
    assert beams.get_all_options()["machine_type"] == "e2-standard-4"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the source is missing"),
        ((*MINE, "--workers", "3", *BUILD), "unknown option --workers"),
        ((*MINE, "--disk-gb", "lots", *BUILD), "'lots' is not a positive integer"),
        ((*MINE[:4], *BUILD), "--staging must be gs://BUCKET/FOLDER, not ''"),
        ((*MINE, "--image"), "--image requires a value"),
        (MINE[2:] + BUILD, "the project is missing: add --project"),
    ],
)
def test_the_script_fails_in_one_line(words, told, tmp_path):
    for program in ("bash", "dirname"):  # PATH without gcloud
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    done = run(*words, path=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("run.sh: error: ") and told in done.stderr
    assert done.stderr.count("\n") == 1
    assert run("--help").stdout.startswith("usage: run.sh")


def test_the_workers_package_is_complete_and_pinned(tmp_path):
    """Build the package like Beam and like a worker's pip."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path],
        cwd=FOLDER,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert not list(FOLDER.glob("*.egg-info"))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for package in ("pipelines", "protos"):
        modules = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
        assert modules <= {path.relative_to(folder) for path in folder.rglob("*.py")}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (requires,) = folder.glob("*.egg-info/requires.txt")
    wanted = set(requires.read_text().lower().split())
    pinned = set((ROOT / "constraints.txt").read_text().lower().splitlines())
    assert wanted - pinned == {f"{nouns.BY_NAME}==3.8.0"}
    for name in ("apache-beam", "imageio-ffmpeg", "simplejpeg", "spacy", "gcsfs", "protobuf"):
        assert any(line.startswith(f"{name}==") for line in wanted), name
