"""The jobs of a cluster's sweep: which of them are done."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from anchorloss.errors import UserError
from anchorloss.runs.folder import RECORD
from anchorloss.sweep.cluster import Job
from tests.run_folders import finish_run, make_settings


def test_a_damaged_record_is_named_before_a_job_is_submitted(tmp_path):
    """Even where an earlier run of the job has no record yet."""
    runs = [make_settings(seed=seed) for seed in range(2)]
    job = Job(OmegaConf.create({"results_dir": str(tmp_path), "retry_failed": False}), runs)
    assert not job.is_done
    record = finish_run(tmp_path, runs[1]) / RECORD
    content = record.read_bytes()
    record.write_bytes(content[:-9])
    with pytest.raises(UserError, match=str(record)):
        _ = job.is_done
    record.write_bytes(content)
    assert not job.is_done
    finish_run(tmp_path, runs[0])
    assert job.is_done
