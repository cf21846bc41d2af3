"""Scenario 10: what is malformed, hostile or missing is refused in words, and live stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import PYTHON, ROOT, Daemon, Repo, free_port, scene, until
from tests.sources.trees import Link, Repository

SEED = ROOT / "fixtures/manifests/good/seed.json"
BROKEN = '{\n "start_command": 5,\n "nonsense": true,\n "routes": [{"path": "no slash"}]\n}\n'


def live(daemon: Daemon, version: str = "one") -> str:
    first = daemon.repo.release(version)
    daemon.start().live(first)
    return first


def stalled(daemon: Daemon, reason: str, app: str | None = None) -> str:
    """Waits for that condition; returns its message."""
    until(
        lambda: (found := daemon.condition("Stalled", app))["status"] and found["reason"] == reason,
        what=f"{reason}; it is {daemon.condition('Stalled', app)}",
    )
    return str(daemon.condition("Stalled", app)["message"])


def mended(daemon: Daemon, app: str | None = None) -> None:
    until(lambda: not daemon.condition("Stalled", app)["status"], what="the condition goes away")


def test_malformed_manifest_leaves_the_last_good_one_in_force(daemon: Daemon) -> None:
    first = live(daemon)
    daemon.repo.write(".autopilot/apps/web.json", BROKEN)
    daemon.repo.app("two")
    daemon.repo.commit("a broken manifest and a new version")
    message = stalled(daemon, "InvalidManifest")
    for line in (2, 3, 4):
        assert f".autopilot/apps/web.json:{line}: " in message, message
    assert daemon.status()["live_commit"] == first
    assert daemon.get().text == "one"
    daemon.repo.manifest()
    daemon.live(daemon.repo.commit("mended"))
    assert daemon.get().text == "two"
    mended(daemon)


def test_last_good_manifest_is_in_force_after_a_restart_too(daemon: Daemon) -> None:
    first = live(daemon)
    daemon.repo.write(".autopilot/apps/web.json", BROKEN)
    daemon.repo.commit("broken")
    stalled(daemon, "InvalidManifest")
    pid = daemon.get().headers["x-pid"]
    daemon.stop()
    daemon.start()
    assert ".autopilot/apps/web.json:3: " in stalled(daemon, "InvalidManifest")
    assert daemon.status()["live_commit"] == first
    assert daemon.get().headers["x-pid"] == pid
    again = daemon.deploy(first)
    assert again.status_code == 200, again.text
    daemon.repo.manifest()
    daemon.live(daemon.repo.release("two"))
    mended(daemon)


def test_one_malformed_manifest_holds_back_all_that_came_with_it(daemon: Daemon) -> None:
    first = live(daemon)
    daemon.repo.manifest("other", routes=[{"path": "/other"}])
    daemon.repo.write(".autopilot/apps/third.yaml", "start_command: [1\n")
    daemon.repo.commit("two more apps, one of them broken")
    assert ".autopilot/apps/third.yaml:" in stalled(daemon, "InvalidManifest")
    assert list(daemon.status()["apps"]) == ["web"]
    (daemon.repo.path / ".autopilot/apps/third.yaml").unlink()
    both = daemon.repo.commit("without it")
    until(lambda: "other" in daemon.status()["apps"], what="the other app is known")
    daemon.live(both, "other")
    assert daemon.status("web")["live_commit"] in (first, both)


def test_removed_manifests_all_at_once_remove_nothing(daemon: Daemon) -> None:
    first = live(daemon)
    shutil.rmtree(daemon.repo.path / ".autopilot")
    daemon.repo.commit("oops")
    assert "no app is named any more" in stalled(daemon, "InvalidManifest")
    assert daemon.get().text == "one"
    assert daemon.status()["live_commit"] == first


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"commit": 5}, "commit"),
        ({"commit": ""}, "commit"),
        ({}, "commit"),
        ({"commit": "main", "wait": "yes"}, "wait"),
        ({"commit": "main", "app": ["web"]}, "app"),
        ({"commit": "main", "skip_probes": ["all"]}, "skip_probes"),
        ({"commit": "main", "colour": "red"}, "colour"),
        ({"commit": "x" * 300}, "commit"),
    ],
)
def test_malformed_deploy_names_the_field(shared: Daemon, body: dict[str, Any], field: str) -> None:
    answer = shared.api("POST", "/deploy", body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "invalid-request"
    assert problem["detail"].startswith(f"{field}:"), problem["detail"]


@pytest.fixture(scope="module")
def shared() -> Any:
    """One daemon for requests that change nothing."""
    with scene() as daemon:
        live(daemon)
        yield daemon


def test_malformed_rollback_and_query_name_the_field(shared: Daemon) -> None:
    for answer, field in (
        (shared.api("POST", "/rollback", {"to": 1}), "to"),
        (shared.api("POST", "/rollback", {"target": "x"}), "target"),
        (shared.api("GET", "/deploys?limit=many"), "limit"),
        (shared.api("GET", "/status?color=red"), "color"),
    ):
        assert answer.status_code == 400, answer.text
        assert answer.json()["detail"].startswith(f"{field}:"), answer.text


@pytest.mark.parametrize(
    "revision",
    [
        "--upload-pack=touch /tmp/autopilot-was-here",
        "-x",
        "main..HEAD",
        "../../etc/passwd",
        "refs/../../../HEAD",
        "main\nmain",
        "HEAD@{upstream}",
        ":/one",
        "main^{tree}",
        "f" * 40,
        "nowhere",
    ],
)
def test_a_revision_that_is_an_option_a_path_or_unknown_is_refused(
    shared: Daemon, revision: str
) -> None:
    answer = shared.deploy(revision)
    assert answer.status_code == 404, answer.text
    assert answer.json()["type"] == "unknown-revision"
    assert not Path("/tmp/autopilot-was-here").exists()
    asked = shared.cli("deploy", "--", revision)
    assert asked.returncode == 1, asked.stdout + asked.stderr
    assert "Traceback" not in asked.stderr


@pytest.mark.parametrize(
    ("keys", "file"),
    [
        ({"path": "../elsewhere"}, "path"),
        ({"path": "/etc"}, "path"),
        ({"shared_dirs": ["../../secrets"]}, "shared_dirs"),
        ({"keep_dirs": ["a/../../b"]}, "keep_dirs"),
    ],
)
def test_a_path_that_leads_out_is_a_problem_of_the_manifest(
    daemon: Daemon, keys: dict[str, Any], file: str
) -> None:
    live(daemon)
    daemon.repo.manifest(**keys)
    daemon.repo.commit("a path that leads out")
    assert f"{file}" in stalled(daemon, "InvalidManifest")
    assert daemon.get().text == "one"
    checked = daemon.cli("validate")
    assert checked.returncode == 1
    assert ".autopilot/apps/web.json:" in checked.stdout


def test_a_directory_of_the_app_that_is_a_link_out_of_the_slot_is_not_followed(
    daemon: Daemon,
) -> None:
    outside = daemon.data.parent / "outside"
    outside.mkdir()
    (outside / "app.py").write_text("print('followed')\n")
    live(daemon)
    daemon.repo.manifest(path="inside", shared_dirs=["uploads"])
    (daemon.repo.path / "inside").symlink_to(outside)
    bad = daemon.repo.commit("the app is a link")
    until(lambda: daemon.status()["recent"][0]["commit"] == bad)
    until(lambda: daemon.status()["deploy"] is None)
    record = daemon.status()["recent"][0]
    assert record["phase"] == "failed", record
    assert [one.name for one in outside.iterdir()] == ["app.py"]
    assert daemon.get().text == "one"


def test_odd_file_names_arrive_and_odd_manifest_names_are_told(daemon: Daemon) -> None:
    live(daemon)
    tree = {
        path.relative_to(daemon.repo.path).as_posix(): path.read_bytes()
        for path in (daemon.repo.path / "app.py", daemon.repo.path / ".autopilot/apps/web.json")
    }
    names = ["two\nlines", "tab\there", 'quo"te', "\udcff\udcfe latin", "-rf", " ", "{file}", "*"]
    odd = dict.fromkeys(names, b"odd\n")
    odd |= {".autopilot/apps/\udcff.yaml": b"start_command: x\n", ".autopilot/apps/a\nb.md": b""}
    broken = Repository(daemon.repo.path).commit({**tree, **odd})
    message = stalled(daemon, "InvalidManifest")
    assert "set `name`" in message
    del odd[".autopilot/apps/\udcff.yaml"]
    fine = Repository(daemon.repo.path).commit({**tree, **odd})
    assert fine != broken
    status = daemon.live(fine)
    mended(daemon)
    slot = daemon.data / "apps/web" / status["live_slot"]
    assert set(names) <= {path.name for path in slot.iterdir()}
    assert daemon.api("GET", "/events?after=0").status_code == 200
    assert daemon.cli("status").returncode == 0


def test_a_manifest_that_is_a_link_is_not_followed(daemon: Daemon) -> None:
    live(daemon)
    tree = {
        path.relative_to(daemon.repo.path).as_posix(): path.read_bytes()
        for path in (daemon.repo.path / "app.py", daemon.repo.path / ".autopilot/apps/web.json")
    }
    linked = Repository(daemon.repo.path).commit(
        {**tree, ".autopilot/apps/other.yaml": Link(b"/etc/passwd"), "note": b"x"}
    )
    daemon.live(linked)
    assert list(daemon.status()["apps"]) == ["web"]


def test_a_repository_without_manifests_says_how_to_begin(daemon: Daemon) -> None:
    shutil.rmtree(daemon.repo.path / ".autopilot")
    daemon.repo.release("one")
    daemon.start()
    conditions = daemon.status()["conditions"]
    assert "autopilot init" in conditions[0]["message"], conditions
    refused = daemon.deploy("main")
    assert (refused.status_code, refused.json()["type"]) == (404, "unknown-app")
    assert ".autopilot/apps/" in refused.json()["detail"]
    daemon.repo.manifest()
    daemon.live(daemon.repo.commit("with a manifest"))


def test_a_directory_that_is_no_repository_says_how_to_begin(daemon: Daemon) -> None:
    shutil.rmtree(daemon.repo.path / ".git")
    refused = daemon.cli("start")
    assert refused.returncode == 1
    assert "git init" in refused.stderr


def contract(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_contracts_outside_the_repository_need_no_manifests_in_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    shutil.rmtree(daemon.repo.path / ".autopilot")
    run = f"exec {PYTHON} -S -E app.py"
    seed = json.loads(SEED.read_text())
    seed |= {
        "start_command": run, "secrets_inject": [],
        "port": free_port(), "internal_port": free_port(),
        "health_test_payload": {"method": "GET", "path": "/", "expect_body": "one"},
    }  # fmt: skip
    first = daemon.repo.release("one", INTERNAL)
    one = contract(tmp_path, "seed.contract.json", json.dumps(seed))
    yaml = f"start_command: {run}\nroutes: [{{path: /}}]\nbake_ms: 0\n"
    two = contract(tmp_path, "other.yaml", yaml)
    daemon.start("--contract", str(one), "--contract", str(two))
    daemon.live(first, "seed")
    daemon.live(first, "other")
    assert daemon.get().text == "one"
    not_enforced = daemon.condition("NotEnforced", "seed")
    assert "max_diff_lines" in not_enforced["message"]


# A second listener on $INTERNAL_PORT, which is where such an app is asked for its health.
INTERNAL = """
def internal():
    if "INTERNAL_PORT" in os.environ:
        inner = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["INTERNAL_PORT"])), Handler)
        threading.Thread(target=inner.serve_forever, daemon=True).start()
