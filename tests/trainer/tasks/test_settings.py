"""The settings of the tasks that are fine-tuned."""

import pytest

from trainer.configs.overrides import override
from trainer.tasks import finetuning


def test_the_papers_recipes_are_its_tables(noisy_config):
    def rates(task, preset):
        config, own = finetuning.configure(finetuning.TASKS[task], preset, noisy_config, [])
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.momentum, optimizer.warmup_share) == ("sgd", 0.9, 0.1)
        assert not config.cut_and_paste.enabled
        return optimizer.learning_rate, config.batch, config.epochs, own

    assert rates("retrieval", "msrvtt")[:3] == (0.25, 512, 20)
    assert rates("qa", "msrvtt-qa")[:3] == (0.1, 64, 30)
    assert rates("qa", "msrvtt-qa")[3].answers == 1500
    assert rates("qa", "msvd-qa")[:3] == (5e-5, 64, 30)
    assert rates("action", "ucf101")[:3] == (0.1, 64, 30)
    assert rates("action", "hmdb51")[:3] == (0.1, 64, 60)
    assert rates("action", "hmdb51-linear")[3].frozen


def test_settings_of_a_task_are_typed():
    settings = override(finetuning.qa.Config(), ["width=16", "answers=none", "fusion=linear"])
    assert (settings.width, settings.answers, settings.fusion) == (16, None, "linear")
    with pytest.raises(ValueError, match="width takes an integer"):
        override(finetuning.qa.Config(), ["width=wide"])


def test_the_choice_of_pre_training_clips_is_not_inherited(noisy_config):
    settings = ["input.weights=1,2", "input.where=score > 3", "input.weights_column=score"]
    pretrained = override(noisy_config, [*settings, "input.nouns=3"])
    config, _ = finetuning.configure(finetuning.TASKS["qa"], "shapes", pretrained, [])
    assert config.input == override(noisy_config, ["input.nouns=3"]).input
