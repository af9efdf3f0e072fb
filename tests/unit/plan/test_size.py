"""How much context a model gets: all it was trained for where it fits, halved where not, what was asked for or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines import llama_cpp, llama_cpp_python
from appliance.errors import HostError
from appliance.plan.size import SHARE, SMALLEST, Budget
from tests.unit.samples import GIB, item, model, weights

TOKEN = 64 << 10
"""Bytes of KV cache for a token of the sample model."""


def test_the_sample_takes_64_kib_a_token() -> None:
    assert weights().kv_bytes_per_token == TOKEN


def test_a_model_that_fits_gets_what_it_was_trained_for() -> None:
    fitted, reason = Budget(total=10 * GIB).fit(item(), model(), llama_cpp)
    assert (fitted.context, fitted.parallel) == (4096, 4)
    assert fitted.memory == GIB + 4096 * 4 * TOKEN + llama_cpp.BUFFERS
    assert reason.subject == "context of tiny"
    assert reason.chosen == "4096 tokens × 4 at the same time"
    assert reason.why == "2304 MiB of 10.0 GiB: weights 1024 MiB, KV cache 1024 MiB, buffers 256 MiB"


def test_context_is_halved_until_it_fits() -> None:
    facts = weights(context=131072)
    fitted, reason = Budget(total=10 * GIB).fit(item(), model(facts=facts), llama_cpp)
    assert fitted.context == 16384
    assert reason.chosen == "16384 tokens × 4 at the same time (trained for 131072, cut to fit)"
    again = Budget(total=10 * GIB).fit(item(parallel=1), model(facts=facts), llama_cpp)[0]
    assert (again.context, again.parallel) == (65536, 1)


@given(st.integers(1 << 20, 64 << 30), st.integers(1, 1 << 20), st.integers(1, 8), st.integers(1, 4))
def test_nothing_takes_more_than_its_share(total: int, context: int, parallel: int, replicas: int) -> None:
    wanted = item(parallel=parallel, replicas=replicas)
    try:
        fitted, _ = Budget(total=total).fit(wanted, model(facts=weights(context=context)), llama_cpp)
    except HostError:
        smallest = GIB + llama_cpp.BUFFERS + min(context, SMALLEST) * parallel * TOKEN
        assert smallest * replicas > int(total * SHARE)
        return
    assert fitted.memory * replicas <= total * SHARE
    assert fitted.context == context or SMALLEST <= fitted.context < context
    assert context // fitted.context in (1 << shift for shift in range(24))


def test_a_context_that_was_asked_for_is_never_cut() -> None:
    fitted, _ = Budget(total=10 * GIB).fit(item(context=20000), model(), llama_cpp)
    assert fitted.context == 20000
    with pytest.raises(HostError) as caught:
        Budget(total=10 * GIB).fit(item(context=40000), model(), llama_cpp)
    assert caught.value.message == (
        "tiny does not fit: 40000 tokens × 4 need 11.0 GiB (weights 1024 MiB, KV cache 10000 MiB, buffers 256 MiB), "
        "9216 MiB are left of 10.0 GiB"
    )
    assert caught.value.hint == "try --context 20000"


def test_weights_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(HostError) as caught:
        Budget(total=10 * GIB).fit(item(), model(facts=weights(size=20 * GIB)), llama_cpp)
    assert "tiny does not fit: 512 tokens × 4 need 20.4 GiB (weights 20.0 GiB, " in caught.value.message
    assert "9216 MiB are left of 10.0 GiB" in caught.value.message
    assert caught.value.hint == "try --parallel 1"
    with pytest.raises(HostError) as caught:
        Budget(total=10 * GIB).fit(item(parallel=1), model(facts=weights(size=20 * GIB)), llama_cpp)
    assert "smaller quantisation" in caught.value.hint


def test_the_second_model_gets_what_the_first_left() -> None:
    budget = Budget(total=10 * GIB)
    budget.fit(item("a"), model("a"), llama_cpp)
    with pytest.raises(HostError, match=r"b does not fit: .* 6912 MiB are left of 10\.0 GiB"):
        budget.fit(item("b"), model("b", weights(size=7 * GIB)), llama_cpp)


def test_the_second_model_gets_what_all_replicas_of_the_first_left() -> None:
    budget = Budget(total=10 * GIB)
    budget.fit(item("a", replicas=2), model("a"), llama_cpp)
    with pytest.raises(HostError, match=r" 4608 MiB are left of 10\.0 GiB"):
        budget.fit(item("b"), model("b", weights(size=7 * GIB)), llama_cpp)


def test_every_replica_counts() -> None:
    exactly, _ = Budget(total=10 * GIB).fit(item(replicas=4), model(), llama_cpp)
    assert (exactly.context, exactly.memory * 4) == (4096, int(10 * GIB * SHARE))
    fitted, _ = Budget(total=10 * GIB).fit(item(replicas=5), model(), llama_cpp)
    assert (fitted.context, fitted.memory) == (2048, GIB + 2048 * 4 * TOKEN + llama_cpp.BUFFERS)
    with pytest.raises(HostError, match=r"need 11\.0 GiB"):
        Budget(total=10 * GIB).fit(item(replicas=8), model(), llama_cpp)


def test_a_header_that_says_nothing_gets_4096_tokens() -> None:
    assert Budget(total=10 * GIB).fit(item(), model(facts=weights(context=0)), llama_cpp)[0].context == 4096


def test_a_model_of_a_small_context_keeps_it() -> None:
    assert Budget(total=10 * GIB).fit(item(), model(facts=weights(context=256)), llama_cpp)[0].context == 256


def test_an_engine_of_one_request_counts_one() -> None:
    fitted, _ = Budget(total=10 * GIB).fit(item(), model(), llama_cpp_python)
    assert (fitted.parallel, fitted.memory) == (1, GIB + 4096 * TOKEN + llama_cpp_python.BUFFERS)
