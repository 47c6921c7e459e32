import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.reading import reading

# Texts with invisible, joining and decomposed characters.
ODD = st.text(st.sampled_from("a. é\u0301👩\u200c\u200d\u200b\ufeff\xad\xa0\t\n\x07\x85\u3000"))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a man, twice", "a man, twice"),
        ("", ""),
        (" \n\u3000", ""),
        ("\ufeff \u200ba \t\u2003man\u2028walks\u200f ", "a man walks"),
        ("a\u202f \u200b \xa0man", "a man"),
        ("sand\u00adwich\x07", "sandwich"),
        ("a man\u200d\u200c walks", "a man walks"),
        ("👩\u200d👧 می\u200cرود", "👩\u200d👧 می\u200cرود"),
        ("cafe\u0301 &amp; ❤\ufe0f", "cafe\u0301 &amp; ❤\ufe0f"),
    ],
)
def test_reading_normalizes_text(text, seen):
    assert reading(text)[0] == seen


@given(ODD)
def test_characters_map_to_their_offsets(text):
    seen, places = reading(text)
    assert len(seen) == len(places) and [*places] == sorted(set(places))
    for character, place in zip(seen, places, strict=True):
        assert text[place] == character or (text[place].isspace() and character == " ")
    assert seen == seen.strip() and "  " not in seen


@given(ODD, st.data())
def test_a_part_reads_as_in_the_whole(text, data):
    seen, places = reading(text)
    words = [place for place, one in enumerate(seen) if one != " "]
    if not words:
        return
    start = data.draw(st.sampled_from(words))
    end = data.draw(st.sampled_from([place for place in words if place >= start]))
    assert reading(text[places[start] : places[end] + 1])[0] == seen[start : end + 1]
