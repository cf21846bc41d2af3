"""Scenario 12: which revision, contract and secrets a deploy means, and what a bad one costs."""

from __future__ import annotations

from typing import Any

from tests.acceptance.harness import PYTHON, Daemon, until

START = f"exec {PYTHON} -S -E app.py"


def deployed(daemon: Daemon, commit: str) -> dict[str, Any]:
    answer = daemon.deploy(commit)
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


def newest(daemon: Daemon) -> dict[str, Any]:
    record: dict[str, Any] = daemon.status()["recent"][0]
    return record


def set_secret(daemon: Daemon, name: str, value: str) -> None:
    done = daemon.cli("secrets", "set", name, "--app", "web", given=value)
    assert done.returncode == 0, done.stderr


def test_live_commit_asked_for_again_rolls_to_another_slot(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start()
    before = daemon.live(commit)
    record = deployed(daemon, commit)
    assert record["slot"] != before["live_slot"]
    after = daemon.live(commit)
    assert (after["live_slot"], after["previous_commit"]) == (record["slot"], commit)


def test_pushed_commit_that_is_live_already_is_converged(daemon: Daemon) -> None:
    daemon.repo.git("checkout", "-q", "-b", "next")
    commit = daemon.repo.release("one")
    daemon.repo.git("branch", "main")
    daemon.start().live(commit)
    second = daemon.repo.release("two")
    record = deployed(daemon, "next")
    assert (record["commit"], record["branch"]) == (second, "next")
    daemon.repo.git("branch", "-f", "main", "next")
    until(lambda: daemon.cli("plan").returncode == 0, what="it is converged")
    assert newest(daemon)["deploy_id"] == record["deploy_id"]


def test_commit_may_be_named_by_short_id_branch_or_tag(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    first = daemon.repo.release("one")
    daemon.repo.git("tag", "-a", "v1", "-m", "v1")
    second = daemon.repo.release("two")
    daemon.repo.git("branch", "stable")
    third = daemon.repo.release("three")
    daemon.start()
    assert deployed(daemon, "v1")["commit"] == first
    assert daemon.get().text == "one"
    assert deployed(daemon, "stable")["commit"] == second
    assert deployed(daemon, first[:10])["commit"] == first
    assert daemon.deploy(None).json()["commit"] == third
    assert daemon.get().text == "three"


def test_unknown_revision_is_not_found_and_changes_nothing(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    for text in ("nowhere", "0" * 40, "abcdef1", "main~1", "--upload-pack=x", "a b"):
        answer = daemon.deploy(text)
        assert (answer.status_code, answer.json()["type"]) == (404, "unknown-revision"), text
    assert len(daemon.status()["recent"]) == 1


def test_change_of_the_contract_alone_rolls_the_same_tree(daemon: Daemon) -> None:
    daemon.repo.manifest(path="app", start_command=START)
    daemon.repo.app("one", path="app")
    first = daemon.repo.commit("one")
    daemon.start()
    before = daemon.live(first)
    daemon.repo.manifest(path="app", start_command=START, env={"COLOR": "blue"})
    daemon.repo.commit("blue")
    status = until(
        lambda: (found := daemon.status())["live_slot"] != before["live_slot"] and found,
        what="it is rolled",
    )
    record = newest(daemon)
    assert (record["trigger"], record["commit"]) == ("contract", first)
    assert (status["live_commit"], daemon.get("/env").json()["COLOR"]) == (first, "blue")


def test_bad_contract_costs_nothing_and_condemns_only_itself(daemon: Daemon) -> None:
    daemon.repo.manifest(path="app", start_command=START)
    daemon.repo.app("one", path="app")
    first = daemon.repo.commit("one")
    daemon.start()
    before = daemon.live(first)
    daemon.repo.manifest(path="app", start_command="exit 3")
    daemon.repo.commit("a bad contract")
    until(lambda: newest(daemon)["trigger"] == "contract", what="it is tried")
    record = daemon.ended(newest(daemon)["deploy_id"])
    assert (record["phase"], record["reason"]) == ("failed", "exited")
    status = daemon.live(first)
    assert (status["live_slot"], daemon.get().text) == (before["live_slot"], "one")
    (held,) = status["quarantine"]
    assert (held["commit"], bool(held["contract_digest"])) == (first, True)
    assert daemon.condition("Stalled")["reason"] == "DeployFailed"
    daemon.repo.manifest(path="app", start_command=START, env={"COLOR": "blue"})
    daemon.repo.commit("a better contract")
    until(lambda: "COLOR" in daemon.get("/env").json(), what="the better one is live")
    assert daemon.status()["live_commit"] == first
    until(lambda: not daemon.condition("Stalled")["status"], what="it is not stalled any more")


def test_bad_contract_that_is_taken_back_leaves_no_stall(daemon: Daemon) -> None:
    daemon.repo.manifest(path="app", start_command=START)
    daemon.repo.app("one", path="app")
    first = daemon.repo.commit("one")
    daemon.start().live(first)
    daemon.repo.manifest(path="app", start_command="exit 3")
    daemon.repo.commit("a bad contract")
    until(lambda: daemon.condition("Stalled")["reason"] == "DeployFailed", what="it failed")
    daemon.repo.git("revert", "--no-edit", "HEAD")
    until(lambda: not daemon.condition("Stalled")["status"], what="it is not stalled any more")
    daemon.live(first)
    assert daemon.cli("plan").returncode == 0


def test_missing_secret_refuses_the_deploy_by_name_and_setting_it_deploys(daemon: Daemon) -> None:
    daemon.repo.manifest(secrets_inject=["DATABASE_URL", "TOKEN"])
    commit = daemon.repo.release("one")
    daemon.start()
    until(lambda: daemon.status()["recent"] and newest(daemon)["phase"] == "failed", what="refused")
    record = newest(daemon)
    assert record["reason"] == "missing-secret"
    assert "DATABASE_URL" in record["detail"]
    assert "TOKEN" in record["detail"]
    set_secret(daemon, "TOKEN", "t0ken")
    set_secret(daemon, "DATABASE_URL", "postgres://one")
    daemon.live(commit, within=30)
    assert daemon.get("/env").json()["DATABASE_URL"] == "postgres://one"
    assert daemon.status()["quarantine"] == []
    assert "t0ken" not in daemon.said()


def test_change_of_a_secret_alone_rolls_the_same_revision(daemon: Daemon) -> None:
    daemon.repo.manifest(secrets_inject=["TOKEN"])
    commit = daemon.repo.release("one")
    set_secret(daemon, "TOKEN", "first")
    daemon.start()
    before = daemon.live(commit)
    set_secret(daemon, "TOKEN", "second")
    until(lambda: daemon.get("/env").json()["TOKEN"] == "second", what="the new value is live")
    status = daemon.live(commit)
    assert status["live_slot"] != before["live_slot"]
    assert newest(daemon)["trigger"] == "secret"


def test_commit_outside_the_apps_path_is_no_deploy(daemon: Daemon) -> None:
    daemon.repo.manifest(path="app", watch_paths=["lib/**"], start_command=START)
    daemon.repo.app("one", path="app")
    first = daemon.repo.commit("one")
    daemon.start().live(first)
    daemon.repo.write("README.md", "words")
    daemon.repo.commit("words")
    daemon.repo.write("lib/deep/code.py", "x = 1")
    third = daemon.repo.commit("a library")
    daemon.live(third)
    assert [one["commit"] for one in daemon.status()["recent"]] == [third, first]
