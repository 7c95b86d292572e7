"""Every refusal and failure of vgpuctl: one tree, each leaf with a stable code.

    VgpuctlError                     exit  HTTP
    |- InvalidInput                  2     400   what was sent cannot be understood
    |- NotFound                      3     404   the named thing is not there
    |- Conflict                      4     409   it is there, and in the way
    |- NoCapacity                    5     409   nothing fits
    |- Denied                        6     403   this caller may not
    |- Unavailable                   7     503   somebody whom we need does not answer
    |- HostFailure                   1     502   the kernel, the driver or libvirt refused
    |- RolledBack                    8     500   failed, and what had been done was undone
    `- NeedsOperator                 9     500   failed, and could not be undone

The code of an error is stable (docs/stability.md); its text is not.  `facts` are what a program
may want to know; `hint` is what a person should try next.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VgpuctlError(Exception):
    """Root of the tree; by itself a fault of vgpuctl, whose message has an `error_id`."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    _by_code: ClassVar[dict[str, type[VgpuctlError]]] = {}

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts: dict[str, Any] = facts

    def __init_subclass__(cls) -> None:
        VgpuctlError._by_code[cls.code] = cls

    def to_problem(self) -> dict[str, Any]:
        """This error as an RFC 9457 problem document."""
        problem: dict[str, Any] = {
            "type": f"urn:vgpuctl:error:{self.code}",
            "title": self.title,
            "status": self.http_status,
            "code": self.code,
            "detail": self.message,
            "exit_status": self.exit_status,
        }
        if self.hint:
            problem["hint"] = self.hint
        if self.facts:
            problem["facts"] = dict(self.facts)  # a copy: facts may come to hold the problem itself
        return problem

    @staticmethod
    def from_problem(problem: dict[str, Any]) -> VgpuctlError:
        """The error that `problem` describes; an unknown code keeps its number and its text."""
        code = str(problem.get("code", "internal"))
        kind = VgpuctlError._by_code.get(code, VgpuctlError)
        error = kind(
            str(problem.get("detail", problem.get("title", "unknown error"))),
            hint=problem.get("hint"),
            **problem.get("facts", {}),
        )
        if kind is VgpuctlError:
            error.code = code  # type: ignore[misc]
            error.exit_status = int(problem.get("exit_status", 1))  # type: ignore[misc]
        return error


class InvalidInput(VgpuctlError):
    """What was sent cannot be understood; `facts["faults"]` lists each fault with its path."""

    code = "invalid-input"
    title = "Invalid input"
    http_status = 400
    exit_status = 2


class NotFound(VgpuctlError):
    """The named thing is not there."""

    code = "not-found"
    title = "Not found"
    http_status = 404
    exit_status = 3


class GpuNotFound(NotFound):
    """No GPU of this host has that address, UUID or index."""

    code = "gpu-not-found"
    title = "No such GPU"


class TypeUnknown(NotFound):
    """No vGPU type of that name; `hint` names near ones."""

    code = "type-unknown"
    title = "No such vGPU type"


class ProfileUnknown(NotFound):
    """No profile of that name; `hint` names near ones."""

    code = "profile-unknown"
    title = "No such profile"


class VgpuNotFound(NotFound):
    """No vGPU has that name or id."""

    code = "vgpu-not-found"
    title = "No such vGPU"


class DomainNotFound(NotFound):
    """libvirt has no domain of that name or UUID."""

    code = "domain-not-found"
    title = "No such domain"


class OperationNotFound(NotFound):
    """No operation, or no shown plan, has that id."""

    code = "operation-not-found"
    title = "No such operation"


class RevisionGone(NotFound):
    """The log no longer reaches back to that revision."""

    code = "revision-gone"
    title = "Revision no longer kept"
    http_status = 410


class Conflict(VgpuctlError):
    """The thing is there, and in the way."""

    code = "conflict"
    title = "Conflict"
    http_status = 409
    exit_status = 4


class NameTaken(Conflict):
    """Another document already has that name."""

    code = "name-taken"
    title = "Name already taken"


class PlanStale(Conflict):
    """The host or the wishes changed since the plan was shown."""

    code = "plan-stale"
    title = "Plan is stale"


class IdempotencyKeyReused(Conflict):
    """The key was used before, for something else."""

    code = "idempotency-key-reused"
    title = "Idempotency key was used for something else"
    http_status = 422


class GenerationMismatch(Conflict):
    """The document changed since the caller read it."""

    code = "generation-mismatch"
    title = "Document changed meanwhile"
    http_status = 412


