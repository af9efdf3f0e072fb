"""Write the bench's models with random weights; runs inside the bench's own environment (torch, transformers).

`python -m tests.bench.memory.make_models TOKENIZER OUT NAME...` writes OUT/NAME/{config.json,model.safetensors,…}.
"""

import importlib
import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

from tests.bench.memory.shapes import BY_NAME, VOCAB, Shape

SIDE_FILES = ("tokenizer_config.json", "generation_config.json")


def write_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer, its vocabulary filled up: one converter cuts the embedding to vocabulary + added tokens."""
    for name in SIDE_FILES:
        shutil.copy(source / name, folder / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    last = VOCAB - len(tokenizer["added_tokens"])
    vocabulary.update({f"<filling {i}>": i for i in range(len(vocabulary), last)})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))


def add_prediction_layer(folder: Path, layer: str) -> None:
    """Add the weights of one multi-token prediction layer (a copy of `layer`), as published files hold and engines skip."""
    files: Any = importlib.import_module("safetensors.torch")
    weights = files.load_file(folder / "model.safetensors")
    more = {name.replace(layer, "mtp.layers.0."): t.clone() for name, t in weights.items() if name.startswith(layer)}
    norm = next(t for name, t in more.items() if name.endswith("input_layernorm.weight"))
    more["mtp.fc.weight"] = norm.repeat(len(norm), 2).clone()
    for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        more[f"mtp.{name}.weight"] = norm.clone()
    files.save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})


def configuration(shape: Shape) -> Any:
    """Build the model class's own configuration object."""
    transformers: Any = importlib.import_module("transformers")
    kind = getattr(transformers, shape.model).config_class
    return kind(**shape.config, architectures=[shape.model], dtype="bfloat16")


def make(shape: Shape, tokenizer: Path, out: Path) -> int:
    """Write one model in bfloat16; the seed follows from its name. Returns its parameter count."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(zlib.crc32(shape.name.encode()))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = getattr(transformers, shape.model)(configuration(shape))
    finally:
        torch.set_default_dtype(before)
    model = model.to(torch.bfloat16)
    folder = out / f"{shape.name}.part"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    inner = config.get("text_config", config)
    for key in shape.drop:
        inner.pop(key, None)
    inner.update(shape.put)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if shape.prediction_layer:
        add_prediction_layer(folder, shape.prediction_layer)
    write_tokenizer(tokenizer, folder)
    for name, content in shape.side.items():
        (folder / name).write_text(json.dumps(content))
    folder.rename(out / shape.name)
    return sum(p.numel() for p in model.parameters())


def main(argv: list[str]) -> int:
    """Make each named model that is not there yet; say what went wrong and go on."""
    tokenizer, out, *names = argv
    failed = 0
    for name in names:
        if (Path(out) / name).exists():
            continue
        try:
            count = make(BY_NAME[name], Path(tokenizer), Path(out))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            failed += 1
        else:
            print(f"{name}: {count:,} parameters", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
