"""What a teacher gives: logits for every training row, computed once; and a control that breaks them."""

import torch


@torch.no_grad()
def logits(model, x, batch=4096):
    """Logits of one model in eval mode, (N, ...) → (N, C) float; its mode and weights are left as they were.

    >>> logits(torch.nn.Linear(3, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return torch.cat([model(part).detach() for part in x.split(batch)])
    finally:
        for module, training in modes.items():
            module.training = training


def shuffle_wrong_classes(teacher_logits, labels, seed=0):
    """Control: the teacher's logits with the wrong classes permuted within each row.

    teacher_logits (N, C), labels (N,) → (N, C). Each row keeps its label's logit, its set of values and so
    its entropy at every temperature; what is lost is which wrong class got how much. A gain that survives
    comes from soft, confident targets; a gain that is lost came from dark knowledge.
    Source: the permutation control of Furlanello et al. 2018 (DKPP), section 3.3.

    >>> z = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    >>> shuffle_wrong_classes(z, torch.tensor([0]))[0, 0].item()
    5.0
    """
    n, classes = teacher_logits.shape
    if tuple(labels.shape) != (n,):
        raise ValueError(f"shuffle_wrong_classes: labels must have shape ({n},), got {tuple(labels.shape)}")
    bad = labels[(labels < 0) | (labels >= classes)]
    if bad.numel():
        raise ValueError(f"shuffle_wrong_classes: labels must lie in [0, {classes}), got {int(bad[0])}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n, classes, generator=generator).argsort(1).to(labels.device)
    # the label's class goes to the front of both orders, the others keep a random one
    wrong = order[order != labels[:, None]].view(n, classes - 1)
    plain = torch.arange(classes, device=labels.device).expand(n, -1)
    plain = plain[plain != labels[:, None]].view(n, classes - 1)
    return teacher_logits.scatter(1, plain, teacher_logits.gather(1, wrong))
