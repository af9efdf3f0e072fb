"""catalog providers: who serves models that can be added here."""

from appliance.cli.options import Json
from appliance.cli.site import finish
from appliance.report import Result

HEADINGS = ("provider", "also", "address", "key in", "who")


def known_providers(incomplete: str) -> list[tuple[str, str]]:
    """Return the providers that begin so, for the shells' completion."""
    from appliance.catalog.providers import providers

    return [(name, row.title) for name, row in providers().items() if name.startswith(incomplete)]


def list_providers(as_json: Json = False) -> int:
    """List the providers that are known by name; any other address goes with --base-url."""
    from appliance.catalog.providers import providers
    from appliance.cli.catalog import table

    rows = {row.name: row for row in providers().values()}
    lines = table(
        [
            HEADINGS,
            *(
                (one.name, " ".join(one.aliases), one.url or one.example, one.header, one.title)
                for one in rows.values()
            ),
        ]
    )
    data = {
        name: {"title": one.title, "url": one.url, "header": one.header, "aliases": one.aliases}
        for name, one in rows.items()
    }
    return finish(Result(command="catalog providers", data={"providers": data}, text="\n".join(lines)), as_json=as_json)
