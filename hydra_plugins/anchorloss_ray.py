"""`hydra/launcher=ray`: the jobs of a sweep as Ray tasks.

Not hydra-ray-launcher: it does not connect to a Ray that is running unless told to leave out an option of its own, and
its jobs take relative paths from wherever a node's Ray was started.
"""

from __future__ import annotations

from anchorloss.errors import UserError
from anchorloss.sweep.cluster import ClusterLauncher, Job, train_job


class RayLauncher(ClusterLauncher):
    """Each job is a task that Ray starts again on another node, as often as need be, when its node dies."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        self._address = address
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus

    def carry_out(self, jobs: list[Job]) -> list[str]:
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
