"""The decoding schedule, checked by a simulated decoder that needs each frame's references."""

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decoding.last_frame import LastFrame
from pipelines.decoding.schedule import Coded, IrregularError, schedule

FRAME_US = 40


@st.composite
def videos(draw):
    """Return packets in decoding order: groups of pictures with reordered frames."""
    packets, shown = [], 0
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 12))
        order = [0, *(1 + i for i in draw(st.permutations(range(length - 1))))]
        packets += [(shown + place, place == 0) for place in order]
        shown += length
    lead = max(i - place for i, (place, _) in enumerate(packets))
    return [
        Coded(i, start * FRAME_US, (start + 1) * FRAME_US, (i - lead) * FRAME_US, key)
        for i, (start, key) in enumerate(packets)
    ]


@given(videos(), st.lists(st.integers(0, 80 * FRAME_US), min_size=1, max_size=30).map(sorted))
def test_each_time_gets_its_frame_and_references_are_decoded(video, times):
    starts = sorted(coded.start_us for coded in video)
    steps = [*schedule(video, times, LastFrame(True, FRAME_US))]
    for step in steps:
        for i in step.times:
            assert starts[bisect.bisect_right(starts, times[i]) - 1] == step.coded.start_us
    given_to = [i for step in steps for i in step.times]
    end = max(coded.end_us for coded in video)
    assert sorted(given_to) == [i for i, time in enumerate(times) if time < end]

    # A decoder needs all packets since a key frame.
    before = None
    for step in steps:
        place = step.coded.packet
        if before is None or step.resets:
            assert step.coded.key
        else:
            assert place == before + 1
        before = place


@given(videos(), st.integers(0, 80 * FRAME_US))
def test_a_single_frame_costs_no_more_than_its_group_of_pictures(video, time):
    steps = [*schedule(video, [time], LastFrame(True, FRAME_US))]
    if time < max(coded.end_us for coded in video):
        assert sum(step.coded.key for step in steps) == 1
        assert steps[-1].times == range(1)


@pytest.mark.parametrize(
    "packets",
    [
        [Coded(0, 40, 80, 40, True)],  # shown after the first time
        [Coded(0, 0, 40, 0, False)],  # no key frame
        [Coded(0, 0, 40, 0, True), Coded(1, 40, 80, 60, False)],  # decoded after it is shown
        [Coded(0, 0, 40, 0, True), Coded(1, 40, 80, -40, False)],  # decoding times run backwards
    ],
)
def test_packets_without_times_are_irregular(packets):
    with pytest.raises(IrregularError):
        list(schedule(packets, [20, 60], LastFrame(True, FRAME_US)))


def test_a_missing_key_frame_uses_bounded_memory():
    packets = (Coded(i, i, i + 1, i, i == 0) for i in range(10_000))
    steps = schedule(packets, [9_000], LastFrame(True, FRAME_US))
    assert next(steps).coded.packet == 0
    assert next(packets).packet < 2_000
