import collections
import copy
import csv
import json
import time
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.building import nouns
from pipelines.building.parts_of_speech import PartsOfSpeech
from protos import contract
from protos.reading import reading

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def parser():
    return nouns.NounParser(nouns.default_model(), contract.PROMPT_TEMPLATES)


def texts(parser, caption):
    return [chunk.text for chunk in parser.parse([caption])[caption]]


@pytest.mark.parametrize(
    ("caption", "chunks"),
    [
        ("A young woman pours the milk into a bowl.", ["young woman", "milk", "bowl"]),
        ("One dog chases an old cat.", ["dog", "old cat"]),
        ("She gives it to them.", []),
        ("It is what it is.", []),
        ("She washes her face and his two hands.", ["face", "hands"]),
        ("Several men lift their heavy weights.", ["men", "heavy weights"]),
        ("All of these 12 people watch the man's dog.", ["people", "dog"]),
        ("A lot of people ride a couple of horses.", ["people", "horses"]),
        ("A man with no shirt holds another ball.", ["man", "ball"]),
        ("Both girls wash my mother's old car.", ["girls", "old car"]),
        ("😀 a man walks the dog 🎈", ["man", "dog", "🎈"]),
        ("   ", []),
        ("رجل يغني", []),
    ],
)
def test_chunks(parser, caption, chunks):
    assert texts(parser, caption) == chunks


def test_prompts_follow_the_templates(parser):
    (chunk,) = parser.parse(["the red car"])["the red car"]
    assert list(chunk.prompts) == [t.format("red car") for t in contract.PROMPT_TEMPLATES]


def test_spans_count_code_points(parser):
    caption = "🎈🎈 the big dog eats a sandwich"
    for chunk in parser.parse([caption])[caption]:
        assert caption[chunk.start : chunk.end] == chunk.text
    assert "sandwich" in texts(parser, caption)


@given(st.lists(st.text(max_size=60), max_size=4))
def test_spans_fit_any_text(parser, captions):
    for caption, chunks in parser.parse(captions).items():
        for chunk in chunks:
            assert caption[chunk.start : chunk.end] == chunk.text != ""


SPACES = st.text(st.sampled_from(" \t\n\r\x0b\x1f\x85\xa0\u2003\u2028\u202f\u3000"), min_size=1)
UNSEEN = st.text(st.sampled_from("\u200b\u200e\u202a\u2060\ufeff\xad\x07"), max_size=2)
_KNOWN = ("a", "the", "man's", "red", "cars", "walk", "two", "dogs", ",", "of", "with", "no", "😀")
WORDS = st.one_of(
    st.sampled_from(_KNOWN),
    st.from_regex(r"[!-~é]{1,6}", fullmatch=True),
)


@settings(max_examples=40)
@given(st.lists(WORDS, min_size=1, max_size=12), st.data())
def test_white_space_and_invisible_characters_change_no_nouns(parser, words, data):
    plain = " ".join(words)
    odd = data.draw(SPACES | UNSEEN)
    for word in words:
        cut = data.draw(st.integers(0, len(word)))
        odd += data.draw(UNSEEN) + word[:cut] + data.draw(UNSEEN) + word[cut:] + data.draw(SPACES)
    found, expected = parser.parse([odd])[odd], parser.parse([plain])[plain]
    assert [chunk.prompts for chunk in found] == [chunk.prompts for chunk in expected]
    for chunk, same in zip(found, expected, strict=True):
        assert odd[chunk.start : chunk.end] == chunk.text
        assert reading(chunk.text)[0] == same.text


@pytest.mark.parametrize(
    ("caption", "chunk"),
    [
        ("a\xa0man\xa0walks", "man"),
        ("a  man   walks", "man"),
        ("a\tman\twalks", "man"),
        ("a\u3000man\nwalks", "man"),
        ("\ufeffa \u202aman\u202c walks", "man"),
        ("he has a\n\n red \t car", "red \t car"),
        ("he eats the sand\u00adwich", "sand\u00adwich"),
    ],
)
def test_chunks_of_uneven_captions(parser, caption, chunk):
    (found,) = parser.parse([caption])[caption]
    assert found.text == chunk == caption[found.start : found.end]
    assert found.prompts[0] == f"A footage of a {reading(chunk)[0]}."


def test_meaningless_words_do_not_affect_other_nouns(parser):
    caption = f"a\xa0man  {'!' * 5_000}\t rides a\n\nhorse"
    assert texts(parser, caption) == ["man", "horse"]
    many = "the big\xa0\xa0dog eats " * 700  # more tokens than are parsed
    assert texts(parser, many) == ["big\xa0\xa0dog"] * len(texts(parser, many))
    assert len(texts(parser, many)) >= 600


