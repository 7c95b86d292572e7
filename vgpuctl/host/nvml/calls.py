"""Calls of NVML: an answer, or Unknown with the function and NVML's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from vgpuctl.model.fact import Fact, Unknown

T = TypeVar("T")
U = TypeVar("U")


def ask(nvml: Any, function: str, *arguments: Any) -> Fact[Any]:
    """The answer of one NVML function, or Unknown with its name and NVML's words."""
    return attempt(nvml, function, lambda: getattr(nvml, function)(*arguments))


def attempt(nvml: Any, function: str, call: Callable[[], T]) -> Fact[T]:
    """The answer of `call`, which asks `function`; Unknown where it fails or the binding lacks it."""
    try:
        return call()
    except nvml.NVMLError as error:
        return Unknown(f"{function}: {error}")
    except AttributeError:
        return Unknown(f"{function}: not in this binding")


def then(fact: Fact[T], convert: Callable[[T], U]) -> Fact[U]:
    """The converted value; Unknown stays, and so becomes what cannot be converted."""
    if isinstance(fact, Unknown):
        return fact
    try:
        return convert(fact)
    except ValueError as error:
        return Unknown(f"NVML answered {fact!r}: {error}")


def text(value: str | bytes) -> str:
    """Text of NVML's, whichever way the binding gives it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
