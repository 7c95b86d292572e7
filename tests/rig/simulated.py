"""The simulated cards and their driver, as a test in the guest loads and disturbs them (nvsim/README.md)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

DEBUG: Final = Path("/sys/kernel/debug/nvsim")
_FREE_S: Final = 60.0
_POLL_S: Final = 0.1


class Nvsim:
    """The two modules nvsim_cards and nvsim of this guest."""

    def load(self, cards: str, **parameters: object) -> None:
        """Put in `cards` (`l40s:vendor-vfio@41,t4:mdev@61`), then load the driver."""
        _run("modprobe", "nvsim_cards", f"gpus={cards}")
        self.load_driver(**parameters)

    def load_driver(self, **parameters: object) -> None:
        """Load the driver with these parameters; udev has seen its devices when this returns."""
        _run("modprobe", "nvsim", *(f"{key}={_text(value)}" for key, value in parameters.items()))
        _run("udevadm", "settle", "--timeout=30")

    def unload_driver(self) -> None:
        """Unload it; raises CalledProcessError while something is in use."""
        _run("rmmod", "nvsim")  # modprobe -r would take the cards out with it

    def unload_driver_once_free(self) -> None:
        """Unload it as soon as that can be: whoever looks at a GPU through NVML has it open for a moment."""
        deadline = time.monotonic() + _FREE_S
        while True:
            try:
                return self.unload_driver()
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def unload(self) -> None:
        """Take driver and cards out; what is not there is no error."""
        loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
        for module in ("nvsim", "nvsim_cards"):
            if module in loaded:
                _run("modprobe", "-r", module)

    def writes(self) -> dict[str, int]:
        """How many writes the driver got since they were last reset, by file."""
        lines = (DEBUG / "writes").read_text().split("\n")
        return {name: int(count) for name, count in (line.split() for line in lines if line)}

    def reset_writes(self) -> None:
        """Count from 0 again."""
        self.set("writes", 0)

    def fail(self, what: str, errno: str = "EIO", count: int = 1, address: str | None = None) -> None:
        """Let the next `count` writes of that kind fail."""
        self.set("fail", " ".join((what, errno, str(count), *([address] if address else []))))

    def set(self, name: str, value: object, address: str | None = None) -> None:
        """Write one of the debugfs files, of one GPU when `address` is given."""
        ((DEBUG / address if address else DEBUG) / name).write_text(f"{_text(value)}\n")


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
