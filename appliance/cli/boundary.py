"""The error boundary: whatever goes wrong in a command leaves as one message, a hint and an exit code."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from appliance.cli import site
from appliance.errors import ApplianceError, ExitCode, InterruptedRunError
from appliance.report import Result


def guarded(command: Callable[[], object]) -> int:
    """Run a command and return the exit code; every error leaves through here."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, _interrupt)
    os.umask(0o022)  # what we write is read by the services' users, whatever the person's own files are like
    try:
        result = command()
        return int(result) if isinstance(result, int) else ExitCode.OK
    except ApplianceError as error:
        return _fail(error)
    except OSError as error:
        return _fail(_from_system(error))
    except Exception as error:  # noqa: BLE001 - the boundary: a bug must leave a trace and a clear word
        usage = getattr(error, "format_message", None)
        if usage is not None:
            return _usage(error, usage())
        return _bug(error)
    finally:
        site.let_go()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Not KeyboardInterrupt: Typer would turn it into an exit code without a word.
    raise InterruptedRunError("interrupted", hint="the same command goes on where it stopped")


def _fail(error: ApplianceError) -> int:
    if "--json" in sys.argv:
        result = Result(command=" ".join(sys.argv[1:2]), exit_code=error.code, errors=(error,))
        print(result.envelope())  # noqa: T201 - the Result goes to stdout
    else:
        site.say(f"error: {error.message}" + (f"\nhint:  {error.hint}" if error.hint else ""))
    return int(error.code)


def _usage(error: Exception, message: str) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "llm-appliance"
    return _fail(_coded(ApplianceError(message, hint=f"{path} --help"), ExitCode.USAGE))


def _from_system(error: OSError) -> ApplianceError:
    where = f"{error.filename}: " if error.filename else ""
    hints = {
        28: "make room on that disk, then run the same command again",
        13: "run it with sudo",
        30: "it is mounted read-only",
    }
    return _coded(
        ApplianceError(f"{where}{error.strerror or error}", hint=hints.get(error.errno or 0, "")), ExitCode.HOST
    )


def _bug(error: Exception) -> int:
    import traceback

    text = "".join(traceback.format_exception(error))
    path = Path(site.trace_directory(), f"llm-appliance-bug-{os.getpid()}.log")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        hint = f"the traceback is in {path}"
    except OSError:
        hint = text
    return _fail(_coded(ApplianceError(f"this is a bug in llm-appliance: {error}", hint=hint), ExitCode.BUG))


def _coded(error: ApplianceError, code: ExitCode) -> ApplianceError:
    error.code = code
    return error
