"""Every way to install brings the same packages."""

from __future__ import annotations

import re
import tomllib

import yaml

from tests.conftest import ROOT


def test_environment_yml_installs_the_experiments():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e .[experiments]"]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_the_released_version_is_the_one_in_citation_and_changelog():
    version = re.search(r'__version__ = "(.+)"', (ROOT / "anchorloss" / "__init__.py").read_text())[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"## {version} ({citation['date-released']})" in (ROOT / "CHANGELOG.md").read_text()
