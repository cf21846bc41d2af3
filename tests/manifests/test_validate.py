import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from reconciler.manifests.contract import UNENFORCED, UNENFORCED_VALUES
from reconciler.manifests.desired import load_contract, load_desired
from reconciler.manifests.schema import app_schema
from reconciler.model.names import Revision

BAD = Path(__file__).parents[2] / "fixtures" / "manifests" / "bad"
EXPECTED = re.compile(r"^# expect (\d+): (.*)$", re.MULTILINE)


def problems_of(text: str) -> list[str]:
    _, problems, _ = load_contract("app.yaml", text.encode())
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("path", sorted(BAD.iterdir()), ids=lambda path: path.stem)
def test_bad_manifest_tells_every_problem_with_its_line(path: Path) -> None:
    file = f".autopilot/apps/{path.name}"
    content = path.read_text("utf-8")
    expected = {(int(line), message) for line, message in EXPECTED.findall(content)}
    desired = load_desired({file: content.encode()}, Revision("r"))
    assert {(problem.line, problem.message) for problem in desired.problems} == expected
    assert expected
    assert not desired.apps


def test_no_message_repeats_what_may_be_a_secret() -> None:
    content = (BAD / "confidential.yaml").read_bytes()
    _, problems, warnings = load_contract("app.yaml", content)
    assert b"hunter2" in content
    assert "hunter2" not in str(problems) + str(warnings)


@pytest.mark.parametrize(
    ("line", "enforced"),
    [
        ("approval: none", True),
        ("driver: auto", True),
        ("driver: process", True),
        ("internal_socket: false", True),
        ("approval: all", False),
        ("driver: systemd", False),
        ("internal_socket: true", False),
        ("agent_branch: machine", False),
        ("alert_webhook: https://example.com", False),
        ("approval_timeout_ms: 1", False),
        ("max_deploy_size_mb: 1", False),
        ("max_diff_lines: 1", False),
        ("protected_paths: []", False),
        ("schema_status_endpoint: /schema", False),
        ("smoke_command: ./smoke", False),
        ("smoke_timeout_ms: 1", False),
    ],
)
def test_key_without_effect_is_a_warning_and_marks_the_app(line: str, enforced: bool) -> None:
    contract, problems, warnings = load_contract("app.yaml", f"start_command: x\n{line}\n".encode())
    key = line.partition(":")[0]
    assert problems == ()
    assert contract is not None
    assert contract.not_enforced == (() if enforced else (key,))
    sentence = f"`{key}` is not enforced by this version: it is checked but does nothing"
    assert [str(one) for one in warnings] == ([] if enforced else [f"app.yaml:2: {sentence}"])


def test_schema_is_a_schema_and_describes_every_key() -> None:
    Draft202012Validator.check_schema(app_schema())
    assert all(schema["description"] for schema in app_schema()["properties"].values())


def test_every_unenforced_key_is_one_of_the_schema() -> None:
    assert UNENFORCED | UNENFORCED_VALUES.keys() <= app_schema()["properties"].keys()


@pytest.mark.parametrize(
    "line",
    [
        "routes: [{host: a-b.example.com}, {host: localhost}, {host: '*.x'}, {host: 10.0.0.1}]",
        "routes: [{path: /}, {path: /a/b/}, {path: /v1.0/~me/a@b}]",
        "bind: 0.0.0.0",
        "bind: '::'",
        "env: {PATH: /bin, HOME: /tmp, LANG: C, TZ: UTC, _x9: ''}",
        "branch: feature/a.b-c",
        "health_endpoint: null",
        "health_endpoint: /h?a=b%20c&d",
        "shared_dirs: [data, data2, a/data]",
        "path: ..a/.github/b..",
        "watch_paths: ['**/*.py', '[ab]/{c,d}']",
        "limits: {}",
        "processes: {worker: {command: x, start: before, count: 64}}",
    ],
)
def test_what_people_write_is_accepted(line: str) -> None:
    assert problems_of(f"start_command: x\n{line}\n") == []


def test_messages_stay_short() -> None:
    long = "k" * 500
    many = "".join(f"- d{index}\n" for index in range(101))
    assert problems_of(f"start_command: x\n{long}: 1\nrestart: {long}\nkeep_dirs:\n{many}") == [
        f"app.yaml:2: unknown key `{'k' * 40}…`",
        f'app.yaml:3: restart: must be one of always, no, not "{"k" * 40}…"',
        "app.yaml:4: keep_dirs: must not list more than 100",
    ]


def test_dropped_keys_do_not_hide_the_checks_of_the_others() -> None:
    text = "processes: {web: x}\nstart_command: x\nport: none\nbind: host\nslots: 1\n"
    assert [problem.split(":")[1] for problem in problems_of(text)] == ["1", "3", "4", "5"]
