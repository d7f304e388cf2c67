"""What can be set: each key with its type, range, default and meaning, declared once.

`Config` is the schema that Hydra composes into; the sentences are what `python train.py --help` shows.
`anchorloss.config.parsing` checks a composed config against it and returns one `RunSettings` a seed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from annotated_types import Ge, Gt, Le, Len, Lt
from omegaconf import MISSING

from anchorloss.config.validation import OneOf, Written

# Neither hidden nor, on Windows, cut at a dot at the end.
NAME = re.compile(r"[A-Za-z0-9_+](?:[A-Za-z0-9_+.]*[A-Za-z0-9_+])?")
Name = Annotated[str, Written(NAME.fullmatch, "a name of letters, digits, '_', '+' and '.'"), Len(1, 100)]
# Line breaks and escape sequences would be carried out by a table or a terminal.
Text = Annotated[str, Written(str.isprintable, "printable characters in one line"), Len(0, 1000)]
Images = Annotated[int, Ge(100), Le(1_000_000)]
# float32 overflows at 3e38.
_LARGEST = 1e30

# The data sets that are there and what is known of each, as anchorloss/data/datasets.yaml explains.
DATA_SETS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "datasets.yaml").read_text("utf-8")
)
# The names of the paper's losses, which no other loss may have, and their anchors.
PAPER_LOSSES = {"bce": "none", "anchor_target": "target", "anchor_bg": "background", "anchor_both": "both"}


@dataclass
class ModelSettings:
    name: Annotated[
        Name,
        "resnet18, 34, 50 (with a stem for 32x32 images), or resnetD with D = 6n+2: 8, 20, 32, 44, 56, 110, ...",
    ]
    shortcut: Annotated[
        str, OneOf("A", "B"), "Shortcut where the shape changes: A (parameter-free) or B (1x1 convolution)."
    ] = "A"
    prior_bias: Annotated[
        bool, "Start the last bias at -log((1 - pi) / pi), pi = 1 / classes, instead of at zero."
    ] = True
    function: Annotated[
        Text | None,
        "For a network of your own: the import path of a function of num_classes that returns it; null: those above.",
    ] = None
    arguments: Annotated[dict[str, Any], "Further arguments of `function`."] = field(default_factory=dict)
    source: Annotated[Text | None, "Hash of the source of `function`; filled in."] = None


@dataclass
class DataSettings:
    name: Annotated[Name, "cifar100, cifar10 or synthetic."]
    root: Annotated[Text, Len(1), "Folder or archive that holds the official files."] = "data"
    download: Annotated[bool, "Let torchvision fetch the archive when root does not hold it."] = False
    validation: Annotated[
        int, Ge(0), Le(1_000_000), "Training images held out, as many of each class; 0 trains on all of them."
    ] = 0
    validation_seed: Annotated[int, Ge(0), Lt(2**31), "Chooses which images are held out."] = 0
    evaluate_on: Annotated[
        str, OneOf("test", "validation"), "test, or validation: then the test file is never opened."
    ] = "test"
    training_images: Annotated[
        Images | None,
        "Size of the synthetic training set; of another set the first so many, as many of each class; null: all.",
    ] = None
    test_images: Annotated[Images | None, "Size of the synthetic test set; null for the real sets."] = None
    function: Annotated[
        Text | None,
        "For a data set of your own: the import path of a function of `root` that returns its images; null: those above.",
    ] = None
    arguments: Annotated[dict[str, Any], "Further arguments of `function`."] = field(default_factory=dict)
    source: Annotated[Text | None, "Hash of the source of `function`; filled in."] = None

    @property
    def label(self) -> str:
        """What tables and figures call the data set."""
        return data_label(self.name, self.training_images)


def data_label(name: str, training_images: int | None) -> str:
    """What tables and figures call a data set: "CIFAR-100", "CIFAR-100 (2,000 of its training images)", "SYNTHETIC".

    Args:
        name: `data.name`; a data set of one's own is called by it.
        training_images: `data.training_images`, which the synthetic set has as its size, another set as a part of it.
    """
    label = str(DATA_SETS.get(name, {}).get("label", name))
    is_part = training_images is not None and name != "synthetic"
    return f"{label} ({training_images:,} of its training images)" if is_part else label


@dataclass
class OptimSettings:
    epochs: Annotated[int, Ge(1), Le(1_000_000), "Passes over the training images."] = 200
    batch_size: Annotated[
        int, Ge(1), Le(1_000_000), "Images in one step; the last step of an epoch takes what is left."
    ] = 128
    lr: Annotated[float, Gt(0), Le(_LARGEST), "Learning rate of SGD at the start of the schedule."] = 0.1
    momentum: Annotated[float, Ge(0), Lt(1), "Momentum of SGD."] = 0.9
    nesterov: Annotated[bool, "Nesterov's form of it."] = False
    weight_decay: Annotated[float, Ge(0), Le(_LARGEST), "Applied to every parameter, as in He et al."] = 1e-4
    schedule: Annotated[
        str,
        OneOf("step", "cosine"),
        "step: divide by decay_factor at each of decay_at; cosine: half a cosine to zero.",
    ] = "step"
    decay_at: Annotated[
        list[Annotated[float, Gt(0), Le(1)]],
        Len(0, 1000),
        "Fractions of epochs, so that a short run has the same shape: 0.8 and 0.9 of 200 are 160 and 180.",
    ] = field(default_factory=lambda: [0.8, 0.9])
    decay_factor: Annotated[float, Gt(0), Le(_LARGEST), "What the step schedule divides by."] = 10.0
    lr_warmup_epochs: Annotated[
        float,
        Ge(0),
        Le(1_000_000),
        "The learning rate rises linearly, step by step, over this many epochs first.",
    ] = 0.0
    softmax_warmup_epochs: Annotated[
        int, Ge(0), Le(1_000_000), "Softmax cross entropy instead of the loss for this many epochs first."
    ] = 0
    evaluate_every: Annotated[
        int, Ge(1), Le(1_000_000), "Evaluate after every this many epochs, and always after the last."
    ] = 1


@dataclass
class ExperimentSettings:
    name: Annotated[Name, "Names the folder of its runs and tables."]


@dataclass
class LoggerSettings:
    name: Annotated[
        str,
        OneOf("auto", "wandb", "none"),
        "auto (W&B with a key, else none), wandb (online with a key, else offline) or none.",
    ] = "auto"
    project: Annotated[Text, Len(1, 128), "The project in W&B."] = "anchor-loss"


@dataclass
class Config:
    # Chosen in configs/config.yaml; without a choice they are missing, and refused.
    loss: Annotated[dict[str, Any], "A loss of configs/loss/ and its arguments."] = MISSING
    model: ModelSettings = MISSING
    data: DataSettings = MISSING
    optim: OptimSettings = MISSING
    experiment: ExperimentSettings = MISSING
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    seeds: Annotated[
        list[Annotated[int, Ge(0), Lt(2**31)]],
        Len(1, 10_000),
        "One run a seed. A seed fixes the initial weights, the order of the images and their augmentation.",
    ] = field(default_factory=lambda: [0])
    precision: Annotated[
        str,
        OneOf("auto", "bf16", "fp32"),
        "bf16 (autocast; weights stay fp32), fp32, or auto: bf16 where the device computes it natively.",
    ] = "auto"
    device: Annotated[
        str,
        Written(re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?").fullmatch, "auto, cpu, cuda, cuda:N or mps"),
        "auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1, mps.",
    ] = "auto"
    results_dir: Annotated[Text, Len(1), "Where runs and tables go."] = "results"
    concurrent: Annotated[
        str,
        Written(re.compile("auto|[1-9][0-9]{0,3}").fullmatch, "auto or a whole number from 1 to 9999"),
        "Runs trained at once in this process: a number, or auto. That is 8 on a GPU; on a CPU as many as the cores have "
        "room for with `threads` each, one if that is not set.",
    ] = "auto"
    deterministic: Annotated[
        bool, "Deterministic algorithms: always on a CPU; on a GPU at some cost in speed."
    ] = False
    compile: Annotated[bool, "torch.compile the network."] = False
    checkpoint_seconds: Annotated[
        float, Ge(0), Le(1e9), "Seconds between checkpoints of a run; it also saves one when interrupted."
    ] = 60.0
    keep_weights: Annotated[
        bool, "Leave the last epoch's weights beside the record: weights.safetensors, float32."
    ] = False
    minutes: Annotated[
        float, Ge(0), Le(1e7), "Stop after so many minutes, with checkpoints to go on from; 0: no limit."
    ] = 0.0
    retry_failed: Annotated[bool, "Run failed runs again."] = False
    dry_run: Annotated[bool, "Train nothing: list what would be trained, resumed and skipped."] = False
    threads: Annotated[
        int,
        Ge(0),
        Le(256),
        "Threads on a CPU; 0: torch's default. Another number of threads may round differently.",
    ] = 0

    # What pydantic refuses beyond the ranges.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class Execution:
    """Where and how runs are carried out; changes no result beyond the rounding of another device."""

    device: str
    results_dir: Path
    logger: LoggerSettings
    # 0: auto.
    concurrent: int
    deterministic: bool
    compile: bool
    checkpoint_seconds: float
    keep_weights: bool
    minutes: float
    retry_failed: bool
    dry_run: bool
    threads: int
