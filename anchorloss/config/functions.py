"""From an import path in a config to the function it names."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from anchorloss.config.source import LONGEST
from anchorloss.errors import UserError


def import_function(key: str, path: str) -> Callable[..., Any]:
    """Import the function that the config key `key` (`loss.function`) names by `path`.

    Raises:
        UserError: nothing callable is found there, or its module does not import.
    """
    parts = path.split(".")
    if len(path) > LONGEST or len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{key}={path}: not an import path; write package.module.function")
    from hydra.utils import get_method

    # It logs what it raises.
    logging.getLogger("hydra.utils").disabled = True
    try:
        function: Callable[..., Any] = get_method(path)
    except (Exception, SystemExit) as error:  # whatever the module raises while it is imported
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise UserError(
            f"{key}={path}: cannot be imported ({reason}); write package.module.function"
        ) from None
    return function


def check_arguments(
    where: str, path: str, function: Callable[..., Any], arguments: Mapping[str, Any], own: tuple[str, ...]
) -> None:
    """Check that `function` takes the keyword arguments that the config has at `where`.

    Args:
        where: dotted key that holds the arguments, for the message.
        path: import path of the function, for the message.
        function: what is called.
        arguments: from the config.
        own: names of the parameters that the caller fills in, or that must keep their defaults.

    Raises:
        UserError: an argument is unknown or one of `own`, or the function's signature cannot be read.
    """
    for key in own:
        if key in arguments:
            raise UserError(f"{where}.{key}={arguments[key]}: is not for a config to set; leave it out")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        part = where.partition(".")[0]
        raise UserError(
            f"{part}.function={path}: has no signature; name a function written in Python"
        ) from None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key, value in arguments.items():
        if key not in parameters:
            known = ", ".join(name for name in parameters if name not in own) or "no arguments"
            raise UserError(f"{where}.{key}={value}: {path} takes {known}")
        if isinstance(parameters[key].default, bool) and not isinstance(value, bool):
            raise UserError(f"{where}.{key}={value}: must be true or false")
