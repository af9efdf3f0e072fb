"""Every engine and every runtime holds its whole protocol: mypy checks these assignments, discovery finds the modules."""

from typing import Final

from appliance.engines import Engine, dummy, engines, llama_cpp, llama_cpp_python, lmdeploy, sglang, vllm
from appliance.runtimes import Runtime, compose, runtimes, supervisord, systemd

ENGINES: Final[tuple[Engine, ...]] = (dummy, llama_cpp, llama_cpp_python, lmdeploy, sglang, vllm)
RUNTIMES: Final[tuple[Runtime, ...]] = (compose, supervisord, systemd)


def test_discovery_finds_every_engine() -> None:
    assert set(engines().values()) >= set(ENGINES)
    assert {module.NAME for module in ENGINES} <= set(engines())


def test_discovery_finds_every_runtime() -> None:
    assert set(runtimes().values()) == set(RUNTIMES)
    assert {module.NAME for module in RUNTIMES} == set(runtimes())
