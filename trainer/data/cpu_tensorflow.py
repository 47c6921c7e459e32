"""TensorFlow as the input pipeline uses it: on the CPU, never on an accelerator.

Import `tf` from here, and only inside functions of modules that a command line loads early:
importing TensorFlow takes several seconds.
"""

import os

# Silences C++ notes printed at import, about CPU flags and about oneDNN; errors still pass.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# oneDNN's kernels round differently from CPU to CPU.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

# TensorFlow would otherwise reserve the memory that JAX trains in.
tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
