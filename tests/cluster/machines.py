"""Machines that SSH reaches, on this one: each has a network, processes, a home and a temporary folder of its own.

They are Linux namespaces, joined by a bridge, with an SSH server in each. No process is left behind: the namespaces go
with their first process. Keys and homes lie in the folder that is given.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.213.77"
BRIDGE = "colotride0"


@dataclass(frozen=True)
class Machine:
    """What a test needs of one."""

    address: str
    home: Path
    process: int
    """Its first process, as seen from outside."""

    def run(self, command: str) -> str:
        """What a command prints in there."""
        inside = ("nsenter", "--target", str(self.process), "--all", "bash", "-c", command)
        return subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False).stdout


def missing() -> str | None:
    """Why there can be no machines here; None where there can."""
    tools = [tool for tool in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync") if shutil.which(tool) is None]
    if tools:
        return f"{', '.join(tools)} missing"
    if not Path("/usr/sbin/sshd").is_file():
        return "sshd missing (apt-get install openssh-server)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "namespaces are not allowed here"


@contextmanager
def machines(folder: Path, count: int) -> Iterator[tuple[list[Machine], Path]]:
    """This many machines, and the private key that opens them to root."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    with ExitStack() as stack:
        _do(f"ip link add {BRIDGE} type bridge")
        stack.callback(_do, f"ip link delete {BRIDGE}")
        _do(f"ip address add {NETWORK}.1/24 dev {BRIDGE}", f"ip link set {BRIDGE} up")
        yield [stack.enter_context(_machine(folder / f"machine-{i}", key, i)) for i in range(count)], key


@contextmanager
def _machine(folder: Path, key: Path, number: int) -> Iterator[Machine]:
    home, temporary, address = folder / "home", folder / "tmp", f"{NETWORK}.{10 + number}"
    for path in (home, temporary):
        path.mkdir(parents=True)
    Path("/tmp/ray").mkdir(exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    accounts = folder / "passwd"
    accounts.write_text(f"root:x:0:0:root:{home}:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    (folder / "sshd_config").write_text(
        f"Port 22\nListenAddress {address}\nHostKey {folder}/host_key\nAuthorizedKeysFile {key}.pub\nPidFile none\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        "Subsystem sftp internal-sftp\n"
    )
    boot = (
        f"mount --bind {accounts} /etc/passwd && mount --bind {temporary} /tmp/ray && hostname machine-{number} && "
        f"until ip address show dev eth0 2>/dev/null | grep -q {address}; do sleep 0.1; done && "
        f"exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"
    )
    log = (folder / "log").open("w")
    first = subprocess.Popen(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", boot],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    cable = f"colotride-{number}"
    try:
        inside = _first_child(first.pid)
        within = f"nsenter --target {inside} --net"
        _do(f"ip link add {cable} type veth peer name eth0 netns {inside}")
        _do(f"ip link set {cable} master {BRIDGE} up", f"{within} ip link set lo up", f"{within} ip link set eth0 up")
        _do(f"{within} ip address add {address}/24 dev eth0", f"{within} ip route add default via {NETWORK}.1")
        _wait_for(address, 22)
        yield Machine(address, home, inside)
    finally:
        # Connections that are being closed keep a network, and so its cable, for minutes after its last process.
        subprocess.run(["ip", "link", "delete", cable], capture_output=True, check=False)
        first.kill()
        first.wait()
        log.close()


def _do(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)


def _first_child(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children")
    for _ in range(100):
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.05)
    raise TimeoutError(f"process {process} starts nothing")


def _wait_for(address: str, port: int) -> None:
    for _ in range(200):
        with socket.socket() as tried:
            tried.settimeout(1)
            if tried.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {address}:{port}")
