"""Fields of a request, read strictly: what is unknown, doubled or of the wrong type is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

from starlette.requests import Request

from reconciler.model.errors import RefusedError

MAX_BODY = 1 << 20
MAX_TEXT = 1000
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


def invalid(detail: str) -> RefusedError:
    return RefusedError("invalid-request", detail)


class Fields:
    """Named values, each taken once; `done` refuses those that nobody took."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._left = dict(values)
        self._known: list[str] = []

    def text(self, name: str, *, limit: int = MAX_TEXT) -> str | None:
        """Returns a text that is neither empty nor too long; None when absent or null."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise invalid(f"{name}: must be a string, not {_type(value)}")
        if not value or len(value) > limit:
            raise invalid(f"{name}: must have 1 to {limit} characters, not {len(value)}")
        if "\0" in value or any(0xD800 <= ord(letter) < 0xE000 for letter in value):
            raise invalid(f"{name}: holds a character that is not text")
        return value

    def required(self, name: str, what: str) -> None:
        """Refuses when the field is absent; null counts as present."""
        if name not in self._left:
            raise invalid(f"{name}: missing; {what}")

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(f"{name}: must be true or false, not {_type(value)}")
        return value

    def choices(self, name: str, allowed: Collection[str]) -> tuple[str, ...]:
        """Returns a list of some of the `allowed` words, none twice."""
        value = self._take(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise invalid(f"{name}: must be a list, not {_type(value)}")
        for item in value:
            if not isinstance(item, str) or item not in allowed:
                raise invalid(f"{name}: {item!r} is none of {', '.join(sorted(allowed))}")
        return tuple(dict.fromkeys(value))

    def number(self, name: str, *, minimum: int, maximum: int) -> int | None:
        """Returns a number written in decimal digits, as query parameters and headers have it."""
        value = self._take(name)
        if value is None:
            return None
        text = str(value)
        if re.fullmatch(r"[0-9]{1,18}", text) is None or not minimum <= int(text) <= maximum:
            raise invalid(f"{name}: must be a number from {minimum} to {maximum}")
        return int(text)

    def done(self) -> None:
        for name in sorted(self._left):
            known = ", ".join(self._known) or "none"
            raise invalid(f"{name[:100]}: unknown field; known here: {known}")

    def _take(self, name: str) -> object:
        self._known.append(name)
        return self._left.pop(name, None)


def read_query(request: Request) -> Fields:
    pairs = request.query_params.multi_items()
    values = dict(pairs)
    if len(values) != len(pairs):
        raise invalid("a query parameter is given twice")
    return Fields(values)


async def read_body(request: Request, *, optional: bool = False) -> Fields:
    """Reads a JSON object of at most 1 MiB; with `optional` no body at all counts as `{}`."""
    body = await _bounded(request)
    content_type = request.headers.get("content-type")
    if optional and not body and content_type is None:
        return Fields({})
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise invalid("the body must be JSON, sent with `Content-Type: application/json`")
    try:
        value = json.loads(body, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid(f"the body must be a JSON object, not {_type(value)}")
    return Fields(value)


def idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) != 1 or IDEMPOTENCY_KEY.fullmatch(keys[0]) is None:
        raise invalid("Idempotency-Key: must be 1 to 255 visible ASCII characters, once")
    return keys[0]


async def _bounded(request: Request) -> bytes:
    kept = bytearray()
    async for chunk in request.stream():
        kept += chunk
        if len(kept) > MAX_BODY:
            raise RefusedError("too-large", "the body is over 1 MiB; nothing here needs so much")
    return bytes(kept)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _type(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "null" if value is None else "an object")
