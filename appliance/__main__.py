"""The entry point: answers `--version` and a plain `status` at once, leaves all else to the command line."""

import gc
import sys

from appliance import __version__

gc.set_threshold(50_000)  # imports make many objects that stay; looking through them again and again costs a tenth

QUICK = (["status"], ["status", "--json"])
"""Asked over and over, by people and by programs: there is nothing in them to be parsed."""


def main() -> None:
    """Run one command and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        print(f"llm-appliance {__version__}")  # noqa: T201 - importing the command line takes ten times as long
        return
    if sys.argv[1:] in QUICK:
        from appliance.cli import boundary, looks

        sys.exit(boundary.guarded(lambda: looks.once(as_json="--json" in sys.argv)))
    from appliance.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
