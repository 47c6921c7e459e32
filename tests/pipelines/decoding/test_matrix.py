"""Every codec in every container: spans have the frames of the whole file."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.decoding import video
from pipelines.decoding.video_file import Failure

X264, X265 = "-c:v libx264", "-c:v libx265"
CODECS = {
    "h264": f"{X264} -g 25 -bf 3",
    "h264-open": f"{X264} -bf 3 -x264-params open-gop=1:keyint=24:scenecut=0:b-pyramid=normal",
    "h264-long": f"{X264} -g 250",
    "h264-refresh": f"{X264} -x264-params intra-refresh=1:keyint=25:bframes=0",
    "h264-field": f"{X264} -flags +ildct+ilme -x264-params tff=1:keyint=25",
    "h264-intra": f"{X264} -g 1",
    "hevc": f"{X265} -x265-params log-level=none:keyint=25:bframes=4",
    "hevc-closed": f"{X265} -x265-params log-level=none:keyint=25:bframes=3:open-gop=0",
    "mpeg4": "-c:v mpeg4 -g 25 -bf 2 -q:v 3",
    "mpeg4-long": "-c:v mpeg4 -g 250 -q:v 3",
    "mpeg2": "-c:v mpeg2video -g 15 -bf 2 -q:v 3",
    "mpeg2-closed": "-c:v mpeg2video -g 15 -flags +cgop -sc_threshold 1000000000 -q:v 3",
    "mpeg1": "-c:v mpeg1video -g 15 -bf 2 -q:v 3",
    "vp8": "-c:v libvpx -g 40 -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 5 -b:v 500k",
    "vp9": "-c:v libvpx-vp9 -g 40 -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 20 -b:v 500k",
    "vp9-realtime": "-c:v libvpx-vp9 -g 24 -deadline realtime -cpu-used 8",
    "av1-svt": "-c:v libsvtav1 -g 40 -preset 12",
    "av1-aom": "-c:v libaom-av1 -g 40 -cpu-used 8 -lag-in-frames 19",
    "av1-realtime": "-c:v libaom-av1 -g 40 -cpu-used 8 -usage realtime",
    "mjpeg": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "png": "-c:v png -pix_fmt rgb24",
    "ffv1": "-c:v ffv1 -g 1",
    "ffv1-long": "-c:v ffv1 -g 30 -coder 1 -context 1",
    "huffyuv": "-c:v huffyuv -pix_fmt yuv422p",
    "ffvhuff": "-c:v ffvhuff",
    "utvideo": "-c:v utvideo",
    "raw": "-c:v rawvideo",
    "palette-avi": "-vf format=pal8 -c:v rawvideo -tag:v 0",
    "palette-mov": "-vf format=pal8 -c:v rawvideo -tag:v 0x20776172",
    "qtrle": "-c:v qtrle -g 30 -pix_fmt rgb24",
    "smc": "-vf format=pal8 -c:v smc",
    "msrle": "-vf format=pal8 -c:v msrle -g 30",
    "rpza": "-c:v rpza -pix_fmt rgb555le",
    "svq1": "-c:v svq1 -pix_fmt yuv410p -g 30",
    "prores": "-c:v prores -pix_fmt yuv422p10le",
    "dnxhd": "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p -s 288x192",
    "cineform": "-c:v cfhd -pix_fmt yuv422p10le",
    "theora": "-c:v libtheora -g 30 -q:v 8",
    "theora-doubled": "-c:v libtheora -g 64 -q:v 8 -vf fps=50,format=yuv420p",
    "flv1": "-c:v flv -g 30 -q:v 3",
    "h263": "-c:v h263 -g 30 -q:v 3 -s 128x96",
    "h263p": "-c:v h263p -g 30 -q:v 3",
    "wmv1": "-c:v wmv1 -g 30 -q:v 3",
    "wmv2": "-c:v wmv2 -g 30 -q:v 3",
    "msmpeg4": "-c:v msmpeg4 -g 30 -q:v 3",
    "msmpeg4v2": "-c:v msmpeg4v2 -g 30 -q:v 3",
    "cinepak": "-c:v cinepak -g 30",
    "gif": "-c:v gif -pix_fmt rgb8",
    "dv": "-c:v dvvideo -s 720x576",
    "jpeg2000": "-c:v jpeg2000",
    "msvideo1": "-c:v msvideo1 -pix_fmt rgb555le",
    "zmbv": "-c:v zmbv -pix_fmt bgr0 -g 30",
    "flashsv": "-c:v flashsv -pix_fmt bgr24 -g 30",
    "snow": "-c:v snow -g 30 -strict -2",
    "dirac": "-c:v vc2",
    "magicyuv": "-c:v magicyuv",
    "vvc": "-c:v libvvenc -g 24 -preset faster",
    "v210": "-c:v v210 -pix_fmt yuv422p10le",
    "asv1": "-c:v asv1",
}
CONTAINERS = {
    "mp4": "-f mp4",
    "mov": "-f mov",
    "fragmented.mp4": "-f mp4 -movflags frag_keyframe+empty_moov+default_base_moof",
    "3gp": "-f 3gp",
    "mkv": "-f matroska",
    "webm": "-f webm",
    "avi": "-f avi",
    "vob": "-f vob",
    "mpg": "-f mpeg",
    "ts": "-f mpegts",
    "ogg": "-f ogg",
    "flv": "-f flv",
    "asf": "-f asf",
}
USUAL = [  # Other containers are slow tests.
    *("av1-svt.mp4", "av1-aom.webm", "h264.ts", "h264.mpg", "h264.asf", "h264-open.mkv"),
    *("hevc.mov", "mpeg4-long.ts", "mpeg2.mpg", "vp8.webm", "vp9.mkv", "palette-avi.avi"),
    *("palette-mov.mov", "theora-doubled.ogg", "h264-refresh.mp4", "mjpeg.avi", "wmv2.asf"),
    *("h264.flv", "ffv1-long.mkv", "smc.mov"),
]


def spans_of(name: str, end_us: int) -> list[tuple[int, int]]:
    """Return a span at the beginning and others of various lengths."""
    chance = random.Random(name)
    spans = [(0, 400_000)]
    for length_us in (100, 40_000, 400_000, 400_000, 2_000_000):
        start_us = chance.randrange(0, end_us - 10_000)
        spans.append((start_us, min(end_us, start_us + length_us)))
    return spans


def film(films, name: str):
    """Return the video, or None if ffmpeg cannot write this combination."""
    codec, _, container = name.partition(".")
    path = films.folder / name
    if not path.exists():
        options = CODECS[codec].split()
        pixels = [] if {"-pix_fmt", "-vf"} & {*options} else ["-pix_fmt", "yuv420p"]
        form = CONTAINERS[container].split()
        if films.run(*options, *pixels, *form, path, source=films.source):
            path.unlink(missing_ok=True)
            return None
    return path


def compare(films, name: str, path) -> bool:
    """Compare a video's spans; return False if neither decoder reads the video."""
    truth = films.truth(path)
    if len(set(truth.numbers)) < 50:  # ffmpeg wrote an unreadable video
        for result in films.decode(path, (0, 400_000), (200_000, 300_000)):
            assert isinstance(result, Failure | video.Frames)
        return False
    films.check(path, spans_of(name, truth.times_us[-1] + 30_000), truth=truth)
    return True


