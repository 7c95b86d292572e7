"""Inventory: hypervisors, grouped by what their GPUs are and what fits on them now."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
short_description: Hypervisors, grouped by GPU model, framework and free profiles
description:
  - Asks the vgpuctl daemon of each hypervisor what it has, and groups the hypervisors by that.
  - An inventory is read on the controller, and the daemon listens on a Unix socket of the hypervisor, nowhere else.
    So the plugin runs the C(vgpuctl) command there, by C(ssh), and only reads; the login needs to be in group V(vgpuctl-ro).
  - A host has the same name as in your other inventory files, so that their variables and these groups come together.
    Variables of those files are not seen here; where C(ssh) needs more than the name, say so in O(hosts) or in C(~/.ssh/config).
  - Groups are V(vgpuctl_model_l40s), V(vgpuctl_framework_vendor_vfio), V(vgpuctl_free_designer) (one more of that profile fits now),
    and V(vgpuctl_unreachable) for hosts that did not answer, of which the reason is a warning.
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: V(vgpuctl.vgpuctl.hosts).
    required: true
    choices: [vgpuctl.vgpuctl.hosts]
  hosts:
    description:
      - The hypervisors, by their names in the inventory.
      - The value is where C(ssh) reaches it (V(root@192.0.2.7)); empty, the name; V(local), this machine, without C(ssh).
    type: dict
    required: true
  ssh:
    description: The command that runs another one on a host; the destination and that command follow.
    type: list
    elements: str
    default: [ssh, -o, BatchMode=yes, -o, ConnectTimeout=10]
  vgpuctl:
    description: The command on the hypervisors, such as V(sudo -n vgpuctl).
    type: str
    default: vgpuctl
  timeout:
    description: How long a host may take to answer, in seconds.
    type: int
    default: 60
"""

EXAMPLES = r"""
# gpus.vgpuctl.yml
plugin: vgpuctl.vgpuctl.hosts
hosts:
  hv1:
  hv2: root@192.0.2.7
# Beside the groups that are always made, some of your own, of vgpuctl_host, vgpuctl_gpus and vgpuctl_profiles
groups:
  vgpuctl_drift: vgpuctl_host.drift | length > 0
keyed_groups:
  - {prefix: numa, key: vgpuctl_gpus | map(attribute="numa_node") | unique}
"""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

PATHS = {"host": "/v1/host", "gpus": "/v1/gpus", "profiles": "/v1/profiles"}
AT_ONCE = 16


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The plugin."""

    NAME = "vgpuctl.vgpuctl.hosts"

    def verify_file(self, path):
        """Take files whose names end in vgpuctl.yml or vgpuctl.yaml."""
        return super().verify_file(path) and path.endswith(("vgpuctl.yml", "vgpuctl.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Fill `inventory`."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        use_cache = self.get_option("cache")
        found = self._cache.get(key) if use_cache and cache else None
        if found is None:
            found = self._ask_all()
            if use_cache:
                self._cache[key] = found
        for name in sorted(found):
            self._add(name, found[name])

    def _ask_all(self):
        hosts = self.get_option("hosts")
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return dict(zip(hosts, threads.map(self._ask, hosts.values(), hosts)))

    def _ask(self, destination, name):
        """What the daemon of a host says; `{"problem": why}` where it says nothing."""
        program = self.get_option("vgpuctl")
        remote = " && ".join(f"{program} query GET {path}" for path in PATHS.values())
        if destination == "local":
            command = ["sh", "-c", remote]
        else:
            command = [*self.get_option("ssh"), str(destination or name), remote]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.get_option("timeout"),
                text=True,
                check=False,
            )
            if done.returncode:
                return {"problem": done.stderr.strip() or f"{command[0]} ended with {done.returncode}"}
            return dict(zip(PATHS, _values(done.stdout)))
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            return {"problem": str(error)}

    def _add(self, name, answers):
        self.inventory.add_host(name)
        if "problem" in answers:
            self.display.warning("vgpuctl of {}: {}".format(name, answers["problem"]))
            self._group("unreachable", name)
            return
        for kind in PATHS:
            self.inventory.set_variable(name, f"vgpuctl_{kind}", answers[kind])
        for gpu in answers["gpus"]:
            self._group("model_{}".format(_short(gpu["model"])), name)
            if gpu["framework"]:
                self._group("framework_{}".format(gpu["framework"]), name)
        for profile in answers["profiles"]:
            if profile["creatable"]:
                self._group("free_{}".format(profile["name"]), name)
        self._constructed(name)

    def _group(self, group, name):
        self.inventory.add_host(name, self.inventory.add_group(self._sanitize_group_name(f"vgpuctl_{group}")))

    def _constructed(self, name):
        variables, strict = self.inventory.get_host(name).get_vars(), self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)


def _short(model):
    """A card's name for a group: without the maker, small."""
    return model.replace("NVIDIA ", "").replace("Tesla ", "").lower()


def _values(text):
    """The JSON values that stand one after the other in a text."""
    decoder, values = json.JSONDecoder(), []
    text = text.lstrip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    if len(values) != len(PATHS):
        raise ValueError(f"{len(values)} answers, and {len(PATHS)} were asked for")
    return values
