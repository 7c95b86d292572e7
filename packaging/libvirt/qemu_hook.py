#!/usr/bin/python3 -IS
"""libvirt's hook for vgpuctl: /etc/libvirt/hooks/qemu.d/vgpuctl.

libvirt waits for a hook with the domain locked and without a limit, and kills a running guest whose
`reconnect` hook fails.  So only `prepare begin` of a domain whose XML has a hostdev of vgpuctl's may be
refused, with one sentence on standard error; everything else ends with 0 and prints nothing.  Nothing
here calls libvirt.  What could block is done by a child, which the parent leaves behind in time.

Runs with any Python from 3.9 on, and needs nothing else: it has to work when vgpuctl is not there.
"""

from __future__ import annotations

import os
import signal
import sys

RUN = "/run/vgpuctl/hook"
"""Where the daemon listens, and what it and this program leave for each other."""
SYS = "/sys"
PROC = "/proc"
SAVED = "/var/lib/libvirt/qemu/save"
ALIAS = "ua-vgpuctl-"

READ_S = 5
PREPARE_S = 20.0
ANSWER_S = 15.0
"""What the daemon is given of it; the rest is for looking at what stands there without it."""
RELEASE_S = 3.0
AGAIN = "then start the domain again"


Named = "dict[str, object]"
"""A vGPU in a domain's XML: `vgpu` (our id), the `mdev` or `vf` that stands there, whether `managed`."""


class Refused(Exception):
    """Why the domain must not start."""


def main(arguments: list[str]) -> int:
    """The exit status for what libvirt calls us with: name, operation, sub-operation, reason."""
    name, operation, sub = (*arguments[1:4], "", "", "")[:3]
    os.umask(0o077)
    _show_that_we_are_called()
    if (operation, sub) == ("prepare", "begin"):
        text = _read_xml()
        if ALIAS.encode() not in text:
            return 0
        why = _in_time(lambda: _prepare(name, text), PREPARE_S)
        if why:
            sys.stderr.write(f"vgpuctl: {why}\n")
        return 1 if why else 0
    if (operation, sub) == ("release", "end"):
        text = _read_xml()
        if ALIAS.encode() in text:
            _in_time(lambda: _release(name, text), RELEASE_S)
    return 0


# -- time -------------------------------------------------------------------------------------------


def _read_xml() -> bytes:
    """The domain's XML from standard input; nothing is known of a domain whose XML does not come."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(READ_S)
    text = sys.stdin.buffer.read()
    signal.alarm(0)
    return text


def _in_time(work: object, limit_s: float) -> str:
    """What `work` has against the start, '' for nothing; its own words when it does not end in time.

    A child that hangs in the kernel cannot be killed.  It has none of our descriptors: libvirt waits
    until nobody has them any more.
    """
    import select

    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        _in_the_child(work, told)
    os.close(told)
    text, late = b"", not select.select([answer], [], [], limit_s)[0]
    if not late:
        text = os.read(answer, 65536)
    else:
        os.kill(child, signal.SIGKILL)
    if late or not text:
        return f"its hook did not come to an end within {limit_s:g} s; see journalctl -u vgpuctl"
    return text.decode(errors="replace").partition(":")[2]


def _in_the_child(work: object, told: int) -> None:
    """Do the work and tell its outcome in one write: `:` and what stands against the start."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    why = ""
    try:
        work()  # type: ignore[operator]
    except Refused as error:
        why = " ".join(str(error).split())
    except BaseException as error:
        why = f"its hook failed: {type(error).__name__}: {error}"
    os.write(told, f":{why}"[:4000].encode())
    os._exit(0)


# -- what libvirt asks ------------------------------------------------------------------------------


def _prepare(name: str, text: bytes) -> None:
    """Let the domain start, or raise Refused."""
    domain, vgpus = _named_in(text)
    if not vgpus:
        return
    token = os.urandom(16).hex()
    ids = [each["vgpu"] for each in vgpus]
    _write(f"{RUN}/starts", domain, {"token": token, "domain": name, "vgpus": ids})
    body = {"operation": "prepare", "domain": name, "uuid": domain, "token": token, "limit_s": ANSWER_S}
    answer = _ask(body, vgpus, ANSWER_S + 1)
    if answer is None:
        for each in vgpus:
            _allow_without_daemon(each, domain)
    elif not answer.get("allowed"):
        raise Refused(str(answer.get("why") or "the daemon refused and did not say why"))


def _release(name: str, text: bytes) -> None:
    """Tell the daemon that the domain has let go, as far as it is there to be told."""
    domain, vgpus = _named_in(text)
    token = str(_read(f"{RUN}/starts/{domain}").get("token", ""))
    saved = os.path.exists(f"{SAVED}/{name}.save")
    try:
        if vgpus:
            body = {"operation": "release", "domain": name, "uuid": domain, "token": token, "saved": saved}
            _ask(body, vgpus, RELEASE_S - 1)
    finally:
        if not saved:
            _forget(f"{RUN}/starts/{domain}")


