"""GPUs by name: their hosts, usable memory, and refused topologies."""

import pytest

from trainer.cli.main import main
from trainer.distributed import gpus, hardware
from trainer.distributed.hardware import TopologyError, chip, devices_of


@pytest.mark.parametrize("name", gpus.GPUS)
def test_each_gpu_has_rates_and_sizes_for_the_compiler(name):
    gpu = gpus.GPUS[name]
    assert gpus.parse(f"{name}:8") == (gpu, 8)
    known = chip(gpu.kind)
    assert known is not None
    assert (known.flops, known.bandwidth, known.links) == (gpu.flops, gpu.bandwidth, gpu.links)
    text = gpus.target(gpu)
    assert f'device_description_str: "{gpu.kind}"' in text
    assert f"device_memory_size: {gpu.memory}\n" in text
    # What a core of each generation does at once, densely; GeForce does half of it, where it sums
    # up in float32. Rates with sparsity would be twice as many.
    of_a_core = {(8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096}[gpu.capability]
    half = 2 if "GeForce" in gpu.kind else 1
    assert gpu.flops == pytest.approx(gpu.cores * gpu.clock * 1e9 * of_a_core / half, rel=0.1)


def test_programs_may_use_a_fraction_of_the_memory(monkeypatch):
    kind = gpus.GPUS["a100-80"].kind
    assert gpus.usable_memory(kind) == int(0.75 * 85_100_068_864)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert gpus.usable_memory(kind) == int(0.9 * 85_100_068_864)
    assert gpus.usable_memory("NVIDIA T4") is None


@pytest.mark.parametrize("said", ["75", "0", "-1", "nan", "all"])
def test_an_invalid_memory_fraction_is_refused(said, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", said)
    with pytest.raises(gpus.GpuError, match=f"MEM_FRACTION='{said}' is not a fraction"):
        gpus.memory_fraction()


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        ("a10:0", "a10:0: the number of GPUs must be 1 to 8: the network of such hosts is unknown"),
        ("a10:16", "the number of GPUs must be 1 to 8"),
        ("l4:1000000", "the number of GPUs must be 1 to 8"),
        ("h100:12", "the number of GPUs must be 1 to 8, or a multiple of 8 up to 1024"),
        ("h100:1000000", "a multiple of 8 up to 1024"),
        ("h100:0", "the number of GPUs must be 1 to 8"),
        ("rtx4090", "rtx4090 has no number of GPUs: give rtx4090:1, or rtx4090:8"),
        ("rtx4090:", "has no number of GPUs"),
        ("a10:-1", "has no number of GPUs"),
        ("a10:1.5", "has no number of GPUs"),
        ("a10:٣", "has no number of GPUs"),
        ("a10:1:1", "has no number of GPUs"),
        ("a100:8", "give a100-40:8 or a100-80:8"),
        ("a100", "give a100-40:8 or a100-80:8"),
        ("A10:1", "topology 'A10:1' is unknown: give here, a TPU slice"),
        ("t4:1", "or GPUs (NAME:COUNT of a10, l4, rtx4090, a100-40"),
        ("", "topology '' is unknown"),
        (" a10:1", "topology ' a10:1' is unknown"),
        ("v5e", "topology 'v5e' is unknown"),
        ("here:1", "topology 'here:1' is unknown"),
    ],
)
def test_an_unknown_gpu_topology_is_one_line(topology, told, capsys):
    assert main(["plan", "--preset=tiny", f"--topology={topology}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("svilm-train: error: ")
    assert told in line


def test_without_the_plugin_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(hardware, "has_cuda", lambda: False)
    monkeypatch.setattr(hardware.topologies, "get_topology_desc", refuse)
    with pytest.raises(TopologyError, match=r"a10:1 requires JAX's plugin .*pip install .*,cuda\]"):
        devices_of("a10:1")


def refuse(**_):
    raise NotImplementedError("topology not implemented for cuda")
