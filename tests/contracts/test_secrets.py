"""The Secrets port: what every implementation promises about the values it grants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.model.desired import AppContract
from reconciler.model.names import AppName
from reconciler.ports import Secrets
from reconciler.secrets.files import FileSecrets

pytestmark = pytest.mark.anyio

SHOP = AppName("shop")
BLOG = AppName("blog")


@dataclass(frozen=True)
class Subject:
    """An implementation, and how a person puts a value into it."""

    secrets: Secrets
    put: Callable[[AppName, str, str], None]


def _files(directory: Path) -> Subject:
    files = FileSecrets(directory)
    return Subject(files, files.set_secret)


OPENERS: Mapping[str, Callable[[Path], Subject]] = {"files": _files}


@pytest.fixture(params=sorted(OPENERS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return OPENERS[request.param](tmp_path / "secrets")


def asks(*names: str, **env: str) -> AppContract:
    return AppContract(SHOP, {}, (), secrets_inject=names, env=env)


async def test_secret_wins_over_env(subject: Subject) -> None:
    subject.put(SHOP, "A", "secret")
    resolved = await subject.secrets.resolve(SHOP, asks("A", A="env", B="env"))
    assert resolved.values == {"A": "secret", "B": "env"}
    assert resolved.missing == ()


async def test_nothing_is_granted_to_another_app(subject: Subject) -> None:
    subject.put(SHOP, "A", "secret")
    resolved = await subject.secrets.resolve(BLOG, asks("A"))
    assert (resolved.values, resolved.missing) == ({}, ("A",))


async def test_nothing_is_granted_unasked(subject: Subject) -> None:
    subject.put(SHOP, "A", "secret")
    assert (await subject.secrets.resolve(SHOP, asks())).values == {}


async def test_digest_is_empty_without_secrets(subject: Subject) -> None:
    assert (await subject.secrets.resolve(SHOP, asks(A="env"))).digest == ""


async def test_digest_changes_with_a_value_and_not_with_env(subject: Subject) -> None:
    subject.put(SHOP, "A", "one")
    first = await subject.secrets.resolve(SHOP, asks("A"))
    with_env = await subject.secrets.resolve(SHOP, asks("A", LEVEL="debug"))
    assert with_env.digest == first.digest
    subject.put(SHOP, "A", "two")
    assert (await subject.secrets.resolve(SHOP, asks("A"))).digest != first.digest


async def test_neither_digest_nor_text_holds_a_value(subject: Subject) -> None:
    subject.put(SHOP, "A", "hunter2")
    resolved = await subject.secrets.resolve(SHOP, asks("A"))
    assert "hunter2" not in resolved.digest + repr(resolved)
