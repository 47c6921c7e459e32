"""Module of Sentence-Transformers for S-ViLM: texts and videos to vectors of the joint space."""

from typing import Any

from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from transformers import AutoModel, AutoProcessor


class SViLMEmbedding(InputModule):
    """Encodes texts, and videos: paths of files, or arrays of frames."""

    def __init__(self, model: nn.Module, processor: Any) -> None:
        """Store the model and its processor."""
        super().__init__()
        self.model: Any = model
        self.processor, self.tokenizer = processor, processor.tokenizer

    @classmethod
    def load(cls, model_name_or_path: str, trust_remote_code: bool = False, **kwargs: Any):
        """Load the model and its processor from a folder or the Hub."""
        names = ("token", "revision", "local_files_only")
        options = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        options["trust_remote_code"] = trust_remote_code
        return cls(
            AutoModel.from_pretrained(model_name_or_path, **options),
            AutoProcessor.from_pretrained(model_name_or_path, **options),
        )

    @property
    def modalities(self) -> list[Any]:
        """The kinds of inputs."""
        return ["text", "video"]

    def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Return the model's inputs for a batch of texts or of videos."""
        inputs = list(inputs)
        if infer_batch_modality(inputs, supported_modalities=self.modalities) == "video":
            return dict(self.processor(videos=inputs))
        return dict(self.processor(text=[(prompt or "") + text for text in inputs]))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Add the L2-normalized vectors of the joint space."""
        if "pixel_values_videos" in features:
            embedding = self.model.get_video_features(features["pixel_values_videos"])
        else:
            embedding = self.model.get_text_features(
                features["input_ids"], features["attention_mask"]
            )
        return features | {"sentence_embedding": embedding}

    def get_embedding_dimension(self) -> int:
        """Return the width of the joint space."""
        return self.model.config.svilm["joint_width"]

    def save(self, output_path: str, *_: Any, **kwargs: Any) -> None:
        """Save the model and its processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
