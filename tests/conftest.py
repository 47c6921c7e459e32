"""Settings of every test: they must be in the environment before JAX or TensorFlow is imported."""

import os

import hypothesis

os.environ.update(
    # The suite runs a process a core, so each process computes on one thread.
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    OMP_NUM_THREADS="1",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="2",
    # The same results on machines with accelerators.
    JAX_PLATFORMS="cpu",
    CUDA_VISIBLE_DEVICES="",
    # Shapes and types meet on purpose or not at all.
    JAX_NUMPY_RANK_PROMOTION="raise",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    # No look-ups of cloud credentials.
    NO_GCE_CHECK="true",
    GCE_METADATA_HOST="127.0.0.1:1",
)

# One that fails here fails everywhere, however slow the machine.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")
