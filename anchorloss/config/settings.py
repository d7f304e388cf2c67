"""The typed form of a config, and the identity of a run.

`Config` is the schema that Hydra composes into: an unknown key is refused there. `anchorloss.config.parsing` checks what
a type cannot say and returns one `RunSettings` a seed. What decides *which* run it is stands in
`RunSettings.identity()`; what only decides where or how fast it runs stands in `Execution` and never reaches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# The data sets that are there, and what tables call them. One of your own is called by its name.
DATA_SETS = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "synthetic": "SYNTHETIC"}


@dataclass
class ModelSettings:
    # resnet8, 20, 32, 44, 56, 110 (CIFAR) or resnet18, 34, 50 (with a CIFAR stem); any other depth 6n+2 works too.
    name: str = "resnet20"
    # Shortcut where the shape changes: A (parameter-free) or B (1x1 convolution).
    shortcut: str = "A"
    # Start the last bias at -log((1 - pi) / pi), pi = 1 / classes, instead of at zero.
    prior_bias: bool = True
    # For a network of your own: the import path of a function of num_classes that returns it; null: those above.
    function: str | None = None
    # Further arguments of `function`.
    arguments: dict[str, Any] = field(default_factory=dict)
    # Hash of the source of `function`; filled in.
    source: str | None = None


@dataclass
class DataSettings:
    # cifar100, cifar10 or synthetic.
    name: str = "synthetic"
    # Folder or archive that holds the official files.
    root: str = "data"
    # Let torchvision fetch the archive when root does not hold it.
    download: bool = False
    # Training images held out, class by class; 0 trains on all of them.
    validation: int = 0
    # Chooses which images are held out.
    validation_seed: int = 0
    # test, or validation: then the test file is never opened.
    evaluate_on: str = "test"
    # Sizes of the synthetic set; null for the real ones.
    training_images: int | None = None
    test_images: int | None = None
    # For a data set of your own: the import path of a function of `root` that returns its images; null: those above.
    function: str | None = None
    # Further arguments of `function`.
    arguments: dict[str, Any] = field(default_factory=dict)
    # Hash of the source of `function`; filled in.
    source: str | None = None


@dataclass
class OptimSettings:
    # Passes over the training images.
    epochs: int = 200
    # Images in one step; the last step of an epoch takes what is left.
    batch_size: int = 128
    # Learning rate of SGD at the start of the schedule.
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    # Applied to every parameter, as in He et al.
    weight_decay: float = 1e-4
    # step: divide by `decay_factor` at each of `decay_at`; cosine: half a cosine to zero.
    schedule: str = "step"
    # Fractions of `epochs`, so that a short run has the same shape: 0.8 and 0.9 of 200 are 160 and 180.
    decay_at: list[float] = field(default_factory=lambda: [0.8, 0.9])
    decay_factor: float = 10.0
    # The learning rate rises linearly, step by step, over this many epochs first.
    lr_warmup_epochs: float = 0.0
    # Softmax cross entropy instead of the loss for this many epochs first.
    softmax_warmup_epochs: int = 0
    # Evaluate after every this many epochs, and always after the last.
    evaluate_every: int = 1


@dataclass
class ExperimentSettings:
    # Names the folder of its runs and tables.
    name: str = "scratch"
    # What it reproduces, what is expected, what it costs, and the command: for people, not for the program.
    reproduces: str = ""
    expected: str = ""
    cost: str = ""
    command: str = ""


@dataclass
class LoggerSettings:
    # auto (W&B with a key, else none), wandb (online with a key, else offline) or none.
    name: str = "auto"
    project: str = "anchor-loss"


@dataclass
class Config:
    loss: dict[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    experiment: ExperimentSettings = field(default_factory=ExperimentSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    # One run a seed. A seed fixes the initial weights, the order of the images and their augmentation.
    seeds: list[int] = field(default_factory=lambda: [0])
    # bf16 (autocast; weights stay fp32), fp32, or auto: bf16 where the device computes it natively.
    precision: str = "auto"
    # auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1, mps.
    device: str = "auto"
    # Where runs and tables go.
    results_dir: str = "results"
    # Runs trained at once in this process: a number, or auto. That is on a GPU as many as `--plan` found fastest there,
    # 8 if it was not asked; on a CPU as many as the cores have room for with `threads` each, one if that is not set.
    concurrent: str = "auto"
    # Deterministic algorithms: always on a CPU; on a GPU at some cost in speed.
    deterministic: bool = False
    # torch.compile the network.
    compile: bool = False
    # Seconds between checkpoints of a run; it also saves one when interrupted.
    checkpoint_seconds: float = 60.0
    # Leave the last epoch's weights beside the record: weights.safetensors, float32.
    keep_weights: bool = False
    # Stop after so many minutes, with checkpoints to go on from; 0: no limit.
    minutes: float = 0.0
    # Run failed runs again.
    retry_failed: bool = False
    # Train nothing: measure how many runs at once are fastest, and how long the plan will take.
    plan_only: bool = False
    # Threads on a CPU; 0: torch's default. Another number of threads may round differently.
    threads: int = 0


@dataclass(frozen=True)
class LossSettings:
    """A loss by its name, the dotted path of its function, and the arguments that go with `(logits, target)`."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    # How scores become probabilities: `sigmoid` or `softmax`; None where the function says so itself.
    scores: str | None = None
    # Hash of the function's source, where it is not part of this package.
    source: str | None = None

    def identity(self) -> dict[str, Any]:
        """The part of a run's identity that says which loss it is."""
        extras = {"scores": self.scores, "source": self.source}
        set_extras = {key: value for key, value in extras.items() if value is not None}
        return {"name": self.name, "function": self.function, **self.arguments, **set_extras}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """The first 10 hex digits of the SHA-256 of an identity's JSON with sorted keys."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class RunSettings:
    """Everything that can change the result of one run, and the experiment it is filed under."""

    experiment: str
    loss: LossSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    precision: str
    seed: int

    def identity(self) -> dict[str, Any]:
        """The settings that can change the result, as plain nested data; what the hash is made of."""
        data = _without_unset(asdict(self.data))
        del data["root"], data["download"]
        return {
            "loss": self.loss.identity(),
            "model": _without_unset(asdict(self.model)),
            "data": data,
            "optim": asdict(self.optim),
            "precision": self.precision,
            "seed": self.seed,
        }

    @property
    def functions(self) -> tuple[str, ...]:
        """The import paths of the loss, and of the network and data set where they have one."""
        return tuple(
            part.function for part in (self.loss, self.model, self.data) if part.function is not None
        )

    @property
    def hash(self) -> str:
        """The run's `identity_hash`."""
        return identity_hash(self.identity())

    @property
    def run(self) -> str:
        """The name of the run's folder; legal on Windows."""
        return f"{self.loss.name}-{self.model.name}-seed{self.seed}-{self.hash}"


def _without_unset(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys that came later, as long as they are not set: identities from before have none of them."""
    return {
        key: value
        for key, value in settings.items()
        if key not in ("function", "arguments", "source") or value
    }


@dataclass(frozen=True)
class Execution:
    """Where and how runs are carried out; changes no result beyond the rounding of another device."""

    device: str
    results_dir: Path
    data_root: str
    data_download: bool
    logger: LoggerSettings
    # 0: auto.
    concurrent: int
    deterministic: bool
    compile: bool
    checkpoint_seconds: float
    keep_weights: bool
    minutes: float
    retry_failed: bool
    plan_only: bool
    threads: int
