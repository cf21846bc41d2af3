import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifests.desired import load_contract, load_desired
from reconciler.model.desired import Desired
from reconciler.model.names import Revision

REVISION = Revision("4f0c1d2e")


def load(contracts: dict[str, str] | None = None, **apps: str) -> Desired:
    files = {f".autopilot/apps/{name}.yaml": text.encode() for name, text in apps.items()}
    outside = {name: text.encode() for name, text in (contracts or {}).items()}
    return load_desired(files, REVISION, outside)


def sentences(desired: Desired) -> list[str]:
    return [str(problem) for problem in desired.problems]


def test_each_file_in_apps_is_an_app_named_by_its_stem_or_itself() -> None:
    desired = load_desired(
        {
            ".autopilot/apps/one.yaml": b"start_command: x",
            ".autopilot/apps/two.prod.yml": b"start_command: x",
            ".autopilot/apps/three.json": b'{"start_command": "x", "name": "drei"}',
        },
        REVISION,
    )
    assert desired.valid
    assert desired.revision == REVISION
    assert sorted(desired.apps) == ["drei", "one", "two"]
    assert all(name == contract.name for name, contract in desired.apps.items())


@pytest.mark.parametrize(
    "file",
    [
        ".autopilot/agents/x.yaml",
        ".autopilot/policies/default.yaml",
        ".autopilot/README.md",
        ".autopilot/apps/.gitkeep",
        "apps/x.yaml",
    ],
)
def test_other_files_are_left_alone(file: str) -> None:
    assert load_desired({file: b"\xff: ["}, REVISION) == Desired(REVISION, {})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (".autopilot/apps/README.md", "is ignored: an app is a file named *.json, *.yaml, *.yml"),
        (".autopilot/apps/x.YAML", "is ignored: an app is a file named *.json, *.yaml, *.yml"),
        (".autopilot/apps/a/x.yaml", "is ignored: an app is a file in .autopilot/apps/ itself"),
    ],
)
def test_file_that_looks_like_an_app_and_is_none_is_a_warning(file: str, message: str) -> None:
    desired = load_desired({file: b"["}, REVISION)
    assert desired.valid
    assert [str(warning) for warning in desired.warnings] == [f"{file}:1: {message}"]


def test_problems_of_all_files_come_at_once_and_then_no_app_holds() -> None:
    desired = load(good="start_command: x", one="port: x", two="start_command: x\nslots: 1\n")
    assert {problem.file for problem in desired.problems} == {
        ".autopilot/apps/one.yaml",
        ".autopilot/apps/two.yaml",
    }
    assert not desired.apps


def test_two_apps_may_not_share_a_name() -> None:
    assert sentences(load(a="start_command: x", b="start_command: x\nname: a")) == [
        ".autopilot/apps/b.yaml:2: name: `a` is taken already, by .autopilot/apps/a.yaml:1"
    ]


@pytest.mark.parametrize("key", ["port", "internal_port"])
def test_two_apps_may_not_share_a_port(key: str) -> None:
    desired = load(a="start_command: x\n\nport: 3000", b=f"start_command: x\n{key}: 3000")
    assert sentences(desired) == [
        f".autopilot/apps/b.yaml:2: {key}: 3000 is taken already, by .autopilot/apps/a.yaml:3"
    ]


def test_two_apps_may_not_share_a_route_however_it_is_spelled() -> None:
    desired = load(
        a="start_command: x\nroutes: [{host: A.example.com, path: /x/}, {path: /y}]",
        b="start_command: x\nroutes:\n- {host: a.example.com}\n- {host: a.example.com, path: /x}",
        c="start_command: x\nroutes: [{path: /y/}, {host: a.example.com, path: /y}]",
    )
    taken = "is taken already, by .autopilot/apps/a.yaml:2"
    assert sentences(desired) == [
        f".autopilot/apps/b.yaml:4: routes[1]: a.example.com with path /x {taken}",
        f".autopilot/apps/c.yaml:2: routes[0]: any host with path /y {taken}",
    ]


def test_clash_is_told_although_the_app_has_another_problem() -> None:
    desired = load(a="start_command: x\nport: 3000", b="start_command: x\nport: 3000\nslots: 1")
    assert [problem.line for problem in desired.problems] == [2, 3]


def test_contract_from_outside_is_an_app_like_the_others() -> None:
    outside = {"/etc/app.contract.json": '{"start_command": "x", "port": 3000}'}
    assert sorted(load(outside, one="start_command: x").apps) == ["app", "one"]
    assert sentences(load(outside, one="start_command: x\nport: 3000")) == [
        "/etc/app.contract.json:1: port: 3000 is taken already, by .autopilot/apps/one.yaml:2"
    ]


def test_contract_alone_has_its_problems_or_its_app() -> None:
    contract, problems, warnings = load_contract("app.contract.json", b'{"start_command": "x"}')
    assert contract is not None
    assert (contract.name, problems, warnings) == ("app", (), ())
    contract, problems, _ = load_contract("app.contract.json", b"start_command: x")
    assert contract is None
    assert [str(problem) for problem in problems] == [
        "app.contract.json:1: is not JSON: Expecting value"
    ]


FILES = st.dictionaries(
    st.sampled_from([".autopilot/apps/a.yaml", ".autopilot/apps/b.json", ".autopilot/apps/c.yml"]),
    st.binary()
    | st.text("start_command: x\n{}[]\"'processesroutes&*-/.,0123").map(str.encode)
    | st.sampled_from([b"start_command: x\nport: 1\n", b'{"start_command": "x", "port": 1}']),
)


@given(FILES)
def test_no_files_raise_and_equal_files_give_equal_desired_state(files: dict[str, bytes]) -> None:
    desired = load_desired(files, REVISION)
    assert desired == load_desired(dict(reversed(files.items())), REVISION)
    assert desired.valid or not desired.apps
    assert not desired.valid or len(desired.apps) == len(files)


KEYS = ("start_command", "processes", "port", "routes", "health_test_payload", "env", "limits")
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("/.aA0 \n-*"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["web", "setup", "command", "start", "count", "host", "path", "method", "body", "cpu"]
    ), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), ODD))
def test_no_document_raises(document: dict[str, object]) -> None:
    contract, problems, _ = load_contract("a.json", json.dumps(document).encode())
    assert (contract is None) == bool(problems)
