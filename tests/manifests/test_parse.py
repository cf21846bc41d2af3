import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.manifests.parse import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_document
from reconciler.model.canonical import Json

# Characters that mean something to one of the two formats, and a few that mean trouble.
SYNTAX = "{}[],:\"'\\\n\t \r-?&*!|>%@`#<~ab01.e+\0\x85\u2028\ufeffé🚀"

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e15, 1e15, allow_nan=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text("ab🚀\\"), inner, max_size=5)
    ),
    max_leaves=20,
)


def value_of(file: str, content: bytes) -> Json:
    document, problems = parse_document(file, content)
    assert problems == ()
    assert document is not None
    return document.value


def refusals(file: str, content: bytes) -> list[tuple[int, str]]:
    _, problems = parse_document(file, content)
    assert all(problem.file == file for problem in problems)
    return [(problem.line, problem.message) for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", "True"),
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-17", -17),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("0o7", "0o7"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2024-05-01", "2024-05-01"),
        ("=", "="),
        ("'5'", "5"),
        ('"\\ttab"', "\ttab"),
    ],
)
def test_yaml_scalars_have_no_surprises(text: str, value: Json) -> None:
    read = value_of("a.yaml", f"key: {text}\n".encode())
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_merge_sign_is_text_as_a_value() -> None:
    assert value_of("a.yaml", b"a: <<\n") == {"a": "<<"}


@given(JSON_VALUES)
@example("\U0001f680")
def test_json_reads_what_the_json_library_reads(value: Json) -> None:
    for text in (json.dumps(value), json.dumps(value, indent="\t", ensure_ascii=False)):
        assert value_of("a.json", text.encode()) == json.loads(text)


@pytest.mark.parametrize("file", ["a.json", "a.yaml"])
def test_each_value_has_its_line(file: str) -> None:
    text = b'{\r\n "a": {\n  "b":\n   1},\n "c": [\n  "x\\ny",\n  {"d": 2}\n ]}\n'
    document, _ = parse_document(file, text)
    assert document is not None
    paths = [(), ("a",), ("a", "b"), ("c",), ("c", 0), ("c", 1), ("c", 1, "d")]
    assert [document.line(path) for path in paths] == [1, 2, 3, 5, 6, 7, 7]
    assert document.line(("a", "missing", 3)) == 2


@pytest.mark.parametrize(
    ("file", "content", "line", "message"),
    [
        ("a.yaml", b"", 1, "is empty"),
        ("a.yaml", b"\n# nothing\n", 1, "is empty"),
        ("a.yaml", b"\xef\xbb\xbf \n", 1, "is empty"),
        ("a.json", b" ", 1, "is empty"),
        ("a.yaml", b"a: 1\nb: \xff\n", 2, "is not UTF-8 text"),
        ("a.json", b'{"a":\n"\xff"}', 2, "is not UTF-8 text"),
        ("a.yaml", b"a: 1\nb: \x07\n", 2, "is not YAML: control characters are not allowed"),
        ("a.yaml", b"a: 1\nb: *x\n", 2, "the alias `*x` is not supported: repeat the value"),
        ("a.yaml", b"a:\n  &x b: 1\n", 2, "the anchor `&x` is not supported"),
        ("a.yaml", b"a: !!python/name:os.system\n", 1, "tags (`!…`) are not supported"),
        ("a.yaml", b"a: 1\n---\n", 2, "holds a second document: one file, one app"),
        ("a.yaml", b"a: 1\n...\n---\nb: 1\n", 3, "holds a second document: one file, one app"),
        ("a.yaml", b"true: 1\n", 1, "a key must be text: put `true` in quotes"),
        ("a.json", b'{"a": 1,\n"a": 2}', 2, "the key `a` is given twice"),
        ("a.json", b'{"a": 1,\n "b": 2,\n}', 3, "is not JSON: "),
        ("a.json", b'{"a": 1}\n{"b": 2}', 2, "is not JSON: Extra data"),
        ("a.json", b'{"a": NaN}', 1, "is not JSON: NaN is not a number there"),
        ("a.json", b"a: 1", 1, "is not JSON: Expecting value"),
        ("A.JSON", b"a: 1", 1, "is not JSON: Expecting value"),
        ("a.json", b'{"a":\n1e999}', 2, "the number is out of range"),
        ("a.json", b"[" + b"9" * 5000 + b"]", 1, "the number is out of range"),
        ("a.json", b'"\\ud800"', 1, "text may not hold half of a surrogate pair"),
        ("a.json", b'{"a\\u0000": 1}', 1, "text may not hold a NUL character"),
        ("a.yaml", b'a: "\\0"', 1, "text may not hold a NUL character"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_line(
    file: str, content: bytes, line: int, message: str
) -> None:
    [(found, words)] = refusals(file, content)
    assert found == line
    assert words.startswith(message)


def test_one_problem_does_not_hide_the_next() -> None:
    text = b"a: &x 1\nb: *x\nb: 2\n<<: {c: 1}\nd: [\n"
    assert [line for line, _ in refusals("a.yaml", text)] == [1, 2, 3, 4, 6]


def test_first_of_two_equal_keys_is_kept() -> None:
    document, problems = parse_document("a.yaml", b"a: 1\na: 2\n")
    assert document is not None
    assert document.value == {"a": 1}
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.yaml", b"[" * 500_000),
        ("a.yaml", b"{" * 500_000),
        ("a.yaml", b"- " * 500_000),
        ("a.yaml", b"? " * 500_000),
        ("a.yaml", b"{a: " * 200_000),
        ("a.json", b"[" * 500_000),
        ("a.json", b"[" * 500 + b"]" * 500),
        ("a.json", b'{"a":' * 200_000),
    ],
)
@pytest.mark.timeout(10)
def test_deep_nesting_is_a_problem_and_costs_nothing(file: str, content: bytes) -> None:
    assert refusals(file, content) == [(1, f"is nested more than {MAX_DEPTH} levels deep")]


@pytest.mark.parametrize("file", ["a.json", "a.yaml"])
def test_size_is_bounded(file: str) -> None:
    many = b"[" + b"1," * MAX_VALUES + b"1]"
    assert refusals(file, many) == [(1, f"holds more than {MAX_VALUES} values")]
    assert refusals(file, b" " * (MAX_BYTES + 1)) == [(1, "is larger than 1 MiB")]
    assert refusals(file, b" " * MAX_BYTES) == [(1, "is empty")]


@given(st.binary() | st.text(SYNTAX).map(str.encode), st.sampled_from(["a.yaml", "a.json"]))
def test_no_bytes_raise(content: bytes, file: str) -> None:
    document, problems = parse_document(file, content)
    assert document is not None or problems
    lines = content.count(b"\n") + content.count(b"\r") + content.count(b"\xc2\x85") + 2
    lines += content.count(b"\xe2\x80\xa8")
    assert all(1 <= problem.line <= lines for problem in problems)
