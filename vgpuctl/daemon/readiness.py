"""When systemd hears that we are ready: after the first restore, for libvirt's daemons wait for that."""

from __future__ import annotations

import threading

import structlog

from vgpuctl.daemon.systemd import Notifier
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.service.boot import Outlook
from vgpuctl.service.service import RESTORE_S, Service

_MARGIN_S = 60.0
_log = structlog.get_logger("vgpuctl.daemon")


class Readiness(threading.Thread):
    """Waits for the first restore, then tells systemd; the API is served meanwhile.

    GPUs that are not ready are waited for `gpus_s`; what is missing after that is named in the log.
    """

    def __init__(
        self,
        notifier: Notifier,
        service: Service,
        hypervisor: HypervisorPort | None,
        *,
        gpus_s: float,
        status: str,
    ) -> None:
        super().__init__(name="readiness", daemon=True)
        self._notifier = notifier
        self._service = service
        self._hypervisor = hypervisor
        self._gpus_s = gpus_s
        self._status = status
        self._lock = threading.Lock()
        self._is_ready = False
        self._is_stopping = False

    def run(self) -> None:
        """Wait, say what is missing, and be ready."""
        self._notifier.extend_start(max(self._gpus_s, RESTORE_S) + _MARGIN_S)
        outlook = self._service.first_restore(self._gpus_s)
        if self._hypervisor is not None:
            self._hypervisor.await_first()
        with self._lock:
            if self._is_stopping:
                return
            self._status += _told(outlook)
            self._is_ready = True
            self._notifier.ready(self._status)

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` follows."""
        with self._lock:
            if self._is_ready:
                self._notifier.reloading()

    def reloaded(self) -> None:
        """It was; while we are not ready, that is no news for systemd."""
        with self._lock:
            if self._is_ready:
                self._notifier.ready(self._status)

    def stopping(self) -> None:
        """We go, ready or not."""
        with self._lock:
            self._is_stopping = True
            self._notifier.stopping("letting running steps end")


def _told(outlook: Outlook | None) -> str:
    """Log how the first restore ended; what of it stands in the unit's status."""
    if outlook is None:
        _log.warning("the host could not be observed: it is not known which vGPUs are missing")
        return "; the host could not be observed"
    for name, reason in outlook.absent.items():
        _log.warning("a vGPU is missing", vgpu=name, reason=reason)
    _log.info("the first restore is over", missing=len(outlook.absent))
    return f"; {len(outlook.absent)} vGPUs missing" if outlook.absent else ""
