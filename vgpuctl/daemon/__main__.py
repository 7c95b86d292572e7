"""`python -m vgpuctl.daemon` is the daemon."""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""So many objects are made before garbage is looked for: more than Python's own, for a look makes many."""


def main() -> None:
    """Run it; what is imported stays, and is never looked through for garbage."""
    gc.disable()
    from vgpuctl.daemon.command import daemon  # noqa: PLC0415 - not before

    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()
    daemon(prog_name="vgpuctl daemon")


if __name__ == "__main__":
    main()
