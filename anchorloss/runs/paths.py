"""Where runs lie in a results folder: `<results_dir>/runs/<experiment>/<run>/`."""

from __future__ import annotations

from pathlib import Path


def runs_folder(results_dir: Path) -> Path:
    """The folder of all experiments."""
    return results_dir / "runs"


def experiment_folder(results_dir: Path, experiment: str) -> Path:
    """The folder of an experiment's runs."""
    return runs_folder(results_dir) / experiment


def run_folder(results_dir: Path, experiment: str, run: str) -> Path:
    """The folder of one run."""
    return experiment_folder(results_dir, experiment) / run
