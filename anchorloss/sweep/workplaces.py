"""The data sets on the device, each loaded once; the runs of a plan may differ in theirs."""

from __future__ import annotations

import torch

from anchorloss.config.settings import Execution, RunSettings
from anchorloss.data import dataset
from anchorloss.training.loop import Workplace


class Workplaces:
    """Where the runs of one process train, by their data settings."""

    def __init__(self, execution: Execution, device: torch.device) -> None:
        self._execution = execution
        self._device = device
        self._loaded: dict[str, Workplace] = {}

    def load(self, settings: RunSettings) -> Workplace:
        """The data set on the device. Raises: UserError if it is missing or damaged."""
        data = settings.data
        key = repr(data)
        if key not in self._loaded:
            sizes = {"training_images": data.training_images, "test_images": data.test_images}
            loaded = dataset.load(
                data.name,
                data.root,
                download=data.download,
                validation=data.validation,
                validation_seed=data.validation_seed,
                evaluate_on=data.evaluate_on,
                **(sizes if data.name == "synthetic" else {}),
            )
            self._loaded[key] = Workplace.of(
                loaded,
                self._device,
                compile=self._execution.compile,
                checkpoint_seconds=self._execution.checkpoint_seconds,
                keep_weights=self._execution.keep_weights,
            )
        return self._loaded[key]
