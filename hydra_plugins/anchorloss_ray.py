"""`hydra/launcher=ray`: the jobs of a sweep as Ray tasks.

docs/clusters.md says why not hydra-ray-launcher.
"""

from __future__ import annotations

import math

from anchorloss.errors import UserError
from anchorloss.sweep.cluster import ClusterLauncher, Job, train_job


class RayLauncher(ClusterLauncher):
    """Makes each job a task. When a node dies, Ray starts its tasks on another one, as often as necessary."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        """Take the keys of configs/hydra/launcher/ray.yaml.

        Raises:
            UserError: `num_cpus` or `num_gpus` is no number from 0.
        """
        for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise UserError(f"hydra.launcher.{name}={value}: must be a finite number from 0")
        self._address = address
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus

    def carry_out(self, jobs: list[Job]) -> list[str]:
        """Train the jobs; see `ClusterLauncher`.

        Raises:
            UserError: Ray is not installed, or does not answer at the address.
        """
        try:
            import ray
        except ImportError:
            raise UserError("hydra/launcher=ray: needs Ray; pip install -e '.[ray]'") from None
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="error")
        except ConnectionError:
            raise UserError(
                f"hydra.launcher.address={self._address}: no Ray answers there; `ray start --head` starts one, "
                "address=local one for this command alone"
            ) from None
        try:
            task = ray.remote(train_job).options(
                num_cpus=self._num_cpus, num_gpus=self._num_gpus, max_retries=-1
            )
            pending = {task.remote(job.config): job for job in jobs}
            troubles = []
            while pending:
                (ended,), _ = ray.wait(list(pending), num_returns=1)
                job = pending.pop(ended)
                try:
                    trouble = ray.get(ended)
                except ray.exceptions.RayError as error:
                    trouble = str(error).splitlines()[-1]
                print(f"{job.name}: {'has ended' if trouble is None else 'has trouble'}", flush=True)
                if trouble is not None:
                    troubles.append(f"{job.name}: {trouble}")
            return troubles
        finally:
            ray.shutdown()
