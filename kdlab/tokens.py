"""What a language model's student minimises, token by token: any divergence, and the next token itself."""

import inspect

import torch

from .arguments import instance, number, one_of, share
from .divergences import check_logits, check_shapes, forward_kl, reduce_rows
from .objectives import check_labels, cross_entropy_rows


class TokenLoss:
    """A divergence from the teacher on every token that counts and, for the rest, the text's own next token.

        alpha · T² · D(p_T, q_T) + (1 − alpha) · CE(next token, q_1)

    divergence: a function of kdlab.divergences (`forward_kl`, `reverse_kl`, `jsd`, …); options are its own
    (`beta` for jsd, `skew`). alpha in [0, 1], temperature T > 0, both numbers. scale: "T2" or "none" (without T²).
    Called as `KDLoss`, with logits (..., V) and labels (...) already shifted onto each other (`next_token`); a row
    labelled −100 does not count. Sources: Hinton, Vinyals, Dean 2015, section 2; Agarwal et al. 2024, eq. 2.

    >>> from kdlab.divergences import jsd
    >>> loss = TokenLoss(jsd, beta=0.1)
    >>> z = torch.randn(2, 5, 16)
    >>> round(loss(z, z, torch.zeros(2, 5, dtype=torch.long)).item(), 6)
    0.0
    """

    needs_teacher = True
    one_vocabulary = True

    def __init__(self, divergence=forward_kl, alpha=1.0, temperature=1.0, scale="T2", **options):
        if not callable(divergence):
            raise TypeError(f"TokenLoss: divergence must be a function such as kdlab.forward_kl, got {divergence!r}")
        own = {"student_logits", "teacher_logits", "mask", "reduction"}  # given in each call
        if unknown := set(options) - (set(inspect.signature(divergence).parameters) - own):
            raise TypeError(f"TokenLoss: divergence must take the options given, got {sorted(unknown)} for "
                            f"{getattr(divergence, '__name__', divergence)}")
        self.divergence, self.options = divergence, options
        self.alpha = share("TokenLoss", "alpha", alpha)
        self.temperature = number("TokenLoss", "temperature", temperature, above=0)
        self.scale = one_of("TokenLoss", "scale", scale, ["T2", "none"])

    @property
    def needs_labels(self):
        """False where alpha is 1: a text without labels is then learnt whole, from the teacher."""
        return self.alpha < 1

    @property
    def weights(self):
        """What the soft and the hard term are multiplied by."""
        return self.alpha * (self.temperature ** 2 if self.scale == "T2" else 1.0), 1 - self.alpha

    def rows(self, student_logits, teacher_logits, labels):
        """The terms a token, {"loss", "soft", "hard"}, each (...); 0 where a label is −100."""
        mask = None if (labels >= 0).all() else labels >= 0
        soft = self.divergence(student_logits, teacher_logits, temperature=self.temperature, mask=mask,
                               reduction="rows", **self.options)
        of_soft, of_hard = self.weights
        # a masked row may hold anything: its logits are replaced, so that its gradient is 0 and not NaN
        kept = student_logits if mask is None or not of_hard else torch.where(mask[..., None], student_logits, 0.0)
        hard = cross_entropy_rows(kept, labels) if of_hard else torch.zeros_like(soft)
        return {"loss": of_soft * soft + of_hard * hard, "soft": soft, "hard": hard}

    def __call__(self, student_logits, teacher_logits, labels, mask=None, reduction="mean"):
        check_shapes("TokenLoss", student_logits, teacher_logits, mask)
        labels = check_labels("TokenLoss", labels, student_logits.shape[:-1], student_logits.shape[-1], mask)
        student_logits, teacher_logits = check_logits("TokenLoss", student_logits, teacher_logits, labels >= 0)
        return reduce_rows("TokenLoss", self.rows(student_logits, teacher_logits, labels)["loss"], labels >= 0,
                           reduction)


def next_token(logits, labels):
    """Each position beside the token it predicts: (B, L, V), (B, L) → (B, L − 1, V), (B, L − 1).

    labels are those of `transformers`: the input ids themselves, −100 where a token is not to be learnt (padding,
    the prompt). Position i of the logits answers for label i + 1.

    >>> z, y = next_token(torch.zeros(1, 3, 7), torch.tensor([[4, 5, -100]]))
    >>> z.shape, y
    (torch.Size([1, 2, 7]), tensor([[   5, -100]]))
    """
    for key, value in [("logits", logits), ("labels", labels)]:
        instance("next_token", key, value, torch.Tensor, "a tensor")
    if logits.ndim != 3 or tuple(labels.shape) != tuple(logits.shape[:2]):
        raise ValueError(f"next_token: logits must be (B, L, V) and labels (B, L), got {tuple(logits.shape)} and "
                         f"{tuple(labels.shape)}")
    return logits[:, :-1], labels[:, 1:]
