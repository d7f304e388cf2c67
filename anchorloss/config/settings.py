"""What can be set: each key with its type and range. Defaults and meanings stand in configs/, where Hydra composes them.

A run's identity is made of every key that has no default here. A key that is added later needs one: the behaviour from
before it existed. At that default it is no part of the identity, so that the runs from before are found again; the
default never changes, whatever configs/ shows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

# Neither hidden nor, on Windows, cut at a dot at the end.
NAME = re.compile(r"[A-Za-z0-9_+](?:[A-Za-z0-9_+.]*[A-Za-z0-9_+])?")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")
_CONCURRENT = re.compile("auto|[1-9][0-9]{0,3}")
# The data sets that are there and what is known of each, as anchorloss/data/datasets.yaml explains.
DATA_SETS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "datasets.yaml").read_text("utf-8")
)
# The names of the paper's losses, which no other loss may have, and their anchors.
PAPER_LOSSES = {"bce": "none", "anchor_target": "target", "anchor_bg": "background", "anchor_both": "both"}

# The arguments of losses that are numbers from 0, and how large they may be.
LARGEST_ARGUMENTS = {
    **dict.fromkeys(("gamma", "gamma_target", "gamma_background"), 1e6),
    **dict.fromkeys(("slack", "label_smoothing"), 1.0),
}


def _must(check: Callable[[Any], Any], problem: str) -> Callable[[Any], Any]:
    """A validator that refuses what does not pass the check."""

    def validate(value: Any) -> Any:
        if not check(value):
            raise ValueError(problem)
        return value

    return validate


def _text(value: Any) -> Any:
    """YAML reads `experiment.name=2024` as a number."""
    return str(value) if isinstance(value, bool | int | float) else value


def _at_once(value: Any) -> Any:
    if not _CONCURRENT.fullmatch(str(value)):
        raise ValueError("must be auto or a whole number from 1 to 9999")
    return 0 if value == "auto" else value


def _plain(value: Any, depth: int = 0) -> Any:
    """Refuse what JSON cannot hold, or a table not show."""
    if isinstance(value, dict | list | tuple) and depth < 12:
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _plain(part, depth + 1)
        return value
    is_number = isinstance(value, int | float) and abs(value) <= 1e60
    if not (value is None or is_number or (isinstance(value, str) and value.isprintable())):
        raise ValueError("must be finite numbers and printable texts in one line, not nested deeply")
    return value


_is_number = _must(lambda value: not isinstance(value, bool), "must be a number")
_is_bool = _must(lambda value: isinstance(value, bool), "must be true or false")
_is_whole = _must(lambda value: not isinstance(value, bool | float), "must be a whole number")
_is_name = _must(NAME.fullmatch, "names a folder: use letters, digits, '_', '+' and '.'")
# Line breaks and escape sequences would be carried out by a table or a terminal.
_is_line = _must(lambda value: str(value).isprintable(), "must be printable characters in one line")

Name = Annotated[str, Field(max_length=100), BeforeValidator(_text), AfterValidator(_is_name)]
Text = Annotated[str, Field(max_length=1000), BeforeValidator(_text), AfterValidator(_is_line)]
Bool = Annotated[bool, BeforeValidator(_is_bool)]
Int = Annotated[int, BeforeValidator(_is_whole)]
Seed = Annotated[Int, Field(ge=0, lt=2**31)]
Count = Annotated[Int, Field(ge=0, le=1_000_000)]
Positive = Annotated[Int, Field(ge=1, le=1_000_000)]
Images = Annotated[Int, Field(ge=100, le=1_000_000)]
Float = Annotated[float, BeforeValidator(_is_number)]
# float32 overflows at 3e38.
Finite = Annotated[Float, Field(ge=0, le=1e30)]
Plain = Annotated[Any, AfterValidator(_plain)]
Arguments = Annotated[dict[str, Any], AfterValidator(_plain)]


class Settings(BaseModel):
    """A group of settings: no unknown key, no NaN or infinity, never changed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    def identity(self) -> dict[str, Any]:
        """What can change a result, as plain data: the first keys, and later ones that differ from their default."""
        found = {}
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            if not field.exclude and (field.is_required() or value != field.default):
                found[key] = value.identity() if isinstance(value, Settings) else deepcopy(value)
        return found


