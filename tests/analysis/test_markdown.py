"""Tables in Markdown keep their shape, and text from elsewhere stays text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorloss.report.markdown import escape, markdown_table, one_line


def test_a_table_is_padded_and_aligned():
    assert markdown_table(["loss", "n"], [["BCE", "5"], ["(i) target", "12"]]).splitlines() == [
        "| loss       |   n |",
        "| :--------- | --: |",
        "| BCE        |   5 |",
        "| (i) target |  12 |",
    ]
    assert markdown_table(["a", "b", "c"], [], "rl").splitlines()[1] == "| --: | :-- | :-- |"


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_no_text_breaks_a_table(rows):
    lines = markdown_table(["a", "b"], rows).splitlines()
    assert len(lines) == len(rows) + 2
    for line in lines:
        unescaped = line.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 3
        assert line.isprintable()


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        markdown_table(["a", "b"], [["only one"]])


def test_foreign_text_is_shown_as_it_is():
    assert escape("a | <b>*c*</b> [d](e) `f` &amp;") == (r"a \| \<b\>\*c\*\</b\> \[d\](e) \`f\` \&amp;")
    assert escape("x86_64\n\n# title\x1b[2J\u202e") == r"x86_64 \# title \[2J"
    assert escape("AMD EPYC (1 thread, AVX2)") == "AMD EPYC (1 thread, AVX2)"
    assert one_line("\\input\n\\write18\r\t x\u2028y") == r"\input \write18 x y"
