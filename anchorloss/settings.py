"""The typed, checked form of a config, and the identity of a run.

`Config` is the schema that Hydra composes into: an unknown key is refused there. `parse` checks what a type cannot say
(ranges, choices, combinations) and returns one `RunSettings` a seed. What decides *which* run it is stands in
`RunSettings.identity()`; what only decides where or how fast it runs stands in `Execution` and never reaches it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anchorloss.errors import UserError


@dataclass
class ModelSettings:
    # resnet8, 20, 32, 44, 56, 110 (CIFAR) or resnet18, 34, 50 (with a CIFAR stem); any other depth 6n+2 works too.
    name: str = "resnet20"
    # Shortcut where the shape changes: A (parameter-free) or B (1x1 convolution).
    shortcut: str = "A"
    # Start the last bias at -log((1 - pi) / pi), pi = 1 / classes, instead of at zero.
    prior_bias: bool = False


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
    # Runs trained side by side in this process; 0: one on a CPU, several on a GPU.
    concurrent: int = 0
    # Deterministic algorithms: always on a CPU; on a GPU at some cost in speed.
    deterministic: bool = False
    # torch.compile the network.
    compile: bool = False
    # Seconds between checkpoints of a run; it also saves one when interrupted.
    checkpoint_seconds: float = 60.0
    # Run failed runs again.
    retry_failed: bool = False
    # Threads on a CPU; 0: torch's default. Another number of threads may round differently.
    threads: int = 0


@dataclass(frozen=True)
class LossSettings:
    """A loss by its name, the dotted path of its function, and the arguments that go with `(logits, target)`."""

    name: str
    function: str
    arguments: Mapping[str, Any]


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
        data = asdict(self.data)
        del data["root"], data["download"]
        return {
            "loss": {"name": self.loss.name, "function": self.loss.function, **self.loss.arguments},
            "model": asdict(self.model),
            "data": data,
            "optim": asdict(self.optim),
            "precision": self.precision,
            "seed": self.seed,
        }

    @property
    def hash(self) -> str:
        """The run's `identity_hash`."""
        return identity_hash(self.identity())

    @property
    def run(self) -> str:
        """The name of the run's folder; legal on Windows."""
        return f"{self.loss.name}-{self.model.name}-seed{self.seed}-{self.hash}"


@dataclass(frozen=True)
class Execution:
    """Where and how runs are carried out; changes no result beyond the rounding of another device."""

    device: str
    results_dir: Path
    data_root: str
    data_download: bool
    logger: LoggerSettings
    concurrent: int
    deterministic: bool
    compile: bool
    checkpoint_seconds: float
    retry_failed: bool
    threads: int


def parse(config: DictConfig) -> tuple[list[RunSettings], Execution]:
    """Check a composed config and take it apart into runs and their execution.

    Raises: UserError naming the key, its value and the remedy.
    """
    _refuse_unknown(config, Config)
    settings = OmegaConf.to_object(config)
    if not isinstance(settings, Config):
        raise TypeError("parse needs a config composed on the schema `Config`")
    _check(settings)
    loss = _loss(settings.loss)
    precision = resolve_precision(settings.precision, settings.device)
    runs = [
        RunSettings(
            settings.experiment.name, loss, settings.model, settings.data, settings.optim, precision, seed
        )
        for seed in settings.seeds
    ]
    execution = Execution(
        device=settings.device,
        results_dir=Path(settings.results_dir),
        data_root=settings.data.root,
        data_download=settings.data.download,
        logger=settings.logger,
        concurrent=settings.concurrent,
        deterministic=settings.deterministic,
        compile=settings.compile,
        checkpoint_seconds=settings.checkpoint_seconds,
        retry_failed=settings.retry_failed,
        threads=settings.threads,
    )
    return runs, execution


def resolve_precision(precision: str, device: str) -> str:
    """`auto` becomes bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    from anchorloss.device import computes_bf16, resolve_device

    return "bf16" if computes_bf16(resolve_device(device)) else "fp32"


def _refuse_unknown(config: DictConfig, schema: Any, where: str = "") -> None:
    """Hydra's `+key=value` gets past the schema; a key that nobody reads must not."""
    known = {field.name for field in fields(schema)}
    for key in map(str, config):
        if key not in known:
            raise UserError(f"{where}{key}={config[key]}: there is no such key; it would change nothing")
        part = getattr(schema(), key)
        if is_dataclass(part):
            _refuse_unknown(config[key], type(part), f"{where}{key}.")


def _require(ok: bool, key: str, value: Any, remedy: str) -> None:
    if not ok:
        raise UserError(f"{key}={value}: {remedy}")


def _positive(key: str, value: float, *, zero: bool = False) -> None:
    ok = math.isfinite(value) and (value >= 0 if zero else value > 0)
    _require(ok, key, value, f"must be a finite number {'≥' if zero else '>'} 0")


def _choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, key, value, f"must be one of {', '.join(choices)}")


