"""Scenario 9: `autopilot start`, as the person at the terminal sees it."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.acceptance.harness import PYTHON, ROOT, Daemon, Repo, processes, scene, until

WELCOME = "commits deploy, uncommitted edits do not"


@pytest.fixture
def terminal() -> Iterator[Daemon]:
    """`autopilot start` in a repository with a manifest; not started yet."""
    with scene(verb=("start",)) as made:
        yield made


def says(daemon: Daemon, text: str) -> str:
    until(lambda: text in daemon.said(), what=f"{text!r} in\n{daemon.said()}")
    return daemon.said()


def began(daemon: Daemon, version: str, behaviour: str = "") -> str:
    """Starts it on a first version; returns the commit once that is live."""
    first = daemon.repo.release(version, behaviour)
    daemon.start().live(first)
    return first


def test_it_prints_where_to_look_and_keeps_its_data_out_of_git(terminal: Daemon) -> None:
    first = terminal.repo.release("one")
    terminal.start().live(first)
    said = says(terminal, WELCOME)
    assert f"http://127.0.0.1:{terminal.http_port}/" in said
    assert f"http://127.0.0.1:{terminal.port}/" in said
    assert terminal.get().text == "one"
    assert (terminal.data / ".gitignore").read_text() == "*\n"
    assert terminal.repo.git("status", "--porcelain") == ""


def test_commit_is_served_within_two_seconds(terminal: Daemon) -> None:
    began(terminal, "one")
    second = terminal.repo.release("two")
    terminal.serves("two", within=2)
    terminal.live(second)
    says(terminal, f"web: {second[:10]} is live after")


def test_broken_commit_is_explained_while_the_old_version_keeps_serving(terminal: Daemon) -> None:
    first = began(terminal, "one")
    bad = terminal.repo.release("bad", "print('no database here', flush=True); sys.exit(3)")
    said = says(terminal, f"web: {bad[:10]} FAILED: exited")
    assert "status 3" in said
    assert "| no database here" in said
    assert "the old version keeps serving" in said
    assert terminal.live(first)["live_commit"] == first
    assert terminal.get().text == "one"


def test_a_clone_of_depth_one_is_enough(terminal: Daemon) -> None:
    terminal.repo.release("one")
    terminal.repo.release("two")
    origin = terminal.repo.path.rename(terminal.repo.path.with_name("origin"))
    depth = ("--quiet", "--depth", "1", f"file://{origin}", str(terminal.repo.path))
    Repo(origin).git("clone", *depth)
    terminal.start().live(terminal.repo.git("rev-parse", "HEAD"))
    assert terminal.get().text == "two"
    third = terminal.repo.release("three")
    terminal.live(third)


def test_it_follows_the_branch_that_was_checked_out_at_the_start(terminal: Daemon) -> None:
    terminal.repo.release("one")
    terminal.repo.git("checkout", "-q", "-b", "feature")
    feature = terminal.repo.release("feature")
    terminal.start().live(feature)
    assert "on feature: following feature; use --branch main" in terminal.said()
    terminal.repo.git("checkout", "-q", "main")
    terminal.repo.release("main goes on")
    terminal.repo.git("checkout", "-q", "feature")
    terminal.live(terminal.repo.release("feature goes on"))
    assert terminal.get().text == "feature goes on"
    assert not [one for one in terminal.status()["recent"] if one["branch"] != "feature"]


def test_a_branch_that_is_named_is_followed_instead(terminal: Daemon) -> None:
    first = terminal.repo.release("one")
    terminal.repo.git("checkout", "-q", "-b", "feature")
    terminal.repo.release("feature")
    terminal.start("--branch", "main").live(first)
    assert "following feature" not in terminal.said()


def test_detached_head_is_that_commit_with_a_notice(terminal: Daemon) -> None:
    first = terminal.repo.release("one")
    terminal.repo.release("two")
    terminal.repo.git("checkout", "-q", "--detach", first)
    terminal.start().live(first)
    assert f"HEAD is detached: following commit {first[:10]}" in terminal.said()
    assert terminal.get().text == "one"


def test_uncommitted_edits_do_not_deploy(terminal: Daemon) -> None:
    began(terminal, "one")
    terminal.repo.app("edited")
    terminal.repo.git("commit", "-q", "--allow-empty", "-m", "something else")
    terminal.repo.write("note", "x")
    terminal.repo.git("add", "note")
    terminal.repo.git("commit", "-q", "-m", "a note")
    terminal.live(terminal.repo.git("rev-parse", "HEAD"))
    assert terminal.get().text == "one"


def test_an_amended_head_is_a_new_wish(terminal: Daemon) -> None:
    began(terminal, "one")
    terminal.repo.app("amended")
    terminal.repo.git("commit", "-q", "-a", "--amend", "-m", "amended")
    terminal.live(terminal.repo.git("rev-parse", "HEAD"))
    assert terminal.get().text == "amended"


def test_a_reset_head_is_a_new_wish(terminal: Daemon) -> None:
    first = began(terminal, "one")
    terminal.live(terminal.repo.release("two"))
    terminal.repo.git("reset", "-q", "--hard", first)
    terminal.live(first)
    assert terminal.get().text == "one"


def test_a_service_does_not_follow_a_rewritten_branch_by_itself(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    daemon.repo.app("amended")
    daemon.repo.git("commit", "-q", "-a", "--amend", "-m", "amended")
    amended = daemon.repo.git("rev-parse", "HEAD")
    until(lambda: daemon.condition("Stalled")["reason"] == "NonFastForward")
    stalled = daemon.condition("Stalled")
    assert stalled["status"] is True
    assert "main was rewritten" in stalled["message"]
    assert daemon.status()["live_commit"] == first
    assert daemon.get().text == "one"
    assert daemon.deploy(amended).status_code == 200
    daemon.live(amended)
    until(lambda: not daemon.condition("Stalled")["status"], what="a person's word settles it")
    daemon.live(daemon.repo.release("and on"))


def test_manifests_of_a_rewritten_branch_hold_only_when_a_person_deploys_it(
    daemon: Daemon,
) -> None:
    daemon.repo.manifest("other", start_command="exec sleep 1000", routes=None, processes=None,
                         health_endpoint=None, deploy_on="request")  # fmt: skip
    first = daemon.repo.release("one")
    daemon.start().live(first, "web")
    (daemon.repo.path / ".autopilot/apps/other.json").unlink()
    daemon.repo.git("commit", "-q", "-a", "--amend", "-m", "without the other")
    amended = daemon.repo.git("rev-parse", "HEAD")
    until(lambda: daemon.condition("Stalled", "web")["reason"] == "NonFastForward")
    assert set(daemon.status("web")["apps"]) == {"other", "web"}
    assert not daemon.condition("Stalled", "other")["message"].startswith("the app was removed")
    assert daemon.deploy(amended, app="web").status_code == 200
    daemon.live(amended, "web")
    daemon.repo.app("two")
    daemon.live(daemon.repo.commit("two"), "web")


def test_a_rewritten_branch_that_is_restored_goes_on(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    daemon.repo.git("commit", "-q", "--allow-empty", "--amend", "-m", "amended")
    until(lambda: daemon.condition("Stalled")["reason"] == "NonFastForward")
    daemon.repo.git("reset", "-q", "--hard", first)
    until(lambda: not daemon.condition("Stalled")["status"], what="it is restored")
    daemon.live(daemon.repo.release("two"))


def test_what_deploys_on_request_only_prints_the_command(terminal: Daemon) -> None:
    terminal.repo.manifest(deploy_on="request")
    first = terminal.repo.release("one")
    terminal.start()
    assert "autopilot deploy --app web" in says(terminal, WELCOME)
    assert not [line for line in processes(terminal.data).values() if "app.py" in line]
    assert terminal.status()["recent"] == []
    done = terminal.cli("deploy", "--app", "web")
    assert done.returncode == 0, done.stdout + done.stderr
    terminal.live(first)


def test_an_app_added_later_that_deploys_on_request_prints_the_command_too(
    terminal: Daemon,
) -> None:
    began(terminal, "one")
    terminal.repo.manifest("later", deploy_on="request", routes=[{"path": "/later"}])
    terminal.repo.commit("another app")
    says(terminal, "autopilot deploy --app later")
    assert terminal.status("later")["recent"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_drains_and_stops_everything_but_the_data(
    terminal: Daemon, number: signal.Signals
) -> None:
    began(terminal, "one")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(terminal.get("/slow").status_code))
    asking.start()
    until(lambda: in_flight(terminal), what="the request is in flight")
    assert terminal.stop(number) == 0
    asking.join()
    assert answers == [200]
    assert processes(terminal.data) == {}
    assert (terminal.data / "autopilot.db").exists()
    assert "the data is kept in" in terminal.said()


def in_flight(daemon: Daemon) -> bool:
    """Whether somebody is connected to the proxy."""
    port = f":{daemon.http_port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(port) and line.split()[3] == "01" for line in lines)


def test_a_second_ctrl_c_skips_the_drain(terminal: Daemon) -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal = print"
    terminal.repo.manifest(drain_timeout_ms=600_000)
    began(terminal, "one", stubborn)
    assert terminal.process is not None
    terminal.process.send_signal(signal.SIGINT)
    says(terminal, "Ctrl-C again")
    assert terminal.stop(signal.SIGINT) == 0
    assert processes(terminal.data) == {}


def test_a_running_deploy_is_interrupted_and_tried_again_at_the_next_start(
    terminal: Daemon,
) -> None:
    gate = terminal.data.parent.parent / "gate"
    terminal.repo.manifest(health_timeout_ms=60_000)
    first = began(terminal, "one")
    waits = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    second = terminal.repo.release("two", waits)
    until(lambda: (deploy := terminal.status()["deploy"]) and deploy["phase"] == "proving")
    assert terminal.stop(signal.SIGINT) == 0
    assert processes(terminal.data) == {}
    gate.touch()
    terminal.start().live(second)
    assert terminal.get().text == "two"
    recent = terminal.status()["recent"]
    cut_off = next(one for one in recent if one["phase"] == "interrupted")
    assert (cut_off["commit"], cut_off["previous_commit"]) == (second, first)
    assert recent[0]["retry_of"] == cut_off["deploy_id"]


def test_a_second_start_names_the_first(terminal: Daemon) -> None:
    began(terminal, "one")
    assert terminal.process is not None
    again = terminal.cli("start")
    assert again.returncode == 1
    assert f"pid {terminal.process.pid}" in again.stderr
    assert f"http://127.0.0.1:{terminal.http_port}" in again.stderr
    assert f"http://127.0.0.1:{terminal.port}" in again.stderr
    assert terminal.get().text == "one"


@pytest.mark.parametrize("flag", ["--http-port", "--port"])
def test_a_busy_port_names_its_holder_and_the_flag(terminal: Daemon, flag: str) -> None:
    terminal.repo.release("one")
    with listening() as (port, holder):
        if flag == "--port":
            terminal.port = port
        else:
            terminal.http_port = port
        terminal.start(ready=False)
        assert terminal.process is not None
        assert terminal.process.wait(30) == 1
    said = terminal.said()
    assert f"pid {holder}" in said
    assert flag in said
    assert "Traceback" not in said
    assert processes(terminal.data) == {}


@contextmanager
def listening() -> Iterator[tuple[int, int]]:
    """Another program on a port; gives the port and its process id."""
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); input()"
    )
    program = subprocess.Popen(
        [PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    try:
        yield int(program.stdout.readline()), program.pid
    finally:
        program.kill()
        program.communicate()


def test_after_kill_9_the_next_start_adopts_what_runs(terminal: Daemon) -> None:
    first = began(terminal, "one")
    before = terminal.get().headers["x-pid"]
    kept = set(processes(terminal.data)) - {terminal.process.pid if terminal.process else 0}
    terminal.kill()
    assert terminal.get().text == "one"
    terminal.start().live(first)
    assert terminal.get().headers["x-pid"] == before
    assert kept <= set(processes(terminal.data))


def test_a_terminal_that_goes_away_is_told_like_ctrl_c(terminal: Daemon) -> None:
    terminal.repo.release("one")
    pid, controller = pty.fork()
    if pid == 0:
        with suppress(OSError):
            os.chdir(terminal.repo.path)
            argv = [PYTHON, "-m", "reconciler", "start"]
            argv += ["--http-port", str(terminal.http_port), "--port", str(terminal.port)]
            os.execve(PYTHON, argv, {**os.environ, "PYTHONPATH": str(ROOT)})  # noqa: S606 (a terminal of its own)
        os._exit(127)
    terminal.serves("one")
    os.close(controller)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert processes(terminal.data) == {}


def test_this_repository_serves_its_sample_app(terminal: Daemon) -> None:
    shutil.rmtree(terminal.repo.path / ".autopilot")
    for part in (".autopilot", "fixtures/apps/hello"):
        shutil.copytree(ROOT / part, terminal.repo.path / part)
    first = terminal.repo.commit("as it is")
    terminal.start().live(first)
    assert "Hello from autopilot" in terminal.get().text
    source = terminal.repo.path / "fixtures/apps/hello/server.py"
    source.write_text(source.read_text().replace("Hello from autopilot", "Good evening"))
    terminal.live(terminal.repo.commit("another greeting"))
    assert "Good evening" in terminal.get().text


def test_a_repository_without_a_commit_waits_for_the_first_one(terminal: Daemon) -> None:
    terminal.start()
    says(terminal, WELCOME)
    first = terminal.repo.release("one")
    terminal.live(first)
    assert terminal.get().text == "one"


def test_asking_for_one_app_at_once_keeps_no_other_app_from_its_commit(daemon: Daemon) -> None:
    daemon.repo.manifest("other", routes=[{"path": "/other"}])
    first = daemon.repo.release("one")
    daemon.start()
    daemon.live(first, "web")
    daemon.live(first, "other")
    second = daemon.repo.release("two")
    assert daemon.deploy(second, app="web").status_code == 200
    daemon.live(second, "other", within=15)


def test_an_app_can_be_asked_for_as_soon_as_it_is_committed(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    daemon.repo.manifest("later", deploy_on="request", routes=[{"path": "/later"}])
    second = daemon.repo.commit("another app")
    answer = daemon.deploy(second, app="later")
    assert answer.status_code == 200, answer.text
    assert daemon.get("/later").text == "one"
