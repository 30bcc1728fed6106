"""Conditions of blocks: Ansible looks at one before each task of the block, so none of these tasks may change it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_run import TREE

Task = dict[str, Any]
BLOCKS = ("block", "rescue", "always")


def tasks(entries: list[Task]) -> Iterator[Task]:
    """Every task and block of a file, those within blocks and plays too."""
    for entry in entries:
        yield entry
        for part in (*BLOCKS, "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(entry.get(part) or [])


def changed(file: Path, entries: list[Task]) -> Iterator[str]:
    """The variables that these tasks set, with those of the files that they include."""
    for task in tasks(entries):
        if "register" in task:
            yield task["register"]
        yield from task.get("ansible.builtin.set_fact", {})
        included: list[Path] = []
        if isinstance(name := task.get("ansible.builtin.include_tasks"), str):
            included = [file.parent / name]
        if role := task.get("ansible.builtin.include_role"):
            included = [TREE / "roles" / role["name"] / "tasks" / role.get("tasks_from", "main.yml")]
        for each in included:
            yield from changed(each, yaml.safe_load(each.read_text()))


def conditional() -> Iterator[tuple[Path, Task]]:
    """Every block that has a condition, and its file."""
    for file in sorted({*TREE.glob("*.yml"), *TREE.glob("tasks/*.yml"), *TREE.glob("roles/*/tasks/*.yml")}):
        for task in tasks(yaml.safe_load(file.read_text())):
            if "block" in task and "when" in task:
                yield file, task


@pytest.mark.parametrize(
    ("file", "block"), [pytest.param(file, block, id=f"{file.stem}: {block['name']}") for file, block in conditional()]
)
def test_a_condition_stays_what_it_is_while_its_block_runs(file: Path, block: Task) -> None:
    named = set(re.findall(r"\w+", str(block["when"])))
    within = [task for part in BLOCKS for task in block.get(part, [])]
    assert not named & set(changed(file, within))
