"""The bill of materials of a release (CycloneDX, JSON): every package that requirements/base.txt pins, its version, the
hashes of its files, its licence and what it needs itself.

Licences and needs are those of the packages that are installed here, where they have the pinned versions. The same
source makes the same bytes.
"""

from __future__ import annotations

import re
import sys
import tomllib
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab.machines.places import SOURCE

__all__ = ["Pin", "pins", "text", "write"]

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
# What the licences of some packages are called by themselves, and how SPDX calls them.
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


class Pin(NamedTuple):
    """A package as requirements/base.txt pins it; ``hashes`` are the SHA-256 of its files in hexadecimal digits."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(lock: str) -> list[Pin]:
    """The packages in the text of a lock file, by their normalised names."""
    found = _PIN.findall(lock)
    return [Pin(canonicalize_name(name), version, tuple(_HASH.findall(hashes))) for name, version, hashes in found]


def text() -> str:
    """The document, for what the source at hand pins."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    locked = pins((SOURCE / "requirements/base.txt").read_text())
    components = {pin.name: _component(pin) for pin in locked}
    root = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    bom = Bom(components=components.values())
    about: Any = bom.metadata
    about.component = root
    about.timestamp = None  # the same source makes the same bytes
    bom.register_dependency(root, _needed(project["dependencies"], components))
    for pin in locked:
        there = _installed(pin)
        bom.register_dependency(components[pin.name], _needed(there.requires or () if there else (), components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, repr((root.name, root.version, locked)))
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def write(folder: Path) -> Path:
    """Writes the document to ``folder``, which is made where it is missing. Returns its file."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    file = folder / f"{project['name']}-{project['version']}.cdx.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text())
    return file


def _component(pin: Pin) -> Component:
    purl = PackageURL("pypi", None, pin.name, pin.version)
    files = [
        ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(purl.to_string()),
            comment="a file of this release that may be installed",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each)],
        )
        for each in pin.hashes
    ]
    there = _installed(pin)
    licence = _licence(there) if there else None
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=[licence] if licence else (),
        external_references=files,
    )


def _installed(pin: Pin) -> Distribution | None:
    try:
        found = distribution(pin.name)
    except PackageNotFoundError:
        return None
    return found if found.version == pin.version else None


def _licence(package: Distribution) -> License | None:
    """The licence by its SPDX name or expression, else as the package calls it; None where it does not say."""
    about = package.metadata
    if "License-Expression" in about:
        return LicenseFactory().make_from_string(about["License-Expression"])
    classified = [
        each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if each.startswith("License ")
    ]
    named = about["License"].strip() if "License" in about else ""
    for each in (named, *(_CLASSIFIED.get(one, one) for one in classified)):
        if each and "\n" not in each and each != "UNKNOWN":
            return LicenseFactory().make_from_string(each)
    return None


def _needed(requirements: Iterable[str], components: dict[str, Component]) -> list[Component]:
    """The components that these requirements name, of an installation without extras."""
    found = [Requirement(each) for each in requirements]
    names = [canonicalize_name(each.name) for each in found if not each.marker or each.marker.evaluate({"extra": ""})]
    return [components[name] for name in names if name in components]


if __name__ == "__main__":
    print(write(Path(sys.argv[1]).absolute()))
