"""Writes what one version reads in an export: `python read_export.py FOLDER`.

FOLDER is of `write_export` in tests/trainer/weights/test_export.py; the environment is that of
make.py.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

FILES = (
    *("video/config.json", "video/preprocessor_config.json"),
    *("video/video_preprocessor_config.json", "text/config.json", "text/tokenizer_config.json"),
)


def main(export):
    captions = json.loads((export / "captions.json").read_text())
    frames = list(np.load(export / "frames.npy"))
    found = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "files": {name: (export / name).read_text() for name in FILES},
        "processors": [],
    }
    kinds = [transformers.AutoImageProcessor]
    if hasattr(transformers, "VivitVideoProcessor"):
        kinds.append(transformers.AutoVideoProcessor)
    for kind in kinds:
        processor = kind.from_pretrained(export / "video")
        pixels = processor(frames, return_tensors="pt")["pixel_values"]
        found["processors"].append(
            {
                "class": type(processor).__name__,
                "shape": list(pixels.shape),
                "values": rounded(pixels[0, :, :, ::9, ::9]),
            }
        )
    tokeniser = transformers.AutoTokenizer.from_pretrained(export / "text")
    text = tokeniser(captions, padding="max_length", truncation=True, return_tensors="pt")
    found["ids"], found["attention_mask"] = text["input_ids"].tolist(), []
    found["attention_mask"] = text["attention_mask"].tolist()
    found["model_max_length"] = tokeniser.model_max_length
    video = transformers.AutoModel.from_pretrained(export / "video").eval()
    # Our encoder has no class token.
    video.embeddings.register_forward_hook(lambda _module, _given, states: states[:, 1:])
    found["video_states"] = rounded(video(pixels).last_hidden_state[0])
    bert = transformers.AutoModel.from_pretrained(export / "text").eval()
    shown = {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
    states = bert(**shown).last_hidden_state[0]
    found["text_states"] = rounded(states[text["attention_mask"][0] == 1])
    found["models"] = [type(video).__name__, type(bert).__name__]
    out = pathlib.Path(__file__).with_name(f"export-{transformers.__version__}.json")
    out.write_text(json.dumps(found) + "\n")


def rounded(values):
    return np.asarray(values, np.float64).round(7).tolist()


if __name__ == "__main__":
    with torch.no_grad():
        main(pathlib.Path(sys.argv[1]))
