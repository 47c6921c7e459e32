"""Writes one version's folder of this data: `python make.py`, where that transformers is installed.

All weights are random, from seed 0; no bias is zero, so that a dropped one shows. README.md
describes the files.
"""

import pathlib
import shutil

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).parent / transformers.__version__
SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
MLP = {"intermediate_size": 12}
IMAGE = {"image_size": 24, "patch_size": 8}
# Left at its default, a norm would hide states of 0.001, and we would compare noise.
NORM = {"layer_norm_eps": 1e-6}
DINOV2 = SMALL | NORM | {"image_size": 44, "patch_size": 14, "mlp_ratio": 2}
TEXT = SMALL | MLP | {"vocab_size": 20, "max_position_embeddings": 8}
CLIP = SMALL | MLP | IMAGE | {"layer_norm_eps": 1e-5}
SIGLIP = SMALL | MLP | IMAGE
VIT = SMALL | MLP | IMAGE | NORM
TWO = {"vision_config": CLIP, "text_config": TEXT, "projection_dim": 6}
MODELS = {
    "ViTModel": ("ViTModel", "ViTConfig", VIT),
    "ViTModel-without-bias": ("ViTModel", "ViTConfig", VIT | {"qkv_bias": False}),
    "ViTForImageClassification": ("ViTForImageClassification", "ViTConfig", VIT),
    "Dinov2Model": ("Dinov2Model", "Dinov2Config", DINOV2),
    "Dinov2ForImageClassification": ("Dinov2ForImageClassification", "Dinov2Config", DINOV2),
    "Dinov2WithRegistersModel": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        DINOV2 | {"num_register_tokens": 3},
    ),
    "CLIPVisionModel": ("CLIPVisionModel", "CLIPVisionConfig", CLIP),
    "CLIPModel": ("CLIPModel", "CLIPConfig", TWO),
    "SiglipVisionModel": ("SiglipVisionModel", "SiglipVisionConfig", SIGLIP),
    "SiglipModel": (
        "SiglipModel",
        "SiglipConfig",
        {"vision_config": SIGLIP, "text_config": TEXT},
    ),
}
SIDES = (3, 5, 2)  # patches; the first is the checkpoints' own


def states(model, config, pixels):
    """Return the hidden states at the patches, after the final norm."""
    vision = getattr(model, model.base_model_prefix, model)
    vision = getattr(vision, "vision_model", vision)
    options = {} if "dinov2" in config.model_type else {"interpolate_pos_encoding": True}
    found = vision(torch.from_numpy(pixels), **options).last_hidden_state
    if config.model_type.startswith("clip"):  # whose last states are before that norm
        found = vision.post_layernorm(found)
    return found[:, -((pixels.shape[-1] // patch(config)) ** 2) :].numpy()


def patch(config):
    return getattr(config, "vision_config", config).patch_size


def main():
    rng, answers = np.random.default_rng(0), {}
    for size in (8, 14):
        for side in SIDES:
            shape = (2, 3, side * size, side * size)
            answers[f"pixels-{size}-{side}"] = rng.normal(size=shape).astype(np.float32)
    for name, (model, config, settings) in MODELS.items():
        torch.manual_seed(0)
        config = getattr(transformers, config)(**settings)
        made = getattr(transformers, model)(config).eval()
        for key, parameter in made.named_parameters():
            parameter.data.normal_(1 if "orm" in key and key.endswith("weight") else 0, 0.4)
        made.save_pretrained(OUT / name)
        for side in SIDES:
            pixels = answers[f"pixels-{patch(config)}-{side}"]
            answers[f"{name}-{side}"] = states(made, config, pixels)
    np.savez_compressed(OUT / "answers.npz", **answers)


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with torch.no_grad():
        main()