class VgpuBusy(Conflict):
    """Somebody holds the vGPU open, or it cannot be read who does; `facts["holders"]`."""

    code = "vgpu-busy"
    title = "vGPU is in use"


class VgpuAttached(Conflict):
    """The vGPU is attached to a domain."""

    code = "vgpu-attached"
    title = "vGPU is attached"


class VgpuForeign(Conflict):
    """The vGPU was made by somebody else and was not adopted."""

    code = "vgpu-foreign"
    title = "vGPU is not ours"


class InvalidDomainState(Conflict):
    """The domain is not in a state that allows this."""

    code = "domain-state"
    title = "Domain state does not allow this"


class InvalidGpuState(Conflict):
    """The GPU is not in a state that allows this."""

    code = "gpu-state"
    title = "GPU state does not allow this"


class CardChanged(Conflict):
    """Another card stands at the address where an allocation was made."""

    code = "card-changed"
    title = "Another card at this address"


class UnsupportedHere(Conflict):
    """This libvirt, kernel or driver cannot do what was asked; said before anything was tried."""

    code = "unsupported-here"
    title = "Not supported on this host"


class OperationNotRunning(Conflict):
    """The operation has ended and can no longer be cancelled."""

    code = "operation-not-running"
    title = "Operation has ended"


class NoCapacity(VgpuctlError):
    """Nothing fits; the message says what occupies the cards and what would fit."""

    code = "no-capacity"
    title = "No capacity"
    http_status = 409
    exit_status = 5


class Denied(VgpuctlError):
    """This caller may not do this."""

    code = "denied"
    title = "Denied"
    http_status = 403
    exit_status = 6


class Unavailable(VgpuctlError):
    """Somebody whom we need does not answer."""

    code = "unavailable"
    title = "Not available"
    http_status = 503
    exit_status = 7


class DaemonUnreachable(Unavailable):
    """The daemon's socket does not answer."""

    code = "daemon-unreachable"
    title = "Daemon does not answer"


class LibvirtUnreachable(Unavailable):
    """libvirt does not answer."""

    code = "libvirt-unreachable"
    title = "libvirt does not answer"


class HookNotCalled(Unavailable):
    """libvirt does not call vgpuctl's hook when it starts a domain."""

    code = "hook-not-called"
    title = "libvirt does not call the hook"


class DeadlineExceeded(Unavailable):
    """It took longer than it may; it may still happen."""

    code = "deadline-exceeded"
    title = "Took too long"
    http_status = 504


class FactUnknown(Unavailable):
    """A fact that this depends on could not be read; what cannot be read is never acted on."""

    code = "fact-unknown"
    title = "Could not be read"


class HostFailure(VgpuctlError):
    """The kernel, the driver or libvirt refused."""

    code = "host-failure"
    title = "The host refused"
    http_status = 502


class KernelRefused(HostFailure):
    """A sysfs access failed; `facts` hold `path`, `errno`, and `nvrm` when the log names a code."""

    code = "kernel-refused"
    title = "The kernel refused"


class ReadBackMismatch(HostFailure):
    """The host does not show what was just written."""

    code = "read-back-mismatch"
    title = "Not what was written"


class LibvirtRefused(HostFailure):
    """libvirt refused; `facts["libvirt_code"]` is its error number."""

    code = "libvirt-refused"
    title = "libvirt refused"


class RemovalBlocked(HostFailure):
    """The kernel has not finished removing the vGPU: somebody still holds it open."""

    code = "removal-blocked"
    title = "Removal is blocked"


class NotRestored(HostFailure):
    """What is wished was lost, and nothing may be done for it unasked, or something is waited for."""

    code = "not-restored"
    title = "Not restored"


class StepInterrupted(HostFailure):
    """The daemon ended while the step ran; its operation went on with what the host shows."""

    code = "interrupted"
    title = "Interrupted"


class StoreFailure(HostFailure):
    """The state could not be saved; nothing was changed."""

    code = "store-failure"
    title = "State could not be saved"
    http_status = 507


class RolledBack(VgpuctlError):
    """The operation failed, and what it had done was undone."""

    code = "rolled-back"
    title = "Failed and rolled back"
    exit_status = 8


class OperationCancelled(RolledBack):
    """The operation was cancelled, and undone as far as it has a way back."""

    code = "operation-cancelled"
    title = "Cancelled"


class NeedsOperator(VgpuctlError):
    """The operation failed and could not be undone; somebody has to look."""

    code = "needs-operator"
    title = "Failed and needs an operator"
    exit_status = 9
