"""Errors: one root, one class for each thing that a caller can tell apart."""

from __future__ import annotations


class ReconcilerError(Exception):
    """The root of every error of ours; the message says what was attempted, on what, what to do."""


class ConfigError(ReconcilerError):
    """A setting cannot be used."""


class SourceError(ReconcilerError):
    """The repository cannot be read now (gone, not ours, broken); a later pass may succeed."""


class NotOwnerError(SourceError):
    """The repository belongs to another user and cannot be read as that user."""


class UnknownRevisionError(ReconcilerError):
    """No commit has that name."""


class UnknownHistoryError(SourceError):
    """The answer lies in commits that a shallow clone does not have."""


class ExportError(ReconcilerError):
    """A slot could not be brought to a revision."""


class DiskPressureError(ReconcilerError):
    """A file system is full (ENOSPC, EDQUOT); nothing was half written."""


class StoreError(ReconcilerError):
    """The store cannot be used; nothing was changed."""


class StoreMissingError(StoreError):
    """There are slots but no store: an empty one would forget every rollback."""


class StoreNewerError(StoreError):
    """The store was written by a newer version; the message names the version that opens it."""


class SlotBusyError(ReconcilerError):
    """The slot still has processes, so nothing may be written into it."""


class PortsExhaustedError(ReconcilerError):
    """No free port is left in the port range."""


class LaunchError(ReconcilerError):
    """An instance could not be started at all."""


class ProxyError(ReconcilerError):
    """The proxy cannot be started, configured or asked."""


class PortHeldError(ReconcilerError):
    """A listen port belongs to another process; the message names it and the flag to change."""


class MissingSecretError(ReconcilerError):
    """Secrets that the contract names are not on this host; the message lists the names only."""


class UserRefusedError(ReconcilerError):
    """This daemon cannot run an app as that user; the message says what it lacks."""


class CommandFailedError(ReconcilerError):
    """A program ended with a status other than zero; `output` is the tail of what it said."""

    def __init__(self, message: str, status: int, output: str) -> None:
        super().__init__(message)
        self.status = status
        self.output = output


class CommandTimeoutError(ReconcilerError):
    """A program did not end before its deadline and was killed with its whole group."""


class RefusedError(ReconcilerError):
    """A request is refused for a reason the caller can act on; `slug` is the problem type."""

    def __init__(self, slug: str, detail: str, deploy_id: str | None = None) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.deploy_id = deploy_id
