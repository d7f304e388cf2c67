"""From a composed config to checked settings: ranges as `Config` declares them, and what fits with what."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from anchorloss.config.identity import LossSettings, RunSettings
from anchorloss.config.settings import (
    DATA_SETS,
    NAME,
    PAPER_LOSSES,
    Config,
    DataSettings,
    Execution,
    ModelSettings,
)
from anchorloss.config.source import source_hash
from anchorloss.config.validation import UNKNOWN, did_you_mean, first_problem
from anchorloss.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Arguments of `anchor_loss` that change nothing with an anchor.
_WITHOUT_EFFECT = {
    "none": ("gamma", "gamma_target", "gamma_background", "slack"),
    "target": ("gamma_background",),
    "background": ("gamma_target",),
}
_ANCHOR_LOSS = "anchorloss.loss.anchor_loss"
_LARGEST_ARGUMENTS = dict.fromkeys(_WITHOUT_EFFECT["none"], 1e6) | {"slack": 1.0, "label_smoothing": 1.0}


def parse(config: DictConfig) -> tuple[list[RunSettings], Execution]:
    """Check a composed config and take it apart into runs and their execution.

    Raises:
        UserError: names the key, its value and the remedy.
    """
    settings = _validated(config)
    seeds, optim = settings.seeds, settings.optim
    _require(len(set(seeds)) == len(seeds), "seeds", seeds, "each seed may stand there once")
    _check_model(settings.model)
    _check_data(settings.data)
    _require(not optim.nesterov or optim.momentum > 0, "optim.nesterov", True, "needs optim.momentum > 0")
    loss = _loss(settings.loss)
    model = replace(settings.model, source=_source("model", settings.model.function, settings.model.source))
    data = replace(settings.data, source=_source("data", settings.data.function, settings.data.source))
    precision = resolve_precision(settings.precision, settings.device)
    runs = [
        RunSettings(settings.experiment.name, loss, model, data, optim, precision, seed) for seed in seeds
    ]
    shared = {field.name: getattr(settings, field.name) for field in fields(Execution)}
    shared["results_dir"] = Path(settings.results_dir)
    shared["concurrent"] = 0 if settings.concurrent == "auto" else int(settings.concurrent)
    return runs, Execution(**shared)


def resolve_precision(precision: str, device: str) -> str:
    """`auto` becomes bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    from anchorloss.device import computes_bf16, resolve_device

    return "bf16" if computes_bf16(resolve_device(device)) else "fp32"


@cache
def _schema() -> TypeAdapter[Config]:
    from pydantic import TypeAdapter  # takes a moment that `--help` does not need

    return TypeAdapter(Config)


def _validated(config: DictConfig) -> Config:
    from pydantic import ValidationError

    for group in fields(Config):
        if OmegaConf.is_missing(config, group.name):
            raise UserError(
                f"{group.name}: none is chosen; write {group.name}=... with a config of that group"
            )
    values: Any = OmegaConf.to_container(config, resolve=True)
    try:
        return _schema().validate_python(values)
    except ValidationError as error:
        key, value, text = first_problem(error)
    if text == UNKNOWN:
        *groups, name = key.split(".")
        known: Any = values
        for part in groups:
            known = known[part]
        text = f"there is no such key{did_you_mean(name, set(known) - {name})}"
    raise UserError(f"{key}: {text}" if text == "is missing" else f"{key}={_shown(value)}: {text}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _require(ok: bool, key: str, value: Any, remedy: str) -> None:
    if not ok:
        raise UserError(f"{key}={_shown(value)}: {remedy}")


def _check_model(model: ModelSettings) -> None:
    if model.function is not None:
        return
    _no_arguments("model", model.arguments)
    name = model.name
    digits = re.fullmatch(r"resnet([1-9][0-9]{0,3})", name)
    depth = int(digits[1]) if digits else 0
    known = depth in (18, 34, 50) or (8 <= depth <= 1202 and depth % 6 == 2)
    _require(
        known,
        "model.name",
        name,
        "must be resnet18, resnet34, resnet50 or resnetD with D = 6n+2 from 8 to 1202; a network of your own needs "
        "model.function",
    )


def _check_data(data: DataSettings) -> None:
    if data.function is None:
        known = tuple(DATA_SETS)
        near = did_you_mean(data.name, known)
        _require(
            data.name in known,
            "data.name",
            data.name,
            f"must be one of {', '.join(known)}{near}; a data set of your own needs data.function",
        )
        _no_arguments("data", data.arguments)
    else:
        taken = {word.lower() for name, facts in DATA_SETS.items() for word in (name, facts["label"])}
        _require(
            data.name.lower() not in taken, "data.name", data.name, "is taken; name your data set otherwise"
        )
    _require(
        data.evaluate_on == "test" or data.validation > 0,
        "data.evaluate_on",
        data.evaluate_on,
        "needs held-out images: set data.validation=5000",
    )
    if data.name == "synthetic":
        for key in ("training_images", "test_images"):
            size = getattr(data, key)
            _require(size is not None, f"data.{key}", size, "the synthetic set needs a size: at least 100")
    else:
        size = data.test_images
        _require(
            size is None, "data.test_images", size, "is for data=synthetic: other test sets are used whole"
        )


def _loss(loss: dict[str, Any]) -> LossSettings:
    arguments = dict(loss)
    for key in ("name", "function"):
        value = arguments.pop(key, None)
        _require(isinstance(value, str), f"loss.{key}", value, "a loss config needs `name` and `function`")
    scores, source = arguments.pop("scores", None), arguments.pop("source", None)
    _require(scores in (None, "sigmoid", "softmax"), "loss.scores", scores, "must be one of sigmoid, softmax")
    name, function = loss["name"], loss["function"]
    _require(
        NAME.fullmatch(name) is not None and len(name) <= 100,
        "loss.name",
        name,
        "names a folder: use letters, digits, '_', '+' and '.'",
    )
    anchor = arguments.get("anchor") if function == _ANCHOR_LOSS else None
    if name in PAPER_LOSSES:
        # An anchor that does not exist is refused by the loss itself.
        is_its_own = anchor == PAPER_LOSSES[name] or anchor not in PAPER_LOSSES.values()
        is_the_papers = function == _ANCHOR_LOSS and is_its_own
        _require(is_the_papers, "loss.name", name, "is taken; name your loss otherwise")
    for key, largest in _LARGEST_ARGUMENTS.items():
        if arguments.get(key) is not None:
            arguments[key] = _number(f"loss.{key}", arguments[key], largest)
    for key in _WITHOUT_EFFECT.get(anchor, ()) if isinstance(anchor, str) else ():
        _require(
            not arguments.get(key),
            f"loss.{key}",
            arguments.get(key),
            f"changes nothing with loss.anchor={anchor} (loss={name}); choose another loss, as loss=anchor_bg",
        )
    return LossSettings(name, function, arguments, scores, _source("loss", function, source))


def _source(part: str, function: str | None, given: Any) -> str | None:
    """The hash of a function's source; a run's config names the one that it was trained with."""
    found = None if function is None else source_hash(function)
    _require(
        given in (None, found),
        f"{part}.source",
        given,
        f"the code of {function} is another now (its hash is {found}); restore it, or leave {part}.source out",
    )
    return found


def _no_arguments(part: str, arguments: dict[str, Any]) -> None:
    _require(not arguments, f"{part}.arguments", arguments, f"are those of {part}.function, which is not set")


def _number(key: str, value: Any, largest: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(is_number, key, value, "must be a number")
    _require(0 <= value <= largest, key, value, f"must be a number from 0 to {largest:g}")
    return float(value)