def _named_in(text: bytes) -> tuple[str, list[Named]]:
    """The domain's UUID, and the hostdevs of vgpuctl's in its XML: id, mdev's UUID, VF's address."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(text)
    found: list[Named] = []
    for hostdev in root.iterfind("devices/hostdev"):
        alias = hostdev.find("alias")
        name = "" if alias is None else alias.get("name", "")
        if not name.startswith(ALIAS) or len(name) != len(ALIAS) + 36:
            continue
        address = hostdev.find("source/address")
        where = {} if address is None else address.attrib
        numbers = [int(where.get(each, "0"), 0) for each in ("domain", "bus", "slot", "function")]
        is_pci = hostdev.get("type") == "pci"
        found.append(
            {
                "vgpu": name[len(ALIAS) :],
                "mdev": where.get("uuid"),
                "managed": hostdev.get("managed") == "yes",
                "vf": "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers) if is_pci else None,
            }
        )
    return (root.findtext("uuid") or "").strip(), found


# -- the daemon -------------------------------------------------------------------------------------


def _ask(body: dict[str, object], vgpus: list[Named], wait_s: float) -> dict[str, object] | None:
    """The daemon's answer; None when there is no daemon, or when it cannot say."""
    import json
    import socket

    told = [{key: each[key] for key in ("vgpu", "mdev", "vf")} for each in vgpus]
    body = {**body, "vgpus": told}
    sent = json.dumps(body).encode()
    head = (
        f"POST /v1/hook HTTP/1.1\r\nHost: vgpuctl\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    received = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(wait_s)
            link.connect(f"{RUN}/sock")
            link.sendall(head.encode() + sent)
            while part := link.recv(65536):
                received += part
        start, _, content = received.partition(b"\r\n\r\n")
        if start.split(b" ", 2)[1] != b"200":
            return None
        answer = json.loads(content)
    except (OSError, ValueError, IndexError):
        return None
    return answer if isinstance(answer, dict) else None


def _allow_without_daemon(named: Named, domain: str) -> None:
    """Raise Refused unless exactly that vGPU is there, is ours, and nobody has it.

    What libvirt gives away by itself (`managed`) needs nothing of us.
    """
    if named["managed"]:
        return
    vgpu, mdev, vf = str(named["vgpu"]), named["mdev"], named["vf"]
    book = _read(f"{RUN}/book")
    is_of_now = book.get("boot_id") == _line(f"{PROC}/sys/kernel/random/boot_id")
    place = book.get("vgpus", {}).get(vgpu) if is_of_now else None
    if mdev is not None:
        if str(mdev).lower() != vgpu.lower():
            raise Refused(f"the domain's XML has mdev {mdev} under the alias of vGPU {vgpu}")
        device = f"{SYS}/bus/mdev/devices/{mdev}"
        try:
            shown = os.readlink(f"{device}/mdev_type").rpartition("-")[2]
        except OSError:
            shown = None
    else:
        device = f"{SYS}/bus/pci/devices/{vf}"
        shown = _line(f"{device}/nvidia/current_vgpu_type")
        if place is None or place.get("vf") != vf:
            raise Refused(
                f"its daemon does not run, and whose VF {vf} is cannot be told without it; {_remedy()}"
            )
    if shown in (None, "", "0"):
        raise Refused(f"its daemon does not run, and vGPU {vgpu} is not there; {_remedy()}")
    if place is not None and place.get("type_id") is not None and str(place["type_id"]) != shown:
        raise Refused(f"its daemon does not run, and vGPU {vgpu} has another type; {_remedy()}")
    _refuse_taken(vgpu, device, domain)


def _remedy() -> str:
    return f"systemctl start vgpuctl, {AGAIN}"


def _refuse_taken(vgpu: str, device: str, domain: str) -> None:
    """Raise Refused where another domain was started with it, or a process has it open."""
    for other in _listed(f"{RUN}/starts"):
        start = _read(f"{RUN}/starts/{other}")
        if other != domain and vgpu in start.get("vgpus", ()):
            raise Refused(
                f"domain {start.get('domain')} was started with vGPU {vgpu}, and its daemon does not run"
            )
    nodes = {f"/dev/vfio/devices/{each}" for each in _listed(f"{device}/vfio-dev")}
    try:
        nodes.add("/dev/vfio/" + os.path.basename(os.readlink(f"{device}/iommu_group")))
    except FileNotFoundError:
        pass  # it has no group, so nobody can hold it by one
    except OSError as error:
        raise Refused(f"by which group vGPU {vgpu} can be held cannot be read: {error.strerror}") from None
    for pid in filter(str.isdigit, _listed(PROC)):
        # A killed QEMU whose first thread has ended shows its descriptors only at the others.
        for thread in _listed(f"{PROC}/{pid}/task"):
            fds = f"{PROC}/{pid}/task/{thread}/fd"
            try:
                opened = {os.readlink(f"{fds}/{each}").partition(" ")[0] for each in _listed(fds)}
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Refused(
                    f"whether process {pid} has vGPU {vgpu} open cannot be read: {error.strerror}"
                ) from None
            if nodes & opened:
                raise Refused(f"process {pid} has vGPU {vgpu} open")
            if opened:
                break


# -- files ------------------------------------------------------------------------------------------


def _show_that_we_are_called() -> None:
    """Give the daemon's nonce back: libvirt calls only the hooks that it found when it started."""
    nonce = _line(f"{RUN}/nonce")
    try:
        if nonce and nonce != _line(f"{RUN}/seen"):
            _put(f"{RUN}/seen", nonce)
    except OSError:
        pass  # the daemon goes on saying that it has not seen us; no domain has to suffer for that


def _line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def _read(path: str) -> dict[str, object]:
    import json

    try:
        found = json.loads(_line(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(directory: str, name: str, value: dict[str, object]) -> None:
    import json

    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _put(f"{directory}/{name}", json.dumps(value))
    except OSError as error:
        raise Refused(f"{directory} cannot be written: {error.strerror}") from error


def _put(path: str, text: str) -> None:
    beside = f"{path}.{os.getpid()}"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # a note that stays is dropped by the daemon when it is old


def _listed(path: str) -> list[str]:
    try:
        return [each for each in os.listdir(path) if "." not in each]
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv))