@pytest.mark.parametrize("name", USUAL)
def test_spans_equal_the_whole_file(films, name):
    path = film(films, name)
    assert path is not None
    assert compare(films, name, path)


# Their times run backwards or jump, even if the whole file is decoded.
DISORDERED = {"vvc.vob", "vvc.mpg"}
# AVI cannot store the settings of QuickTime's decoder, so ffmpeg reads other frames.
UNREADABLE = {"qtrle.avi"}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREADABLE)
def test_ffmpeg_cannot_read_the_excluded_combinations(films, name):
    codec = name.partition(".")[0]
    good, bad = (films.truth(film(films, other)) for other in (f"{codec}.mov", name))
    assert good.numbers == [*range(150)]
    assert sum(one != other for one, other in zip(bad.numbers, good.numbers, strict=True)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_in_every_container(films, codec):
    compared = 0
    for container in CONTAINERS:
        name = f"{codec}.{container}"
        if name in DISORDERED | UNREADABLE or (path := film(films, name)) is None:
            continue
        compared += compare(films, name, path)
    print(f"{codec}: {compared} containers")
    assert compared


@pytest.mark.parametrize("name", ["av1-svt.mp4", "h264-open.mkv", "mpeg2.mpg"])
def test_any_spans(films, name):
    path = film(films, name)
    truth = films.truth(path)
    span = st.tuples(st.integers(0, 5_800_000), st.integers(1, 2_000_000))

    @settings(max_examples=15)
    @example([(0, 6_000_000), (0, 40_000), (5_900_000, 60_000)])
    @given(st.lists(span, min_size=1, max_size=6))
    def check(drawn):
        spans = [(start, min(start + length, 5_990_000)) for start, length in drawn]
        found = films.decode(path, *spans)
        for one, result in zip(spans, found, strict=True):
            assert films.numbers(result) == truth.shown(*one, 5), one

    check()
