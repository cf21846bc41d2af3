import json
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifests.contract import contract_from_text
from reconciler.manifests.desired import load_contract
from reconciler.manifests.schema import app_schema
from reconciler.model.canonical import Json
from reconciler.model.desired import (
    AppContract,
    HealthTest,
    Limits,
    ProcessSpec,
    Route,
    When,
)
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import AppName, ProcessName

GOOD = Path(__file__).parents[2] / "fixtures" / "manifests" / "good"


def load(file: str, content: bytes) -> AppContract:
    contract, problems, _ = load_contract(file, content)
    assert problems == ()
    assert contract is not None
    return contract


def fixture(name: str) -> AppContract:
    return load(name, (GOOD / name).read_bytes())


def given_as(**document: Json) -> AppContract:
    return load("app.json", json.dumps({"start_command": "serve", **document}).encode())


def web(command: str) -> ProcessSpec:
    return ProcessSpec(ProcessName("web"), command, When.BEFORE)


@pytest.mark.parametrize("path", sorted(GOOD.iterdir()), ids=lambda path: path.name)
def test_good_manifest_loads_and_comes_back_from_its_record(path: Path) -> None:
    contract = load(path.name, path.read_bytes())
    assert contract_from_text(contract.text) == contract


def test_seed_contract_works_as_it_stands() -> None:
    contract = fixture("seed.json")
    assert contract.name == "seed"
    assert contract.processes == (web("node server.js"),)
    assert (contract.port, contract.internal_port) == (3001, 3901)
    assert contract.health_test == HealthTest(method="GET", path="/api/ping")
    assert contract.health_timeout == timedelta(seconds=5)
    assert contract.secrets_inject == ("DATABASE_URL", "API_KEY", "SESSION_SECRET")
    assert contract.not_enforced == (
        "alert_webhook",
        "max_deploy_size_mb",
        "max_diff_lines",
        "protected_paths",
        "schema_status_endpoint",
    )


def test_smallest_manifest_gets_the_defaults_of_the_table() -> None:
    document: dict[str, Json] = {"start_command": "python3 server.py", "name": "minimal"}
    assert fixture("minimal.yaml") == AppContract(
        AppName("minimal"), document, (web("python3 server.py"),)
    )


DEFAULTS = [
    (key, schema["default"])
    for key, schema in app_schema()["properties"].items()
    if "default" in schema
]


@pytest.mark.parametrize(("key", "default"), DEFAULTS, ids=[key for key, _ in DEFAULTS])
def test_default_in_the_schema_is_the_one_that_holds(key: str, default: Json) -> None:
    stated, silent = given_as(**{key: default}), given_as()
    assert replace(stated, document=silent.document, not_enforced=()) == silent


def test_full_manifest_uses_every_key_and_each_has_its_meaning() -> None:
    contract = fixture("full.yaml")
    assert contract.document.keys() == app_schema()["properties"].keys()
    expected: dict[str, Any] = {
        "processes": (
            web("node server.js"),
            ProcessSpec(ProcessName("worker"), "node worker.js", When.AFTER, 3),
        ),
        "setup_command": "npm ci",
        "setup_timeout": timedelta(minutes=2),
        "path": "services/full",
        "watch_paths": ("libs/**", "package-lock.json"),
        "port": 3001,
        "bind": "::1",
        "internal_port": 3901,
        "routes": (Route("full.example.com", "/"),),
        "health_endpoint": "/healthz?deep=0",
        "health_timeout": timedelta(seconds=5),
        "health_interval": timedelta(seconds=2),
        "health_failures": 5,
        "on_unhealthy": "alert",
        "health_test": HealthTest(
            "POST",
            "/api/ping",
            {"X-Probe": "1", "content-type": "application/json"},
            '{"a":[true,null],"b":1}',
            201,
            "pong",
        ),
        "drain_timeout": timedelta(0),
        "bake": timedelta(seconds=1),
        "standby": timedelta(minutes=1),
        "restart": "no",
        "branch": "release/1.x",
        "deploy_on": "request",
        "env": {"NODE_ENV": "production", "PATH": "/usr/bin"},
        "env_file": "/etc/full.env",
        "secrets_inject": ("DATABASE_URL", "API_KEY"),
        "shared_dirs": ("data",),
        "keep_dirs": ("node_modules",),
        "limits": Limits(512, 0.5, 64, 1024),
        "user": "full",
        "slots": 2,
        "driver": "process",
        "upstream_keep_alive": False,
    }
    assert {field: getattr(contract, field) for field in expected} == expected
    others = {"name", "document", "not_enforced"}
    assert {field.name for field in fields(contract)} == expected.keys() | others


def test_start_command_is_web_beside_other_processes_in_an_order_of_their_own() -> None:
    assert fixture("several.yml").processes == (
        web("node server.js"),
        ProcessSpec(ProcessName("cache"), "node cache.js", When.BEFORE),
        ProcessSpec(ProcessName("queue"), "node queue.js", When.AFTER),
    )


