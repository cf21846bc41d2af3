"""Scenarios 1 to 5: a commit becomes live traffic, or nothing changes, and it goes back."""

from __future__ import annotations

from tests.acceptance.harness import Daemon, processes, until


def test_pushed_commit_becomes_live_traffic(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    assert daemon.get().text == "one"
    second = daemon.repo.release("two")
    daemon.serves("two", within=5)
    status = daemon.live(second)
    assert status["previous_commit"] == first


def test_unhealthy_commit_changes_nothing_and_leaves_nothing(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    before = set(processes(daemon.data))
    bad = daemon.repo.release("bad", "print('cannot go on'); sys.exit(3)")
    until(lambda: daemon.status()["recent"][0]["commit"] == bad, what="it was tried")
    until(lambda: daemon.status()["deploy"] is None, what="it was decided")
    record = daemon.status()["recent"][0]
    assert (record["phase"], record["reason"]) == ("failed", "exited")
    assert set(processes(daemon.data)) == before
    assert daemon.get().text == "one"
    refused = daemon.deploy(bad)
    assert (refused.status_code, refused.json()["type"]) == (409, "quarantined")
    insisted = daemon.deploy(bad, admin=True, force=True, reason="once more")
    assert (insisted.status_code, insisted.json()["reason"]) == (422, "exited")


def test_asked_deploy_that_fails_says_where_why_and_what_it_printed(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    bad = daemon.repo.release("bad", "print('cannot go on', flush=True); sys.exit(3)")
    daemon.start()
    answer = daemon.deploy(bad)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"] == "candidate-unhealthy"
    assert (problem["phase"], problem["reason"]) == ("failed", "exited")
    assert "cannot go on" in problem["log_tail"]
    status = daemon.status()
    assert status["live_commit"] is None
    assert not [line for line in processes(daemon.data).values() if "app.py" in line]


def test_rollback_brings_back_what_was_live_and_sticks(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    daemon.live(second)
    answer = daemon.rollback(reason="two is slow")
    assert answer.status_code == 200, answer.text
    assert daemon.get().text == "one"
    assert daemon.cli("plan").returncode == 0
    refused = daemon.deploy(second)
    assert (refused.status_code, refused.json()["type"]) == (409, "quarantined")
    daemon.stop()
    daemon.start().live(first)


def test_redeployed_commit_has_the_one_between_as_previous(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    daemon.live(second)
    assert daemon.deploy(first).status_code == 200
    assert daemon.status()["previous_commit"] == second


def test_rollback_without_a_previous_is_refused(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    answer = daemon.rollback()
    assert (answer.status_code, answer.json()["type"]) == (409, "no-previous")
