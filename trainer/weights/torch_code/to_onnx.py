"""Program that writes a model's encoders as ONNX, of any batch size.

python to_onnx.py FOLDER OUT: FOLDER is an export for transformers; OUT gets video.onnx and
text.onnx.
"""

import pathlib
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel


class Video(nn.Module):
    """Frames as decoded to embeddings and assignments."""

    def __init__(self, model: Any) -> None:
        """Take the model's encoder and the scaling of its pixels."""
        super().__init__()
        self.model = model
        video = model.config.svilm["video"]
        self.mean, self.std = (torch.tensor(video[name]) for name in ("pixel_mean", "pixel_std"))

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return clip, groups, group_of and share of uint8 frames [b, t, h, w, c]."""
        pixels = (frames.float() / 255.0 - self.mean) / self.std
        return tuple(self.model.encode_video(pixels.permute(0, 1, 4, 2, 3))[:4])


class Text(nn.Module):
    """Ids and mask to embeddings."""

    def __init__(self, model: Any) -> None:
        """Take the model's encoder."""
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings of texts [b, l]."""
        return self.model.get_text_features(input_ids, attention_mask)


def main(folder: str, out: str) -> None:
    """Write both programs."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    video, tokens = model.config.svilm["video"], model.config.svilm["text"]["tokens"]
    # A dimension of 1 would become a constant.
    frames = torch.zeros((2, video["frames"], *[video["resolution"]] * 2, 3), dtype=torch.uint8)
    ids, mask = torch.ones((2, 2, tokens), dtype=torch.int64).unbind()
    for name, module, arguments, inputs, outputs in (
        ("video", Video(model), (frames,), ["frames"], ["clip", "groups", "group_of", "share"]),
        ("text", Text(model), (ids, mask), ["input_ids", "attention_mask"], ["embedding"]),
    ):
        torch.onnx.export(
            module,
            arguments,
            pathlib.Path(out) / f"{name}.onnx",
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=[{0: torch.export.Dim("batch")} for _ in inputs],
            dynamo=True,
            verbose=False,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