def test_without_web_every_process_starts_before_the_switch() -> None:
    contract = fixture("worker.yaml")
    assert not contract.has_web
    assert contract.started(When.BEFORE) == contract.processes
    assert [process.name for process in contract.processes] == ["clock", "mailer"]


def test_addresses_and_directories_are_spelled_one_way() -> None:
    contract = fixture("several.yml")
    assert contract.routes == (
        Route("shop.example.com", "/basket"),
        Route("*.example.org", "/"),
        Route(None, "/shop"),
        Route(None, "/"),
    )
    assert contract.path == "apps/shop"
    assert (contract.shared_dirs, contract.keep_dirs) == (("data", "uploads"), ("node_modules",))
    assert given_as(bind="0:0:0:0:0:0:0:1").bind == "::1"


def test_values_that_older_yaml_would_change_stay_as_written() -> None:
    contract = fixture("scalars.yaml")
    assert contract.restart == "no"
    assert contract.env == {
        "ON": "on",
        "YES": "yes",
        "TIME": "1:30",
        "OCTAL": "010",
        "GROUPED": "1_000",
        "HEX": "0x1F",
        "DATE": "2024-05-01",
        "VERSION": "1.10",
        "EMPTY": "",
        "SCRIPT": "two\nlines\n",
    }


@pytest.mark.parametrize(
    ("body", "sent", "headers"),
    [
        (None, None, {}),
        ("ping", "ping", {}),
        ("", "", {}),
        ({"b": 1, "a": "é"}, '{"a":"é","b":1}', {"content-type": "application/json"}),
        ([], "[]", {"content-type": "application/json"}),
        (False, "false", {"content-type": "application/json"}),
    ],
)
def test_body_of_the_deep_check_is_text_or_json(
    body: Json, sent: str | None, headers: dict[str, str]
) -> None:
    test = given_as(health_test_payload={"method": "POST", "path": "/", "body": body}).health_test
    assert test == HealthTest("POST", "/", headers, sent)


def test_content_type_of_the_author_is_kept() -> None:
    headers = {"CONTENT-TYPE": "application/ld+json"}
    payload: Json = {"method": "POST", "path": "/", "body": {}, "headers": headers}
    assert given_as(health_test_payload=payload).health_test == HealthTest(
        "POST", "/", headers, "{}"
    )


def test_record_of_another_version_is_read_by_what_is_known() -> None:
    text = (
        '{"colour":1,"limits":{"gpus":1},"name":"a","processes":{"web":{"command":"x","nice":1}}}'
    )
    contract = contract_from_text(text)
    assert contract.processes == (web("x"),)
    assert contract.not_enforced == ()
    assert contract.text == text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"name":"a","bake_ms":"x"}', '{"name":"a","processes":{"web":{}}}'],
)
def test_record_that_is_no_contract_is_refused_in_words(text: str) -> None:
    with pytest.raises(ReconcilerError, match="the recorded contract cannot be read"):
        contract_from_text(text)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True).filter(
    lambda name: name not in ("web", "setup")
)
COMMANDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    lambda text: f"run {text}"
)
PROCESSES = st.dictionaries(
    NAMES,
    COMMANDS
    | st.fixed_dictionaries(
        {"command": COMMANDS},
        optional={"start": st.sampled_from(["before", "after"]), "count": st.integers(1, 64)},
    ),
    min_size=1,
    max_size=4,
)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "processes": PROCESSES,
    "port": st.integers(1, 30000),
    "internal_port": st.integers(30001, 65535),
    "bind": st.ip_addresses().map(str),
    "routes": st.lists(st.from_regex(r"/[a-zA-Z0-9]{1,5}/?", fullmatch=True), unique_by=str).map(
        lambda paths: [
            {"path": path} for path in {path.rstrip("/"): path for path in paths}.values()
        ]
    ),
    "health_endpoint": st.none() | st.just("/up"),
    "health_timeout_ms": st.integers(1, 10**9),
    "health_test_payload": st.fixed_dictionaries(
        {"method": st.sampled_from(["GET", "POST"]), "path": st.just("/")},
        optional={
            "body": st.none()
            | COMMANDS
            | st.dictionaries(NAMES, st.booleans() | st.floats(-1e9, 1e9)),
            "headers": st.dictionaries(NAMES, st.text("abc ")),
        },
    ),
    "env": st.dictionaries(NAMES.map(lambda name: name.replace("-", "_")), COMMANDS),
    "limits": st.fixed_dictionaries({}, optional={"cpu": st.floats(0.01, 64) | st.integers(1, 64)}),
    "driver": st.sampled_from(["auto", "process", "systemd"]),
    "smoke_command": COMMANDS,
    "restart": st.sampled_from(["always", "no"]),
}


@given(st.fixed_dictionaries({"start_command": COMMANDS}, optional=OPTIONAL))
def test_recorded_contract_comes_back_equal(document: dict[str, Json]) -> None:
    contract = load("app.json", json.dumps(document).encode())
    recorded = contract_from_text(contract.text)
    assert recorded == contract
    assert recorded.text == contract.text
    assert recorded.digest == contract.digest
