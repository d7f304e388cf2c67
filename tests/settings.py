"""Settings as configs/ composes them where nothing else is said, for tests that compose no config."""

from __future__ import annotations

from typing import Any

from anchorloss.config.settings import DataSettings, ModelSettings, OptimSettings


def model_settings(name: str = "resnet8", **others: Any) -> ModelSettings:
    """A network; further keywords are further keys."""
    return ModelSettings(**{"name": name, "shortcut": "A", "prior_bias": True, **others})


def data_settings(name: str, **others: Any) -> DataSettings:
    """A data set; further keywords are further keys."""
    keys = {"validation": 0, "validation_seed": 0, "evaluate_on": "test"}
    return DataSettings(**{"name": name, **keys, "training_images": None, "test_images": None, **others})


def optim_settings(**others: Any) -> OptimSettings:
    """The paper's recipe; keywords are what differs."""
    paper = {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "schedule": "step",
        "decay_at": [0.8, 0.9],
        "decay_factor": 10.0,
        "lr_warmup_epochs": 0.0,
        "softmax_warmup_epochs": 0,
        "evaluate_every": 1,
    }
    return OptimSettings(**{**paper, **others})
