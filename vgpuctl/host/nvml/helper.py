"""The process that talks to NVML: one JSON line in, one JSON line out.

It ends when its stdin does, so that it never outlives the daemon as a client that blocks
sriov-manage.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from vgpuctl.host.nvml.questions import describe_host
from vgpuctl.model import codec
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import NvmlHost


def answer(load: Callable[[], Any]) -> Fact[NvmlHost]:
    """What NVML says, through the module that `load` returns."""
    try:
        nvml = load()
    except ImportError as error:
        return Unknown(f"NVIDIA's NVML binding cannot be imported ({error}): install nvidia-ml-py")
    return describe_host(nvml)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer every line of `requests` until it ends."""
    for _ in requests:
        reply = codec.dumps(answer(lambda: importlib.import_module("pynvml")), NvmlHost | Unknown)
        answers.write(reply.encode() + b"\n")
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    # A library that prints must not end up between our lines.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
