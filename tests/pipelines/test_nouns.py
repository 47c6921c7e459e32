import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import nouns
from protos import contract


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
        ("😀 a man walks the dog 🎈", None),
        ("   ", []),
        ("رجل يغني", None),
    ],
)
def test_chunks(parser, caption, chunks):
    found = texts(parser, caption)
    if chunks is not None:
        assert found == chunks


def test_prompts_follow_the_templates(parser):
    (chunk,) = parser.parse(["the red car"])["the red car"]
    assert list(chunk.prompts) == [t.format("red car") for t in contract.PROMPT_TEMPLATES]


def test_spans_count_code_points(parser):
    caption = "🎈🎈 the big dog eats a sandwich"
    for chunk in parser.parse([caption])[caption]:
        assert caption[chunk.start : chunk.end] == chunk.text
    assert "sandwich" in texts(parser, caption)


@given(st.lists(st.text(max_size=60), max_size=4))
def test_spans_hold_for_any_text(parser, captions):
    for caption, chunks in parser.parse(captions).items():
        for chunk in chunks:
            assert caption[chunk.start : chunk.end] == chunk.text != ""


def test_order_and_repetition_change_nothing(parser):
    captions = [f"a man rides horse number {i}" for i in range(300)]
    assert parser.parse(captions) == parser.parse(captions[::-1] + captions)


def test_a_missing_pipeline_says_how_to_install_it():
    for find in (nouns.versions, lambda model: nouns.NounParser(model, ())):
        with pytest.raises(nouns.NounModelError, match="make setup"):
            find("en_core_web_nowhere")
