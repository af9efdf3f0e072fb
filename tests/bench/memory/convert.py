"""Run llama.cpp's own converter on a bench model; runs inside the bench's own environment (torch, transformers, gguf).

`python -m tests.bench.memory.convert SOURCE MODEL OUT.gguf TYPE [OPTION...]` with SOURCE a tree of llama.cpp. The converter picks the
tokenizer's reader by model class and knows its pre-tokenizer by a hash; the bench's one tokenizer fits neither, so that
every class is made to read it as byte-level BPE with the pre-tokenizer "qwen2". Nothing else of the converter changes.
The model is named "bench" since llama.cpp expects certain tokens of files that are named after some families.
"""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any


def every_subclass(kind: type[Any]) -> set[type[Any]]:
    """Return a class and all that derive from it."""
    found = {kind}
    one: type[Any]
    for one in kind.__subclasses__():
        found |= every_subclass(one)
    return found


def set_vocab(model: Any) -> None:
    """Read the tokenizer as byte-level BPE, whatever the model class would look for."""
    model._set_vocab_gpt2()


def pre_tokenizer(_model: Any, _tokenizer: Any) -> str:
    """Name the smoke model's pre-tokenizer as llama.cpp does."""
    return "qwen2"


def patched(source: Path) -> None:
    """Load all of the converter's model classes and replace their tokenizer readers."""
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    for module in sorted((source / "conversion").glob("[a-z]*.py")):
        importlib.import_module(f"conversion.{module.stem}")
    base: Any = importlib.import_module("conversion.base")
    for kind in every_subclass(base.TextModel):
        if "set_vocab" in vars(kind):
            kind.set_vocab = set_vocab
        if "get_vocab_base_pre" in vars(kind):
            kind.get_vocab_base_pre = pre_tokenizer


class NoDefaults:
    """In the place of transformers' AutoConfig: makes the converter read config.json as it is."""

    @staticmethod
    def from_pretrained(*_: Any, **__: Any) -> Any:
        """Refuse, after which the converter opens the file itself."""
        raise ValueError("the class fills in expert counts that a dense model's file does not have")


def main(argv: list[str]) -> None:
    """Convert one model."""
    source, model, out, kind, *options = argv
    patched(Path(source))
    if "hybrid_override_pattern" in (Path(model) / "config.json").read_text():
        base: Any = importlib.import_module("conversion.base")
        base.AutoConfig = NoDefaults
    sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", kind, "--model-name", "bench", *options]
    runpy.run_path(str(Path(source) / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
