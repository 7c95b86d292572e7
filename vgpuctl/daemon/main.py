"""The daemon's life: from a configuration to a serving socket, and back down in order."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable

import structlog

import vgpuctl
from vgpuctl import resources
from vgpuctl.api.access import Access
from vgpuctl.api.app import create_app
from vgpuctl.api.handlers import Backend
from vgpuctl.api.waiting import Waiting
from vgpuctl.daemon import config as configuration
from vgpuctl.daemon import logs
from vgpuctl.daemon.composition import Parts, compose
from vgpuctl.daemon.config import Config, Options
from vgpuctl.daemon.profiles import load_profiles
from vgpuctl.daemon.readiness import Readiness
from vgpuctl.daemon.server import UnixServer, refuse_live
from vgpuctl.daemon.statedir import StateDirectory
from vgpuctl.daemon.systemd import Notifier, Watchdog, inherited_socket
from vgpuctl.errors import VgpuctlError
from vgpuctl.model.document import ProfileDocument
from vgpuctl.service.service import Service

LOOP_DEAD_S = 20.0
"""The decision loop comes round every few seconds, also when nothing happens."""
_STOP_S = 15.0
HOOK_THREADS = 16
"""As many domains as start at once; libvirt itself starts no more than 20."""

_log = structlog.get_logger("vgpuctl.daemon")


def run(options: Options) -> None:
    """Run the daemon until it is told to stop; raises VgpuctlError when it cannot start."""
    # Whatever the umask of the shell that started us, nobody else may write what we make.
    os.umask(os.umask(0o022) | 0o022)
    notifier = Notifier.from_environment(os.environ)
    inherited = inherited_socket(os.environ)
    config = configuration.load(options, os.environ)
    logs.configure(config.log_level)
    if inherited is None:
        refuse_live(config.socket)
    signals = Signals()
    with StateDirectory(config.state_dir, is_simulated=config.simulate is not None):
        parts = compose(config)
        try:
            service = Service(
                parts.host,
                parts.store,
                parts.clock,
                parts.catalog,
                file_profiles=profiles_of(config),
                repair=config.repair,
                hooks=parts.hooks,
            )
            waiting = Waiting()
            app = create_app(Backend(service, waiting, parts.simulator), Access())
            servers = [UnixServer(config.socket, app, inherited=inherited)]
            if parts.hooks is not None:
                # Threads of its own: all others may wait for libvirt, which waits for its hook.
                servers.append(UnixServer(parts.hooks.socket, app, threads=HOOK_THREADS))
            serving = [threading.Thread(target=each.serve, name="http", daemon=True) for each in servers]
            # That a server's thread has died, nobody but its clients would notice.
            watchdog = Watchdog(
                notifier,
                lambda: (
                    service.seconds_since_last_turn() < LOOP_DEAD_S
                    and all(each.is_alive() for each in serving)
                ),
            )
            parts.on_event(service.wake)
            service.start()
            try:
                for server in servers:
                    server.prepare()
                for thread in serving:
                    thread.start()
                watchdog.start()
                _announce(config, parts)
                readiness = Readiness(
                    notifier,
                    service,
                    parts.hypervisor,
                    gpus_s=config.wait_for_gpus_s,
                    status=f"serving {config.socket}",
                )
                readiness.start()
                _until_stopped(signals, Reload(options, config, service, readiness))
                readiness.stopping()
                _log.info("stopping")
            finally:
                # The service first: whoever waits for an operation still hears how it ended.
                service.stop()
                waiting.end()
                # The server's threads, even of one that was only prepared, keep this process from ending.
                stuck = not _within(_STOP_S, lambda: stop(servers))
                watchdog.stop()
        finally:
            parts.close()
    _log.info("stopped")
    if stuck:
        # A thread that hangs in a library must not keep the daemon from ending; the store is closed.
        _log.warning("a request does not end; leaving it behind")
        os._exit(0)


def profiles_of(config: Config) -> dict[str, ProfileDocument]:
    """The package's profiles, and the administrator's over them."""
    return load_profiles([resources.profiles_directory(), config.profiles_dir])


class Signals:
    """SIGTERM and SIGINT (stop) and SIGHUP (reload), in the order of their arrival.

    Whichever thread the kernel gives a signal to: the main thread, for which Python keeps its handlers, may
    wait in a lock that another thread's signal does not end.  Handlers rather than a blocked mask: children
    would inherit the mask and could not be ended.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._read, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def _listen(self) -> None:
        is_stopping = False
        while True:
            for number in os.read(self._read, 64):
                if number != signal.SIGHUP:
                    if is_stopping:
                        # Told twice: at once.  The log is on the disk, the next start takes up what is left.
                        os._exit(128 + number)
                    is_stopping = True
                self._arrived.put(number)

    def next(self) -> int:
        """The next signal; waits for it."""
        return self._arrived.get()


class Reload:
    """What SIGHUP does: read configuration and profiles again; a bad file changes nothing."""

    def __init__(self, options: Options, config: Config, service: Service, readiness: Readiness) -> None:
        self._options = options
        self._config = config
        self._service = service
        self._readiness = readiness

    def __call__(self) -> None:
        """Reload, and say what needs a restart."""
        self._readiness.reloading()
        try:
            config = configuration.load(self._options, os.environ)
        except VgpuctlError as error:
            _log.error("configuration not reloaded; the old one stays", reason=error.message)
        else:
            changed = [
                name
                for name in configuration.AT_START
                if getattr(config, name) != getattr(self._config, name)
            ]
            if changed:
                _log.warning("some settings need a restart", settings=changed)
            logs.configure(config.log_level)
            self._service.set_file_profiles(profiles_of(config))
            self._service.set_repair(config.repair)
            _log.info("configuration reloaded")
        self._readiness.reloaded()


def _until_stopped(signals: Signals, reload: Reload) -> None:
    while signals.next() == signal.SIGHUP:
        try:
            reload()
        except Exception:  # noqa: BLE001 - nothing in a file may end the daemon under its desktops
            _log.exception("configuration not reloaded; the old one stays")


def _announce(config: Config, parts: Parts) -> None:
    if parts.libvirt_uri is None:
        _log.warning("running without libvirt: vGPUs can be made, but not attached")
    _log.info(
        "serving",
        socket=str(config.socket),
        state_dir=str(config.state_dir),
        libvirt=parts.libvirt_uri,
        simulate=config.simulate,
        version=vgpuctl.__version__,
        pid=os.getpid(),
    )


def stop(servers: list[UnixServer]) -> None:
    """Serve no more."""
    for server in servers:
        server.stop()


def _within(seconds: float, work: Callable[[], None]) -> bool:
    """Whether `work` ended in time."""
    worker = threading.Thread(target=work, name="stop", daemon=True)
    worker.start()
    worker.join(seconds)
    return not worker.is_alive()
