"""Text of others on a terminal: shown, but never acted on."""

from __future__ import annotations

import json

import pytest

from fanfold_consumer.cli.render import make_console, make_table, print_json, printable

HOSTILE = {
    "an escape sequence": "\x1b[2J",
    "a C1 control": "\x9b31m",
    "a title": "\x1b]0;x\x07",
    "a line break": "a\r\nb",
    "another line break": "a\u2028b\x85c",
    "text that runs backwards": "\u202egnp.exe",
    "half a surrogate pair": "\ud83d",
    "something invisible": "a\u200bb\x7f",
    "a tag beyond the first plane": "\U000e0041",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@hostile
def test_what_a_terminal_would_act_on_is_an_escape(text: str) -> None:
    shown = printable(f"before {text} after")
    assert shown.isprintable()
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "\\" in shown


@pytest.mark.parametrize("text", ["", "a b", "naïve 🦉 中文", r"C:\x1b"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@hostile
def test_a_cell_of_a_table_is_on_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(make_table(["HEAD"], [[text]]))
    assert all(line.isprintable() for line in capsys.readouterr().out.removesuffix("\n").split("\n"))


@hostile
def test_json_is_one_printable_line_that_means_the_same(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({text: [text, "naïve 🦉"]})
    line = capsys.readouterr().out.removesuffix("\n")
    assert line.isprintable()
    assert json.loads(line) == {text: [text, "naïve 🦉"]}
    assert "naïve 🦉" in line
