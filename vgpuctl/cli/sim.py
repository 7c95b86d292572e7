"""`vgpuctl sim`: what life does to a simulated host."""

from __future__ import annotations

from typing import Any

import click

from vgpuctl.cli import names
from vgpuctl.cli.cells import NULL, plain
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import print_for_programs, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.client.client import Client, at
from vgpuctl.errors import NotFound

_FAULTS = ("create", "remove", "read", "gpu", "vgpu_params", "nvml", "nvml-order", "holders", "sriov-manage")


@click.group(
    cls=Group,
    examples="vgpuctl sim hold cad-1\nvgpuctl sim fail create --errno EIO --count 1\nvgpuctl sim reboot",
)
def sim() -> None:
    """What life does to a simulated host (`vgpuctl daemon --simulate ...`)."""


@sim.command(examples="vgpuctl sim reboot")
@output_options
@pass_session
def reboot(session: Session) -> None:
    """Reboot the host: VFs are off, vGPUs are gone, MIG mode stays where it would."""
    _do(session, session.client(), "reboot", {})


@sim.command("reload-driver", examples="vgpuctl sim reload-driver")
@output_options
@pass_session
def reload_driver(session: Session) -> None:
    """Reload the driver: VFs and vGPUs go; refused while one is held."""
    _do(session, session.client(), "reload-driver", {})


@sim.command(examples="vgpuctl sim hold cad-1\nvgpuctl sim hold 0000:41:00.4 --domain win11-042")
@click.argument("vgpu", shell_complete=names.vgpus)
@click.option("--domain", metavar="DOMAIN", shell_complete=names.domains, help="Whose QEMU it is.")
@output_options
@pass_session
def hold(session: Session, vgpu: str, domain: str | None) -> None:
    """Have a QEMU hold a vGPU open."""
    client = session.client()
    _do(session, client, "hold", {"vgpu": _device(client, vgpu), "domain": domain})


@sim.command(examples="vgpuctl sim release cad-1")
@click.argument("vgpu", shell_complete=names.vgpus)
@output_options
@pass_session
def release(session: Session, vgpu: str) -> None:
    """Have it let go."""
    client = session.client()
    _do(session, client, "release", {"vgpu": _device(client, vgpu)})


@sim.command(
    examples="""
        vgpuctl sim fail create --errno EIO --count 1
        vgpuctl sim fail gpu --gpu 0 --hang
        vgpuctl sim fail nvml
    """
)
@click.argument(
    "what", metavar="WHAT", shell_complete=lambda _c, _p, text: [f for f in _FAULTS if f.startswith(text)]
)
@names.gpu_option
@click.option("--errno", metavar="NAME", help="As which error: EIO, EPERM, EBUSY ...")
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="So many times.  [default: until heal]"
)
@click.option("--hang", is_flag=True, help="Do not answer at all.")
@output_options
@pass_session
def fail(
    session: Session, *, what: str, gpu: str | None, errno: str | None, count: int | None, hang: bool
) -> None:
    """Make something fail: one of create, remove, read, gpu, vgpu_params, nvml, holders, sriov-manage.

    nvml-order fails changes of MIG.
    """
    client = session.client()
    arguments = {
        "what": what,
        "gpu": _address(client, gpu),
        "errno": errno,
        "count": count,
        "hang": hang or None,
    }
    _do(session, client, "fail", arguments)


@sim.command(examples="vgpuctl sim heal")
@output_options
@pass_session
def heal(session: Session) -> None:
    """Let nothing fail any more."""
    _do(session, session.client(), "heal", {})


@sim.command("remove-gpu", examples="vgpuctl sim remove-gpu 0")
@click.argument("gpu", shell_complete=names.gpus)
@output_options
@pass_session
def remove_gpu(session: Session, gpu: str) -> None:
    """A GPU falls off the bus."""
    client = session.client()
    _do(session, client, "remove-gpu", {"gpu": _address(client, gpu)})


@sim.command("swap-gpu", examples="vgpuctl sim swap-gpu 0")
@click.argument("gpu", shell_complete=names.gpus)
@output_options
@pass_session
def swap_gpu(session: Session, gpu: str) -> None:
    """Another card of the same model stands at the address of this one."""
    client = session.client()
    _do(session, client, "swap-gpu", {"gpu": _address(client, gpu)})


@sim.command("move-gpu", examples="vgpuctl sim move-gpu 0 0000:c1:00.0")
@click.argument("gpu", shell_complete=names.gpus)
@click.argument("address")
@output_options
@pass_session
def move_gpu(session: Session, gpu: str, address: str) -> None:
    """A card is put into another slot: the same UUID at another address."""
    client = session.client()
    _do(session, client, "move-gpu", {"gpu": _address(client, gpu), "address": address})


@sim.command(examples="vgpuctl sim foreign 0 L40S-8Q\nvgpuctl sim foreign 0 T4-4Q --autostart")
@click.argument("gpu", shell_complete=names.gpus)
@click.argument("type_", metavar="TYPE", shell_complete=names.types)
@click.option("--autostart", is_flag=True, help="Defined in mdevctl, which starts it after a boot.")
@output_options
@pass_session
def foreign(session: Session, gpu: str, type_: str, *, autostart: bool) -> None:
    """Somebody else creates a vGPU."""
    client = session.client()
    arguments = {"gpu": _address(client, gpu), "type": type_, "autostart": autostart or None}
    _do(session, client, "foreign", arguments)


@sim.command("mig-cut", examples="vgpuctl sim mig-cut 0 1g.10gb\nvgpuctl sim mig-cut 0 3g.40gb --compute")
@click.argument("gpu", shell_complete=names.gpus)
@click.argument("profile", metavar="PROFILE")
@click.option("--compute", is_flag=True, help="With a compute instance in it.")
@output_options
@pass_session
def mig_cut(session: Session, gpu: str, profile: str, *, compute: bool) -> None:
    """Somebody else cuts a GPU instance."""
    client = session.client()
    arguments = {"gpu": _address(client, gpu), "profile": profile, "compute": compute or None}
    _do(session, client, "mig-cut", arguments)


@sim.command(examples="vgpuctl sim slow 200")
@click.argument("ms", type=click.IntRange(min=0))
@output_options
@pass_session
def slow(session: Session, ms: int) -> None:
    """Every access takes so many milliseconds more; 0 ends that."""
    _do(session, session.client(), "slow", {"ms": ms})


def _do(session: Session, client: Client, action: str, arguments: dict[str, Any]) -> None:
    given = {name: value for name, value in arguments.items() if value is not None}
    answer = client.post(at("sim", action), given)
    if print_for_programs(session, answer):
        return
    if answer and isinstance(answer, dict):
        write(f"{name}: {plain(value) or NULL}" for name, value in answer.items())
    session.say(f"{action}: done")


def _device(client: Client, vgpu: str) -> str:
    """What the simulated kernel knows a vGPU by; what vgpuctl does not know is passed on as it is."""
    try:
        found = client.get(at("vgpus", vgpu))
    except NotFound:
        return vgpu
    return str(found.get("mdev_uuid") or found.get("vf") or vgpu)


def _address(client: Client, gpu: str | None) -> str | None:
    if gpu is None:
        return None
    try:
        return str(client.get(at("gpus", gpu))["address"])
    except NotFound:
        return gpu
