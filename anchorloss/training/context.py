"""What the runs of one process share: the data on the device, and how to train there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from anchorloss.config.settings import DataSettings, Execution
from anchorloss.data.dataset import Dataset, load_dataset
from anchorloss.training.evaluation import EvaluationImages
from anchorloss.training.trainer import TrainingImages


@dataclass(frozen=True)
class RunContext:
    """The data set, its images on the device, and the settings of the execution that a run needs."""

    dataset: Dataset
    device: torch.device
    training: TrainingImages
    evaluation: EvaluationImages
    compile: bool
    checkpoint_seconds: float
    keep_weights: bool = False

    @staticmethod
    def of(dataset: Dataset, device: torch.device, **execution: Any) -> RunContext:
        """The context of a data set that is in memory already; `execution` are the fields from `compile` on."""
        training, evaluation = TrainingImages.of(dataset, device), EvaluationImages.of(dataset, device)
        return RunContext(dataset, device, training, evaluation, **execution)

    @staticmethod
    def load(data: DataSettings, execution: Execution, device: torch.device) -> RunContext:
        """Read the data set and move it to the device.

        Raises:
            UserError: the data set is missing or damaged.
        """
        return RunContext.of(
            load_dataset(data),
            device,
            compile=execution.compile,
            checkpoint_seconds=execution.checkpoint_seconds,
            keep_weights=execution.keep_weights,
        )
