"""The daemon's API, over its Unix socket: standard library only, for it runs on the managed host."""

from __future__ import annotations

import http.client
import json
import socket
import time
from urllib.parse import quote, urlencode
from uuid import uuid4

LONG_POLL_S = 30
CONNECT_S = 5.0
REPLY_S = 60.0
RESTART_GRACE_S = 30.0
"""For so long a daemon that went away is waited for: it goes on with its operations when it is back."""

FAULTS_SHOWN = 10
PLANS = "/v1/plans"

GOING_ON = ("running", "rolling-back")


class Problem(Exception):
    """Why something was refused, failed, or could not be asked: what a task fails with.

    `code` is one of docs/reference/errors.md; `where` names the documents, paths or subjects that it is about.
    """

    def __init__(self, code, message, hint=None, where=(), facts=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.where = list(where)
        self.facts = facts or {}

    @classmethod
    def of(cls, document):
        """The problem that a problem document, or an entry of a plan's `problems`, describes."""
        facts = document.get("facts") or {}
        faults = facts.get("faults") or []
        where = [_place(fault) for fault in faults]
        if document.get("subject"):
            where.append(document["subject"])
        message = document.get("detail") or document.get("title") or "the daemon gave no reason"
        if len(faults) > 1:
            message = "; ".join(
                "{}: {}".format(_place(fault), fault["message"]) for fault in faults[:FAULTS_SHOWN]
            )
            if len(faults) > FAULTS_SHOWN:
                message += f"; and {len(faults) - FAULTS_SHOWN} more"
        return cls(document.get("code", "internal"), message, document.get("hint"), where, facts)

    def as_result(self):
        """What `fail_json` returns of it."""
        return {
            "msg": self.message + (f" (hint: {self.hint})" if self.hint else ""),
            "code": self.code,
            "hint": self.hint,
            "where": self.where,
            "facts": self.facts,
        }


class HungUp(Problem):
    """The daemon does not answer, or hung up; `sent` says that it may have heard what was asked."""

    def __init__(self, message, hint, sent):
        super().__init__("daemon-unreachable", message, hint)
        self.sent = sent


class Daemon:
    """The daemon behind a socket, a path or `unix://PATH`.  Every method raises `Problem`."""

    def __init__(self, path):
        self.path = path[len("unix://") :] if path.startswith("unix://") else path

    def get(self, *segments, **params):
        """What stands at the path of these segments under /v1."""
        return self._ask("GET", _target(segments, params))

    def find(self, *segments):
        """The same, or None where there is no such thing."""
        try:
            return self.get(*segments)
        except Problem as problem:
            if problem.code.endswith("not-found"):
                return None
            raise

    def plan(self, edit):
        """The plan of an edit, which changes nothing."""
        return self._ask("POST", PLANS, edit)

    def run(self, plan, timeout_s):
        """Run exactly the plan that was shown; the operation once it has ended well."""
        headers = {"Idempotency-Key": str(uuid4())}
        body = {"plan": plan["id"]}
        try:
            operation = self._ask("POST", "/v1/operations", body, headers)
        except HungUp as problem:
            if not problem.sent:
                raise
            time.sleep(1)
            operation = self._ask("POST", "/v1/operations", body, headers)
        return _ended_well(self._follow(operation, timeout_s))

    def _follow(self, operation, timeout_s):
        deadline = time.monotonic() + timeout_s
        last_answer = time.monotonic()
        while operation["state"] in GOING_ON:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Problem(
                    "deadline-exceeded",
                    f"operation {operation['id']} has not ended within {timeout_s} s; it goes on",
                    f"`vgpuctl operation wait {operation['id']}`",
                    facts={"operation": operation["id"]},
                )
            wait_s = max(1, min(LONG_POLL_S, round(left_s)))
            try:
                operation = self.get("operations", operation["id"], wait=wait_s)
                last_answer = time.monotonic()
            except HungUp:
                if time.monotonic() - last_answer > RESTART_GRACE_S + wait_s:
                    raise
                time.sleep(0.5)
        return operation

    def _ask(self, method, target, body=None, headers=None):
        """One answer.  A daemon that is being restarted is waited for, where asking twice changes nothing."""
        deadline = time.monotonic() + RESTART_GRACE_S
        while True:
            try:
                return self._ask_once(method, target, body, headers)
            except HungUp as problem:
                only_reads = method == "GET" or target == PLANS
                if not (problem.sent and only_reads) or time.monotonic() > deadline:
                    raise
            except Problem as problem:
                if problem.code != "unavailable" or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _ask_once(self, method, target, body, headers):
        connection = _UnixConnection(self.path)
        sent = False
        try:
            connection.connect()
            sent = True
            payload = None if body is None else json.dumps(body).encode()
            all_headers = dict(headers or {}, Accept="application/json")
            if payload is not None:
                all_headers["Content-Type"] = "application/json"
            connection.request(method, target, payload, all_headers)
            response = connection.getresponse()
            text = response.read()
        except PermissionError as error:
            raise Problem(
                "denied",
                f"no permission for {self.path}",
                "run the task as root, or as a member of group vgpuctl",
            ) from error
        except socket.timeout as error:
            raise Problem(
                "deadline-exceeded",
                f"the daemon at {self.path} did not answer in time",
                "`journalctl -u vgpuctl`, then `vgpuctl operation list`",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            what = "hung up" if sent else f"does not answer: {getattr(error, 'strerror', None) or error}"
            hint = "is it running? `systemctl status vgpuctl`"
            raise HungUp(f"the daemon at {self.path} {what}", hint, sent) from error
        finally:
            connection.close()
        return self._read(response.status, text)

    def _read(self, status, text):
        try:
            value = json.loads(text.decode("utf-8", "replace"))
        except ValueError:
            value = None
        if status >= 400 and isinstance(value, dict) and "code" in value:
            raise Problem.of(value)
        if status >= 400 or value is None:
            raise Problem(
                "unavailable", f"HTTP status {status} and no JSON from {self.path}", "is it vgpuctl?"
            )
        return value


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=LONG_POLL_S + REPLY_S)
        self._path = path

    def connect(self):
        deadline = time.monotonic() + CONNECT_S
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        while True:
            try:
                return self.sock.connect(self._path)
            except BlockingIOError:  # a unix socket does not queue us when its backlog is full
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _target(segments, params):
    path = "/".join(["/v1"] + [quote(each, safe="") for each in segments])
    return f"{path}?{urlencode(params)}" if params else path


def _place(fault):
    line = "line {}".format(fault["line"]) if fault.get("line") else None
    parts = [each for each in (fault.get("document"), fault.get("path")) if each]
    return ": ".join(parts) or line or fault.get("message", "")


def _ended_well(operation):
    """The operation, unless it failed: then what it failed with, by the codes of the CLI."""
    state = operation["state"]
    if state == "succeeded":
        return operation
    cause = operation.get("problem") or {"detail": f"the operation ended as {state}"}
    problem = Problem.of(cause)
    problem.facts = dict(problem.facts, operation=operation["id"], cause=cause)
    if state == "needs-operator":
        problem.code = "needs-operator"
        problem.hint = problem.hint or f"`vgpuctl operation show {operation['id']}` says how far it came"
    elif state == "cancelled":
        problem.code = "operation-cancelled"
    raise problem