threading.Timer(0.05, internal).start()
"""


@pytest.mark.parametrize("text", ["start_command: 5\n", "- a list\n"])
def test_a_malformed_contract_is_told_with_its_line(
    daemon: Daemon, tmp_path: Path, text: str
) -> None:
    shutil.rmtree(daemon.repo.path / ".autopilot")
    daemon.repo.release("one")
    file = contract(tmp_path, "other.yaml", text)
    daemon.start("--contract", str(file))
    assert f"{file}:1: " in stalled(daemon, "InvalidManifest")
    assert f"{file}:1: " in daemon.said()


def test_a_contract_that_is_missing_is_named_at_the_start(daemon: Daemon, tmp_path: Path) -> None:
    daemon.repo.release("one")
    daemon.start("--contract", str(tmp_path / "none.yaml"), ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert f"--contract {tmp_path / 'none.yaml'}: No such file" in daemon.said()
    assert "Traceback" not in daemon.said()


def test_a_service_on_an_empty_repository_deploys_the_first_commit(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.status()["apps"] == {}
    daemon.live(daemon.repo.release("one"))
    assert daemon.get().text == "one"


def test_a_repository_that_is_moved_away_touches_nothing_and_comes_back(daemon: Daemon) -> None:
    first = live(daemon)
    pid = daemon.get().headers["x-pid"]
    away = daemon.repo.path.rename(daemon.repo.path.with_name("away"))
    assert daemon.deploy("nowhere").status_code == 404
    assert str(daemon.repo.path) in stalled(daemon, "SourceUnavailable")
    assert daemon.get().headers["x-pid"] == pid
    assert daemon.status()["live_commit"] == first
    second = Repo(away).release("two")
    away.rename(daemon.repo.path)
    daemon.live(second)
    mended(daemon)


def test_a_daemon_that_starts_while_the_repository_is_away_keeps_what_runs(
    daemon: Daemon,
) -> None:
    first = live(daemon)
    pid = daemon.get().headers["x-pid"]
    daemon.stop()
    away = daemon.repo.path.rename(daemon.repo.path.with_name("away"))
    daemon.repo.path.mkdir()
    daemon.start()
    stalled(daemon, "SourceUnavailable")
    assert daemon.get().headers["x-pid"] == pid
    again = daemon.deploy(first)
    assert again.status_code == 200, again.text
    assert daemon.get().headers["x-pid"] != pid
    daemon.repo.path.rmdir()
    away.rename(daemon.repo.path)
    daemon.live(daemon.repo.release("two"))
    mended(daemon)


def test_a_damaged_repository_touches_nothing(daemon: Daemon) -> None:
    first = live(daemon)
    objects = daemon.repo.path / ".git/objects"
    objects.rename(objects.with_name("gone"))
    assert daemon.deploy("nowhere").status_code == 404
    stalled(daemon, "SourceUnavailable")
    assert daemon.get().text == "one"
    assert daemon.status()["live_commit"] == first
    objects.with_name("gone").rename(objects)
    daemon.live(daemon.repo.release("two"))
    mended(daemon)


def test_a_branch_without_its_objects_touches_nothing(daemon: Daemon) -> None:
    first = live(daemon)
    (daemon.repo.path / ".git/refs/heads/main").write_text("1" * 40 + "\n")
    assert daemon.deploy("nowhere").status_code == 404
    assert daemon.status()["live_commit"] == first
    assert daemon.get().text == "one"
    (daemon.repo.path / ".git/refs/heads/main").write_text(f"{first}\n")
    daemon.live(daemon.repo.release("two"))
    mended(daemon)


def test_a_repository_emptied_of_its_branches_removes_nothing(daemon: Daemon) -> None:
    first = live(daemon)
    daemon.repo.git("update-ref", "-d", "refs/heads/main")
    stalled(daemon, "SourceUnavailable")
    assert daemon.status()["live_commit"] == first
    assert daemon.get().text == "one"
    daemon.repo.git("update-ref", "refs/heads/main", first)
    mended(daemon)
    daemon.live(daemon.repo.release("two"))