def _name(key: str, value: str) -> None:
    legal = value != "" and all(letter.isalnum() or letter in "_.+" for letter in value) and value[-1] != "."
    _require(
        legal and value.isascii(), key, repr(value), "names a folder: use letters, digits, '_', '+' and '.'"
    )


def _check(settings: Config) -> None:
    _name("experiment.name", settings.experiment.name)
    _check_seeds(settings.seeds)
    _choice("precision", settings.precision, ("auto", "bf16", "fp32"))
    _choice("logger.name", settings.logger.name, ("auto", "wandb", "none"))
    _require(
        settings.device.split(":")[0] in ("auto", "cpu", "cuda", "mps"),
        "device",
        settings.device,
        "must be auto, cpu, cuda, cuda:N or mps",
    )
    _positive("concurrent", settings.concurrent, zero=True)
    _positive("threads", settings.threads, zero=True)
    _positive("checkpoint_seconds", settings.checkpoint_seconds, zero=True)
    _check_model(settings.model)
    _check_data(settings.data)
    _check_optim(settings.optim)


def _check_seeds(seeds: list[int]) -> None:
    _require(len(seeds) > 0, "seeds", "[]", "name at least one seed, as in seeds=[0,1,2]")
    _require(len(set(seeds)) == len(seeds), "seeds", seeds, "each seed may stand there once")
    for seed in seeds:
        _require(0 <= seed < 2**31, "seeds", seed, "a seed is a whole number from 0 to 2147483647")


def _check_model(model: ModelSettings) -> None:
    digits = model.name.removeprefix("resnet")
    depth = int(digits) if model.name.startswith("resnet") and digits.isdecimal() else 0
    known = depth in (18, 34, 50) or (depth >= 8 and depth % 6 == 2)
    _require(
        known, "model.name", model.name, "must be resnet18, resnet34, resnet50 or resnetD with D = 6n+2 ≥ 8"
    )
    _choice("model.shortcut", model.shortcut, ("A", "B"))


def _check_data(data: DataSettings) -> None:
    _choice("data.name", data.name, ("cifar100", "cifar10", "synthetic"))
    _choice("data.evaluate_on", data.evaluate_on, ("test", "validation"))
    _positive("data.validation", data.validation, zero=True)
    _positive("data.validation_seed", data.validation_seed, zero=True)
    _require(
        data.evaluate_on == "test" or data.validation > 0,
        "data.evaluate_on",
        data.evaluate_on,
        "needs held-out images: set data.validation=5000",
    )
    for key in ("training_images", "test_images"):
        size = getattr(data, key)
        if data.name == "synthetic":
            _require(
                size is not None and size >= 100, f"data.{key}", size, "the synthetic set needs at least 100"
            )
        else:
            _require(
                size is None, f"data.{key}", size, "is for data=synthetic alone: the real sets are used whole"
            )


def _check_optim(optim: OptimSettings) -> None:
    for key in ("epochs", "batch_size", "lr", "decay_factor", "evaluate_every"):
        _positive(f"optim.{key}", getattr(optim, key))
    for key in ("momentum", "weight_decay", "lr_warmup_epochs", "softmax_warmup_epochs"):
        _positive(f"optim.{key}", getattr(optim, key), zero=True)
    _require(optim.momentum < 1, "optim.momentum", optim.momentum, "must be below 1")
    _require(not optim.nesterov or optim.momentum > 0, "optim.nesterov", True, "needs optim.momentum > 0")
    _choice("optim.schedule", optim.schedule, ("step", "cosine"))
    for fraction in optim.decay_at:
        _require(
            0 < fraction <= 1, "optim.decay_at", optim.decay_at, "holds fractions of the schedule, in (0, 1]"
        )


def _loss(loss: dict[str, Any]) -> LossSettings:
    arguments = dict(loss)
    for key in ("name", "function"):
        value = arguments.pop(key, None)
        _require(isinstance(value, str), f"loss.{key}", value, "a loss config needs `name` and `function`")
    _name("loss.name", loss["name"])
    _require("-" not in loss["name"], "loss.name", loss["name"], "'-' separates the parts of a run's name")
    for key in ("gamma", "gamma_target", "gamma_background"):
        if arguments.get(key) is not None:
            _number(f"loss.{key}", arguments[key])
            _positive(f"loss.{key}", arguments[key], zero=True)
            arguments[key] = float(arguments[key])
    if arguments.get("slack") is not None:
        _number("loss.slack", arguments["slack"])
        _require(0 <= arguments["slack"] <= 1, "loss.slack", arguments["slack"], "a probability, from 0 to 1")
        arguments["slack"] = float(arguments["slack"])
    return LossSettings(loss["name"], loss["function"], arguments)


def _number(key: str, value: Any) -> None:
    _require(
        isinstance(value, (int, float)) and not isinstance(value, bool), key, repr(value), "must be a number"
    )
