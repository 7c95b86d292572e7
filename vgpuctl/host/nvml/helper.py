"""The process that talks to NVML: one JSON line in, one JSON line out.

`{}` asks for what a look at the host needs, `{"in_full": true}` for what a capture carries too; all
else is an order.

With `--greet` it begins with a line of its own, once it is ready to be asked.

It ends when its stdin does, so that it never outlives the daemon as a client that blocks
sriov-manage.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from vgpuctl.host.nvml.mig import carry_out
from vgpuctl.host.nvml.questions import KnownTypes, describe_host
from vgpuctl.model import codec
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import NvmlDone, NvmlHost, NvmlOrder

_IN_FULL = b'{"in_full": true}'


def answer(
    load: Callable[[], Any], memory: KnownTypes | None = None, *, in_full: bool = False
) -> Fact[NvmlHost]:
    """What NVML says, through the module that `load` returns."""
    nvml = _loaded(load)
    return nvml if isinstance(nvml, Unknown) else describe_host(nvml, memory, in_full=in_full)


def obey(load: Callable[[], Any], order: NvmlOrder) -> Fact[NvmlDone]:
    """What comes of an order, through the module that `load` returns."""
    nvml = _loaded(load)
    return nvml if isinstance(nvml, Unknown) else carry_out(nvml, order)


def _loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        return Unknown(f"NVIDIA's NVML binding cannot be imported ({error}): install nvidia-ml-py")


def _reply(line: bytes, memory: KnownTypes) -> str:
    def load() -> Any:
        return importlib.import_module("pynvml")

    asked = line.strip()
    if asked in (b"", b"{}", _IN_FULL):
        return codec.dumps(answer(load, memory, in_full=asked == _IN_FULL), NvmlHost | Unknown)
    return codec.dumps(obey(load, codec.loads(line.decode(), NvmlOrder)), NvmlDone | Unknown)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer every line of `requests` until it ends."""
    memory: KnownTypes = {}
    for line in requests:
        answers.write(_reply(line, memory).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    # A library that prints must not end up between our lines.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if "--greet" in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module("pynvml")
        answers.write(b"{}\n")
        answers.flush()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
