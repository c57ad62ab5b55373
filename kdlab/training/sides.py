"""One side of a distillation: how the student, or the teacher, is called by the trainer."""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from kdlab.base.wrapped import evaluating, inside
from kdlab.training import trainer_checks as checks


@dataclass
class Side:
    """Calls one of the two models and gathers its answer and its hidden layers.

    name: "student" or "teacher". takes: what its forward takes, None where nothing says so. label:
    the batches' column of labels. hidden: the loss on hidden layers, or None.
    """

    name: str
    takes: set | None
    label: str
    hidden: nn.Module | None

    def __post_init__(self):
        self.takes = self.takes and self.takes - {self.label, "labels"}

    def inputs(self, batch):
        """What of a batch the model's forward is called with."""
        left_out = {self.label, "labels", "teacher_logits"}
        if self.takes is None:
            return {k: v for k, v in batch.items() if k not in left_out}
        found = {k: v for k, v in batch.items() if k in self.takes}
        if "use_cache" in self.takes:
            found["use_cache"] = False  # nothing is written here, and what a cache holds is lost
        return found

    def forward(self, module, model, batch, fused, teacher_layers=None):
        """One forward pass → {"answer": …, "hidden": (B,)}, and the hidden layers that were tapped.

        module: the model itself, whose modules are tapped; model: what is called (in DDP, a wrapper
        around it). answer: the logits or, fused, what the head gets.
        """
        mask, found, layers = batch.get("attention_mask"), {}, {}
        learns = self.hidden is not None and self.name == "student"

        def before_head(head, args):
            found["answer"] = args[0]
            return args[0][
                :, -1:
            ]  # one place keeps the head in DDP's graph; (B, L, V) never arises

        def after(module, args, output):  # within DDP's forward, which so sees the projectors used
            if learns:
                if torch.is_grad_enabled():
                    checks.check_gradients(module, layers)
                found["hidden"] = self.hidden(layers, teacher_layers, mask)
            return {"logits": logits_of(output)} | found

        with contextlib.ExitStack() as stack:
            if self.hidden is not None:
                layers = stack.enter_context(self.hidden.collect(module, self.name))
            if fused:
                head = module.get_output_embeddings()
                stack.callback(head.register_forward_pre_hook(before_head).remove)
            if fused or self.hidden is not None:
                stack.callback(module.register_forward_hook(after).remove)
            output = self._call(model, batch)
        answer = {"answer": logits_of(output)}
        if fused or self.hidden is not None:
            answer |= output
        return self._brought_back(answer, layers, batch)

    def _call(self, model, batch):
        inputs = self.inputs(batch)
        spread = getattr(inside(model), "hf_device_map", None)  # moves its inputs itself
        if self.name == "teacher" and not spread:  # one that was placed may live elsewhere
            where = next((p.device for p in model.parameters()), None)
            inputs = {k: v.to(where) if torch.is_tensor(v) else v for k, v in inputs.items()}
        return model(**inputs)

    def _brought_back(self, answer, layers, batch):
        if self.name == "student":
            return answer, layers
        home = next(v.device for v in batch.values() if torch.is_tensor(v))
        both = ({k: v.to(home) for k, v in found.items()} for found in (answer, dict(layers)))
        return tuple(both)


def logits_of(output):
    """What a model answers: a tensor, or the logits in a dictionary or first in a tuple.

    >>> logits_of({"logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    if torch.is_tensor(output):
        return output
    if hasattr(output, "keys") and "logits" in output:
        return output["logits"]
    if isinstance(output, (tuple, list)) and output and torch.is_tensor(output[0]):
        return output[0]
    came = sorted(output) if hasattr(output, "keys") else type(output).__name__
    raise ValueError(
        "DistillationTrainer: model: argument must answer a tensor of logits, or 'logits', "
        f"got {came}"
    )


def place(model, device):
    """Move a model to the device, unless it was placed when it was loaded (device_map, quantised).

    >>> place(nn.Linear(2, 2), torch.device("cpu")).weight.device
    device(type='cpu')
    """
    core = inside(model)
    quantised = getattr(core, "is_quantized", False) or getattr(core, "quantization_method", None)
    if quantised or getattr(core, "hf_device_map", None):
        return model
    return model.to(device)


def fusible(student, teacher, vocab_size):
    """True for two causal language models whose logits are what plain heads answer."""
    models = [m for m in (student, teacher) if getattr(m, "can_generate", bool)()]
    heads = [m.get_output_embeddings() for m in models]
    if len(models) < 2 or not all(type(head) is nn.Linear for head in heads):
        return False
    if vocab_size is None and heads[0].out_features != heads[1].out_features:
        return False
    if heads[0].weight.device != heads[1].weight.device:  # a teacher placed elsewhere
        return False
    return all(map(_answers_as_its_head, models, heads))


def _answers_as_its_head(model, head):
    """No soft cap, no scale between the head's answer and the logits."""
    found = []
    hook = head.register_forward_hook(lambda module, args, answer: found.append(answer))
    try:
        with evaluating(model):
            logits = model(input_ids=torch.arange(2, device=head.weight.device)[None]).logits
    finally:
        hook.remove()
    return torch.equal(found[0].to(logits.dtype), logits)
