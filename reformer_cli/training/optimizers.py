"""Optimisers by name, and their state as plain named tensors for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reformer_cli.config.schema import TrainConfig
from reformer_cli.utils.errors import UserError

Optimizers = list[torch.optim.Optimizer]


def make_optimizers(model: nn.Module, config: TrainConfig) -> Optimizers:
    """What `train.optimizer` names; matrices decay, scales and biases do not."""
    return OPTIMIZERS[config.optimizer](model, config)


def _adamw(model: nn.Module, config: TrainConfig) -> Optimizers:
    """AdamW (arXiv 1711.05101)."""
    return [_adamw_of([p for _, p in _trainable(model)], config)]


def _adamw_of(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(parameters, config), lr=config.learning_rate, betas=config.betas, fused=True)


def _muon(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Muon (Jordan et al. 2024) for the layers' matrices; AdamW for embedding, head, scales and biases.

    Its steps are brought to the size of AdamW's (arXiv 2502.16982), so that one learning rate serves both.
    """
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"train.optimizer muon needs torch 2.9 or newer, this is {torch.__version__}", "upgrade it or use adamw"
        )
    hidden = [p for name, p in _trainable(model) if is_hidden_matrix(name, p)]
    ours = {id(p) for p in hidden}
    muon = torch.optim.Muon(
        hidden, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, _adamw_of([p for _, p in _trainable(model) if id(p) not in ours], config)]


def _adafactor(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Adafactor (arXiv 1804.04235): row and column means in place of second moments, no first ones. A step is
    learning_rate x the size of the parameter itself."""
    parameters = [p for _, p in _trainable(model)]
    return [torch.optim.Adafactor(_groups(parameters, config), lr=config.learning_rate)]


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainConfig], Optimizers]] = {
    "adamw": _adamw,
    "muon": _muon,
    "adafactor": _adafactor,
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
    for optimizer in optimizers:
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
