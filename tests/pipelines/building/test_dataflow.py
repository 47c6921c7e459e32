"""Jobs for Google Cloud Dataflow, checked without Dataflow."""

import dataclasses
import hashlib
import itertools
import json
import re
import threading

import pytest
from apache_beam.metrics import monitoring_infos
from apache_beam.metrics.cells import DistributionResult
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.resources import resource_hints_from_options
from googleapiclient.discovery_cache import get_static_doc

from pipelines.building import dataflow, nouns, runners, software_versions
from pipelines.cli import main
from pipelines.planning.plan import Plan
from pipelines.snapshots import snapshot
from pipelines.storage import storage
from protos import contract
from protos.v1.clip_pb2 import FRAME_ENCODING_JPEG
from protos.v1.manifest_pb2 import BuildConfig

IMAGE = "europe-docker.pkg.dev/mine/svilm/workers:1"
WHERE = ("--runner=DataflowRunner", "--project=a-project", "--region=europe-west4")
READY = (*WHERE, "--temp_location=gs://mine/temp", f"--sdk_container_image={IMAGE}")


@pytest.fixture(scope="module")
def inputs(lab, tmp_path_factory, make_video):
    """Return the inputs in a bucket."""
    video = make_video(tmp_path_factory.mktemp("video") / "video.mkv", seconds=2)
    rows = "url,start,end,caption\nno_video___,0,1,a cat\n"
    for number in range(4):
        rows += f"video{number}_____,0,1000000,a man rides a horse\n"
        with storage.NewFile(f"{lab}/videos/video{number}_____.mkv") as file:
            file.write(video.read_bytes())
    with storage.NewFile(f"{lab}/rows.csv") as file:
        file.write(rows.encode())
    return lab


def arguments(inputs, out, *more):
    where = ("--annotations", f"{inputs}/rows.csv", "--videos", f"{inputs}/videos", "--out", out)
    size = ("--frames", "16", "--short-side", "48", "--shards", "3")
    return ["build", "videocc", *where, *size, *more]


@pytest.fixture(scope="module")
def build():
    """Return build(…), which runs the command in this process and returns its standard output."""
    hook = threading.excepthook

    def here(words):
        assert main.main([*words]) == 0

    with pytest.MonkeyPatch.context() as patched:
        # Beam's search for credentials would take 20 s.
        patched.setattr("apache_beam.internal.gcp.auth._Credentials._credentials_init", True)
        yield here
    threading.excepthook = hook


@pytest.fixture(scope="module")
def job(inputs, build):
    """Return the job of a build into the bucket's folder staged/, from a template."""
    where = (f"--temp_location={inputs}/temp", f"--template_location={inputs}/jobs/build.json")
    more = (*WHERE, *where, f"--sdk_container_image={IMAGE}", "--no_auth")
    build(arguments(inputs, f"{inputs}/staged", *more))
    return json.loads(storage.read(f"{inputs}/jobs/build.json"))


@pytest.fixture(scope="module")
def graph(job):
    """Return the job's graph."""
    options = job["environment"]["sdkPipelineOptions"]["options"]
    data = storage.read(options["pipelineUrl"])
    assert hashlib.sha256(data).hexdigest() == options["pipelineProtoHash"]
    return beam_runner_api_pb2.Pipeline.FromString(data)


def faults(schemas: dict, schema: dict, value: object, place: str) -> list[str]:
    """Return the places where JSON violates a schema of Google's discovery documents."""
    if "$ref" in schema:
        return faults(schemas, schemas[schema["$ref"]], value, place)
    if schema["type"] == "any":
        return []
    # 64-bit integers are strings, because JSON numbers lose digits.
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{place} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place} is none of {schema['enum']}"]
    found = []
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += faults(schemas, schema["items"], item, f"{place}[{i}]")
    elif isinstance(value, dict):
        named = schema.get("properties", {})
        for name, item in value.items():
            inner = named.get(name) or schema.get("additionalProperties")
            found += (
                faults(schemas, inner, item, f"{place}.{name}")
                if inner
                else [f"{place}.{name} is unknown"]
            )
    return found


def test_the_job_fits_dataflows_schema(job):
    document = get_static_doc("dataflow", "v1b3")
    assert document is not None
    schemas = json.loads(document)["schemas"]
    assert faults(schemas, schemas["Job"], job, "job") == []
    wrong = job | {"type": "JOB_TYPE_SOLID", "tpye": ""}
    assert len(faults(schemas, schemas["Job"], wrong, "job")) == 2


def test_workers_run_one_process_per_core(job, graph):
    (pool,) = job["environment"]["workerPools"]
    assert pool["numThreadsPerWorker"] == 1
    (container,) = pool["sdkHarnessContainerImages"]
    assert container["containerImage"] == IMAGE
    assert container["useSingleCorePerContainer"]
    (environment,) = graph.components.environments.values()
    assert environment.urn == common_urns.environments.DOCKER.urn
    payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert payload.container_image == IMAGE
    memory = environment.resource_hints[common_urns.resource_hints.MIN_RAM_BYTES.urn]
    assert int(memory) == 4_000_000_000
    # No state of this process is sent to workers, because the image has all modules.
    staged = {package["name"] for package in pool["packages"]}
    assert staged == {"submission_environment_dependencies.txt"}


