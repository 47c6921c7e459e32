"""Program that quantizes the weights of ONNX programs to 8-bit integers, by ONNX Runtime.

python to_int8.py FOLDER OUT: FOLDER has video.onnx and text.onnx, and OUT gets both with int8
weights. Activations are quantized while a program runs.

Each output channel has a scale of its own: with one scale for a matrix, the worst matrix of MiniLM
loses 40 % of its norm, not 2 %. Weights take 7 of the 8 bits (reduce_range), because products of 8
bits overflow on CPUs without VNNI instructions.
"""

import pathlib
import sys

from onnxruntime import quantization


def main(folder: str, out: str) -> None:
    """Write both programs."""
    for name in ("video.onnx", "text.onnx"):
        quantization.quantize_dynamic(
            pathlib.Path(folder) / name,
            pathlib.Path(out) / name,
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            # Products of two activations, as in attention, stay float32.
            extra_options={"MatMulConstBOnly": True},
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
