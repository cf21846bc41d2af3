r"""The dotenv format: one `NAME=value` in a line. What is said about a file never holds a value.

A bare value runs to the end of the line; one that holds ` #` must be quoted, because half of the
world takes that for a comment and the other half for a part of the password. In double quotes
`\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes and any other backslash stands for itself;
single quotes take everything as it is. Nothing is ever expanded. The last line of a name wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

_ASSIGNMENT = re.compile(rf"\s*(?:export\s+)?({NAME.pattern})\s*=[ \t]*(.*)", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_MEANT = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_WRITTEN = {"\n": "\\n", "\r": "\\r", '"': '\\"', "\\": "\\\\", "$": "\\$"}
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,-]*")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a line, counted from 1; the message holds no part of the line."""

    line: int
    message: str


def parse(text: str) -> dict[str, str] | Fault:
    """Returns names and values, or the first fault: a file that is half understood is not used."""
    values: dict[str, str] = {}
    for number, line in enumerate(_lines(text), start=1):
        if _silent(line):
            continue
        read = _assignment(line)
        if isinstance(read, str):
            return Fault(number, read)
        name, value = read
        values[name] = value
    return values


def replaced(text: str, name: str, value: str | None) -> str:
    """Returns the text with that name set, or without it for None; every other line stays."""
    kept = [line for line in _lines(text) if not _assigns(line, name)]
    while kept and not kept[-1]:
        kept.pop()
    if value is not None:
        kept.append(f"{name}={_quoted(value)}")
    return "".join(f"{line}\n" for line in kept)


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also breaks at form feeds and other characters a value may hold.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _silent(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _assigns(line: str, name: str) -> bool:
    found = None if _silent(line) else _ASSIGNMENT.fullmatch(line)
    return found is not None and found[1] == name


def _assignment(line: str) -> tuple[str, str] | str:
    """Returns name and value, or what is wrong with the line."""
    found = _ASSIGNMENT.fullmatch(line)
    if found is None:
        return "expected NAME=value"
    if "\0" in line:
        return "a value cannot hold a NUL character"
    name, raw = found[1], found[2]
    if raw.startswith('"'):
        return _inside(name, _DOUBLE.fullmatch(raw), escapes=True)
    if raw.startswith("'"):
        return _inside(name, _SINGLE.fullmatch(raw), escapes=False)
    if raw.startswith("#") or re.search(r"\s#", raw):
        return f"put the value of {name} in quotes, because it holds a #"
    return name, raw.rstrip()


def _inside(name: str, quoted: re.Match[str] | None, *, escapes: bool) -> tuple[str, str] | str:
    if quoted is None:
        return f"the quotes around the value of {name} do not match"
    return name, _ESCAPE.sub(_meant, quoted[1]) if escapes else quoted[1]


def _meant(escape: re.Match[str]) -> str:
    return _MEANT.get(escape[1], escape[0])


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return '"' + "".join(_WRITTEN.get(character, character) for character in value) + '"'
