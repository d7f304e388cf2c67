"""From a composed config to typed settings, checked: ranges, choices, and what fits with what."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anchorloss.config.settings import (
    DATA_SETS,
    Config,
    DataSettings,
    Execution,
    LossSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
)
from anchorloss.config.source import source_hash
from anchorloss.errors import UserError


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
    model = replace(settings.model, source=_source("model", settings.model.function, settings.model.source))
    data = replace(settings.data, source=_source("data", settings.data.function, settings.data.source))
    precision = resolve_precision(settings.precision, settings.device)
    runs = [
        RunSettings(settings.experiment.name, loss, model, data, settings.optim, precision, seed)
        for seed in settings.seeds
    ]
    execution = Execution(
        device=settings.device,
        results_dir=Path(settings.results_dir),
        data_root=settings.data.root,
        data_download=settings.data.download,
        logger=settings.logger,
        concurrent=0 if settings.concurrent == "auto" else int(settings.concurrent),
        deterministic=settings.deterministic,
        compile=settings.compile,
        checkpoint_seconds=settings.checkpoint_seconds,
        keep_weights=settings.keep_weights,
        minutes=settings.minutes,
        retry_failed=settings.retry_failed,
        plan_only=settings.plan_only,
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
    known = settings.concurrent == "auto" or re.fullmatch("[0-9]{1,4}", settings.concurrent)
    _require(bool(known), "concurrent", settings.concurrent, "must be auto or a whole number below 10000")
    _positive("threads", settings.threads, zero=True)
    _positive("checkpoint_seconds", settings.checkpoint_seconds, zero=True)
    _positive("minutes", settings.minutes, zero=True)
    _check_model(settings.model)
    _check_data(settings.data)
    _check_optim(settings.optim)


def _check_seeds(seeds: list[int]) -> None:
    _require(len(seeds) > 0, "seeds", "[]", "name at least one seed, as in seeds=[0,1,2]")
    _require(len(set(seeds)) == len(seeds), "seeds", seeds, "each seed may stand there once")
    for seed in seeds:
        _require(0 <= seed < 2**31, "seeds", seed, "a seed is a whole number from 0 to 2147483647")


def _check_model(model: ModelSettings) -> None:
    _choice("model.shortcut", model.shortcut, ("A", "B"))
    if model.function is not None:
        _name("model.name", model.name)
        return
    _no_arguments("model", model.arguments)
    digits = model.name.removeprefix("resnet")
    depth = int(digits) if model.name.startswith("resnet") and digits.isdecimal() else 0
    known = depth in (18, 34, 50) or (depth >= 8 and depth % 6 == 2)
    _require(
        known, "model.name", model.name, "must be resnet18, resnet34, resnet50 or resnetD with D = 6n+2 ≥ 8"
    )


def _check_data(data: DataSettings) -> None:
    if data.function is None:
        _choice("data.name", data.name, tuple(DATA_SETS))
        _no_arguments("data", data.arguments)
    else:
        _name("data.name", data.name)
        taken = {word.lower() for pair in DATA_SETS.items() for word in pair}
        _require(
            data.name.lower() not in taken, "data.name", data.name, "is taken; name your data set otherwise"
        )
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
    scores, source = arguments.pop("scores", None), arguments.pop("source", None)
    if scores is not None:
        _choice("loss.scores", scores, ("sigmoid", "softmax"))
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
    source = _source("loss", loss["function"], source)
    return LossSettings(loss["name"], loss["function"], arguments, scores, source)


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


def _number(key: str, value: Any) -> None:
    _require(
        isinstance(value, (int, float)) and not isinstance(value, bool), key, repr(value), "must be a number"
    )
