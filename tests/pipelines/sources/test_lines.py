"""Delimited rows with line breaks and quotes in any column, as csv.writer writes them."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import lines
from pipelines.sources.clip_request import RowError

COLUMNS = 4

# A line of a text with as many delimiters as a row is ambiguous: then each line is a row.
_TEXT = st.lists(
    st.text('ab ".\u00e9').map(str.strip)
    | st.tuples(st.text('ab "'), st.text('ab "')).map(",".join),
    max_size=4,
)


def _written(rows, delimiter, line_end):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=line_end).writerows(rows)
    return file.getvalue().encode()


def _read(data, delimiter=","):
    found = [row for _, _, row in lines.table(io.BytesIO(data), delimiter)]
    return [row.reason if isinstance(row, RowError) else [*row.values()] for row in found]


@pytest.mark.parametrize("place", range(COLUMNS))
@pytest.mark.parametrize("text", ["a man\nwalks", 'a man,\n\nwho "walks"', "\n", 'a\n"'])
def test_a_text_of_several_lines_in_any_column(place, text):
    rows = [["a", "0", "1", "x"] for _ in range(3)]
    rows[0][place] = rows[1][place] = text
    assert _read(_written([["c", "d", "e", "f"], *rows], ",", "\n")) == rows


@given(
    st.lists(st.lists(_TEXT, min_size=COLUMNS - 1, max_size=COLUMNS - 1), min_size=1, max_size=5),
    st.integers(0, COLUMNS - 1),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_rows_are_read_as_written(texts, id_column, delimiter, line_end):
    rows = [["\n".join(text) for text in row] for row in texts]
    for row in rows:
        row.insert(id_column, "id")
    header = [["c", "d", "e", "f"]]
    assert _read(_written(header + rows, delimiter, line_end), delimiter) == rows


def test_two_rows_with_a_stray_quote_in_the_last_column_stay_two_rows():
    data = b'c,d,e,f\na,0,1,"stray\nb,0,2,12"\nc,0,1,x\n'
    assert _read(data) == ["row_quote", ["b", "0", "2", '12"'], ["c", "0", "1", "x"]]
