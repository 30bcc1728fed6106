"""The documents say what the code says."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import ROOT
from responding import Line, Response, living, said

from bpf.verdicts import markdown_table
from firsthop.cli import main
from runtime.families import page
from runtime.tracing import shapes
from wire.reference import markdown

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]*(?:\.(?:py|c|h|json|service|md|toml)|/)")
_OURS = {path.name for path in ROOT.iterdir() if path.is_dir()}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """What GitHub makes of its headings."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_page_of_configuration_keys_is_what_the_code_has() -> None:
    page = CliRunner().invoke(main, ["config", "--markdown"], catch_exceptions=False).output
    assert page == (ROOT / "docs/configuration.md").read_text(), "make docs writes it"


def test_the_page_of_control_messages_is_what_the_code_has() -> None:
    assert markdown() == (ROOT / "docs/messages.md").read_text(), "make docs writes it"


def test_the_page_of_metrics_is_what_the_code_has() -> None:
    assert page.markdown() == (ROOT / "docs/metrics.md").read_text(), "make docs writes it"


def test_the_page_on_steering_has_the_table_of_verdicts() -> None:
    assert markdown_table() in (ROOT / "docs/steering.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_a_document_links_to_what_there_is(document: Path) -> None:
    for link in _LINK.findall(document.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_files_that_the_documents_name_exist() -> None:
    found = 0
    for document in DOCUMENTS:
        for quoted in re.findall(r"`([^`\n]+)`", document.read_text()):
            if _FILE.fullmatch(quoted) and quoted.partition("/")[0] in _OURS:
                assert (ROOT / quoted).exists(), (named(document), quoted)
                found += 1
    assert found > 150


def test_every_page_is_on_the_map() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"architecture.md"}
    assert pages <= set(_LINK.findall(text))


async def test_the_readmes_first_agent_answers() -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    agent = names["Agent"](Line())
    response = Response([said("Hello?")])
    async with living(agent):
        answering = agent.respond(response)
        assert inspect.isawaitable(answering)
        await answering
    assert response.ended == "done"
    assert len(response.pcm) > 24000
    assert response.said


def test_a_module_begins_with_what_it_is() -> None:
    """No question word comes first: "What a link costs" tells less than "The cost of a link"."""
    questions = {"What", "Who", "Whose", "How", "Which", "Whether", "When", "Where", "Why"}
    for path in sorted(ROOT.rglob("*.py")):
        folder = path.relative_to(ROOT).parts[0]
        if folder in _OURS and not folder.startswith("."):
            assert (ast.get_docstring(ast.parse(path.read_text())) or "").partition(" ")[0] not in questions, named(
                path
            )


def test_readme_has_the_versions_of_the_clients_that_tests_run() -> None:
    readme = (ROOT / "README.md").read_text()
    lock = (ROOT / "requirements/dev.txt").read_text()
    pinned = dict(re.findall(r"^([a-z-]+)(?:\[.*\])?==(\S+)", lock, re.MULTILINE))
    package = json.loads((ROOT / "tests/clients/package.json").read_text())
    for client, version in package["dependencies"].items():
        assert re.search(rf"\| `{client}` \(npm\)(, in Chromium)? \| {re.escape(version)} \|", readme), client
    for client in ("openai-agents", "openai"):
        assert f"| `{client}` (PyPI) | {pinned[client]} |" in readme
    base = (ROOT / "requirements/base.txt").read_text()
    aiortc = re.findall(r"^aiortc==(\S+)", base + (ROOT / "tests/clients/aiortc-1.13.txt").read_text(), re.MULTILINE)
    assert f"| `aiortc` (PyPI) | {', '.join(aiortc)} |" in readme


def test_the_page_on_tracing_has_the_table_of_spans() -> None:
    assert shapes.markdown() in (ROOT / "docs/tracing.md").read_text()
