"""TensorFlow configured for the input pipeline: on the CPU, never on an accelerator.

Import `tf` from this module. In modules that a command line loads early, import it only inside
functions: importing TensorFlow takes several seconds.
"""

import os

# oneDNN's kernels round differently from CPU to CPU. TensorFlow reads only the environment.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

# TensorFlow would otherwise reserve the GPU memory in which JAX trains.
tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
