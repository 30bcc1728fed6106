"""One booted host: a container of systemd's with a kernel that is this machine's, and all else its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lab.links import LabError, entered, in_thread
from lab.machines.dead import remove_group

__all__ = ["Machine"]

T = TypeVar("T")

_BOOTS_WITHIN_S = 120.0
_ENDS_WITHIN_S = 60.0
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")
# In a mount namespace of its own: what is mounted there goes with the last process of the machine. The machine gets a
# control group below ours, in the one hierarchy that systemd wants, whatever hierarchies this machine has.
_BOOT = """set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mkdir -p "/sys/fs/cgroup/$3"
echo $$ >"/sys/fs/cgroup/$3/cgroup.procs"
name=$3 root=$2/root
shift 3
exec systemd-nspawn --quiet --boot --register=no --keep-unit --settings=no --directory="$root" --machine="$name" \\
    --capability=all --system-call-filter='bpf perf_event_open' --link-journal=no --resolv-conf=off --timezone=off \\
    --console=pipe "$@"
"""


@dataclass(slots=True)
class Machine:
    """A host called ``name`` at the IPv4 ``address`` of its interface ``eth0``; ``netns`` is the path of its network
    namespace, which outlives a reboot, as its disk does: the layer over ``image`` in ``directory``. The console is in
    ``directory/console``. ``binds`` are folders of this machine that it may read, by its own path for each."""

    name: str
    address: str
    netns: str
    image: Path
    directory: Path
    group: str
    binds: dict[str, Path] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _leader: int = 0

    def boot(self) -> None:
        """Starts it. Returns when systemd has started everything that it is to start. Raises LabError.

        It powers off when the calling thread ends, however that ends, so this is to be called from one that stays.
        """
        for each in ("upper", "work", "root"):
            (self.directory / each).mkdir(parents=True, exist_ok=True)
        options = [f"--network-namespace-path={self.netns}"]
        options += [f"--bind-ro={here}:{there}" for there, here in self.binds.items()]
        # From its network, so that its /sys shows the interfaces that it has, and not this machine's.
        # Killed with its parent, nspawn would leave the machine's systemd to itself.
        argv = ["setpriv", "--pdeathsig=TERM", "--", "nsenter", f"--net={self.netns}", "--"]
        argv += ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _BOOT, "boot"]
        argv += [str(self.image), str(self.directory), self.group, *options]
        environment = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with (self.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        deadline = time.monotonic() + _BOOTS_WITHIN_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                console_text = (self.directory / "console").read_text(errors="replace")
                raise LabError(f"the host {self.name} does not boot:\n{console_text[-4000:]}")
            time.sleep(0.1)

    def shut_down(self) -> None:
        """Has it power off in order, and waits for that. Does nothing where it is off."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.cut_power()
        self._off()

    def cut_power(self) -> None:
        """Ends everything on it at once."""
        if self._process is None:
            return
        for pid in (self._leader, self._process.pid):
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._off()

    def reboot(self) -> None:
        """Shuts it down and boots it again."""
        self.shut_down()
        self.boot()

    def remove(self) -> None:
        """Cuts its power and removes its disk."""
        self.cut_power()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs ``argv`` there as root; nsenter forks, so its pid is not the program's."""
        inside = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        return [*inside, "env", "-i", *_ENVIRONMENT, *argv]

    def run(self, *argv: str, check: bool = True, timeout: float = 120.0) -> str:
        """Runs a program there and returns what it said. Raises LabError, with that, where it fails and ``check``."""
        done = subprocess.run(  # noqa: S603
            self.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        if check and done.returncode:
            raise LabError(f"{self.name}: {' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program there; ``options`` as for subprocess.Popen."""
        return subprocess.Popen(self.command(argv), **options)  # noqa: S603

    def path(self, there: str) -> Path:
        """The path here of a file there, while it runs."""
        return Path(f"/proc/{self._leader}/root") / there.lstrip("/")

    def inside(self, work: Callable[[], T]) -> T:
        """Calls ``work`` in a thread that is on its network, and returns the result."""

        def there() -> T:
            with entered(self.netns):
                return work()

        return in_thread(there)

    def _is_up(self) -> bool:
        if not self._leader:
            self._leader = self._find_leader()
        if not self._leader:
            return False
        said = self.run("systemctl", "is-system-running", check=False).strip()
        return said in ("running", "degraded")

    def _find_leader(self) -> int:
        """The pid here of the machine's process 1, which is its systemd; 0 before there is one."""
        assert self._process is not None
        for pid in _descendants(self._process.pid):
            with suppress(OSError):
                numbers = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                # One that is still being set up is process 1 too, and runs nspawn.
                if numbers[-1] == "1" and Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return pid
        return 0

    def _off(self) -> None:
        self._process, self._leader = None, 0
        remove_group(self.group)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return found[1:]
