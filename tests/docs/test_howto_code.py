"""The code of the how-to guides, run as printed."""

import doctest
import sys

import jax.numpy as jnp
import pytest

from pipelines.sources.source import StreamedSource
from tests.docs import blocks

HOWTO = blocks.ROOT / "docs" / "howto"


def test_the_documented_source_passes_its_documented_test(monkeypatch):
    page = HOWTO / "new_source.md"
    code, tests = blocks.of(page, "python")
    source = blocks.module("pipelines.sources.tvr", code, page)
    monkeypatch.setitem(sys.modules, "pipelines.sources.tvr", source)
    monkeypatch.setattr("pipelines.sources.tvr", source, raising=False)
    assert isinstance(source, StreamedSource)
    documented = vars(blocks.module("test_tvr", tests, page))
    ran = [check() for name, check in documented.items() if name.startswith("test_")]
    assert len(ran) == 2
    (example,) = blocks.of(page, "json")
    (row,) = documented["read"](example)
    assert (row.video_id, row.end_us) == ("friends_s01e03_seg02_clip_19", 33_870_000)


def test_the_documented_loss_passes_its_example():
    page = HOWTO / "new_loss.md"
    (code,) = blocks.of(page, "python")
    module = blocks.module("documented_loss", code, page)
    (found,) = doctest.DocTestFinder().find(module.max_margin, "max_margin", globs=vars(module))
    done = doctest.DocTestRunner(verbose=False).run(found)
    assert (done.failed, done.attempted) == (0, 2)
    own = jnp.eye(3, dtype=bool)
    assert float(module.max_margin(jnp.zeros((3, 3)), own, 0.5)[0]) == pytest.approx(0.5)
