"""The published schema of a manifest, and what its verdicts read like to a person.

The annotation `x-must` in the schema completes the sentence "this value must ...".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.protocols import Validator

from reconciler.manifests.parse import Document, KeyPath
from reconciler.model.canonical import Json

# What stands below these may be a credential, so no message repeats it.
CONFIDENTIAL = frozenset({"alert_webhook", "env", "health_test_payload", "secrets_inject"})
SHOWN = 40


@cache
def app_schema() -> Mapping[str, Any]:
    """Returns the JSON Schema (2020-12) of an app's manifest; callers must not change it."""
    text = files("reconciler.manifests").joinpath("schemas", "app.schema.json").read_text("utf-8")
    schema: Mapping[str, Any] = json.loads(text)
    return schema


def schema_errors(document: Document) -> Iterator[tuple[KeyPath, str]]:
    """Yields what the schema refuses: the path to it and a sentence. Unread values are skipped."""
    for error in _validator().iter_errors(document.value):
        for path, message in _explained(error):
            if not document.unreadable(path):
                yield path, message


@cache
def _validator() -> Validator:
    kind: type[Validator] = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator,
        {"pattern": _pattern, "required": _required},
        type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
    )
    return kind(app_schema())


def _pattern(
    _: Validator, pattern: str, value: object, __: Mapping[str, Any]
) -> Iterator[ValidationError]:
    # Python's `$` also matches before a last line break; the whole text must match.
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError("does not match")


def _required(
    _: Validator, keys: list[str], value: object, __: Mapping[str, Any]
) -> Iterator[ValidationError]:
    # One error for all, because the library names a missing key only in the text of its message.
    if isinstance(value, Mapping) and not value.keys() >= set(keys):
        yield ValidationError("lacks keys")


def _is_integer(_: object, value: object) -> bool:
    # 3000.0 is an integer to JSON Schema, and a surprise wherever it is printed.
    return isinstance(value, int) and not isinstance(value, bool)


def _explained(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    path: KeyPath = tuple(error.absolute_path)
    within = f"{dotted(path)}: " if path else ""
    rule: Any = error.schema
    value: Any = error.instance
    match error.validator:
        case "additionalProperties":
            known = rule["properties"]
            for key in (key for key in value if key not in known):
                yield (*path, key), f"{within}unknown key `{_short(key)}`{_guess(key, known)}"
        case "required":
            for key in (key for key in rule["required"] if key not in value):
                yield path, f"{within}`{key}` is missing"
        case "anyOf":
            yield path, "neither `start_command` nor `processes`: nothing says what to run"
        case "uniqueItems":
            yield path, f"{within}must not list anything twice"
        case "maxItems":
            yield path, f"{within}must not list more than {rule['maxItems']}"
        case "minProperties":
            yield path, f"{within}must not be empty"
        case _ if "propertyNames" in error.absolute_schema_path:
            # People write `- NAME=value` by mistake, and the value may be a secret.
            shown = _short(value.partition("=")[0])
            yield (*path, value), f"{within}the name `{shown}` must {_must(rule, value)}"
        case _:
            yield path, _refusal(path, rule, value)


def _refusal(path: KeyPath, rule: Mapping[str, Any], value: Json) -> str:
    subject = f"{dotted(path)}: " if path else "the manifest "
    seen = f", not {_shown(value)}" if path and path[0] not in CONFIDENTIAL else ""
    unquoted = rule.get("type") == "string" and isinstance(value, int | float)
    return f"{subject}must {_must(rule, value)}{seen}{': put it in quotes' if unquoted else ''}"


def dotted(path: KeyPath) -> str:
    """Returns a path as people write it, e.g. `routes[0].host`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_short(step)}"
    return text.removeprefix(".")


def _must(rule: Mapping[str, Any], value: Json) -> str:
    match rule:
        case {"x-must": str(must)}:
            return must
        case {"enum": list(choices)}:
            return f"be one of {', '.join(choices)}"
        case {"type": "integer" | "number" as kind}:
            return f"be {_NOUNS[kind]}{_bound(rule, value)}"
        case _:
            length = f" of at most {rule['maxLength']} characters" if "maxLength" in rule else ""
            return f"be {_NOUNS[rule['type']]}{length}"


_NOUNS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "object": "a mapping of keys to values",
    "string": "text",
}


def _bound(rule: Mapping[str, Any], value: Json) -> str:
    most, above = rule.get("maximum"), rule.get("exclusiveMinimum")
    if most is not None and isinstance(value, int | float) and value > most:
        return f" of at most {most}"
    return f" of at least {rule['minimum']}" if above is None else f" above {above}"


def _shown(value: Json) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return json.dumps(_short(value), ensure_ascii=False)
        case _:
            return json.dumps(value)


def _short(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "�" for letter in text[: SHOWN + 1])
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _guess(key: str, known: Mapping[str, Any]) -> str:
    if len(key) > SHOWN:
        return ""
    close = get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.7)
    return f": did you mean `{close[0]}`?" if close else ""
