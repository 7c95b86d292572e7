"""Options that every module has."""

from __future__ import annotations


class ModuleDocFragment:
    """The daemon, and how a change is made."""

    DOCUMENTATION = r"""
options:
  socket:
    description:
      - The daemon's socket on the managed host, as a path or as V(unix://PATH).
      - Left out, what E(VGPUCTL_HOST) names there, as for the C(vgpuctl) command.
    type: path
    default: /run/vgpuctl/vgpuctl.sock
notes:
  - The daemon knows its callers. Changes take root or a member of group V(vgpuctl), reading a member of V(vgpuctl-ro) too.
  - A failure has the daemon's RV(ignore:code) and RV(ignore:hint), and RV(ignore:where) names what it is about.
"""

    CHANGE = r"""
options:
  timeout:
    description:
      - How long to wait for the end of the operation, in seconds.
      - An operation that takes longer goes on, and the task fails with code V(deadline-exceeded).
    type: int
    default: 600
  touch_running:
    description:
      - Whether running guests may notice the change.
      - If V(false), a change that a running guest would notice fails with code V(domain-state), and nothing is changed.
    type: bool
    default: false
attributes:
  check_mode:
    description: The daemon plans, and nothing is changed.
    support: full
  diff_mode:
    description: Documents before and after, and the steps of the daemon's plan.
    support: full
"""
