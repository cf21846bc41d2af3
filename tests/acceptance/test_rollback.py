"""Scenario 13: back to what was live, as often as asked, and it stays there until a person acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.harness import Daemon, until


def rolled_back(answer: httpx.Response, commit: str) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    assert (record["commit"], record["success"]) == (commit, True)
    return record


def in_turn(daemon: Daemon, *versions: str) -> list[str]:
    """Makes the versions live one after the other; returns their commits."""
    commits = []
    for version in versions:
        commits.append(daemon.repo.release(version))
        if daemon.process is None:
            daemon.start()
        daemon.live(commits[-1])
    return commits


def test_new_commit_after_a_rollback_is_deployed(daemon: Daemon) -> None:
    first, second = in_turn(daemon, "one", "two")
    rolled_back(daemon.rollback(), first)
    third = daemon.repo.release("three")
    status = daemon.live(third)
    assert status["previous_commit"] == first
    assert [one["commit"] for one in status["quarantine"]] == [second]


def test_rollback_right_after_a_failed_deploy_leaves_what_was_live(daemon: Daemon) -> None:
    first, second = in_turn(daemon, "one", "two")
    bad = daemon.repo.release("bad", "sys.exit(3)")
    until(lambda: daemon.status()["recent"][0]["phase"] == "failed", what="it failed")
    rolled_back(daemon.rollback(), first)
    status = daemon.live(first)
    assert {one["commit"] for one in status["quarantine"]} == {bad, second}
    assert daemon.cli("plan").returncode == 0


def test_rollback_during_a_deploy_ends_it_superseded(daemon: Daemon) -> None:
    first, second = in_turn(daemon, "one", "two")
    slow = daemon.repo.release("slow", "while True: time.sleep(1)")
    running = until(
        lambda: (found := daemon.status()["deploy"]) and found["phase"] == "proving" and found,
        what="it is being proved",
    )
    rolled_back(daemon.rollback(), first)
    ended = daemon.ended(running["deploy_id"])
    assert (ended["commit"], ended["phase"]) == (slow, "superseded")
    assert ended["reason"] == "superseded-by-rollback"
    status = daemon.live(first)
    assert [one["commit"] for one in status["quarantine"]] == [second]
    assert daemon.cli("plan").returncode == 0
    until(
        lambda: all(one["commit"] != slow or not one["instances"] or
                    not any(each["up"] for each in one["instances"])
                    for one in daemon.status()["slots"]),
        what="nothing of it runs",
    )  # fmt: skip


def test_two_rollbacks_go_further_back_and_a_third_has_nowhere_to_go(daemon: Daemon) -> None:
    first, second, _third = in_turn(daemon, "one", "two", "three")
    record = rolled_back(daemon.rollback(), second)
    assert daemon.status()["previous_commit"] == first
    rolled_back(daemon.rollback(), first)
    assert daemon.get().text == "one"
    refused = daemon.rollback()
    assert (refused.status_code, refused.json()["type"]) == (409, "no-previous")
    left = daemon.api("GET", f"/deploys/{record['deploy_id']}").json()
    assert (left["phase"], left["reason"]) == ("rolled_back", "rolled-back-by-request")


def test_rollback_to_a_deploy_or_commit_whose_slot_was_reused_checks_it_out(
    daemon: Daemon,
) -> None:
    first, second, _, _, _ = in_turn(daemon, "one", "two", "three", "four", "five")
    rolled_back(daemon.rollback(to=first[:12]), first)
    assert daemon.get().text == "one"
    deploy_id = next(
        one["deploy_id"] for one in daemon.status()["recent"] if one["commit"] == second
    )
    rolled_back(daemon.rollback(to=deploy_id), second)
    assert daemon.get().text == "two"
    unknown = daemon.rollback(to="0" * 40)
    assert (unknown.status_code, unknown.json()["type"]) == (404, "unknown-revision")


def test_rollback_by_command_line_and_what_it_left_needs_force_and_a_reason(
    daemon: Daemon,
) -> None:
    first, second = in_turn(daemon, "one", "two")
    done = daemon.cli("rollback")
    assert done.returncode == 0, done.stderr
    daemon.live(first)
    refused = daemon.cli("deploy", second)
    assert (refused.returncode, "quarantined" in refused.stderr + refused.stdout) == (1, True)
    assert daemon.cli("deploy", second, "--force").returncode == 64
    stranger = daemon.deploy(second, force=True, reason="I say so")
    assert (stranger.status_code, stranger.json()["type"]) == (403, "forbidden")
    insisted = daemon.cli("deploy", second, "--force", "--reason", "the cause was elsewhere")
    assert insisted.returncode == 0, insisted.stderr
    status = daemon.live(second)
    assert (status["quarantine"], daemon.get().text) == ([], "two")


def test_quarantined_commit_does_not_come_back_as_a_rollback_without_force(
    daemon: Daemon,
) -> None:
    first, second = in_turn(daemon, "one", "two")
    rolled_back(daemon.rollback(), first)
    refused = daemon.rollback(to=second)
    assert (refused.status_code, refused.json()["type"]) == (409, "quarantined")
    assert daemon.get().text == "one"


def test_rollback_into_a_slot_that_is_still_warm_starts_nothing(daemon: Daemon) -> None:
    daemon.repo.manifest(bake_ms=30000)
    first, _second = in_turn(daemon, "one", "two")
    before = warm_pid(daemon, "previous")
    record = rolled_back(daemon.rollback(), first)
    assert warm_pid(daemon, "live") == before
    assert "starting" not in [one["phase"] for one in record["phases"]]


def test_rollback_brings_back_the_contract_recorded_with_it(daemon: Daemon) -> None:
    daemon.repo.manifest(env={"COLOR": "blue"})
    (first,) = in_turn(daemon, "one")
    daemon.repo.manifest(env={"COLOR": "green"}, secrets_inject=["LATER"])
    secrets = daemon.data / "secrets" / "web.env"
    secrets.parent.mkdir(mode=0o700, exist_ok=True)
    secrets.write_text("LATER=x\n")
    secrets.chmod(0o600)
    in_turn(daemon, "two")
    assert daemon.get("/env").json()["COLOR"] == "green"
    secrets.unlink()
    rolled_back(daemon.rollback(), first)
    found = daemon.get("/env").json()
    assert found["COLOR"] == "blue"
    assert "LATER" not in found
    assert daemon.live(first)["live_commit"] == first
    assert daemon.cli("plan").returncode == 0


def test_rollback_to_a_contract_whose_secret_is_gone_is_refused_by_name(daemon: Daemon) -> None:
    secrets = daemon.data / "secrets" / "web.env"
    secrets.parent.mkdir(parents=True, mode=0o700)
    write_secret(secrets, "ONCE=x\n")
    daemon.repo.manifest(secrets_inject=["ONCE"])
    in_turn(daemon, "one")
    daemon.repo.manifest()
    (second,) = in_turn(daemon, "two")
    # While previous still runs it has its secret, and a rollback needs nothing.
    until(lambda: not any(
        one["up"]
        for slot in daemon.status()["slots"] if slot["role"] != "live"
        for one in slot["instances"]
    ))  # fmt: skip
    secrets.unlink()
    answer = daemon.rollback()
    assert (answer.status_code, answer.json()["reason"]) == (422, "missing-secret")
    assert "ONCE" in answer.json()["detail"]
    assert daemon.status()["live_commit"] == second
    assert daemon.get().text == "two"


def test_with_two_slots_a_failed_deploy_costs_previous_and_a_rollback_checks_it_out(
    daemon: Daemon,
) -> None:
    daemon.repo.manifest(slots=2)
    _, second, third = in_turn(daemon, "one", "two", "three")
    assert [one["name"] for one in daemon.status()["slots"]] == ["deploy-a", "deploy-b"]
    daemon.repo.release("bad", "sys.exit(3)")
    until(lambda: daemon.status()["recent"][0]["phase"] == "failed", what="it failed")
    assert daemon.status()["live_commit"] == third
    record = rolled_back(daemon.rollback(), second)
    assert "preparing" in [one["phase"] for one in record["phases"]]
    assert daemon.get().text == "two"


def test_held_contract_does_not_come_back_with_a_changed_secret(daemon: Daemon) -> None:
    keys: dict[str, Any] = {"path": "app", "secrets_inject": ["TOKEN"]}
    secrets = daemon.data / "secrets" / "web.env"
    secrets.parent.mkdir(parents=True, mode=0o700)
    write_secret(secrets, "TOKEN=1\n")
    daemon.repo.manifest(**keys, env={"COLOR": "blue"})
    daemon.repo.app("one", path="app")
    first = daemon.repo.commit("one")
    daemon.start().live(first)
    daemon.repo.manifest(**keys, env={"COLOR": "green"})
    daemon.repo.commit("green")
    until(lambda: daemon.get("/env").json()["COLOR"] == "green", what="green is live")
    daemon.live(first)
    rolled_back(daemon.rollback(), first)
    assert daemon.get("/env").json()["COLOR"] == "blue"
    write_secret(secrets, "TOKEN=2\n")
    daemon.repo.write("README.md", "a commit beside the app is seen after the secret")
    head = daemon.repo.commit("words")
    until(lambda: seen_head(daemon) == head, what="the daemon has looked")
    daemon.live(first)
    assert daemon.get("/env").json()["COLOR"] == "blue"


def seen_head(daemon: Daemon) -> str:
    """Returns the head the app has taken notice of, from the store itself."""
    import sqlite3  # noqa: PLC0415 (tests look at the file, not at our code's view of it)

    connection = sqlite3.connect(f"file:{daemon.data / 'autopilot.db'}?mode=ro", uri=True)
    try:
        (row,) = connection.execute("SELECT revision FROM seen_heads").fetchall()
        return str(row[0])
    finally:
        connection.close()


def write_secret(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.rename(path)


def warm_pid(daemon: Daemon, role: str) -> int:
    slot = next(one for one in daemon.status()["slots"] if one["role"] == role)
    (web,) = slot["instances"]
    assert web["up"]
    return int(web["pid"])
