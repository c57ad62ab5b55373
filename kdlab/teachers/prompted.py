"""A teacher that is told more than its student: a prompt of its own before every text."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.base.wrapped import inside, takes
from kdlab.data.rows import padded_right
from kdlab.data.token_rows import id_tensors
from kdlab.students.limits import positions


class Prompted(nn.Module):
    """A causal language model that reads a prompt of its own before each text, as a teacher.

    The student learns to write without the prompt as the teacher does with it: an instruction, a
    hint, examples. With `WithoutAdapter` for the teacher a model teaches itself what it can do when
    it is told how. Its answers are those to the text's own tokens, (B, L, V).

    teacher: a model of transformers, or a wrapper. prompt: token ids, at least one. They stand
    before a text's first token, or behind it where that is the model's beginning of text and the
    prompt does not begin with one. A text then has fewer positions to fill: `config` says how many.
    TypeError or ValueError for another teacher or prompt. Source: context distillation, Askell and
    others 2021, section 2.2; Snell, Klein, Zhong 2022.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=8)).eval()
    >>> text = torch.tensor([[3, 4, 5]])
    >>> told = Prompted(model, [7, 8])(text).logits
    >>> torch.allclose(told, model(torch.tensor([[7, 8, 3, 4, 5]])).logits[:, 2:], atol=1e-6)
    True
    """

    prompt: Tensor  # (L,)

    def __init__(self, teacher: nn.Module, prompt: Sequence[int] | Tensor) -> None:
        super().__init__()
        config = (
            getattr(inside(teacher), "config", None) if isinstance(teacher, nn.Module) else None
        )
        if config is None:
            raise TypeError(
                "Prompted: teacher must be a causal language model of transformers, "
                f"got {type(teacher).__name__}"
            )
        (ids,) = id_tensors("Prompted: prompt", [prompt])
        whole = not ids.is_floating_point() and ids.dtype != torch.bool
        if ids.ndim != 1 or not len(ids) or not whole:
            raise ValueError(
                f"Prompted: prompt must be token ids (L,), at least one, got {ids.tolist()!r:.60}"
            )
        most = getattr(config, "vocab_size", None)
        if int(ids.min()) < 0 or (most is not None and int(ids.max()) >= most):
            raise ValueError(
                f"Prompted: prompt must hold ids in [0, {most}), "
                f"got {int(ids.min())} to {int(ids.max())}"
            )
        room = positions(teacher)
        if room is not None and len(ids) >= room:
            raise ValueError(
                f"Prompted: prompt must leave room within the teacher's {room} positions, "
                f"got {len(ids)} tokens"
            )
        self.teacher, self.config = teacher, copy.copy(config)
        if room is not None:
            self.config.max_position_embeddings -= len(ids)
        self.register_buffer("prompt", ids.long(), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """What the teacher answers to the text behind its prompt: an output with `logits`."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch, back = padded_right({"input_ids": input_ids, "attention_mask": mask})
        texts, real = batch["input_ids"], batch["attention_mask"]
        begins = self._begins(texts)
        prompt = self.prompt.to(texts.device).expand(len(texts), -1)
        size = prompt.shape[1]
        told = torch.cat([prompt, texts], 1)
        # behind a text's beginning: that token and the prompt change places
        moved = torch.cat([texts[:, :1], prompt, texts[:, 1:]], 1)
        told = torch.where(begins[:, None], moved, told)
        mask = torch.cat([torch.ones_like(prompt), real], 1)
        plain = {"use_cache": False} if "use_cache" in (takes(self.teacher) or ()) else {}
        answer = self.teacher(input_ids=told, attention_mask=mask, **plain)
        logits = answer.logits[:, size:]
        answer["logits"] = logits if back is None else back(logits)
        return answer

    def _begins(self, texts):
        """Whether each text begins with the model's beginning of text and the prompt does not."""
        bos = getattr(self.config, "bos_token_id", None)
        if bos is None or int(self.prompt[0]) == bos:
            return torch.zeros(len(texts), dtype=torch.bool, device=texts.device)
        return texts[:, 0] == bos
