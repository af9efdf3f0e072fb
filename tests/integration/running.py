"""Starts one engine as a runtime would: the rendered page, the rendered words, the same few variables, an empty HOME."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.domain.service import Service, Setting
from appliance.render import pages
from appliance.system.http import call
from appliance.system.machine import environment
from tests.integration.product import ROOT
from tests.unit import samples


@dataclass
class Running:
    """An engine that was started."""

    service: Service
    process: subprocess.Popen[bytes]
    log: Path
    home: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ask(self, path: str, payload: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON, or text."""
        answer = call(self.service.address, path, payload=payload, timeout=120)
        return answer.status, answer.json() or answer.body.decode()

    def until(self, path: str, seconds: float = 240) -> float:
        """Wait until a path answers 200; return the seconds."""
        began = time.monotonic()
        while self.ask(path)[0] != 200:
            assert self.process.poll() is None, self.text[-6000:]
            assert time.monotonic() - began < seconds, self.text[-6000:]
            time.sleep(0.25)
        return time.monotonic() - began


@contextmanager
def running(engine: str, program: Path, weights: Path, directory: Path, port: int, **more: Any) -> Iterator[Running]:
    """Serve the model `smoke`; on the way out it is told to stop, and must end with 0."""
    where = samples.layout(str(directory))
    plan = samples.deployment(where=where)
    facts: dict[str, Any] = {"setting": Setting(context=4096, parallel=2), "options": ()}
    service = replace(
        plan.services[0], name="smoke", model="smoke", engine=engine, program=str(program), weights=str(weights),
        port=port, home=str(directory / "home"), **facts | more,
    )  # fmt: skip
    models = (replace(plan.models[0], name="smoke"),)
    spec = replace(plan.spec, models=(replace(plan.spec.models[0], name="smoke"),))
    plan = replace(
        plan, spec=spec, models=models, services=(service,), python=sys.executable, runtime="supervisord"
    )  # fmt: skip
    for file in pages.render(plan).files:
        target = Path(where.current, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
    (unit,), _ = pages._together(plan, pages.launches(plan))
    home, log = directory / "home", directory / "log"
    home.mkdir(exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            unit.launch.argv, cwd="/", stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment((("HOME", str(home)), ("PYTHONPATH", str(ROOT)), *unit.launch.env)),
        )  # fmt: skip
    try:
        yield Running(service, process, log, home)
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0, log.read_text()[-3000:]
