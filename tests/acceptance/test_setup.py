"""Scenario 11: the setup command, and directories that are kept or shared."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.harness import Daemon, processes, until


def slot_of(daemon: Daemon, slot: str) -> Path:
    return daemon.data / "apps" / "web" / slot


def test_setup_runs_after_the_checkout_and_before_the_start_in_the_apps_path(
    daemon: Daemon,
) -> None:
    daemon.repo.manifest(
        path="server",
        setup_command='test -f app.py && test -z "$PORT" && pwd >made && '
        'echo "$AUTOPILOT_PROCESS $AUTOPILOT_COMMIT $WORD" >>made',
        start_command="test -f made && exec python3 -S -E app.py",
        env={"WORD": "given"},
    )
    daemon.repo.app("one", path="server")
    commit = daemon.repo.commit("one")
    daemon.start()
    slot = daemon.live(commit)["live_slot"]
    server = slot_of(daemon, slot) / "server"
    assert (server / "made").read_text().splitlines() == [str(server), f"setup {commit} given"]
    assert daemon.get().text == "one"


def test_failed_setup_says_what_it_printed_and_costs_nothing(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request", setup_command="echo looked for it; test -f wanted")
    daemon.repo.write("wanted", "")
    first = daemon.repo.release("one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    (daemon.repo.path / "wanted").unlink()
    answer = daemon.deploy(daemon.repo.release("two"))
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "setup-failed")
    assert (problem["phase"], problem["reason"]) == ("failed", "setup-exit")
    assert "looked for it" in problem["log_tail"]
    assert daemon.get().text == "one"
    slots = {one["name"]: one["condition"] for one in daemon.status()["slots"]}
    assert slots[problem["slot"]] == "failed"


def test_setup_that_never_ends_is_ended_with_all_it_started(daemon: Daemon) -> None:
    daemon.repo.manifest(
        deploy_on="request",
        setup_timeout_ms=700,
        setup_command="trap '' TERM; (setsid sh -c 'sleep 621; :' &) ; sleep 622 & sleep 623; wait",
    )
    commit = daemon.repo.release("one")
    daemon.start()
    answer = daemon.deploy(commit)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "setup-failed")
    assert problem["reason"] == "setup-timeout"
    assert not [words for words in processes(daemon.data).values() if "sleep 62" in words]


def test_what_a_setup_leaves_running_is_ended(daemon: Daemon) -> None:
    daemon.repo.manifest(setup_command="(setsid sleep 624 &) ; true")
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    assert not [words for words in processes(daemon.data).values() if "sleep 624" in words]


def test_kept_directories_stay_over_deploys_and_go_after_a_failed_setup(daemon: Daemon) -> None:
    daemon.repo.manifest(
        deploy_on="request",
        keep_dirs=["modules"],
        setup_command="mkdir -p modules other; date >>modules/log; touch other/x; test ! -f bad",
    )
    daemon.start()
    slots = []
    for version in ("one", "two", "three", "four"):
        answer = daemon.deploy(daemon.repo.release(version))
        assert answer.status_code == 200, answer.text
        slots.append(slot_of(daemon, answer.json()["slot"]))
        # Until what it replaced is stopped, its slot cannot be taken again.
        until(lambda: not [one for one in daemon.status()["slots"] if one["role"] == "draining"])
    again = next(slot for slot in slots if slots.count(slot) == 2)
    assert len((again / "modules" / "log").read_text().splitlines()) == 2
    daemon.repo.write("bad", "")
    bad = daemon.repo.release("bad")
    failed = daemon.deploy(bad)
    assert failed.json()["reason"] == "setup-exit"
    slot = slot_of(daemon, failed.json()["slot"])
    assert not (slot / "modules").exists()


def test_shared_directories_are_the_same_in_every_slot(daemon: Daemon) -> None:
    daemon.repo.manifest(
        shared_dirs=["data", "var/uploads"],
        setup_command='echo "$AUTOPILOT_SLOT" >>data/log; touch "var/uploads/$AUTOPILOT_SLOT"',
    )
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    status = daemon.live(second)
    live = slot_of(daemon, status["live_slot"])
    before = slot_of(daemon, status["previous_slot"])
    assert (live / "data" / "log").read_text().split() == [before.name, live.name]
    assert (before / "data" / "log").read_text() == (live / "data" / "log").read_text()
    names = {path.name for path in (live / "var" / "uploads").iterdir()}
    assert names == {before.name, live.name}


def test_commit_that_tracks_a_shared_directory_is_refused(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request", shared_dirs=["data"])
    first = daemon.repo.release("one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    shared = daemon.data / "apps" / "web" / "shared" / "data"
    (shared / "kept").write_text("precious")
    daemon.repo.write("data/seed", "from the commit")
    answer = daemon.deploy(daemon.repo.release("two"))
    assert (answer.status_code, answer.json()["type"]) == (422, "setup-failed")
    assert answer.json()["reason"] == "shared-dir-tracked"
    assert "data" in answer.json()["detail"]
    assert [path.name for path in shared.iterdir()] == ["kept"]
    assert daemon.get().text == "one"
