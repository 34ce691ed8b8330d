"""The peers of equal_minutes.py that are plain PyTorch: a modern dense Transformer, and an LSTM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Full causal attention: rotary positions, normalised queries and keys, SDPA."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model, bias=False), nn.Linear(d_model, d_model, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.n_heads, -1).unbind(2)
        q, k = (_turned(F.rms_norm(t.float(), t.shape[-1:]), turn).to(v.dtype) for t in (q, k))
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, n, d))


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)


class Dense(nn.Module):
    """GPT as it is trained today: RMSNorm before, squared ReLU of 4 x d_model, untied embeddings, no biases."""

    def __init__(self, vocab_size: int, d_model: int, n_layers: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.d_head, self.dropout = d_model // n_heads, nn.Dropout(dropout)
        self.embedding, self.head = nn.Embedding(vocab_size, d_model), nn.Linear(d_model, vocab_size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        self.attention = nn.ModuleList(Attention(d_model, n_heads) for _ in range(n_layers))
        self.up = nn.ModuleList(nn.Linear(d_model, 4 * d_model, bias=False) for _ in range(n_layers))
        self.down = nn.ModuleList(nn.Linear(4 * d_model, d_model, bias=False) for _ in range(n_layers))
        for down in self.down:
            nn.init.zeros_(down.weight)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.rms_norm(self.embedding(tokens), (self.embedding.embedding_dim,))
        speed = 10_000.0 ** -(torch.arange(self.d_head // 2) / (self.d_head // 2))
        angle = torch.arange(tokens.shape[1])[:, None, None] * speed
        turn = torch.polar(torch.ones_like(angle), angle)
        for attention, up, down in zip(self.attention, self.up, self.down, strict=True):
            x = x + self.dropout(attention(F.rms_norm(x, x.shape[-1:]), turn))
            x = x + self.dropout(down(F.relu(up(F.rms_norm(x, x.shape[-1:]))).square()))
        logits = self.head(F.rms_norm(x, x.shape[-1:])).float()
        return 15 * torch.tanh(logits / 15)


class Recurrent(nn.Module):
    """An LSTM; its state starts at 0 in every context. Dropout of what each layer and the head read."""

    def __init__(self, vocab_size: int, d_model: int, n_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocab_size, d_model), nn.Linear(d_model, vocab_size)
        self.lstm = nn.LSTM(d_model, d_model, n_layers, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.lstm(self.dropout(self.embedding(tokens)))[0]))
        return logits.float()
