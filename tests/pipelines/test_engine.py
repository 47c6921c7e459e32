import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines import engine


@pytest.mark.parametrize("arguments", [[], ["--runner", "DirectRunner"], ["--job_name=a"]])
def test_in_process_by_default(arguments):
    runner, _ = engine.choose(1, arguments)
    assert isinstance(runner, FnApiRunner)


def test_other_engines_keep_their_options():
    runner, options = engine.choose(1, ["--runner=FlinkRunner", "--flink_master=[local]"])
    assert runner == "FlinkRunner"
    assert options.get_all_options()["flink_master"] == "[local]"


@pytest.mark.parametrize(
    ("workers", "arguments", "told"),
    [
        (1, ["--runner=DaskRunner"], "DaskRunner is refused"),
        (2, ["--runner=FlinkRunner"], "--workers is for this machine"),
        (1, ["--flubber", "3"], "unrecognised arguments: --flubber 3"),
        (1, ["stray"], "unrecognised arguments: stray"),
        (1, ["--direct_num_workers=two"], "invalid int value"),
    ],
)
def test_what_no_engine_takes(workers, arguments, told):
    with pytest.raises(engine.EngineError, match=told):
        engine.choose(workers, arguments)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "Traceback (most recent call last):\n  File …\nOSError: [Errno 28] No space left on "
            "device: '/x' [while running 'Build shards-ptransform-1']\n",
            "OSError: [Errno 28] No space left on device: '/x'",
        ),
        (
            "pipelines.nouns.NounModelError: no parser [while running 'a']",
            "NounModelError: no parser",
        ),
        ("", "RuntimeError"),
    ],
)
def test_causes_are_one_line(text, cause):
    assert engine.cause(RuntimeError(text)) == cause
