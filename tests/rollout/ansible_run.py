"""Ansible as the tests run it: from its own environment, with a home and a vault password of the test's."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT
from privileges import cannot_run

TREE = ROOT / "ansible"
BIN = ROOT / ".venv-ansible/bin"


@dataclass(frozen=True, slots=True)
class Ansible:
    """Commands of Ansible, whose ``inventory`` is a file; what they keep is in ``home``."""

    inventory: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(TREE / "ansible.cfg"),
            "ANSIBLE_INVENTORY": str(self.inventory),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, program: str, *argv: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a program of Ansible's to its end."""
        if not (BIN / program).exists():
            cannot_run(f"{BIN} has no {program}: scripts/setup dev")
        return subprocess.run(
            [*prefix, str(BIN / program), *argv],
            cwd=TREE,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def play(self, playbook: str, *argv: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a playbook of the tree."""
        return self.run("ansible-playbook", str(TREE / playbook), *argv, prefix=prefix)
