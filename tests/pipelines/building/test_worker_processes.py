import glob
import logging
import threading

import pytest

from pipelines.building import worker_processes
from pipelines.cli import logs


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return worker_processes.engine_log(logs.formatter())


def test_the_log_of_a_build_that_ends_well_is_removed(log, tmp_path):
    with log:
        logging.getLogger("apache_beam.worker").warning("retried")
        with open(log.path) as file:
            assert file.read().endswith(" apache_beam.worker: retried\n")
        assert not log.last_error()
    assert not list(tmp_path.iterdir())


def test_a_kept_log_has_messages_the_workers_output_and_the_trace(log):
    with log:
        logging.getLogger("apache_beam.worker").error("token=SECRET is refused")
        with open(log.path, "a") as worker:  # as the command of a worker does
            worker.write("Fatal Python error: Segmentation fault\n")
            worker.write("and more\n")
        assert log.last_error() == "Fatal Python error: Segmentation fault"
        path = log.keep(TypeError("inside"))
    logging.getLogger("apache_beam.worker").error("later")
    with open(path) as file:
        first, *others = file.read().splitlines()
    assert " ERROR " in first and first.endswith("token=*** is refused")
    assert others == ["Fatal Python error: Segmentation fault", "and more", "TypeError: inside"]


@pytest.fixture
def hook():
    """Collects the exceptions of threads that are not the engine's."""
    before, found = threading.excepthook, []
    threading.excepthook = lambda raised: found.append(raised.exc_value)
    yield found
    threading.excepthook = before


@pytest.mark.parametrize(
    ("module", "of_engine"),
    [
        ("apache_beam.runners.portability.portable_runner", True),
        ("grpc._channel", True),
        ("pipelines.building.shard", False),
        ("mine", False),
    ],
)
def test_exceptions_of_the_engines_threads_are_logged(hook, caplog, module, of_engine):
    worker_processes.log_failed_threads()
    worker_processes.log_failed_threads()  # as by the second part of a split
    names = {"__name__": module}
    exec("def run():\n    raise ValueError('closed')", names)
    thread = threading.Thread(target=names["run"])
    thread.start()
    thread.join()
    assert len(hook) == (not of_engine)
    assert [record.name for record in caplog.records] == ["svilm.pipelines"] * of_engine


def test_a_failed_build_names_the_log_with_the_workers_trace(cli, tmp_path):
    """The annotations break off after the rows that are tried before the build begins."""
    texts, times = ", ".join(['"a line"'] * 2000), ", ".join(map(str, range(2000)))
    entry = f'{{"bread_12345": {{"start": [{times}], "end": [{times}], "text": [{texts}]}}, "b": '
    (tmp_path / "raw.json").write_text(entry)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "another.mp4").touch()
    words = ["--annotations", tmp_path / "raw.json", "--videos", tmp_path / "videos"]
    words += ["--out", tmp_path / "out", "--workers", "2", "--log-file", tmp_path / "log"]
    done = cli("build", "howto100m", *words, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    (kept,) = glob.glob(f"{tmp_path}/svilm-pipelines-*.log")
    assert "AnnotationError: raw.json is not valid JSON" in line and kept in line
    with open(kept) as file:
        assert "Traceback" in file.read()
    text = (tmp_path / "log").read_text()
    assert " INFO " in text and " ERROR " in text and "Traceback" in text
