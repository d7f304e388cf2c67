"""Every way to install brings the same packages."""

from __future__ import annotations

import re
import subprocess
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


def test_the_workflow_calls_make_targets_with_the_oldest_python():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(
        r"make ([a-z-]+)", " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    )
    assert {"lint", "quickstart", "test"} <= set(called) <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={jobs['test']['strategy']['matrix']['python'][0]}"


def test_a_checkout_with_the_line_ends_of_windows_keeps_what_records_hold_checksums_of(tmp_path):
    """Git for Windows turns line ends unless .gitattributes says otherwise; `git status` would be clean."""
    folders = ["results/runs/quickstart", "tests/golden"]
    git = ["git", "-c", "core.autocrlf=true", "-c", "safe.directory=*"]
    subprocess.run([*git, "clone", "-q", "--no-checkout", str(ROOT), str(tmp_path / "clone")], check=True)
    for paths in ([".gitattributes"], folders):
        subprocess.run([*git, "checkout", "-q", "HEAD", "--", *paths], cwd=tmp_path / "clone", check=True)
    files = [path for path in (tmp_path / "clone").rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 20
    for path in files:
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path / "clone")).read_bytes(), path
