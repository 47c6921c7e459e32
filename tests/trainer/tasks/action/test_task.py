import pytest

from trainer.data.snapshot import Snapshot
from trainer.runs import checkpoint
from trainer.tasks.action import task
from trainer.tasks.task import TaskError, Views


def test_a_classifier_is_not_tested_on_classes_that_it_does_not_know(untrained_run, write_snapshot):
    def annotate_other(clip, number):
        clip.video_id = str(number)
        clip.labels.append("Archery")

    other = Snapshot.open(
        write_snapshot(
            "other", clips=3, frames=4, height=18, width=24, annotate=annotate_other
        ).folder
    )
    known = {"name": "action", "config": {}, "classes": ["Fencing"]}
    run = checkpoint.load(untrained_run)._replace(task=known)
    with pytest.raises(TaskError, match="has a class of the run, such as Fencing: use"):
        task.predict(run, other, lambda *_: None, Views())
