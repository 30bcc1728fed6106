"""The bill of materials: it is CycloneDX, and it names what the wheel needs and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from paths import ROOT

from lab.machines import sbom

LOCK = (ROOT / "requirements/base.txt").read_text()


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.text()


@pytest.fixture(scope="module")
def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def named(file: str) -> set[str]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0].partition("[")[0]) for line in lines if "==" in line}


def test_it_is_what_the_specification_says(text: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"book"', 1)) is not None


def test_it_names_every_package_that_is_pinned_and_no_other(document: dict[str, Any]) -> None:
    names = [each["name"] for each in document["components"]]
    assert len(names) == len(set(names)) == LOCK.count("==")
    assert set(names) == named("base.txt")
    assert not named("dev.txt") & set(names)


def test_each_has_its_version_and_the_hashes_of_its_files(document: dict[str, Any]) -> None:
    hashes = 0
    for each in document["components"]:
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        found = [one["content"] for file in each["externalReferences"] for one in file["hashes"]]
        assert found, each["name"]
        for content in found:
            assert f"--hash=sha256:{content}" in LOCK
        hashes += len(found)
    assert hashes == LOCK.count("--hash=sha256:")


def test_licences_are_known(document: dict[str, Any]) -> None:
    silent = [each["name"] for each in document["components"] if not each.get("licenses")]
    assert silent == []
    assert document["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    (cryptography,) = [each for each in document["components"] if each["name"] == "cryptography"]
    assert cryptography["licenses"] == [{"expression": "Apache-2.0 OR BSD-3-Clause"}]


def test_it_says_what_needs_what(document: dict[str, Any]) -> None:
    needs = {each["ref"].partition("@")[0]: each.get("dependsOn", []) for each in document["dependencies"]}
    ours = {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in needs["firsthop"]}
    assert {"aiohttp", "aiortc", "pyzmq"} <= ours
    assert "aioice" not in ours
    assert "aioice" in {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in needs["pkg:pypi/aiortc"]}


def test_the_same_source_makes_the_same_bytes(text: str) -> None:
    assert sbom.text() == text


def test_a_pin_is_read_with_all_of_its_hashes() -> None:
    lock = f"Some.Name[extra]==1.2 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
    assert sbom.pins(lock) == [sbom.Pin("some-name", "1.2", ("a" * 64, "b" * 64))]
