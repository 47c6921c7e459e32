import pytest

from trainer.runs import checkpoint
from trainer.weights import model_card


@pytest.mark.parametrize(("task", "warned"), [(None, False), ("retrieval", False), ("qa", True)])
def test_a_card_says_that_the_joint_space_was_not_trained(untrained_run, task, warned):
    run = checkpoint.load(untrained_run)._replace(task=task and {"name": task})
    assert ("do not compare texts and videos" in model_card.text(run, {})) is warned
