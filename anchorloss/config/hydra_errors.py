"""What Hydra and OmegaConf refuse, as one line: which override or file, what is wrong, what to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from typing import get_type_hints

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anchorloss.config.settings import Config
from anchorloss.config.validation import did_you_mean, refuse_aliases
from anchorloss.errors import UserError

_LARGEST_FILE = 1 << 20
_GROUPS = {
    "loss": "bce",
    "model": "resnet20",
    "data": "cifar100",
    "optim": "paper",
    "experiment": "scratch",
    "logger": "none",
}
# A loss can be composed without one of its arguments; the rest would quietly get a default.
_NEVER_REMOVED = {field.name for field in fields(Config)} - {"loss"}
_SHOW_ALL = "`python train.py --help` shows what can be set"


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's reader of config files; it refuses files that would take up the memory, and says which is damaged."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise ValueError(f"larger than {_LARGEST_FILE:,} bytes")
            refuse_aliases(path.read_bytes())
            return super().load_config(config_path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; make it readable") from None
        except (YAMLError, ValueError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: not a config ({reason}); write `key: value` lines in YAML") from None


def check_config_files() -> None:
    """Have Hydra read its files with `FileConfigSource`."""
    # `register` keeps the first of two classes of one name, and Hydra may have registered its own already.
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse overrides that Hydra takes and that leave a run without a part of its config, or with the wrong one.

    Raises:
        UserError: for `~optim`, `~seeds`, `optim=null`, `model=[a,b]`, another class as launcher or sweeper, and
            overrides without a key.
    """
    for argument in arguments:
        if "=" not in argument and not argument.startswith("~"):
            continue  # a flag, or the value of one
        key, equals, value = argument.partition("=")
        group = key.lstrip("+~")
        if equals and not group:
            raise UserError(f"{argument}: has no key; write key=value. {_SHOW_ALL}")
        if key.startswith("~") and group not in _GROUPS and group.partition(".")[0] in _NEVER_REMOVED:
            raise UserError(f"{argument}: every run needs it; write {group}=... to change it")
        if group in ("hydra.launcher._target_", "hydra.sweeper._target_"):
            raise UserError(f"{argument}: cannot be replaced; choose a launcher, as in hydra/launcher=slurm")
        if group not in _GROUPS or (key.startswith("~") and equals and value not in ("", "null")):
            continue
        if key.startswith("~") or value in ("", "null", "''", '""') or value.startswith(("[", "{")):
            can_be_swept = value.startswith("[") and group not in ("experiment", "logger")
            several = f"; write {group}=a,b to sweep over several" if can_be_swept else ""
            raise UserError(
                f"{argument}: a run needs one {group} config; choose one, as in {group}={_GROUPS[group]}{several}"
            )


@contextmanager
def config_errors() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise for a wrong config into `UserError`."""
    try:
        yield
    except YAMLError as error:
        raise UserError(" ".join(f"a config is not YAML: {error}".split())) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, AssertionError) as error:
        if not _raised_by_hydra(error):
            raise
        raise UserError(f"the config cannot be composed: {_explain(error)}") from error


def _raised_by_hydra(error: Exception) -> bool:
    """Whether the exception was raised in the code of Hydra, OmegaConf or a parser of theirs."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml")


def _explain(error: Exception) -> str:
    text = str(error)
    unknown_option = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if unknown_option:
        group, option = unknown_option.groups()
        options = text.partition("Available options")[2].partition("Config search path")[0].split()[2:]
        near = did_you_mean(option, options)
        return f"{group}={option}: there is no such config{near}; use one of {', '.join(options)}"
    unknown_key = re.search(r"Could not override '([^']+)'", text)
    if unknown_key:
        return _explain_unknown(unknown_key[1])
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value; quote what is not plain, as in key='\"a b\"'"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text.splitlines()[0]}; write its value out"
    if isinstance(error.__cause__, UserError):  # of a launcher
        return str(error.__cause__)
    said = " ".join(text.partition("Config search path")[0].split())
    cause = str(error.__cause__ or "")
    merged = re.fullmatch(r"Error merging override ([^=]+)=(.*)", said)
    if merged and "is not a ListConfig" in cause:
        return f"{merged[1]}={merged[2]}: must be a list; write '{merged[1]}=[{merged[2]}]'"
    return f"{said}: {cause.splitlines()[0]}" if cause else f"{said}; {_SHOW_ALL}"


def _explain_unknown(key: str) -> str:
    """Say that there is no such key, which one is near, and how an argument of a function of one's own is added."""
    hints = get_type_hints(Config)
    names = [part.name for part in fields(Config)]
    groups = {
        name: [part.name for part in fields(hints[name])] for name in names if is_dataclass(hints[name])
    }
    groups["loss"] = ["name", "function", "anchor", "gamma", "slack", "scores"]
    group, _, last = key.rpartition(".")
    dotted = [f"{of}.{name}" for of in groups for name in groups[of]]
    part = {"loss": "loss", "model": "model.arguments", "data": "data.arguments"}.get(key.partition(".")[0])
    same = [full for full in dotted if full.endswith(f".{last}")]
    if group in ("model.arguments", "data.arguments"):
        near = []
    elif len(same) == 1:
        near = same
    elif group in groups:
        near = [f"{group}.{name}" for name in get_close_matches(last, groups[group], n=1)]
    else:
        near = get_close_matches(key, [*names, *dotted], n=1)
        if not near and not group:
            near = [f"optim.{name}" for name in get_close_matches(last, groups["optim"], n=1)]
    meant = f" (did you mean {near[0]}?)" if near else ""
    own = (
        f"; an argument of a function is added with +{part}.{last}=..." if part and group and not near else ""
    )
    return f"{key}: there is no such key{meant}{own}; {_SHOW_ALL}"