class LossSettings(Settings):
    """A loss: its name, the import path of its function, and, as further keys, that function's arguments.

    `scores` says how its scores become probabilities, None where the function says so itself; `source` is the hash of the
    function's source, where it is not part of this package.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Plain] = Field(init=False)

    name: Name
    function: Text
    scores: Literal["sigmoid", "softmax"] | None = None
    source: Text | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What goes with `(logits, target)`, in the order of the config."""
        return deepcopy(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _unify(cls, values: Any) -> Any:
        """2 and 2.0 are the same run."""
        if not isinstance(values, dict):
            return values
        whole = {
            key for key in LARGEST_ARGUMENTS if type(values.get(key)) is int and abs(values[key]) <= 1e60
        }
        return {key: float(value) if key in whole else value for key, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """Every argument that is given is part of it, whatever its value."""
        last = {"scores": self.scores, "source": self.source}
        given = {key: value for key, value in last.items() if value is not None}
        return {"name": self.name, "function": self.function, **self.arguments, **given}


class ModelSettings(Settings):
    """A network of `models/`, or of one's own."""

    name: Name
    shortcut: Literal["A", "B"]
    prior_bias: Bool
    function: Text | None = None
    arguments: Arguments = {}
    source: Text | None = None


class DataSettings(Settings):
    """A data set that is there, or of one's own, and how it is split."""

    name: Name
    root: Annotated[Text, Field(min_length=1, exclude=True)] = "data"
    download: Annotated[Bool, Field(exclude=True)] = False
    validation: Count
    validation_seed: Seed
    evaluate_on: Literal["test", "validation"]
    training_images: Images | None
    test_images: Images | None
    function: Text | None = None
    arguments: Arguments = {}
    source: Text | None = None

    @property
    def label(self) -> str:
        """What tables and figures call the data set."""
        return data_label(self.name, self.training_images)


class OptimSettings(Settings):
    """SGD and its schedule."""

    epochs: Positive
    batch_size: Positive
    lr: Annotated[Finite, Field(gt=0)]
    momentum: Annotated[Float, Field(ge=0, lt=1)]
    nesterov: Bool
    weight_decay: Finite
    schedule: Literal["step", "cosine"]
    decay_at: Annotated[list[Annotated[Float, Field(gt=0, le=1)]], Field(max_length=1000)]
    decay_factor: Annotated[Finite, Field(gt=0)]
    lr_warmup_epochs: Annotated[Finite, Field(le=1_000_000)]
    softmax_warmup_epochs: Count
    evaluate_every: Positive


class RunSettings(Settings):
    """Everything that can change the result of one run, and the experiment it is filed under."""

    experiment: Annotated[Name, Field(exclude=True)]
    loss: LossSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    precision: Literal["bf16", "fp32"]
    seed: Seed

    @property
    def functions(self) -> tuple[str, ...]:
        """The import paths of the loss, and of the network and data set where they have one."""
        return tuple(
            part.function for part in (self.loss, self.model, self.data) if part.function is not None
        )

    @cached_property
    def _computed(self) -> dict[str, Any]:
        return super().identity()

    def identity(self) -> dict[str, Any]:
        """As that of a group; computed once, so its reader changes nothing in it."""
        return self._computed

    @cached_property
    def hash(self) -> str:
        """The run's `identity_hash`."""
        return identity_hash(self.identity())

    @property
    def run(self) -> str:
        """The name of the run's folder; legal on Windows."""
        return f"{self.loss.name}-{self.model.name}-seed{self.seed}-{self.hash}"

    def model_copy(self, **arguments: Any) -> Self:
        """As pydantic's, with an identity of its own."""
        copy = super().model_copy(**arguments)
        for computed in ("_computed", "hash"):
            copy.__dict__.pop(computed, None)
        return copy


class ExperimentSettings(Settings):
    name: Name


class LoggerSettings(Settings):
    name: Literal["auto", "wandb", "none"]
    project: Annotated[Text, Field(min_length=1, max_length=128)] = "anchor-loss"


class Execution(Settings):
    """Where and how runs are carried out; changes no result beyond the rounding of another device."""

    device: Annotated[str, AfterValidator(_must(_DEVICE.fullmatch, "must be auto, cpu, cuda, cuda:N or mps"))]
    results_dir: Annotated[
        Path,
        AfterValidator(_is_line),
        BeforeValidator(_must(lambda path: len(str(path)) in range(1, 1000), "must be a path")),
        BeforeValidator(_text),
    ]
    logger: LoggerSettings
    # 0: auto.
    concurrent: Annotated[int, BeforeValidator(_at_once)]
    deterministic: Bool
    compile: Bool
    checkpoint_seconds: Annotated[Finite, Field(le=1e9)]
    keep_weights: Bool
    minutes: Annotated[Finite, Field(le=1e7)]
    retry_failed: Bool
    dry_run: Bool
    threads: Annotated[Int, Field(ge=0, le=256)]


class Config(Execution):
    """All of a composed config: an execution, and what `RunSettings` are made of."""

    loss: LossSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    experiment: ExperimentSettings
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
    precision: Literal["auto", "bf16", "fp32"]


def identity_hash(identity: dict[str, Any]) -> str:
    """The first 10 hex digits of the SHA-256 of an identity's JSON with sorted keys."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def data_label(name: str, training_images: int | None) -> str:
    """What tables and figures call a data set: "CIFAR-100", "CIFAR-100 (2,000 of its training images)", "SYNTHETIC".

    Args:
        name: `data.name`; a data set of one's own is called by it.
        training_images: `data.training_images`, which the synthetic set has as its size, another set as a part of it.
    """
    label = str(DATA_SETS.get(name, {}).get("label", name))
    is_part = training_images is not None and name != "synthetic"
    return f"{label} ({training_images:,} of its training images)" if is_part else label


# Of a key that nothing reads.
UNKNOWN = "is not a key of this format"


def first_problem(error: ValidationError) -> tuple[str, Any, str]:
    """The first of pydantic's problems: the key (empty for a rule across keys), its value, and what it must be."""
    first = error.errors(include_url=False)[0]
    text = re.sub(r"^(Value error,|\w+ should(?= ))| or instance of \w+$", "", first["msg"]).strip()
    if first["type"] != "value_error":
        text = {"missing": "is missing", "extra_forbidden": UNKNOWN}.get(first["type"], f"must {text}")
    if first["type"] == "literal_error":
        text += did_you_mean(str(first["input"]), re.findall(r"'(\w+)'", text))
    return ".".join(str(part) for part in first["loc"] if part != "[key]"), first["input"], text


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """` (did you mean X?)` for the nearest of the known names; empty if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {near[0]}?)" if near else ""
