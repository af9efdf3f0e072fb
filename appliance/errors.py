"""Every error that reaches a person: what failed, what to type next, and the exit code."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The process's exit status; one meaning each."""

    OK = 0
    BUG = 1
    USAGE = 2
    SPEC = 3
    HOST = 4
    ARTIFACT = 5
    COMMAND = 6
    UNHEALTHY = 7
    LOCKED = 8
    PENDING = 10
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.BUG: "a bug; the traceback's path is printed",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.SPEC: "the configuration is wrong",
    ExitCode.HOST: "this machine cannot do it",
    ExitCode.ARTIFACT: "a file is not what was promised, or cannot be had",
    ExitCode.COMMAND: "a program or a configuration check failed",
    ExitCode.UNHEALTHY: "it did not become healthy; the previous generation is back",
    ExitCode.LOCKED: "another run is at work",
    ExitCode.PENDING: "`plan`: changes are pending",
    ExitCode.INTERRUPTED: "interrupted; the same command goes on",
}
"""What each says to a person, for the manual."""


class ApplianceError(Exception):
    """An expected failure: `message` says what failed on what, `hint` the next command to type."""

    code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ApplianceError):
    """The command line asks for something that makes no sense."""

    code = ExitCode.USAGE


class SpecError(ApplianceError):
    """The wanted state is wrong: a bad name, value or file in the operator's own configuration."""

    code = ExitCode.SPEC


class HostError(ApplianceError):
    """This machine cannot do it: preflight failed, or no plan exists."""

    code = ExitCode.HOST


class ArtifactError(ApplianceError):
    """A file is not what was promised: missing, truncated, of the wrong digest or format."""

    code = ExitCode.ARTIFACT


class CommandError(ApplianceError):
    """A program that we ran failed, or a configuration check refused what we wrote."""

    code = ExitCode.COMMAND


class UnhealthyError(ApplianceError):
    """What was started does not answer as it should; the previous generation is back."""

    code = ExitCode.UNHEALTHY


class LockedError(ApplianceError):
    """Another run is changing this appliance."""

    code = ExitCode.LOCKED


class InterruptedRunError(ApplianceError):
    """The run was interrupted; the same command resumes it."""

    code = ExitCode.INTERRUPTED
