"""How long a training step takes: one forecast, by which sizes are chosen, a plan is told, and a run is compared.

A step is counted (products of matrices, numbers that pass through layers, kernels), and a machine has a price for each.
Prices of a CPU are fitted to the rows `step` of benchmarks/choices.csv, those of a GPU to what benchmarks/cost.py
tallies kernel by kernel, which they sum up within a few per cent (tests/benchmarks/test_cost.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from reformer_cli.training.memory import Step, count_parameters, hidden_numbers
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.safe_yaml import parse, read_limited

CARDS = Path(__file__).with_name("cards.yaml")
# Of one core of a first-generation EPYC, seconds: a product in a matrix of a layer, and of the head; a number of a
# layer's streams; an entry of the vocabulary for a token; a token; a layer; a parameter that the optimiser moves.
CPU_LAYER, CPU_HEAD, CPU_ROW, CPU_ENTRY, CPU_TOKEN, CPU_KERNELS, CPU_MOVED = (
    1.5e-11, 2.5e-11, 8.3e-8, 2.7e-8, 1.9e-5, 5.8e-3, 3e-9,
)  # fmt: skip
CPU_PRODUCTS, CPU_COPY = 1 / CPU_LAYER, 10e9  # products and bytes a second of that core
# Of a GPU: products for a number of the layers' matrices and for one of the head; bytes for a number of a layer's
# streams (norms, attention by index at its share of the speed of memory, rows of products that run beside them), of a
# token's width outside the layers, for an entry of the vocabulary; kernels of a layer and beside; share of either speed
# that is reached.
GPU_LAYER, GPU_HEAD, GPU_ROW, GPU_WIDTH, GPU_ENTRY, GPU_KERNELS, GPU_BESIDE, REACHED = (
    5.4,
    6,
    214,
    115,
    2.4,
    58,
    80,
    0.81,
)
LEAST, HOST, MOVED = 2e-6, 17e-6, 28  # seconds of the smallest kernel, of a host to start one; bytes of AdamW a number
AGAIN = 1.33  # times the products of layers where activations are not kept, but made again

Positive = Annotated[float, Field(gt=0)]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """A machine, as cards.yaml describes it. measured: whether its speeds were, and not taken from its maker."""

    kind: Literal["gpu", "cpu"]
    name: str
    memory: Positive
    copy: Positive
    products: Positive
    measured: bool = False

    def seconds(self, step: Step, kept: bool = True) -> float:
        """Of one training step, optimiser and all. kept: whether a GPU has room for activations."""
        model, tokens = step.model, step.batch * step.context
        hidden, numbers = hidden_numbers(model), count_parameters(model)
        head, rows = model.vocab_size * model.d_model, tokens * model.n_layers * model.d_model
        if self.kind == "cpu":
            of_products = tokens * 8 * (CPU_LAYER * hidden + CPU_HEAD * head)
            rest = CPU_ROW * rows + CPU_ENTRY * tokens * model.vocab_size + CPU_TOKEN * tokens
            rest += CPU_KERNELS * model.n_layers * step.accumulate + CPU_MOVED * numbers
            return of_products * CPU_PRODUCTS / self.products + rest * CPU_COPY / self.copy
        products = tokens * (GPU_LAYER * hidden * (1 if kept else AGAIN) + GPU_HEAD * head)
        moved = rows * GPU_ROW * (1 if kept else AGAIN) + tokens * (
            GPU_WIDTH * model.d_model + GPU_ENTRY * model.vocab_size
        )
        kernels = (GPU_KERNELS * model.n_layers + GPU_BESIDE) * step.accumulate
        device = products / self.products / REACHED + moved / self.copy / REACHED
        return max(device, kernels * LEAST) + MOVED * numbers / self.copy + 20 * HOST

    def product_share(self, step: Step, seconds: float) -> float:
        """Of its product speed that a step uses which takes so long (MFU): what the model needs, nothing twice."""
        numbers = hidden_numbers(step.model) + step.model.vocab_size * step.model.d_model
        return 6 * numbers * step.batch * step.context / seconds / self.products

    def scaled(self, by: float) -> Card:
        """The same machine, by so much faster."""
        return Card(self.kind, self.name, self.memory, self.copy * by, self.products * by, True)


ONE_CORE = Card("cpu", "one core", 2**33, CPU_COPY, CPU_PRODUCTS, True)


def tokens_per_second(card: Card, step: Step) -> float:
    """Forecast."""
    return step.batch * step.context / card.seconds(step)


def cards() -> dict[str, Card]:
    """Those that come with the program, by name."""
    return _cards(CARDS)


def card_named(name: str) -> Card:
    """One of the table's, or of a file of the user's. Raises UserError."""
    if (path := Path(name)).suffix in (".yaml", ".yml"):
        found = _cards(path)
        if len(found) != 1:
            raise UserError(f"{path} describes {len(found)} machines", "give a file with one")
        return next(iter(found.values()))
    if (card := cards().get(name.lower().replace(" ", "").replace("-", ""))) is None:
        raise UserError(f"no machine {name!r}", f"one of {', '.join(cards())}, or a YAML file like {CARDS.name}")
    return card


def card_of(device_name: str) -> Card | None:
    """The table's entry for what a driver calls a card; the longest name that is in it."""
    named = [card for card in cards().values() if card.kind == "gpu" and card.name in device_name]
    return max(named, key=lambda card: len(card.name), default=None)


def _cards(path: Path) -> dict[str, Card]:
    content: Any = parse(read_limited(path, "a description of a machine is a YAML file"), str(path), ["NAME"])
    try:
        return TypeAdapter(dict[str, Card]).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", f"write it like those of {CARDS.name}"
        ) from None


def rounded(n: float, digits: int = 2) -> int:
    """To so many digits: a forecast is no more certain."""
    unit = 10 ** max(0, math.floor(math.log10(max(1.0, n))) + 1 - digits)
    return round(n / unit) * unit