def test_order_and_repetition_change_nothing(parser):
    captions = [f"a man rides horse number {i}" for i in range(300)]
    assert parser.parse(captions) == parser.parse(captions[::-1] + captions)


def test_a_missing_pipeline_has_installation_advice():
    for find in (nouns.versions, lambda model: nouns.NounParser(model, ())):
        with pytest.raises(nouns.NounModelError, match="make setup"):
            find("en_core_web_nowhere")


def real_captions():
    """Return captions of real annotation files, if present."""
    if not DATA.is_dir():
        pytest.skip(f"no real annotation files in {DATA}")
    videos = json.loads((DATA / "activitynet_captions/val_1_first600.json").read_text("utf-8"))
    found = {sentence.strip() for video in videos.values() for sentence in video["sentences"]}
    with open(DATA / "msrvtt/msrvtt_test.csv", encoding="utf-8") as file:
        found |= {row["sentence"] for row in csv.DictReader(file)}
    for path in (DATA / "howto100m").glob("*.csv"):
        with open(path, encoding="utf-8") as file:
            found |= {row["text"] for row in csv.DictReader(file)}
    return sorted(found)


def test_no_real_prompt_has_two_determiners(parser):
    chunks = parser.parse(real_captions()).values()
    counts = collections.Counter(one.text.split()[0].lower() for of in chunks for one in of)
    assert counts["man"] > 500
    numbers = "two|three|four|five|six|seven|eight|nine|ten|many|much|several|few|more|most|lots"
    others = "a|an|the|this|that|these|those|some|any|no|each|every|another|both|all"
    owners = "his|her|its|their|my|your|our"
    unfit = {*numbers.split("|"), *owners.split("|"), *others.split("|")}
    assert not {first for first in counts if first in unfit or first.isdecimal()}
    assert not [word for word in counts if word.endswith(("'s", "s'"))]


def test_parts_of_speech_equal_the_rulers(parser):
    captions = [*["the big dog eats a sandwich", "there is a man who's there", "it 's 3"]]
    captions += ["THE Man, 12 of them - (all) ran!", "🎈 a  man"]
    nlp = spacy.load(nouns.default_model(), exclude=["ner", "lemmatizer", "senter"])
    nominal = {"NOUN", "PROPN", "PRON"}
    for caption in captions:
        (asked,) = parser._nlp.pipe([caption])
        parser._parts.set(asked)
        for token, own in zip(nlp(caption), asked, strict=True):
            assert token.pos == own.pos or not {token.pos_, own.pos_} & nominal, caption


def test_numpy_products_give_spacys_default_chunks(parser):
    """The libraries sum in different orders, which could change close decisions of the parser."""
    sentences = Path(__file__).parents[2] / "trainer" / "weights" / "paraphrases.tsv"
    captions = {text for line in sentences.read_text().splitlines() for text in line.split("\t")}
    assert len(captions) > 80
    by_default = copy.copy(parser)
    by_default._nlp = spacy.load(nouns.default_model(), exclude=["ner", "lemmatizer", "senter"])
    by_default._parts = PartsOfSpeech(by_default._nlp)
    assert parser.parse(captions) == by_default.parse(captions)


@pytest.mark.parametrize(
    "caption",
    [
        "!" * 10_000,
        "😀" * 10_000,
        "(" * 5_000 + "a man" + ")" * 4_995,
        ("!" * 99 + " ") * 100,
        "! " * 5_000,
        "a man , " * 1_250,
        "http://a.b/" * 909,
        " " * 10_000,
    ],
)
def test_a_captions_time_is_bounded(parser, caption):
    began = time.process_time()
    found = parser.parse([caption])[caption]
    assert time.process_time() - began < 5  # The first caption once took 16 s on a fast core.
    assert len(parser._tokens(caption)) <= 2_500
    for chunk in found:
        assert caption[chunk.start : chunk.end] == chunk.text != ""


def test_nouns_beside_nonwords_are_found(parser):
    noise = "!" * 5_000
    for caption in (f"a man {noise} rides a horse", f"{noise} a man rides a horse {noise}"):
        assert texts(parser, caption) == ["man", "horse"]
    assert texts(parser, f"a man{noise}") == []


def test_captions_of_the_maximum_length_are_parsed(parser):
    caption = ("the big dog eats a sandwich " * 400)[:10_000].rstrip()
    assert len(texts(parser, caption)) >= 2 * 10_000 // 28