def test_no_frames_cross_a_shuffle(graph):
    """Outputs of the steps that write shards only reach the manifest, without a shuffle."""
    transforms = graph.components.transforms
    leaves = [t for t in transforms.values() if not t.subtransforms and t.outputs]
    (built,) = [t for t in leaves if t.unique_name.endswith("Build shards")]
    beyond = set(built.outputs.values())
    grown = True
    while grown:
        after = [t for t in leaves if beyond & set(t.inputs.values())]
        new = {collection for t in after for collection in t.outputs.values()}
        grown = not new <= beyond
        beyond |= new
    shuffles = [t for t in leaves if t.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn]
    assert len(shuffles) > 0
    for shuffle in shuffles:
        assert not beyond & set(shuffle.inputs.values()), shuffle.unique_name


@pytest.fixture(scope="module")
def rerun(graph):
    """Run the job's graph on another engine, from its bytes."""
    local = beam_runner_api_pb2.Pipeline()
    local.CopyFrom(graph)
    for environment in local.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
    return FnApiRunner().run_via_runner_api(local, PipelineOptions([]))


def test_the_staged_graph_writes_the_bytes_of_a_local_build(inputs, build, rerun):
    assert rerun.state == "DONE"
    build(arguments(inputs, f"{inputs}/here"))
    staged, here = (
        {name: storage.read(f"{inputs}/{folder}/{name}") for name in names}
        for folder, names in (
            (folder, storage.names(f"{inputs}/{folder}")) for folder in ("staged", "here")
        )
    )
    assert contract.MANIFEST_NAME in staged
    assert staged == here


def test_shuffled_elements_are_smaller_than_a_record(inputs, rerun):
    urn = common_urns.monitoring_info_specs.SAMPLED_BYTE_SIZE.spec.urn
    infos = itertools.chain.from_iterable(rerun._monitoring_infos_by_stage.values())
    found = [
        monitoring_infos.extract_metric_result_map_value(info) for info in infos if info.urn == urn
    ]
    sizes = [size.max for size in found if isinstance(size, DistributionResult) and size.max]
    assert len(sizes) > 5
    staged = f"{inputs}/staged"
    indices = [name for name in storage.names(staged) if name.endswith(".index")]
    lengths = [
        entry.length
        for name in indices
        for entry in snapshot.read_index(f"{staged}/{name}").records
    ]
    assert len(lengths) == 4
    assert max(sizes) < min(lengths)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runner=DataflowRunner"], "add --project PROJECT, --region REGION, --temp_location"),
        ([*READY[:-1]], "--sdk_container_image with an image of deploy/dataflow/Dockerfile, or"),
        ([*READY, "--temp_location=/tmp"], "Invalid GCS path (/tmp)"),
        ([*READY, "--project=12345"], "Invalid Project ID (12345)"),
        ([*READY, "--job_name=My job"], "Invalid job_name (My job)"),
        ([*READY, "--max_num_workers=many"], "invalid int value: 'many'"),
    ],
)
def test_missing_job_options_are_reported_in_one_line(words, told):
    with pytest.raises(runners.EngineError, match=re.escape(told)) as raised:
        runners.choose(1, words)
    assert "\n" not in str(raised.value)


def test_googles_client_is_required(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(runners.EngineError, match=re.escape("'.[pipelines,dataflow]'")):
        runners.choose(1, READY)


def test_paths_outside_google_cloud_are_refused(capsys, tmp_path):
    hook, out = threading.excepthook, tmp_path / "out"
    words = ["--annotations", "gs://mine/a.csv", "b.csv", "--videos", "s3://v", "--out", str(out)]
    try:
        assert main.main(["build", "videocc", *words, *READY]) == 2
    finally:
        threading.excepthook = hook
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--annotations b.csv, --videos s3://v, --out {out}: copy" in line
    assert not out.exists()


def test_given_options_override_defaults():
    _, options = runners.choose(1, [*READY, "--resource_hint=min_ram=9GB"])
    assert options.get_all_options()["number_of_worker_harness_threads"] == 1
    hints = resource_hints_from_options(options)
    assert hints == {common_urns.resource_hints.MIN_RAM_BYTES.urn: b"9000000000"}
    assert runners.waits(options)
    for more in ("--no_wait_until_finish", "--dry_run=True", "--template_location=gs://mine/t"):
        assert not runners.waits(runners.choose(1, [*READY, more])[1])


def test_a_worker_with_other_versions_fails():
    config = BuildConfig(frame_encoding=FRAME_ENCODING_JPEG)
    model = nouns.default_model()
    planned = Plan(
        *("videocc", (), (), "", "", "1.0.0", config, {}, model), decoder="ffmpeg", decode_seconds=1
    )
    same = software_versions.here(model, FRAME_ENCODING_JPEG, "ffmpeg")
    software_versions.check(dataclasses.replace(planned, versions=same))
    with pytest.raises(
        software_versions.WorkerError, match=r"has ffmpeg .*, but the build was .* with 2\.8"
    ):
        software_versions.check(dataclasses.replace(planned, versions=same | {"ffmpeg": "2.8"}))


def test_a_jobs_page_is_printed():
    from google.cloud.dataflow import Job, JobState

    _, options = runners.choose(1, READY)
    begun = Job(id="2026-11-25_1", current_state=JobState.JOB_STATE_DONE)
    assert dataflow.page(DataflowPipelineResult(begun, None, options), options) == (
        "https://console.cloud.google.com/dataflow/jobs/europe-west4/2026-11-25_1?project=a-project"
    )
    assert dataflow.page(DataflowPipelineResult(None, None, options), options) is None
