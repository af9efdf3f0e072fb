"""The options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Prefix = Annotated[
    str, typer.Option("--prefix", metavar="DIR", help="Everything below this directory; / is the whole system.")
]
Catalog = Annotated[
    str | None, typer.Option("--catalog", metavar="FILE", help="Another catalog than the one that holds here.")
]
Replan = Annotated[
    bool, typer.Option("--replan", help="Plan anew what runs already, too: it may be restarted with more or less.")
]
OtherHost = Annotated[
    str, typer.Option("--host", metavar="FILE", help="Plan for another machine: the file is its `detect --json`.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Reach no network; use what is here.")]
