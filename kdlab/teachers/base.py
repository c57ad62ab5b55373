"""A student's own base as its teacher: one model in memory, with the adapter and without."""

from typing import Any

from torch import Tensor, nn

from kdlab.base.wrapped import evaluating, takes


class WithoutAdapter(nn.Module):
    """The model that a LoRA student had been before its adapter, as a teacher.

    It holds no weights: each answer is the student's own, with its adapters off, in eval mode and
    without gradients. So self-distillation takes no memory for a second model; it holds back a
    student that learns new texts (alpha < 1), or hands on what the base makes of a prompt.

    student: a model of peft (`PeftModel`), before it is wrapped further. As a teacher it cannot be
    tapped for hidden layers, and the loss is not fused. Raises TypeError for a model that has no
    adapter to turn off.

    >>> from peft import LoraConfig, get_peft_model
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> base = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=8))
    >>> student = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    >>> teacher = WithoutAdapter(student)
    >>> sum(1 for _ in teacher.parameters())
    0
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        if not isinstance(student, nn.Module) or not hasattr(student, "disable_adapter"):
            raise TypeError(
                "WithoutAdapter: student must be a model of peft, whose adapter can be turned off, "
                f"got {type(student).__name__}"
            )
        # in a tuple it is no part of this module: freezing the teacher must not freeze the student
        self._held = (student,)

    @property
    def config(self) -> Any:
        """The base's configuration."""
        return self._held[0].config

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Any:
        """What the base answers, as transformers' models do; what is None is not handed on."""
        given: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "token_type_ids": token_type_ids,
        }
        (student,) = self._held
        if "use_cache" in (takes(student) or ()):
            given["use_cache"] = False  # nothing is written
        with evaluating(student), student.disable_adapter():  # type: ignore[operator]
            return student(**{name: value for name, value in given.items() if value is not None})
