"""The environment of an app, read from inside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.host.processes import read_environment
from reconciler.model.errors import LaunchError
from reconciler.model.names import SETUP
from reconciler.slots.environment import SYSTEM_PATH, export_script, time_zone
from tests.slots.scene import REVISION, SLEEP, A, Scene, contract, processes, until

pytestmark = pytest.mark.anyio

# What shells set by themselves.
SHELL = {"PWD", "SHLVL", "_"}
AWKWARD = {
    "QUOTED": 'it\'s "so"; $(touch /tmp/never) `id` \\ \n second line',
    "EMPTY": "",
    "UNICODE": "grün",
    "LONG": "x" * 100_000,
}


async def _from_inside(scene: Scene, path: Path) -> dict[str, str]:
    await until(lambda: path.exists() and path.read_bytes().endswith(b"DONE\0"))
    entries = path.read_bytes().split(b"\0")[:-2]
    return {name: value for name, _, value in (entry.decode().partition("=") for entry in entries)}


DUMP = "cat /proc/self/environ > out; printf 'DONE\\0' >> out; " + SLEEP


async def test_an_app_gets_exactly_what_the_contract_promises(scene: Scene) -> None:
    job = scene.job(made=contract(DUMP, internal_port=9000), environment=AWKWARD)
    seen = await scene.run(job)
    inside = await _from_inside(scene, scene.worktree() / "out")
    web = seen.instances[0]
    assert {name: value for name, value in inside.items() if name not in SHELL} == {
        "PATH": SYSTEM_PATH,
        "HOME": os.path.expanduser("~"),
        "LANG": "C.UTF-8",
        "TZ": time_zone(),
        "TMPDIR": str(scene.app_dir / "tmp" / "deploy-a"),
        "HOST": "127.0.0.1",
        "PORT": web.address.rpartition(":")[2],
        "INTERNAL_PORT": web.internal_address.rpartition(":")[2],
        "AUTOPILOT": "1",
        "AUTOPILOT_APP": "shop",
        "AUTOPILOT_SLOT": "deploy-a",
        "AUTOPILOT_COMMIT": REVISION,
        "AUTOPILOT_DEPLOY_ID": job.deploy_id,
        "AUTOPILOT_PROCESS": "web",
        "AUTOPILOT_HOST_ID": "host-1",
        "ORCHESTRATOR_URL": "http://127.0.0.1:7778",
        **AWKWARD,
    }
    assert inside["PWD"] == str(scene.worktree())


async def test_no_process_gets_an_internal_port_that_was_not_asked_for(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(DUMP)))
    inside = await _from_inside(scene, scene.worktree() / "out")
    assert "INTERNAL_PORT" not in inside


async def test_setup_gets_no_port_and_the_apps_values(scene: Scene) -> None:
    dump = "cat /proc/self/environ > out; printf 'DONE\\0' >> out"
    made = contract(setup_command=dump)
    await scene.prepare(scene.job(made=made, environment={"TOKEN": "s"}))
    inside = await _from_inside(scene, scene.worktree() / "out")
    assert inside["AUTOPILOT_PROCESS"] == SETUP
    assert inside["TOKEN"] == "s"
    assert "PORT" not in inside


async def test_every_process_and_instance_has_a_port_of_its_own(scene: Scene) -> None:
    made = contract(processes=processes(web="env > w; " + SLEEP, worker="env > k; " + SLEEP))
    await scene.run(scene.job(made=made))
    files = [scene.worktree() / name for name in ("w", "k")]
    await until(lambda: all(path.exists() and "ORCHESTRATOR" in path.read_text() for path in files))
    ports = {
        line for path in files for line in path.read_text().split("\n") if line.startswith("PORT=")
    }
    assert len(ports) == 2


async def test_a_port_of_the_apps_own_does_not_hide_ours(scene: Scene) -> None:
    """Many an env_file says PORT=3000, and a forged cookie would hide the process from its slot."""
    values = {"PORT": "3000", "AUTOPILOT_DEPLOY_ID": "forged", "AUTOPILOT": "0"}
    job = scene.job(made=contract(DUMP), environment=values)
    seen = await scene.run(job)
    inside = await _from_inside(scene, scene.worktree() / "out")
    assert inside["PORT"] == seen.instances[0].address.rpartition(":")[2]
    assert inside["AUTOPILOT_DEPLOY_ID"] == job.deploy_id
    assert inside["AUTOPILOT"] == "1"


async def test_secrets_are_in_no_argument_list_and_in_no_file_of_ours(scene: Scene) -> None:
    secret = "hunter2-hunter2"
    seen = await scene.run(scene.job(environment={"TOKEN": secret}))
    pid = seen.instances[0].pid
    assert pid is not None
    await until(lambda: read_environment(pid).get(b"TOKEN") == secret.encode())
    assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for path in scene.data.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


async def test_the_daemons_path_is_given_only_in_development(scene: Scene) -> None:
    scene.slots = scene.open(inherit_path=True)
    await scene.run(scene.job(A, contract(DUMP)))
    inside = await _from_inside(scene, scene.worktree() / "out")
    assert inside["PATH"] == os.environ["PATH"]


def test_a_name_that_no_shell_can_export_is_refused() -> None:
    with pytest.raises(LaunchError, match="my-key"):
        export_script({"my-key": "secret"})
    with pytest.raises(LaunchError) as caught:
        export_script({"TOKEN": "sec\0ret"})
    assert "sec" not in str(caught.value).replace("TOKEN", "")


def test_the_zone_is_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    assert time_zone() == "Europe/Vienna"
    monkeypatch.delenv("TZ")
    assert time_zone()
