"""How much context each model gets: the largest that fits the memory that is left."""

from dataclasses import dataclass

from appliance.domain.deployment import Model, Reason
from appliance.domain.spec import ModelSpec
from appliance.engines import Engine
from appliance.errors import HostError

SHARE = 0.9
"""Part of the memory that models may take; the rest is the system's and the gateway's."""
SMALLEST = 512
"""Tokens; a smaller context serves nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a replica gets."""

    context: int
    parallel: int
    memory: int
    """Bytes for one replica."""


class Budget:
    """Memory that is handed out model by model, in the order of the spec."""

    def __init__(self, *, total: int) -> None:
        self._total = total
        self._left = int(total * SHARE)

    def fit(self, item: ModelSpec, model: Model, module: Engine) -> tuple[Fitted, Reason]:
        """Return the largest context that fits, halving; one that was asked for is never cut."""
        parallel = item.parallel or module.PARALLEL
        wanted = item.context or model.weights.context_length or 4096
        context = wanted
        while True:
            items = module.estimate(model, context, parallel)
            memory = sum(amount for _, amount in items)
            if memory * item.replicas <= self._left:
                break
            if item.context or context // 2 < SMALLEST:
                raise HostError(self._refusal(item, items, context, parallel), hint=_way_out(item, parallel))
            context //= 2
        self._left -= memory * item.replicas
        why = f"{_mib(memory)} of {_mib(self._total)}: " + ", ".join(f"{name} {_mib(amount)}" for name, amount in items)
        cut = f" (trained for {wanted}, cut to fit)" if context < wanted else ""
        chosen = f"{context} tokens × {parallel} at the same time{cut}"
        return Fitted(context=context, parallel=parallel, memory=memory), Reason(
            subject=f"context of {item.name}", chosen=chosen, why=why
        )

    def _refusal(self, item: ModelSpec, items: tuple[tuple[str, int], ...], context: int, parallel: int) -> str:
        need = sum(amount for _, amount in items) * item.replicas
        parts = ", ".join(f"{name} {_mib(amount)}" for name, amount in items)
        return (
            f"{item.name} does not fit: {context} tokens × {parallel} need {_mib(need)} ({parts}), "
            f"{_mib(self._left)} are left of {_mib(self._total)}"
        )


def _way_out(item: ModelSpec, parallel: int) -> str:
    if item.context:
        return f"try --context {max(SMALLEST, item.context // 2)}"
    return "try --parallel 1" if parallel > 1 else "take a smaller quantisation, or remove another model"


def _mib(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB" if amount >= 10 << 30 else f"{amount >> 20} MiB"
