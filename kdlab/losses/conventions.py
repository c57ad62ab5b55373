"""How other libraries define the same loss: T² or not, what alpha weighs, a mean over what."""

import pandas as pd

COLUMNS = [
    "library",
    "loss",
    "T²",
    "soft term",
    "beta weighs",
    "alpha weighs",
    "mean over",
    "first",
    "note",
    "read in",
]
# a token counts where its label is not −100
TOKENS, ROWS, CELLS = (
    "tokens that count",
    "rows",
    "rows and classes",
)
TABLE = [
    (
        "kdlab",
        "KDLoss, TokenLoss",
        "yes",
        "divergence",
        "teacher",
        "soft",
        TOKENS,
        "student",
        'scale="none" leaves T² out; jsd at beta 0 and 1 is the forward and the reverse KL',
        "this package",
    ),
    (
        "TRL",
        "GKDTrainer.generalized_jsd_loss",
        "no",
        "divergence",
        "teacher",
        "no hard term",
        TOKENS,
        "student",
        "GKDTrainer itself leaves T at 1; without labels the sum is divided by the number of texts",
        "trl 1.16.0: experimental/gkd/gkd_trainer.py",
    ),
    (
        "Liger-Kernel",
        "LigerFusedLinearJSDLoss",
        "no",
        "divergence",
        "teacher",
        "two weights",
        TOKENS,
        "student",
        (
            "takes hidden states and heads; ½ soft + ½ hard by default; "
            "a narrower student is filled up with logits of 0"
        ),
        "liger-kernel 0.8.5: chunked_loss/jsd_loss.py, fused_linear_distillation.py",
    ),
    (
        "Liger-Kernel",
        "LigerJSD",
        "no",
        "divergence",
        "teacher",
        "no hard term",
        TOKENS,
        "student",
        "takes log-probabilities: T is the caller's",
        "liger-kernel 0.8.5: transformers/jsd.py, ops/jsd.py",
    ),
    (
        "Liger-Kernel",
        "LigerKLDIVLoss",
        "no",
        "divergence",
        "no beta",
        "no hard term",
        CELLS,
        "student",
        (
            "as torch.nn.KLDivLoss: log-probabilities, then the teacher's probabilities; "
            "batchmean is the mean over rows"
        ),
        "liger-kernel 0.8.5: transformers/kl_div.py, ops/kl_div.py",
    ),
    (
        "torchtune",
        "ForwardKLLoss",
        "no T",
        "cross-entropy",
        "no beta",
        "soft",
        TOKENS,
        "student",
        "the weight is the recipe's kd_ratio",
        (
            "torchtune 104b38f: modules/loss/kd_losses.py; "
            "00d09d0: recipes/knowledge_distillation_single_device.py"
        ),
    ),
    (
        "torchdistill",
        "KDLoss",
        "yes",
        "divergence",
        "no beta",
        "hard",
        ROWS,
        "student",
        "without T² where alpha is 0 or there are no labels",
        "torchdistill 01038e7: losses/mid_level.py",
    ),
    (
        "Keras",
        "Distiller",
        "yes",
        "divergence",
        "no beta",
        "hard",
        ROWS,
        "teacher",
        (
            "an example; probabilities are clipped at 1e-7; "
            "an early version (1da2fde) had no T² and took student for teacher"
        ),
        "keras-io 501fb4c: examples/vision/knowledge_distillation.py",
    ),
    (
        "PyTorch",
        "train_knowledge_distillation",
        "yes",
        "divergence",
        "no beta",
        "two weights",
        ROWS,
        "teacher",
        "the tutorial; an early version (035c541) was a cross-entropy",
        "tutorials c53e7d4: beginner_source/knowledge_distillation_tutorial.py",
    ),
]


def conventions() -> pd.DataFrame:
    """The same loss as seven libraries define it → a DataFrame, a row a loss.

    Each is as read at the version named.

    T²: the soft term is multiplied by it. soft term: "divergence" (0 where the two agree) or
    "cross-entropy" (−Σ p log q, larger by the teacher's entropy, with the same gradient). beta
    weighs: whose side it multiplies in beta · KL(p ‖ M) + (1 − beta) · KL(q ‖ M), and in M. alpha
    weighs: the term it multiplies, the other having 1 − alpha. mean over: what the default
    reduction divides by. first: whose outputs, or model, come first. So

        theirs = kdlab.forward_kl or jsd

    times T², plus the entropy of the teacher at T, over the number of classes, as the row says.

    >>> conventions().loc["TRL", ["T²", "soft term", "beta weighs"]].values.tolist()
    [['no', 'divergence', 'teacher']]
    """
    return pd.DataFrame(TABLE, columns=COLUMNS).set_index(["library", "loss"])
