import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.building import runners


@pytest.mark.parametrize("arguments", [[], ["--runner", "DirectRunner"], ["--job_name=a"]])
def test_in_process_by_default(arguments):
    runner, _ = runners.choose(1, arguments)
    assert isinstance(runner, FnApiRunner)


@pytest.fixture
def jar(tmp_path):
    """Return the path of a stand-in for Beam's job server, which is never started."""
    (tmp_path / "server.jar").touch()
    return str(tmp_path / "server.jar")


@pytest.fixture
def java(tmp_path, monkeypatch):
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "name"), [("FlinkRunner", "FlinkRunner"), ("flink", "FlinkRunner")]
)
def test_other_engines_keep_their_options(jar, java, given, name):
    arguments = [f"--runner={given}", "--flink_master=[local]", f"--flink_job_server_jar={jar}"]
    runner, options = runners.choose(1, arguments)
    assert runner == name
    assert options.get_all_options()["flink_master"] == "[local]"


@pytest.mark.parametrize(
    ("workers", "arguments", "told"),
    [
        (1, ["--runner=DaskRunner"], "DaskRunner is not supported"),
        (1, ["--runner=dask"], "DaskRunner is not supported"),
        (
            1,
            ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"],
            "DaskRunner is not supported",
        ),
        (1, ["--runner=FlumeRunner"], "FlumeRunner is unknown: choose one of .*FlinkRunner"),
        (1, ["--runner=PortableRunner"], "PortableRunner requires .*--job_endpoint HOST:PORT"),
        (
            1,
            ["--runner=FlinkRunner", "--job_endpoint=127.0.0.1:1"],
            "no job service answers at --job_endpoint 127.0.0.1:1 .*Connection refused",
        ),
        (
            1,
            ["--runner=SparkRunner", "--spark_job_server_jar=/no/server.jar"],
            "--spark_job_server_jar '/no/server.jar' does not exist",
        ),
        (2, ["--runner=FlinkRunner"], "--workers 2 does not apply to --runner FlinkRunner"),
        (1, ["--flubber", "3"], "unrecognised arguments --flubber 3"),
        (1, ["stray"], "unrecognised arguments stray"),
        (1, ["--direct_num_workers=two"], "invalid int value"),
    ],
)
def test_invalid_engine_options_are_refused(workers, arguments, told):
    with pytest.raises(runners.EngineError, match=told):
        runners.choose(workers, arguments)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "Traceback (most recent call last):\n  File …\nOSError: [Errno 28] No space left on "
            "device: '/x' [while running 'Build shards-ptransform-1']\n",
            "OSError: [Errno 28] No space left on device: '/x'",
        ),
        (
            "pipelines.building.nouns.NounModelError: no parser [while running 'a']",
            "NounModelError: no parser",
        ),
        ("", "RuntimeError"),
        ("Service failed to start up.", "Service failed to start up"),
    ],
)
def test_causes_are_one_line(text, cause):
    assert runners.cause(RuntimeError(text)) == cause


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_java_engines_require_java(jar, monkeypatch, tmp_path, runner):
    monkeypatch.setenv("PATH", str(tmp_path))
    option = f"--{runner[:5].lower()}_job_server_jar={jar}"
    with pytest.raises(runners.EngineError, match=r"'java' .*: install Java"):
        runners.choose(1, [f"--runner={runner}", option])
    # Flink's server accepts a self-contained jar.
    runners.choose(1, [f"--runner={runner}", option, f"--{runner[:5].lower()}_submit_uber_jar"])


def test_a_failed_download_of_a_job_server_is_reported(java, tmp_path):
    address = "http://127.0.0.1:1/server.jar"
    arguments = [f"--flink_job_server_jar={address}", f"--jar_cache_dir={tmp_path / 'jars'}"]
    with pytest.raises(runners.EngineError) as caught:
        runners.choose(1, ["--runner=FlinkRunner", *arguments])
    told = str(caught.value)
    assert f"at {address}: <urlopen error [Errno 111] Connection refused>)" in told
    assert "with --flink_job_server_jar" in told and "\n" not in told
