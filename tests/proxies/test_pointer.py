"""The pointer files: what each form of link means, and what a switch leaves on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.model.errors import ProxyError
from reconciler.model.names import AppName, SlotName
from reconciler.model.observed import NoPointer, PointsTo, UnknownPointer
from reconciler.proxies.pointer import Pointers

APP = AppName("hello")
A = SlotName("deploy-a")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for slot in ("deploy-a", "deploy-b"):
        (tmp_path / "apps/hello/slots" / f"{slot}.addr").mkdir(parents=True)
    (tmp_path / "routes").mkdir()
    return tmp_path


def test_an_app_that_was_never_live_has_no_pointer(data_dir: Path) -> None:
    assert Pointers(data_dir).read(APP) == NoPointer()


def test_a_switch_leaves_one_relative_link_and_nothing_beside_it(data_dir: Path) -> None:
    pointers = Pointers(data_dir)
    pointers.switch(APP, A)
    pointers.switch(APP, SlotName("deploy-b"))
    assert os.listdir(data_dir / "routes") == ["hello"]
    assert os.readlink(data_dir / "routes/hello") == "../apps/hello/slots/deploy-b.addr"
    assert pointers.read(APP) == PointsTo(SlotName("deploy-b"))


def test_a_link_made_by_hand_is_as_good_as_ours(data_dir: Path) -> None:
    (data_dir / "routes/t").symlink_to("../apps/hello/slots/deploy-a.addr")
    (data_dir / "routes/t").rename(data_dir / "routes/hello")
    assert Pointers(data_dir).read(APP) == PointsTo(A)


@pytest.mark.parametrize(
    "target",
    [
        "../apps/hello/slots/deploy-c.addr",
        "../apps/hello/slots/deploy-x.addr",
        "../apps/other/slots/deploy-a.addr",
        "../apps/hello/slots/deploy-a.addr/web",
        "../apps/hello/slots/deploy-a",
        "../apps/hello/slots/../slots/deploy-a.addr",
        "/etc",
    ],
)
def test_any_other_link_is_unknown_and_told_as_it_is(data_dir: Path, target: str) -> None:
    (data_dir / "apps/other/slots/deploy-a.addr").mkdir(parents=True)
    (data_dir / "routes/hello").symlink_to(target)
    pointer = Pointers(data_dir).read(APP)
    assert isinstance(pointer, UnknownPointer)
    assert target in pointer.text


def test_an_absolute_link_is_unknown(data_dir: Path) -> None:
    (data_dir / "routes/hello").symlink_to(data_dir / "apps/hello/slots/deploy-a.addr")
    assert isinstance(Pointers(data_dir).read(APP), UnknownPointer)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_link_is_unknown(data_dir: Path, kind: str) -> None:
    place = data_dir / "routes/hello"
    if kind == "file":
        place.write_text("127.0.0.1:80\n")
    else:
        place.mkdir()
    assert isinstance(Pointers(data_dir).read(APP), UnknownPointer)


def test_a_switch_to_a_slot_that_is_not_there_changes_nothing(data_dir: Path) -> None:
    pointers = Pointers(data_dir)
    pointers.switch(APP, A)
    with pytest.raises(ProxyError, match="deploy-c of hello"):
        pointers.switch(APP, SlotName("deploy-c"))
    assert pointers.read(APP) == PointsTo(A)


def test_a_switch_over_a_directory_says_what_stands_in_the_way(data_dir: Path) -> None:
    (data_dir / "routes/hello").mkdir()
    with pytest.raises(ProxyError, match="routes/hello"):
        Pointers(data_dir).switch(APP, A)


def test_removing_twice_is_no_error(data_dir: Path) -> None:
    pointers = Pointers(data_dir)
    pointers.switch(APP, A)
    pointers.remove(APP)
    pointers.remove(APP)
    assert pointers.read(APP) == NoPointer()


def test_readers_never_see_a_switch_half_done(data_dir: Path) -> None:
    pointers = Pointers(data_dir)
    pointers.switch(APP, A)
    for turn in range(200):
        pointers.switch(APP, SlotName(f"deploy-{'ab'[turn % 2]}"))
        assert isinstance(pointers.read(APP), PointsTo)
