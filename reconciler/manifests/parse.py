"""From bytes to plain values with a line for each: strict YAML and JSON, without surprises.

YAML is read from parser events and never composed or constructed by the library: composing recurses
in C, and a hundred thousand brackets end the process there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Never, TypeAlias

import yaml

from reconciler.model.canonical import Json
from reconciler.model.desired import Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 5_000
# Beyond this a JSON number no longer means the same to every reader.
MAX_NUMBER = 2**53
MAX_DIGITS = 64

# What YAML 1.2 reads as a number, less the forms that read differently elsewhere: no octal, no
# hexadecimal, no `1_000`, no `1:30`. Those stay text, and the schema then refuses them by name.
NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
INTEGER = re.compile(r"[-+]?[0-9]+")
JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\],:"]+')
SURROGATE = re.compile("[\ud800-\udfff]")

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest as plain values, with the line of each, counted from 1.

    A path is the keys and indexes that lead to a value.
    `unread` are the paths whose values were refused: each has its problem already.
    """

    file: str
    value: Json
    lines: Mapping[KeyPath, int]
    unread: frozenset[KeyPath] = frozenset()

    def line(self, path: KeyPath) -> int:
        """Returns the line of the value, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: KeyPath, message: str) -> Problem:
        return Problem(self.file, self.line(path), message)

    def unreadable(self, path: KeyPath) -> bool:
        return any(path[:size] in self.unread for size in range(len(path) + 1))


def parse_document(file: str, content: bytes) -> tuple[Document | None, tuple[Problem, ...]]:
    """Reads a file as JSON if it is named so, else as YAML. Returns every problem of its form.

    There is no document if the text cannot be read to its end; otherwise there is one, even beside
    problems. Never raises for what a file holds.
    """
    reader = _Reader(file, _tokens(file, content))
    try:
        document = reader.read()
    except _UnreadableError as error:
        return None, (*reader.problems, Problem(file, error.line, error.message))
    return document, tuple(reader.problems)


class _UnreadableError(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Kind(Enum):
    MAPPING = auto()
    LIST = auto()
    END = auto()
    SCALAR = auto()


@dataclass(frozen=True, slots=True)
class _Token:
    """One step through a document. `refused` says why it may not stand there."""

    kind: _Kind
    line: int
    value: str | float | bool | None = None
    refused: str = ""
    merges: bool = False


def _tokens(file: str, content: bytes) -> Iterator[_Token]:
    text = _decoded(content)
    yield from _json_tokens(text) if file.lower().endswith(".json") else _yaml_tokens(text)


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _UnreadableError(1, f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(line, "is not UTF-8 text") from error
    if not text.strip():
        raise _UnreadableError(1, "is empty")
    return text


def _yaml_tokens(text: str) -> Iterator[_Token]:
    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
            if documents > 1:
                raise _UnreadableError(line, "holds a second document: one file, one app")
            yield from _yaml_token(event, line)
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise _UnreadableError(line, f"is not YAML: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _UnreadableError(line, f"is not YAML: {error.problem or error.context}") from error
    if not documents:
        raise _UnreadableError(1, "is empty")


def _yaml_token(event: yaml.Event, line: int) -> Iterator[_Token]:
    match event:
        case yaml.AliasEvent():
            refused = f"the alias `*{event.anchor}` is not supported: repeat the value"
            yield _Token(_Kind.SCALAR, line, refused=refused)
        case yaml.ScalarEvent():
            yield _yaml_scalar(event, line)
        case yaml.MappingStartEvent():
            yield _Token(_Kind.MAPPING, line, refused=_decoration(event))
        case yaml.SequenceStartEvent():
            yield _Token(_Kind.LIST, line, refused=_decoration(event))
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            yield _Token(_Kind.END, line)
        case _:
            pass


def _decoration(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> str:
    if event.anchor is not None:
        return f"the anchor `&{event.anchor}` is not supported"
    if event.tag is not None:
        return "tags (`!…`) are not supported"
    return ""


def _yaml_scalar(event: yaml.ScalarEvent, line: int) -> _Token:
    text: str = event.value
    if refused := _decoration(event) or _unfit(text):
        return _Token(_Kind.SCALAR, line, text, refused)
    plain, _ = event.implicit
    if not plain:
        return _Token(_Kind.SCALAR, line, text)
    match text:
        case "" | "~" | "null":
            return _Token(_Kind.SCALAR, line)
        case "true" | "false":
            return _Token(_Kind.SCALAR, line, text == "true")
        case _ if NUMBER.fullmatch(text):
            return _number(text, line)
        case _:
            return _Token(_Kind.SCALAR, line, text, merges=text == "<<")


def _json_tokens(text: str) -> Iterator[_Token]:
    _check_json(text)
    line, position = 1, 0
    for found in JSON_TOKEN.finditer(text):
        line += text.count("\n", position, found.start())
        position = found.start()
        match found.group():
            case "{":
                yield _Token(_Kind.MAPPING, line)
            case "[":
                yield _Token(_Kind.LIST, line)
            case "}" | "]":
                yield _Token(_Kind.END, line)
            case "null":
                yield _Token(_Kind.SCALAR, line)
            case "true" | "false" as word:
                yield _Token(_Kind.SCALAR, line, word == "true")
            case word if word.startswith('"'):
                value: str = json.loads(word)
                yield _Token(_Kind.SCALAR, line, value, _unfit(value))
            case word:
                yield _number(word, line)


def _check_json(text: str) -> None:
    def refuse(constant: str) -> Never:
        raise _UnreadableError(1, f"is not JSON: {constant} is not a number there")

    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise _UnreadableError(error.lineno, f"is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise _UnreadableError(1, _TOO_DEEP) from error


def _number(text: str, line: int) -> _Token:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        refused = "the number is out of range: put it in quotes if it is text"
        return _Token(_Kind.SCALAR, line, refused=refused)
    return _Token(_Kind.SCALAR, line, int(text) if INTEGER.fullmatch(text) else value)


def _unfit(text: str) -> str:
    if "\0" in text:
        return "text may not hold a NUL character"
    # JSON can spell half of a surrogate pair, which no file and no process can then be given.
    if SURROGATE.search(text):
        return "text may not hold half of a surrogate pair"
    return ""


_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"


@dataclass(slots=True)
class _Reader:
    """Builds a document from tokens; goes on after what it refuses, to find every problem."""

    file: str
    tokens: Iterator[_Token]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    unread: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    values: int = 0

    def read(self) -> Document:
        value = self._value((), next(self.tokens))
        # Reading on to the end is what finds a second document.
        next(self.tokens, None)
        return Document(self.file, value, self.lines, frozenset(self.unread))

    def _value(self, path: KeyPath, token: _Token) -> Json:
        self._bound(path, token)
        self.lines.setdefault(path, token.line)
        if token.refused:
            self._refuse(token, token.refused)
        match token.kind:
            case _Kind.MAPPING:
                return self._mapping(path)
            case _Kind.LIST:
                return self._list(path)
            case _:
                if token.refused:
                    self.unread.add(path)
                return token.value

    def _mapping(self, path: KeyPath) -> dict[str, Json]:
        mapping: dict[str, Json] = {}
        while (token := next(self.tokens)).kind is not _Kind.END:
            key = self._key(path, token)
            if key is None:
                self._value((*path, -1), next(self.tokens))
                continue
            if key in mapping:
                self._refuse(token, f"the key `{key}` is given twice")
            self.lines.setdefault((*path, key), token.line)
            value = self._value((*path, key), next(self.tokens))
            mapping.setdefault(key, value)
        return mapping

    def _key(self, path: KeyPath, token: _Token) -> str | None:
        if token.kind is not _Kind.SCALAR:
            self._value((*path, -1), token)
            self._refuse(token, "a key must be text, not a list or a mapping")
            return None
        if token.refused:
            self._refuse(token, token.refused)
            return None
        if token.merges:
            self._refuse(token, "merge keys (`<<`) are not supported: repeat the keys")
            return None
        if not isinstance(token.value, str):
            self._refuse(token, f"a key must be text: put `{json.dumps(token.value)}` in quotes")
            return None
        return token.value

    def _list(self, path: KeyPath) -> list[Json]:
        items: list[Json] = []
        while (token := next(self.tokens)).kind is not _Kind.END:
            items.append(self._value((*path, len(items)), token))
        return items

    def _bound(self, path: KeyPath, token: _Token) -> None:
        self.values += 1
        if len(path) > MAX_DEPTH:
            raise _UnreadableError(token.line, _TOO_DEEP)
        if self.values > MAX_VALUES:
            raise _UnreadableError(token.line, f"holds more than {MAX_VALUES} values")

    def _refuse(self, token: _Token, message: str) -> None:
        self.problems.append(Problem(self.file, token.line, message))
