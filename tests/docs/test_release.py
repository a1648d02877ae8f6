"""The list of components of a release: every package of the lock, with its version, and licences where they are known."""

from __future__ import annotations

from documentation.reference import ROOT
from documentation.release import bill_of


def test_every_locked_package_is_a_component_with_its_version():
    locked = (ROOT / "requirements.lock").read_text().split()
    bill = bill_of({"name": "coordinator-node", "version": "9.9"}, locked)
    assert [f"{component['name']}=={component['version']}" for component in bill["components"]] == locked
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/coordinator-node@9.9"
    licensed = [component for component in bill["components"] if component.get("licenses")]
    assert len(licensed) > len(locked) / 2
