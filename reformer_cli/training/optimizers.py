"""Optimisers by name, what their state takes, and it as plain named tensors for checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reformer_cli.config.schema import TrainConfig
from reformer_cli.utils.errors import UserError

Optimizers = list[torch.optim.Optimizer]
MOMENTUM = 0.95  # Muon's, as in torch
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of x, x^3 and x^5 (Jordan et al. 2024)


def make_optimizers(model: nn.Module, config: TrainConfig) -> Optimizers:
    """What `train.optimizer` names; matrices decay, scales and biases do not."""
    return OPTIMIZERS[config.optimizer].make(model, config)


def _adamw(model: nn.Module, config: TrainConfig) -> Optimizers:
    """AdamW (arXiv 1711.05101)."""
    return [_adamw_of([p for _, p in _trainable(model)], config)]


def _adamw_of(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    in_graph = _can_be_captured(parameters)
    rate = _rate(config, parameters) if in_graph else config.learning_rate
    return torch.optim.AdamW(_groups(parameters, config), lr=rate, betas=config.betas, fused=True, capturable=in_graph)


def _can_be_captured(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether a CUDA graph may hold the step: on a GPU, of parameters that are in one piece."""
    return all(p.is_cuda and not hasattr(p, "full_tensor") for p in parameters)


def _rate(config: TrainConfig, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The step size where a graph reads it again each time."""
    return torch.tensor(config.learning_rate, device=parameters[0].device)


def capturable(optimizers: Optimizers) -> bool:
    """Whether their steps can be one CUDA graph, captured after some as written."""
    return all(group.get("capturable") for optimizer in optimizers for group in optimizer.param_groups)


def set_learning_rate(optimizers: Optimizers, rate: float) -> None:
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _muon(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Muon (Jordan et al. 2024) for the layers' matrices; AdamW for embedding, head, scales and biases.

    Its steps are brought to the size of AdamW's (arXiv 2502.16982), so that one learning rate serves both.
    """
    hidden = [p for name, p in _trainable(model) if is_hidden_matrix(name, p)]
    ours = {id(p) for p in hidden}
    rest = _adamw_of([p for _, p in _trainable(model) if id(p) not in ours], config)
    rate, decay = config.learning_rate, config.weight_decay
    defaults: dict[str, Any] = {"lr": rate, "weight_decay": decay}
    if hidden and hidden[0].device.type == "cpu" and config.precision != "bfloat16":
        return [Float32Muon(hidden, defaults), rest]
    if hidden and hidden[0].device.type != "cpu":
        if _can_be_captured(hidden):
            defaults |= {"lr": _rate(config, hidden), "capturable": True}
        return [BatchedMuon(hidden, defaults), rest]
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"train.optimizer muon needs torch 2.9 or newer, this is {torch.__version__}", "upgrade it or use adamw"
        )
    return [torch.optim.Muon(hidden, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), rest]


class Float32Muon(torch.optim.Optimizer):
    """Muon with its products in float32. In bfloat16, which a CPU without it emulates, a step of 7 million numbers took
    11 s on two cores with AVX2, and takes 0.2 s. defaults: lr, weight_decay."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                mean = state["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
                update = orthogonalised(p.grad.lerp(mean, MOMENTUM))  # Nesterov's
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


class BatchedMuon(torch.optim.Optimizer):
    """Muon with its products in bfloat16, of all matrices of one shape at once, as a GPU wants it. lr may be a tensor,
    which a CUDA graph reads again each time."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in (p for p in group["params"] if p.grad is not None):
                by_shape.setdefault(p.shape, []).append(p)
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
            for shape, parameters in by_shape.items():
                gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
                means: list[Tensor] = [self.state[p]["momentum_buffer"] for p in parameters]
                torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
                updates = torch.stack(torch._foreach_lerp(gradients, means, MOMENTUM)).bfloat16()  # Nesterov's
                updates = orthogonalised(updates).to(parameters[0].dtype)
                updates *= group["lr"] * (-0.2 * math.sqrt(max(shape)))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, updates.unbind())


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T, or of each of [n, rows, columns], by five Newton-Schulz steps that leave its
    singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    several = x.dim() == 3
    add = torch.baddbmm if several else torch.addmm
    x = x / (x.norm(dim=(1, 2), keepdim=True) if several else x.norm()).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _adafactor(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Adafactor (arXiv 1804.04235): row and column means in place of second moments, no first ones. A step is
    learning_rate x the size of the parameter itself."""
    parameters = [p for _, p in _trainable(model)]
    return [torch.optim.Adafactor(_groups(parameters, config), lr=config.learning_rate)]


class Weights(NamedTuple):
    """How many numbers a model has: all of them; those in matrices of layers; rows and columns of its matrices, and the
    rest."""

    all: int
    hidden: int
    factors: int


@dataclass(frozen=True)
class Kind:
    """An optimiser. make: for a model; bytes: of its state; state: what that is, for `reformer plan`."""

    make: Callable[[nn.Module, TrainConfig], Optimizers]
    bytes: Callable[[Weights], int]
    state: str


OPTIMIZERS = {  # by name; the names are in config/schema.py, too
    "adamw": Kind(_adamw, lambda n: 8 * n.all, "two moments in float32"),
    "muon": Kind(
        _muon, lambda n: 8 * n.all - 4 * n.hidden, "one moment of the layers' matrices, two of the rest, in float32"
    ),
    "adafactor": Kind(_adafactor, lambda n: 4 * n.factors, "means of rows and columns, in float32"),
}


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether it is a matrix between the embedding and the head."""
    return parameter.dim() == 2 and name.startswith(("layers.", "groups."))


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _groups(parameters: Sequence[nn.Parameter], config: TrainConfig) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def optimizer_tensors(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    """The optimisers' state by parameter name: no pickled objects in a checkpoint."""
    found = {}
    for name, p in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(p, {}).items():
                found[f"optimizer.{name}/{key}"] = value
    return found


def prime(optimizers: Optimizers) -> None:
    """Make the state that the first step would make, without a step: a checkpoint is then read into it."""
    rate = float(optimizers[0].param_groups[0]["lr"])  # one for all
    set_learning_rate(optimizers, 0.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    set_learning_rate(optimizers, rate)
