"""Markdown: what is shown is what was meant, whatever names are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from asr_onnx.reports import gate_markdown
from asr_onnx.reports.markdown import MOST, code, document, table, text
from asr_onnx.reports.printable import printable

READER = MarkdownIt("commonmark").enable("table")
NASTY = (
    "a|b", "a\\|b", "a\\", "`", "``a` b", "<script>alert(1)</script>", "<b>", "&amp;", "&#42;",
    "*a*", "_a_", "__init__", "[x](http://e.vil)", "![x](y)", "# h", "- a", "1. a", "> q", "---",
    "http://e.vil", "www.e.vil", "@user", "a@b.cd", ":smile:", "$x$", "~~s~~", "    indented",
    "two\nlines", "a\x1b[31mb", "\u202etxt", "", " ", "\t", "é日本", "-->", "<!--", "|||", "#12",
    "</code>", "</details>", "{{x}}", "\ud800", "\ufeff", "a" * 300,
)  # fmt: skip
names = st.one_of(st.sampled_from(NASTY), st.text(max_size=30), st.text("`|\\<&*_[]~ ", max_size=9))


def shown(markdown):
    """Cells of the tables, as they are read; ``HTML`` of anything but ``<code>`` is an error."""
    cells = []
    for token in READER.parse(markdown):
        assert token.type != "html_block", token.content
        if token.type != "inline":
            continue
        found = []
        for part in token.children:
            if part.type == "html_inline":
                assert part.content in ("<code>", "</code>"), part.content
            else:
                assert part.type in ("text", "code_inline", "text_special", "strong_open",
                                     "strong_close", "softbreak"), part  # fmt: skip
                found.append(part.content)
        cells.append("".join(found))
    return cells


@given(st.lists(names, min_size=1, max_size=4))
def test_names_in_a_table_are_shown_as_they_are(found):
    markdown = document(table(["name", "figure"], [(code(n), "1") for n in found]))
    assert shown(markdown) == ["name", "figure", *(c for n in found for c in (printable(n), "1"))]


@given(names)
def test_words_mean_nothing_to_markdown(found):
    wanted = " ".join(printable(found).split())
    for markdown in (f"**3 of 4.** {text(found)}\n", f"- `m`: {text(found)}\n"):
        (line,) = shown(markdown)
        head = "3 of 4." if "*" in markdown[:2] else "m:"
        assert line.replace("\u200b", "").removeprefix(head).strip() == wanted.replace("\u200b", "")
    markdown = document(table(["a", "b"], [(text(found), "1")]))
    assert [c.replace("\u200b", "") for c in shown(markdown)[2:]] == [
        wanted.replace("\u200b", ""), "1",
    ]  # fmt: skip


@given(names)
def test_no_link_and_no_mention_comes_into_being(found):
    """GitHub makes some of plain text, and of entities, too: not behind a space of no width."""
    (line,) = shown(f"x {text(found)}\n")
    assert not re.search(r"https?:\w|www\.|@\w|#\w|:\w+:", line, re.IGNORECASE)


def test_plain_names_stay_readable():
    assert code("layers.0/conv-1.weight") == "`layers.0/conv-1.weight`"
    assert text("cosine 0.95 is below --min-cosine 0.98") == (
        "cosine 0.95 is below --min-cosine 0.98"
    )


@pytest.mark.parametrize("count", [0, MOST, MOST + 1, 10 * MOST])
def test_long_tables_end_with_what_is_left_out(count):
    lines = table(["n"], [(str(n),) for n in range(count)])
    assert len([line for line in lines if line.startswith("|")]) == 2 + min(count, MOST)
    assert any("more: the JSON report" in line for line in lines) == (count > MOST)


def test_a_gate_that_was_waived_did_not_pass():
    outcomes = ("passed", "failed", "waived")
    assert gate_markdown.counted([{"outcome": o} for o in outcomes]) == (
        "1 of 3 gates passed, 1 waived"
    )
    assert gate_markdown.counted([{"outcome": "passed"}]) == "1 of 1 gate passed"
