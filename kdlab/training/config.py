"""The settings of a distillation, as `transformers.TrainingArguments` with a teacher and a loss."""

import inspect
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from kdlab.base.arguments import one_of, share
from kdlab.losses import divergences
from kdlab.losses.kd import KDLoss, SquaredError, TokenLoss
from kdlab.losses.protocol import Objective

DIVERGENCES = [
    "forward_kl",
    "reverse_kl",
    "jsd",
    "skew_forward_kl",
    "skew_reverse_kl",
    "tvd",
]
FUSED = {"auto": "auto", "always": True, "never": False}  # in words → as the trainer takes it
OF_THE_LOSS = ("divergence", "temperature", "alpha", "beta", "skew")


def _option(help, default=None, **more):
    return field(default=default, metadata={"help": help, **more})


@dataclass
class DistillationConfig(TrainingArguments):
    """`TrainingArguments` with what a `DistillationTrainer` adds, readable by `HfArgumentParser`.

    Everything left at None is the objective's own: `TokenLoss()` for language models, `KDLoss()`
    for classifiers, `SquaredError()` for numbers. An argument of the trainer itself (an objective,
    a teacher in hand) is for what a command line can't say; then these stay None.

    Its own settings, which `--help` explains: teacher_model_name_or_path, teacher_model_revision
    and teacher_model_init_kwargs; divergence, temperature, alpha, beta and skew of the loss;
    on_policy_share and max_new_tokens; fused ("auto", "always", "never"), vocab_size and
    half_precision. ValueError for a value that none of them takes.

    >>> from transformers import HfArgumentParser
    >>> line = ["--output_dir", "out", "--divergence", "jsd", "--beta", "0.1", "--alpha", "0.9"]
    >>> (config,) = HfArgumentParser(DistillationConfig).parse_args_into_dataclasses(line)
    >>> config.objective(causal=True)
    TokenLoss(divergence=jsd, beta=0.1, alpha=0.9, temperature=1.0)
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "teacher_model_init_kwargs"]

    teacher_model_name_or_path: str | None = _option(
        "The teacher: a directory, a name under KDLAB_MODELS or a hub id. Its weights load as "
        "safetensors, and no code that comes with it is run."
    )
    teacher_model_revision: str | None = _option("The teacher's branch, tag or commit on the hub.")
    teacher_model_init_kwargs: dict[str, Any] | str | None = _option(
        'What the teacher\'s from_pretrained takes, such as \'{"dtype": "bfloat16"}\' or a '
        "quantization_config. A teacher that this places on devices is left there."
    )
    divergence: str | None = _option(
        "How student and teacher are compared, token by token.", choices=DIVERGENCES
    )
    temperature: float | None = _option("T, above 0: both sides' logits are divided by it.")
    alpha: float | None = _option(
        "Weight of the teacher's term, in [0, 1]; the labels have the rest."
    )
    beta: float | None = _option("The mixture's weight of the teacher in [0, 1], for jsd alone.")
    skew: float | None = _option("The mixture's other share, for the skewed divergences alone.")
    on_policy_share: float = _option("Share of the batches that the student writes itself.", 0.0)
    max_new_tokens: int = _option("How many tokens the student writes for one of those.", 64)
    fused: str = _option(
        "The loss straight from hidden states, without the logits: auto from 8,192 tokens on.",
        "auto",
        choices=list(FUSED),
    )
    vocab_size: int | None = _option("Tokens that exist, where heads are padded to other widths.")
    half_precision: bool = _option(
        "Train half-precision weights as they are, though small steps round away.", False
    )

    def __post_init__(self):
        super().__post_init__()
        one_of("DistillationConfig", "fused", self.fused, FUSED)
        if self.divergence is not None:
            one_of("DistillationConfig", "divergence", self.divergence, DIVERGENCES)
        share("DistillationConfig", "on_policy_share", self.on_policy_share)

    def objective(self, causal: bool, numbers: bool = False) -> Objective:
        """The objective that these settings describe; ValueError for one that it doesn't have."""
        return described_objective(self, causal, numbers)


def described_objective(settings: Any, causal: bool, numbers: bool = False) -> Objective:
    """The objective for a kind of student with those of OF_THE_LOSS that are not None.

    >>> described_objective(DistillationConfig, causal=False)  # all left out
    KDLoss(temperature=4.0, alpha=0.9)
    """
    given = {k: getattr(settings, k) for k in OF_THE_LOSS if getattr(settings, k) is not None}
    kind = TokenLoss if causal else SquaredError if numbers else KDLoss
    takes = {TokenLoss: OF_THE_LOSS, KDLoss: ("temperature", "alpha"), SquaredError: ("alpha",)}
    if unknown := sorted(set(given) - set(takes[kind])):
        raise ValueError(
            f"DistillationConfig: {unknown[0]} must be left out for {kind.__name__}, which "
            f"takes {list(takes[kind])}, got {given[unknown[0]]!r}"
        )
    if "divergence" in given:
        given["divergence"] = getattr(divergences, given["divergence"])
    if kind is TokenLoss:
        _check_options(given.get("divergence", divergences.forward_kl), given)
    return kind(**given)


def _check_options(divergence, given):
    """Raise the error for one of a divergence's options that another one has."""
    takes = [key for key in ("beta", "skew") if key in inspect.signature(divergence).parameters]
    for key in ("beta", "skew"):
        if key in given and key not in takes:
            raise ValueError(
                f"DistillationConfig: {key} must be left out for the divergence "
                f"{divergence.__name__}, which takes {takes or 'neither beta nor skew'}, "
                f"got {given[key]!r}"
            )
