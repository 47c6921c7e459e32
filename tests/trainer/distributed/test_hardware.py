import jax
import pytest

from trainer.distributed import hardware
from trainer.distributed.hardware import TopologyError, chip, devices_of, has_libtpu, usable_memory


def test_here_is_the_devices_of_jax():
    assert devices_of("here") == jax.devices()
    assert usable_memory(jax.devices()[0]) > 2**30
    assert chip(jax.devices()[0].device_kind) is None


def test_without_libtpu_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(hardware, "has_libtpu", lambda: False)
    monkeypatch.setattr(hardware.topologies, "get_topology_desc", refuse)
    with pytest.raises(
        TopologyError, match=r"v5e:8x8 requires libtpu: run pip install .*\[trainer,tpu\]"
    ):
        devices_of("v5e:8x8")


def refuse(**_):
    raise RuntimeError("no such platform")


@pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed: make fit does it")
def test_a_slice_has_its_chips_and_an_unknown_one_is_named_with_those_known():
    devices = devices_of("v5e:4x8")
    known = chip(devices[0].device_kind)
    assert len(devices) == 32
    assert known is not None and known.name == "v5e"
    with pytest.raises(
        TopologyError, match=r"topology 'v5e:3x3' is unknown.* a TPU slice: v4:2x2x1"
    ):
        devices_of("v5e:3x3")
