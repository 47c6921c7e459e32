import json

import pytest

from trainer.cli import tasks
from trainer.cli.main import main
from trainer.evaluation import scoring


def test_the_command_knows_each_task():
    assert tuple(sorted(scoring.SCORERS)) == tasks.TASKS


def test_a_file_of_predictions_is_scored_alone(tmp_path, capsys):
    truth, given = tmp_path / "test_qa.json", tmp_path / "answers.json"
    truth.write_text(json.dumps([{"id": 3, "question": "who is it?", "answer": "man"}]))
    given.write_text(json.dumps([{"question_id": 3, "answer": "man"}]))
    argv = ["evaluate", "--task=qa", f"--predictions={given}", f"--truth={truth}"]
    assert main([*argv, f"--out={tmp_path / 'figures.json'}"]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] == 100
    assert "who (1)" in capsys.readouterr().out
    given.write_text("[{}]")
    assert main(argv) == 1
    assert "answers.json, entry 0: 'question_id' or 'id' is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 2, "--run and --snapshot are required, unless there is a --task"),
        (["--task=qa"], 2, "--task wants --run and --snapshot, or --predictions and --truth"),
        (["--task=qa", "--predictions", "a", "b", "--truth=c"], 1, "one file of predictions"),
    ],
)
def test_misuse_is_told(argv, status, message, capsys):
    assert main(["evaluate", *argv]) == status
    assert message in capsys.readouterr().err
