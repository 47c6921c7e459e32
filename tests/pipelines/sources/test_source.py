"""Every format implements one of the two interfaces."""

import pytest

from pipelines.sources import SOURCES
from pipelines.sources.source import CombinedSource, StreamedSource
from protos.v1.manifest_pb2 import SourceOptions


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_has_one_interface_and_its_options(source):
    assert isinstance(source, StreamedSource) != isinstance(source, CombinedSource)
    assert set(source.OPTIONS) <= set(SourceOptions.DESCRIPTOR.fields_by_name)
    assert ("subset" in source.OPTIONS) == bool(source.SUBSETS)
    assert source.FORM
