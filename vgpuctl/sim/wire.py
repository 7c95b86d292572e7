"""What goes over the socket of a simulated host: one JSON object a line, each way.

    {"call": verb, "arguments": [...], "timeout_s": null}  ->  {"result": ...}
    {"control": action, "arguments": {...}}                ->  {"result": {...}}
    {"events": since, "wait_s": 0.5}                       ->  {"result": [last, [...]]}
    {"install": specification}                             ->  {"result": true}

or instead of a result `{"errno": number, "about": path}`, `{"timeout": true}`, `{"problem": {...}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Union

from vgpuctl.model.codec import decode, encode
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Holder
from vgpuctl.ports.kernel import CommandResult, KernelLogLine, Uevent
from vgpuctl.ports.nvml import NvmlDone, NvmlHost

_HINTS: dict[str, Any] = {
    "nvml": Union[NvmlHost, Unknown],
    "nvml_order": NvmlDone,
    "holders": Union[Mapping[str, tuple[Holder, ...]], Unknown],
    "log": tuple[KernelLogLine, ...],
    "sriov_manage": Union[CommandResult, None],
    "events": tuple[int, tuple[Uevent, ...]],
}
"""The results that are more than JSON."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def pack(message: dict[str, Any]) -> bytes:
    """A message as one line."""
    return _ENCODER.encode(message).encode() + b"\n"


def unpack(line: bytes) -> dict[str, Any]:
    """The message in a line; raises ValueError."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")  # noqa: TRY004 - it is the text that is wrong
    return message


def pack_result(verb: str, result: Any) -> bytes:
    """The answer with the result of `verb`."""
    return pack({"result": encode(result, _HINTS[verb]) if verb in _HINTS else result})


def result_of(verb: str, data: Any) -> Any:
    """The result of `verb` that an answer holds."""
    return decode(data, _HINTS[verb]) if verb in _HINTS else data
