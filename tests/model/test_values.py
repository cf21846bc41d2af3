"""The small values that everything rests on: instants, names, digests, principals, errors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.canonical import Json, canonical, digest
from reconciler.model.errors import CommandFailedError, ReconcilerError, RefusedError
from reconciler.model.events import SCHEMA_VERSION, Event
from reconciler.model.instants import Instant, earliest
from reconciler.model.names import APP_NAME, SLOT_NAMES, AppKey, AppName, HostId, uuid7
from reconciler.model.principals import ADMIN, DAEMON, LOCAL, NOBODY, Scope
from tests.planning.worlds import NOON

NOW = Instant("boot-1", 5_000_000)
ELSEWHERE = Instant("boot-2", 9_000_000)
SECOND = timedelta(seconds=1)


def test_a_deadline_is_reached_at_its_moment_and_after_it() -> None:
    assert NOW.reached(NOW)
    assert (NOW + SECOND).reached(NOW)
    assert not NOW.reached(NOW + timedelta(microseconds=1))


def test_a_deadline_of_another_boot_is_never_reached() -> None:
    assert not ELSEWHERE.reached(NOW)
    assert not NOW.reached(ELSEWHERE)


def test_durations_start_over_with_a_boot() -> None:
    assert (NOW + SECOND).since(NOW) == SECOND
    assert NOW.until(NOW + SECOND) == SECOND
    assert ELSEWHERE.since(NOW) == timedelta(0)
    assert NOW.until(ELSEWHERE) == timedelta(0)


def test_an_instant_survives_being_written_down() -> None:
    for one in (NOW, Instant("a@b", -1)):
        assert Instant.parse(one.text()) == one


@pytest.mark.parametrize("text", ["", "boot", "@5", "boot@", "boot@soon"])
def test_anything_else_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|int"):
        Instant.parse(text)


def test_the_earliest_of_none_is_none() -> None:
    assert earliest() is None
    assert earliest(None, None) is None
    assert earliest(NOW + SECOND, None, NOW) == NOW


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=5), json, max_size=5))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, Json]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical(turned) == canonical(value)
    assert digest(turned) == digest(value)


def test_canonical_text_has_no_spaces_and_keeps_letters() -> None:
    assert canonical({"b": [1, None, True], "a": "é\n"}) == '{"a":"é\\n","b":[1,null,true]}'
    assert len(digest({})) == 64


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_uuid_has_version_seven_and_its_time_in_front(millis: int, bits: int) -> None:
    made = uuid7(millis, bits)
    assert [len(part) for part in made.split("-")] == [8, 4, 4, 4, 12]
    assert made[14] == "7"
    assert made[19] in "89ab"
    assert int(made.replace("-", "")[:12], 16) == millis


def test_uuids_sort_as_their_times_do_and_keep_all_random_bits() -> None:
    assert uuid7(1, 2**74 - 1) < uuid7(2, 0)
    assert len({uuid7(1, 1 << bit) for bit in range(74)}) == 74


def test_names_of_apps_are_short_and_plain() -> None:
    assert APP_NAME.fullmatch("shop-2")
    for bad in ("Shop", "2shop", "-shop", "", "a" * 41, "shop/x", "shop\n"):
        assert not APP_NAME.fullmatch(bad)


def test_slots_and_keys_have_an_order() -> None:
    assert SLOT_NAMES[:3] == ("deploy-a", "deploy-b", "deploy-c")
    assert AppKey(HostId("a"), AppName("z")) < AppKey(HostId("b"), AppName("a"))


def test_an_admin_may_everything_and_nobody_nothing() -> None:
    assert all(ADMIN.may(scope) and DAEMON.may(scope) for scope in Scope)
    assert not any(NOBODY.may(scope) for scope in Scope)
    assert LOCAL.may(Scope.DEPLOY)
    assert not LOCAL.may(Scope.ADMIN)
    assert ADMIN.actor == "human:admin"


def test_errors_carry_what_a_caller_can_act_on() -> None:
    refused = RefusedError("quarantined", "it is", "deploy-1")
    assert (refused.slug, refused.detail, refused.deploy_id) == ("quarantined", "it is", "deploy-1")
    ended = CommandFailedError("git ended with 128", 128, "fatal")
    assert (str(ended), ended.status, ended.output) == ("git ended with 128", 128, "fatal")
    assert isinstance(refused, ReconcilerError)


def test_an_event_is_a_value() -> None:
    one = Event(1, "id", HostId("h"), "deploy.live", SCHEMA_VERSION, NOON, NOON, {"app": "shop"})
    assert one == Event(1, "id", HostId("h"), "deploy.live", 1, NOON, NOON, {"app": "shop"})
