"""Faults: everything that is wrong with what was sent, found in one go, each with its path."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from vgpuctl.errors import InvalidInput

Path = tuple[str | int, ...]
"""Where something stands in a document: keys and list positions."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: in which document, where in it, and what would be right.

    `document` is empty where there is only one thing that it can be; `line` counts from 1.
    """

    path: str
    message: str
    document: str = ""
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}"
        where = ": ".join(part for part in (self.document, self.path) if part)
        if where and line:
            where += f" ({line})"
        return f"{where or line}: {self.message}" if where or line else self.message

    def to_dict(self) -> dict[str, Any]:
        """This fault as `facts["faults"]` shows it."""
        shown: dict[str, Any] = {"document": self.document, "path": self.path, "message": self.message}
        if self.line is not None:
            shown["line"] = self.line
        return shown


def refuse(source: str, faults: Sequence[Fault], *, hint: str | None = None) -> InvalidInput:
    """The one error that tells all of `faults`; `source` names the file or the request."""
    first = f"{source}: {faults[0]}" if source else str(faults[0])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidInput(first + more, hint=hint, faults=[fault.to_dict() for fault in faults])


def dotted(path: Iterable[str | int]) -> str:
    """`vgpus[0].type` for `("vgpus", 0, "type")`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "profile"?)`, or what there is where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near:
        folded = {name.lower(): name for name in names}
        near = [folded[word.lower()]] if word.lower() in folded else []
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(names)}"


_WORDS = {
    "missing": "is required",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """Every fault that pydantic found, in our words."""
    return [
        (tuple(each["loc"]), _say(each["type"], tuple(each["loc"]), each.get("ctx", {}), each["msg"], model))
        for each in error.errors(include_url=False)
    ]


def _say(kind: str, path: Path, context: Mapping[str, Any], text: str, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        owner = _model_at(model, path[:-1])
        return f"unknown key; {did_you_mean(str(path[-1]), _keys(owner))}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in ("too_short", "too_long"):
        limit = context.get("min_length", context.get("max_length"))
        side = "least" if kind == "too_short" else "most"
        return f"must have at {side} {limit}, not {context['actual_length']}"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "string_too_short":
        return "is empty"
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"must be at {'least' if 'ge' in context else 'most'} {context.get('ge', context.get('le'))}"
    return _WORDS.get(kind, text)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model that describes what stands at `path`."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation) or model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `X`, `list[X]` or `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
