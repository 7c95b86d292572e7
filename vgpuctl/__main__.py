"""`python -m vgpuctl` is the command `vgpuctl`."""

from __future__ import annotations

from vgpuctl.cli.main import main

if __name__ == "__main__":
    main()
