import pytest

from trainer.configs.tiny import CONFIG
from trainer.distributed import flops, hardware
from trainer.distributed.mesh import one_device
from trainer.training import throughput
from trainer.training.throughput import ThroughputMeter


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests can set, in seconds."""
    now = [100.0]

    class Time:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(throughput, "time", Time)
    return now


def test_throughput_is_measured_between_readings(clock):
    measured = ThroughputMeter(CONFIG, one_device(), flops.step_flops(CONFIG), start=10)
    clock[0] += 6
    with measured.waiting():
        clock[0] += 2
    with measured.paused():
        clock[0] += 50
    assert measured.read(14) == {
        "step_seconds": 2.0,
        "clips_per_second": CONFIG.batch / 2,
        "input_wait": 0.25,
    }  # A CPU's peak and memory are unknown.
    clock[0] += 3
    assert measured.read(15)["step_seconds"] == 3.0


def test_utilisation_is_of_the_peak_of_all_chips(clock, monkeypatch):
    chip = hardware.Chip("a processor", None, 2e12, 1e9, 1e9)
    monkeypatch.setitem(hardware.CHIPS, "cpu", chip)
    measured = ThroughputMeter(CONFIG, one_device(), flops.step_flops(CONFIG), start=0)
    clock[0] += 4
    expected = flops.step_flops(CONFIG) / 2e12 / 2
    assert measured.read(2)["flops_utilisation"] == pytest.approx(expected)
