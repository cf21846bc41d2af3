"""Which keys of a contract roll the app, and which apply in place."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.model.canonical import Json
from reconciler.model.desired import RESTART_KEYS, Desired, Problem, When
from reconciler.model.names import WEB, Revision
from reconciler.model.observed import NoPointer, ObservedApp, PointsTo
from tests.planning.worlds import (
    FIRST,
    KEY,
    PLAIN,
    SLOT_A,
    SLOT_B,
    WITH_WORKER,
    WORKER,
    WORKER_ONLY,
    after_first,
    contract,
    record,
    started,
)
from tests.planning.worlds import NOW as AT

IN_PLACE: dict[str, Json] = {
    "port": 8080,
    "bind": "0.0.0.0",
    "routes": [{"host": "shop.example"}],
    "drain_timeout_ms": 5,
    "bake_ms": 5,
    "standby_ms": 5,
    "health_interval_ms": 5,
    "health_failures": 9,
    "on_unhealthy": "alert",
    "restart": "no",
    "branch": "release",
    "deploy_on": "request",
    "watch_paths": ["lib/**"],
    "slots": 2,
    "upstream_keep_alive": False,
    "alert_webhook": "https://example.org",
}
ROLLING: dict[str, Json] = {
    "env": {"A": "b"},
    "env_file": "/etc/shop.env",
    "secrets_inject": ["TOKEN"],
    "setup_command": "make",
    "setup_timeout_ms": 5,
    "path": "web",
    "health_endpoint": "/up",
    "health_timeout_ms": 5,
    "health_test_payload": {"method": "GET", "path": "/"},
    "internal_port": 9090,
    "shared_dirs": ["data"],
    "keep_dirs": ["node_modules"],
    "limits": {"memory_mb": 5},
    "user": "shop",
    "driver": "process",
    "start_command": "./other",
}


@pytest.mark.parametrize("key", sorted(IN_PLACE))
def test_a_key_that_needs_no_restart_leaves_the_digest(key: str) -> None:
    assert contract(**{key: IN_PLACE[key]}).digest == PLAIN.digest


@pytest.mark.parametrize("key", sorted(ROLLING))
def test_a_key_that_needs_a_restart_changes_the_digest(key: str) -> None:
    assert contract(**{key: ROLLING[key]}).digest != PLAIN.digest


def test_no_key_is_in_both_lists() -> None:
    assert not set(IN_PLACE) & set(RESTART_KEYS)
    assert set(ROLLING) <= set(RESTART_KEYS)


def test_the_text_brings_the_whole_document_back() -> None:
    one = contract(bake_ms=5, env={"A": "b"})
    assert one.text == ('{"bake_ms":5,"env":{"A":"b"},"name":"shop","start_command":"./serve"}')


def test_previous_stays_warm_for_the_longer_of_bake_and_standby() -> None:
    assert contract(bake_ms=5000, standby_ms=1000).warm_for == timedelta(seconds=5)
    assert contract(bake_ms=0, standby_ms=1000).warm_for == timedelta(seconds=1)


def test_web_starts_before_the_switch_and_the_others_after_it() -> None:
    assert [one.name for one in WITH_WORKER.started(When.BEFORE)] == [WEB]
    assert [one.name for one in WITH_WORKER.started(When.AFTER)] == [WORKER]
    assert [one.name for one in WORKER_ONLY.started(When.BEFORE)] == [WORKER]
    assert WITH_WORKER.has_web
    assert not WORKER_ONLY.has_web


def test_with_problems_nothing_of_a_desired_state_holds() -> None:
    problem = Problem("a.yaml", 3, "bad")
    assert Desired(Revision("a"), {}).valid
    assert not Desired(Revision("a"), {}, (problem,)).valid
    assert str(problem) == "a.yaml:3: bad"


def test_live_is_where_the_pointer_points() -> None:
    seen = after_first()
    assert seen.live is not None
    assert seen.live.name == SLOT_A
    assert ObservedApp(KEY, NoPointer(), seen.slots).live is None
    assert ObservedApp(KEY, PointsTo(SLOT_B), ()).live is None
    assert seen.slot(None) is None


def test_a_slot_is_cold_when_nothing_was_started_or_it_was_told_to_stop() -> None:
    fresh = record(FIRST)
    assert fresh.cold
    up = started(fresh, AT)
    assert not up.cold
    assert (up.started(WEB), up.started(WORKER)) == (AT, None)
