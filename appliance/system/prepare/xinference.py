"""Tells a running Xinference of a model on the disk and loads it: run by `appliance.system.launch`.

`python -m appliance.system.prepare.xinference ADDRESS NAME DIRECTORY CONTEXT PARALLEL GPUS [OPTION VALUE]…`
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from appliance.system.http import Response, call

LOADING: Final = 24 * 3600
"""Seconds; the runtime's own limit is the one that counts."""


def main() -> int:
    """Register the model under its name and load it; 1 with what was answered when that fails."""
    address, name, directory, context, parallel, gpus, *options = sys.argv[1:]
    model = registration(name, Path(directory), int(context))
    wanted = launch(model, int(parallel), int(gpus), dict(zip(options[::2], options[1::2], strict=True)))
    for path, payload in (
        ("/v1/model_registrations/LLM", {"model": json.dumps(model), "persist": False}),
        ("/v1/models", wanted),
    ):
        answer = call(address, path, payload=payload, timeout=LOADING)
        if answer.status != 200:
            sys.stderr.write(f"xinference does not take {name}: {path}: {_said(answer)}\n")
            return 1
    return 0


def registration(name: str, directory: Path, context: int) -> dict[str, Any]:
    """Return what Xinference has to know of a model; what it does not find here it would guess, or ask a hub."""
    config = json.loads((directory / "config.json").read_text())
    template = chat_template(directory)
    chat = {"model_ability": ["generate", "chat"], "chat_template": template} if template else {}
    return {
        "version": 2, "model_name": name, "model_family": "other", "model_lang": ["en"], "model_description": "",
        "context_length": context, "model_ability": ["generate"], "architectures": config.get("architectures"),
        "stop_token_ids": None, "stop": None,
        **chat,
        "model_specs": [{
            "model_format": "pytorch", "quantization": "none", "model_size_in_billions": 1, "model_hub": "huggingface",
            "model_id": None, "model_revision": None, "model_uri": f"file://{directory}",
        }],
    }  # fmt: skip


def launch(model: dict[str, Any], parallel: int, gpus: int, options: dict[str, str]) -> dict[str, Any]:
    """Return the request that loads it, under the name that clients say."""
    spec = model["model_specs"][0]
    return {
        "model_uid": model["model_name"], "model_name": model["model_name"], "model_type": "LLM",
        "model_engine": "transformers", "model_format": spec["model_format"], "quantization": spec["quantization"],
        "model_size_in_billions": spec["model_size_in_billions"], "n_gpu": gpus or None, "enable_virtual_env": False,
        "context_length": model["context_length"], "max_num_seqs": max(2, parallel),
        **{name.replace("-", "_"): value for name, value in options.items()},
    }  # fmt: skip


def chat_template(directory: Path) -> str:
    """Return the model's own template, "" where it has none: a file of its own wins, as in transformers."""
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        path = directory / name
        if not path.is_file():
            continue
        text = path.read_text() if path.suffix == ".jinja" else json.loads(path.read_text()).get("chat_template")
        # Several by name, as a list: the one that is called default.
        if isinstance(text, list):
            text = next((one["template"] for one in text if one.get("name") == "default"), "")
        if text:
            return str(text)
    return ""


def _said(answer: Response) -> str:
    return answer.error or f"HTTP {answer.status}: {answer.body[:500].decode(errors='replace')}"


if __name__ == "__main__":
    sys.exit(main())
