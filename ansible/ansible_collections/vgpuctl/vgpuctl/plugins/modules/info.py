#!/usr/bin/python
"""Module: what there is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: info
short_description: The host, its GPUs, vGPUs and domains as the daemon sees them
description:
  - Reads, and changes nothing.
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - vgpuctl.vgpuctl.daemon
options:
  gather:
    description: What is returned.
    type: list
    elements: str
    choices: [host, gpus, types, profiles, vgpus, domains, documents]
    default: [host, gpus, vgpus, domains]
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: What is there
  vgpuctl.vgpuctl.info:
    gather: [host, vgpus]
  register: vgpuctl

- name: Nothing differs from the documents
  ansible.builtin.assert:
    that: vgpuctl.host.drift | length == 0
"""

RETURN = r"""
host:
  description: As C(GET /v1/host) returns it; V(drift) names what is not as it should be.
  returned: when asked for
  type: dict
gpus:
  description: As C(GET /v1/gpus) returns them.
  returned: when asked for
  type: list
  elements: dict
types:
  description: vGPU types, as C(GET /v1/types) returns them; V(creatable) says how many more fit now.
  returned: when asked for
  type: list
  elements: dict
profiles:
  description: As C(GET /v1/profiles) returns them; V(creatable) is the type that would be taken now.
  returned: when asked for
  type: list
  elements: dict
vgpus:
  description: As C(GET /v1/vgpus) returns them.
  returned: when asked for
  type: list
  elements: dict
domains:
  description: As C(GET /v1/domains) returns them.
  returned: when asked for
  type: list
  elements: dict
documents:
  description: The documents in force, as M(vgpuctl.vgpuctl.apply) takes them.
  returned: when asked for
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.change import DAEMON
from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.daemon import Daemon, Problem

KINDS = ["host", "gpus", "types", "profiles", "vgpus", "domains", "documents"]


def main():
    """Run the module."""
    gather = {
        "type": "list",
        "elements": "str",
        "choices": KINDS,
        "default": ["host", "gpus", "vgpus", "domains"],
    }
    module = AnsibleModule(argument_spec=dict(DAEMON, gather=gather), supports_check_mode=True)
    daemon = Daemon(module.params["socket"])
    try:
        found = {kind: daemon.get(kind) for kind in module.params["gather"]}
    except Problem as problem:
        module.fail_json(**problem.as_result())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
