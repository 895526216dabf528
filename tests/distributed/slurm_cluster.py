"""A SLURM cluster of this machine, with daemons, keys and ports of its own: two nodes of two cores and a "GPU" each."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
PATHS = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
START_SECONDS = 120
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
KillWait=30
NodeName=node-a NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=gpu:1
NodeName=node-b NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES State=UP
"""
# A file stands for each GPU.
GPUS = """\
AutoDetect=off
NodeName=node-a Name=gpu File=/dev/null
NodeName=node-b Name=gpu File=/dev/null
"""


def missing() -> list[str]:
    """Commands that this machine lacks."""
    return [name for name in DAEMONS if shutil.which(name, path=PATHS) is None]


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which sbatch and the others speak to a cluster that ends with this context."""
    with ExitStack() as stack:
        # Sockets have short names, so not below pytest's folder.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        key = folder / "munge.key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        for name in ("state", "node-a", "node-b"):
            (folder / name).mkdir()
        host, ports = socket.gethostname().partition(".")[0], [free_port() for _ in range(3)]
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        (folder / "slurm.conf").write_text(CONFIG.format(host=host, ports=ports, user=user, folder=folder))
        (folder / "gres.conf").write_text(GPUS)
        environment = {**os.environ, "PATH": PATHS, "SLURM_CONF": str(folder / "slurm.conf")}

        def start(pid: str, *command: str) -> None:
            subprocess.run(command, env=environment, check=True, capture_output=True)
            stack.callback(stop, folder / f"{pid}.pid")

        own = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
        start("munged", "munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", *own)
        start("slurmctld", "slurmctld")
        for node in ("node-a", "node-b"):
            start(node, "slurmd", "-N", node)
        stack.callback(subprocess.run, ["scancel", "--full", "--signal=KILL", f"--user={user}"], env=environment)
        until(lambda: said("sinfo", "-h", "-N", "-o", "%t", env=environment).split() == ["idle", "idle"])
        yield environment


def said(*command: str, env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def until(reached, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.1)


def stop(file: Path) -> None:
    """The daemon of this process file, and waits for its end."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(file.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
