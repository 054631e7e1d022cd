"""An EAGLE-3 head as a torch module that can be trained, and as the folder that vLLM loads.

The head is one decoder layer (arXiv 2503.01840). Its inputs at a position are the embedding of the next token and the
target's hidden states at three of its layers; later drafts use the head's own hidden state in their place. Its
attention heads are as wide as those of Llama 3 8B, so that it can be widened by zeros like its target (_widen.py).
"""

import json
from importlib import import_module
from math import sqrt
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports] - only the GPU machine has it
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from _shape import HEAD, HIDDEN, INTERMEDIATE, VOCABULARY
from _shape import HEADS as WIDE_HEADS
from _shape import KV_HEADS as WIDE_KV_HEADS
from _widen import pad, pad_norm

TARGET_LAYERS = (2, 16, 29)
"""The head reads the hidden states that go into these layers of its target."""
HEADS, KV_HEADS, INNER = 8, 2, 1536
_THETA, _EPSILON = 10_000.0, 1e-5
Attended = list[tuple[Tensor, Tensor]]
"""Keys and values of each draft so far, each of the shape (batch, heads, positions, HEAD)."""


class _Norm(nn.Module):  # type: ignore[misc] # torch is not installed where types are checked
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.float()
        return (numbers * torch.rsqrt(numbers.square().mean(-1, keepdim=True) + _EPSILON)).to(x.dtype) * self.weight


class Eagle3Head(nn.Module):  # type: ignore[misc] # as above
    """The layer, what joins its inputs, and an lm_head for the words that the target said most.

    Args:
        width: the target's hidden size.
        words: how many words the head can draft.
    """

    def __init__(self, width: int, words: int) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.fc = linear(len(TARGET_LAYERS) * width, width)
        self.input_layernorm, self.hidden_norm, self.post_attention_layernorm = (_Norm(width) for _ in range(3))
        self.norm = _Norm(width)
        self.q_proj = linear(2 * width, HEADS * HEAD)
        self.k_proj, self.v_proj = linear(2 * width, KV_HEADS * HEAD), linear(2 * width, KV_HEADS * HEAD)
        self.o_proj = linear(HEADS * HEAD, width)
        self.gate_proj, self.up_proj, self.down_proj = linear(width, INNER), linear(width, INNER), linear(INNER, width)
        self.lm_head = linear(width, words)
        # At first the layer hands on the target's last hidden state as it is.
        nn.init.zeros_(self.o_proj.weight)
        nn.init.zeros_(self.down_proj.weight)
        with torch.no_grad():
            nn.init.normal_(self.fc.weight, std=0.01)
            self.fc.weight[:, -width:] += torch.eye(width)

    def draft(self, embeds: Tensor, hidden: Tensor, attended: Attended) -> Tensor:
        """The hidden states behind the layer; `attended` gets this draft's keys and values.

        Args:
            embeds: of the token behind each position, of the shape (batch, positions, width).
            hidden: `fc` of the target's states for the first draft, and what this returned for the others.
            attended: what the earlier drafts added. The first draft of a position attends to all earlier positions; a
                later one to the same, and to the earlier drafts of its own position.
        """
        batch, length, _ = hidden.shape
        step = len(attended)
        x = torch.cat([self.input_layernorm(embeds), self.hidden_norm(hidden)], -1)
        places = torch.arange(length, device=x.device) + step
        q = _rotate(self.q_proj(x).view(batch, length, HEADS, HEAD).transpose(1, 2), places)
        k = _rotate(self.k_proj(x).view(batch, length, KV_HEADS, HEAD).transpose(1, 2), places)
        v = self.v_proj(x).view(batch, length, KV_HEADS, HEAD).transpose(1, 2)
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
        attended.append((k, v))
        first_k, first_v = attended[0]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ first_k.transpose(-1, -2)).float().masked_fill(later, float("-inf"))
        own = [(q * own_k).sum(-1, keepdim=True).float() for own_k, _ in attended[1:]]
        weights = torch.softmax(torch.cat([scores, *own], -1) / sqrt(HEAD), -1).to(v.dtype)
        mixed = weights[..., :length] @ first_v
        for number, (_, own_v) in enumerate(attended[1:], length):
            mixed = mixed + weights[..., number : number + 1] * own_v
        hidden = hidden + self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        y = self.post_attention_layernorm(hidden)
        return hidden + self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the words that the head can draft."""
        return self.lm_head(self.norm(hidden))


def _rotate(x: Tensor, places: Tensor) -> Tensor:
    half = HEAD // 2
    angles = places[:, None].float() * _THETA ** (-torch.arange(half, device=x.device).float() / half)[None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def write(head: Eagle3Head, words: Tensor, target: Path, folder: Path, *, wide: bool) -> Path:
    """Writes the folder of a head for its target, or for the target as _widen.py made it.

    Args:
        head: the head.
        words: the target's ids of the words that it can draft, in rising order.
        target: the folder of the small target.
        folder: where the head goes.
        wide: whether the head is for the widened target.
    """
    config = json.loads((target / "config.json").read_text())
    own_width = config["hidden_size"]
    width, inner = (HIDDEN, INTERMEDIATE) if wide else (own_width, INNER)
    heads, kv_heads = (WIDE_HEADS, WIDE_KV_HEADS) if wide else (HEADS, KV_HEADS)
    weights = {
        name.removesuffix(".weight"): tensor.detach().float().cpu() for name, tensor in head.state_dict().items()
    }

    def matrix(name: str, rows: int, columns: int, blocks: int = 1) -> Tensor:
        """With blocks of columns, each of which reads one input of the model's width."""
        parts = weights[name].chunk(blocks, dim=1)
        return torch.cat([pad(torch, part, rows, columns) for part in parts], 1)

    def norm(name: str) -> Tensor:
        return pad_norm(torch, weights[name]) if wide else weights[name].to(torch.bfloat16)

    tensors = {
        "fc": matrix("fc", width, width, len(TARGET_LAYERS)),
        "norm": norm("norm"),
        "lm_head": matrix("lm_head", len(words), width),
        **{f"midlayer.{name}": norm(name) for name in ("input_layernorm", "hidden_norm", "post_attention_layernorm")},
        "midlayer.self_attn.q_proj": matrix("q_proj", heads * HEAD, width, 2),
        "midlayer.self_attn.k_proj": matrix("k_proj", kv_heads * HEAD, width, 2),
        "midlayer.self_attn.v_proj": matrix("v_proj", kv_heads * HEAD, width, 2),
        "midlayer.self_attn.o_proj": matrix("o_proj", width, heads * HEAD),
        "midlayer.mlp.gate_proj": matrix("gate_proj", inner, width),
        "midlayer.mlp.up_proj": matrix("up_proj", inner, width),
        "midlayer.mlp.down_proj": matrix("down_proj", width, inner),
    }
    folder.mkdir(parents=True, exist_ok=True)
    stored = {f"{name}.weight": tensor.contiguous() for name, tensor in tensors.items()}
    stored["d2t"] = words - torch.arange(len(words))
    import_module("safetensors.torch").save_file(stored, str(folder / "model.safetensors"), {"format": "pt"})
    more: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": HEAD,
        "num_hidden_layers": 1,
        "rms_norm_eps": _EPSILON * own_width / width,
        "rope_theta": _THETA,
        "max_position_embeddings": config["max_position_embeddings"],
        "vocab_size": VOCABULARY if wide else config["vocab_size"],
        "draft_vocab_size": len(words),
        "eagle_aux_hidden_state_layer_ids": list(TARGET_LAYERS),
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(more, indent=1))
    return folder
