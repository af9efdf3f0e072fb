"""image build, list, pull, save, load, prune: the containers' images, for `--runtime compose`."""

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.errors import UsageError
from appliance.report import Result, amount_text

app = typer.Typer(help="Container images: build, list, pull, save, load, prune.", no_args_is_help=True)
Refs = Annotated[list[str] | None, typer.Argument(metavar="[REF]...", help="Left out: all that are wanted.")]


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="image")


@app.command("list")
def show(prefix: Prefix = "", as_json: Json = False) -> int:
    """Show the images that the configuration wants with --runtime compose, and which of them are here."""
    from dataclasses import asdict

    from appliance.flows import images

    rows = images.entries(site(prefix, as_json=as_json))
    lines = [f"{'FOR':18} {'HERE':>9}  IMAGE"]
    for row in rows:
        origin = f"  built from images/{row.recipe}" if row.recipe else ""
        lines.append(f"{row.name or '-':18} {amount_text(row.size) if row.size else 'no':>9}  {row.ref}{origin}")
    return _finish("list", tuple(asdict(row) for row in rows), "\n".join(lines), as_json=as_json)


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="A directory of images/. Left out: all that are wanted.")] = "",
    args: Annotated[
        list[str] | None, typer.Option("--build-arg", metavar="NAME=VALUE", help="As `docker build` takes it.")
    ] = None,
    cuda: Annotated[str, typer.Option(metavar="VERSION", help="For NVIDIA GPUs, on NVIDIA's images: 12.9.1.")] = "",
    tag: Annotated[str, typer.Option(metavar="REF", help="Its name; --image of add-model takes it.")] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Build images from images/."""
    from appliance.flows import images

    given = list(args or [])
    if wrong := next((one for one in given if "=" not in one), None):
        raise UsageError(f"--build-arg {wrong} is not NAME=VALUE")
    if (given or cuda or tag) and not name:
        raise UsageError("say which image is meant", hint=f"one of {', '.join(images.recipes())}")
    if cuda:
        base = f"nvidia/cuda:{cuda}-{{}}-ubuntu24.04"
        given += ["CUDA=ON", f"BUILD_IMAGE={base.format('devel')}", f"BASE_IMAGE={base.format('runtime')}"]
    built = images.build(site(prefix, as_json=as_json), name, tuple(given), tag)
    return _finish("build", built, "\n".join(built) or "nothing to build: all are here", as_json=as_json)


@app.command()
def pull(refs: Refs = None, prefix: Prefix = "", as_json: Json = False) -> int:
    """Pull images from their registries, or from images.registry."""
    from appliance.flows import images

    pulled = images.pull(site(prefix, as_json=as_json), tuple(refs or ()))
    return _finish("pull", pulled, "\n".join(pulled) or "nothing to pull: all are here", as_json=as_json)


@app.command()
def save(
    file: Annotated[Path, typer.Argument(help="The file to write, a tar archive.")],
    refs: Refs = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Write images into one file, to be loaded where there is no network."""
    from appliance.flows import images

    saved = images.save(site(prefix, as_json=as_json), file, tuple(refs or ()))
    text = "\n".join((*saved, f"{amount_text(file.stat().st_size)} in {file}"))
    return _finish("save", saved, text, as_json=as_json)


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="A file that `image save` or `docker save` wrote.")],
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Bring images in from a file."""
    from appliance.flows import images

    loaded = images.load(site(prefix, as_json=as_json), file)
    return _finish("load", loaded, "\n".join(loaded), as_json=as_json)


@app.command()
def prune(prefix: Prefix = "", as_json: Json = False) -> int:
    """Remove the images that the appliance brought and that nothing needs, now or after a rollback."""
    from appliance.flows import images

    gone = images.prune(site(prefix, as_json=as_json))
    return _finish("prune", gone, "\n".join(gone) or "nothing to remove", as_json=as_json)


def _finish(verb: str, rows: object, text: str, *, as_json: bool) -> int:
    return finish(Result(command=f"image {verb}", data={"images": rows}, text=text), as_json=as_json)
