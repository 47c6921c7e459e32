import pytest

from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.runs import checkpoint
from trainer.tasks.retrieval import task
from trainer.tasks.task import Views


def test_retrieval_without_different_captions_is_refused(untrained_run, write_snapshot):
    def predict(name, captions):
        def annotate(clip, number):
            clip.caption = captions[number]

        size = {"clips": 3, "frames": 4, "height": 18, "width": 24}
        clips = Snapshot.open(write_snapshot(name, **size, annotate=annotate).folder)
        run = checkpoint.load(untrained_run)
        return task.predict(run, clips, lambda *_: None, Views())

    with pytest.raises(SnapshotError, match="3 of 3 captions are empty"):
        predict("undescribed", ["", "", ""])
    with pytest.raises(SnapshotError, match=r"all captions \(3\) are equal"):
        predict("equal", ["a ring"] * 3)
