"""Configuration of S-ViLM for transformers."""

from typing import Any

from transformers import PretrainedConfig


class SViLMConfig(PretrainedConfig):
    """The configuration of the run that trained the model, in one field.

    `svilm["video"]`, `svilm["text"]` and `svilm["joint_width"]` define the model. The other fields
    are those of training.
    """

    model_type = "svilm"

    def __init__(self, svilm: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Store the configuration; transformers also calls this without arguments."""
        self.svilm = svilm or {}
        super().__init__(**kwargs)
