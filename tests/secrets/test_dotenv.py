"""The dotenv format: what is read, what is refused, and that a refusal repeats nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets.dotenv import Fault, parse, replaced

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("  export A = spaced out  ", "spaced out"),
        ("A=", ""),
        ("A=a=b==", "a=b=="),
        ("A='#fff'", "#fff"),
        ("A=mid#dle", "mid#dle"),
        ("A=$HOME", "$HOME"),
        ('A="two\\nlines\\t\\"q\\" \\\\ \\$"', 'two\nlines\t"q" \\ $'),
        ('A="C:\\dir" # where', "C:\\dir"),
        ("A='raw \\n $x'", "raw \\n $x"),
        ('A="form\ffeed"', "form\ffeed"),
        ("A=dos\r", "dos"),
    ],
)
def test_line_is_read(line: str, value: str) -> None:
    assert parse(f"# first\n\n{line}\n") == {"A": value}


@pytest.mark.parametrize(
    "line",
    [
        "hunter2",
        "A B=hunter2",
        "1A=hunter2",
        "=hunter2",
        'A="hunter2',
        "A='hunter2",
        'A="x" hunter2',
        "A=hunter2 # or not",
        "A=#hunter2",
        "A=hunter2\0",
    ],
)
def test_fault_names_its_line_and_never_the_value(line: str) -> None:
    found = parse(f"OK=1\n{line}\n")
    assert isinstance(found, Fault)
    assert found.line == 2
    assert "hunter2" not in found.message


def test_last_line_of_a_name_wins() -> None:
    assert parse("A=1\nA=2\n") == {"A": "2"}


@given(TEXTS, TEXTS)
def test_what_is_written_is_read(one: str, other: str) -> None:
    text = replaced(replaced("", "ONE", one), "OTHER", other)
    assert parse(text) == {"ONE": one, "OTHER": other}


def test_replacing_keeps_every_other_line() -> None:
    text = "# mine\nA=1\n\n B='x' # note\nA=2\n"
    assert replaced(text, "A", "new value") == "# mine\n\n B='x' # note\nA=\"new value\"\n"
    assert replaced(text, "A", None) == "# mine\n\n B='x' # note\n"
    assert replaced("# A=1\n", "A", None) == "# A=1\n"
