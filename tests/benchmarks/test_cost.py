"""What a training step asks of a GPU stays what it is where no GPU tells: benchmarks/cost.py on shapes alone.

Guards against a change that is right on a CPU and slow where it matters: 27,392 launches a step, a sort for each row,
three waits of the host were only seen when the program was measured on a card for the first time.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from reformer import ReformerConfig

from reformer_cli.training.cost import card_named
from reformer_cli.training.memory import Step

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="the kernels to be counted are Triton's")
FOLDER = Path(__file__).parents[2] / "benchmarks"
# Of the sizes and shapes of benchmarks/cost.py. Launches, bytes and waits may only shrink: lower them with the number.
MOST_LAUNCHES, MOST_BYTES, MOST_WAITS, LEAST_SPEED = 60, 178_000, 0, 450_000
MOST_OF_A_TOKEN, MOST_OF_ITS_LAYER = 2, 5  # kernels of one more token: in all, beside those of each layer
MOST_OF_A_PROMPT, MOST_OF_ITS_LAYERS, MOST_WAITS_OF_A_PROMPT = 70, 95, 2  # as it is read, without a graph


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import cost

    return cost


def test_a_step_asks_for_no_more(cost: ModuleType) -> None:
    found = cost.figures(cost.SHAPES)
    print(found)
    assert found["launches_per_layer"] <= MOST_LAUNCHES
    assert found["bytes_per_token_layer"] <= MOST_BYTES
    assert found["host_waits"] <= MOST_WAITS
    speeds = found["tokens_per_second"].values()
    assert min(speeds) >= LEAST_SPEED
    assert max(speeds) <= 1.15 * min(speeds)


@pytest.mark.parametrize(("sizes", "shape"), [((256, 4, 1024), (32, 1024)), ((768, 2, 8192), (2, 32_768))])
def test_the_forecast_of_a_plan_sums_up_the_tally(
    cost: ModuleType, sizes: tuple[int, int, int], shape: tuple[int, int]
) -> None:
    """`reformer plan --as h200` has prices for a step, not its kernels one by one."""
    d_model, layers, vocab_size = sizes
    given = {"vocab_size": vocab_size, "d_model": d_model, "n_layers": layers, "n_heads": d_model // 64, "d_head": 64}
    tally = cost.step(*shape, **given).total.seconds
    assert card_named("h200").seconds(Step(ReformerConfig(**given), *shape, "bfloat16", 0, False)) == pytest.approx(
        tally, rel=0.08
    )


def test_one_token_asks_for_no_more(cost: ModuleType) -> None:
    for rows, settings in ((1, cost.NOVEL), (64, cost.NOVEL), (1, {"line_positions": 80})):
        found = cost.token(rows, **(settings | {"n_layers": 3}))
        assert found.total.launches <= MOST_OF_A_TOKEN + 3 * MOST_OF_ITS_LAYER
        assert not found.waits


def test_a_prompt_asks_for_no_more_of_many_texts(cost: ModuleType) -> None:
    """64 texts of 4,096 tokens were read in 64 slices of 12,319 operations each, most of them a row's alone."""
    one, many = (cost.prompt(rows, 4096, **(cost.NOVEL | {"n_layers": 3})) for rows in (1, 64))
    assert one.total.launches <= MOST_OF_A_PROMPT + 3 * MOST_OF_ITS_LAYERS
    assert many.total.launches <= 1.1 * one.total.launches
    assert max(len(one.waits), len(many.waits)) <= MOST_WAITS_OF_A_PROMPT


def test_a_wait_and_a_product_are_seen(cost: ModuleType) -> None:
    # A count that misses what it is there to count would hold any bound.
    tally = cost.Tally()
    with cost.pretended(tally):
        x = torch.empty(64, 32, dtype=torch.bfloat16, device="meta")
        (x @ x.t()).sum().item()
        x.float().cpu()
    assert [wait.split()[0] for wait in tally.waits] == ["_local_scalar_dense", "_to_copy"]
    assert tally.total.products == 2 * 64 * 32 * 64
    assert tally.total.launches >= 2
    assert tally.kernels["mm"].bytes == 2 * (2 * 64 * 32 + 64 * 64)


def test_nothing_stays_pretended(cost: ModuleType) -> None:
    with cost.pretended(cost.Tally()):
        pass
    assert torch.autocast.__module__.startswith("torch.")
    assert not torch.is_autocast_enabled("cpu")
