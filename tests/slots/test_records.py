"""Slot records: every field survives the file, and what is not understood is never guessed."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from reconciler.model.desired import Target
from reconciler.model.errors import ReconcilerError
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, AppName, DeployId, Revision, SlotName
from reconciler.model.observed import Intent, SlotRecord, Stage, Start
from reconciler.slots.layout import Layout
from reconciler.slots.records import STARTS_KEPT, Records, decode, encode

AT = Instant("boot", 17)
FULL = SlotRecord(
    deploy_id=DeployId("d-1"),
    target=Target(Revision("a" * 40), "c", "s"),
    contract='{"name":"shop"}',
    boot_id="boot",
    stage=Stage.FAILED,
    reason="setup-exit",
    detail="grün \n\x1b[1m",
    intents=(Intent(WEB, 1, 20001, 20002, AT),),
    starts=(Start(WEB, AT),),
    drain_since=AT,
    quiet_since=AT + (AT.since(AT)),
    drained=True,
    term_at=AT,
    kill_at=AT,
    vacated=True,
)
APP, SLOT = AppName("shop"), SlotName("deploy-a")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    Layout(tmp_path).slot(APP, SLOT).record.parent.mkdir(parents=True)
    return Records(Layout(tmp_path))


def test_every_field_survives() -> None:
    plain = SlotRecord(DeployId("d"), FULL.target, "", "boot", Stage.PREPARING)
    assert decode(encode(FULL)) == FULL
    assert decode(encode(plain)) == plain
    changed = [
        one.name for one in fields(FULL) if getattr(FULL, one.name) != getattr(plain, one.name)
    ]
    assert set(changed) >= {one.name for one in fields(FULL)} - {"target", "boot_id"}


def test_the_newest_starts_are_kept() -> None:
    many = tuple(Start(WEB, Instant("boot", number)) for number in range(100))
    assert decode(encode(replace(FULL, starts=many))).starts == many[-STARTS_KEPT:]


def test_a_change_is_of_what_the_file_says_now(records: Records) -> None:
    assert records.change(APP, SLOT, lambda old: old) is None
    records.write(APP, SLOT, FULL)
    other = replace(FULL, reason="other")
    Records(records._layout).write(APP, SLOT, other)
    assert records.change(APP, SLOT, lambda old: replace(old, vacated=False)) == replace(
        other, vacated=False
    )
    assert records.read(APP, SLOT) == replace(other, vacated=False)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"null", encode(FULL)[:200]])
def test_what_is_not_understood_is_an_error_that_names_the_file(
    records: Records, content: bytes
) -> None:
    path = records._layout.slot(APP, SLOT).record
    path.write_bytes(content)
    with pytest.raises(ReconcilerError, match=r"deploy-a\.json"):
        records.read(APP, SLOT)
