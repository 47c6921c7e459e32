import pytest

from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.runs import run_folder
from trainer.runs.run_folder import Origin, RunError


def test_a_run_knows_the_snapshots_that_it_was_trained_on(
    small_config, tokenizer, write_snapshot, tmp_path
):
    one, two, other = (
        Snapshot.open(write_snapshot(name, clips=clips).folder)
        for name, clips in (("one", 6), ("two", 7), ("other", 8))
    )
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"data\.json cannot be read"):
        run_folder.check_trained_on(run, one)
    origin = Origin({}, {}, {})
    run_folder.start_or_continue(run, small_config, Mixture([one, two]), tokenizer, origin, steps=1)
    run_folder.check_trained_on(run, one)
    run_folder.check_trained_on(run, two)
    with pytest.raises(RunError, match=r"was not trained on .*other \(test\)"):
        run_folder.check_trained_on(run, other)
