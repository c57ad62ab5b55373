"""Exercises of lesson 02: what a teacher finds alike, the shuffled control, a bias put right."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question


def _teacher(rows=300, classes=10, T=4.0):
    """Made-up answers as the lesson's teacher gives them: logits (N, C), labels (N,), (N, C) at T.

    Each class has its own likeness to the others; one row in twenty is answered wrong.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % classes
    likeness = 2 * torch.randn(classes, classes, generator=generator)
    logits = likeness[labels] + torch.randn(rows, classes, generator=generator) - 3
    logits[torch.arange(rows), labels] += 14 - 3 * torch.rand(rows, generator=generator)
    logits[::20] = logits[::20].roll(1, dims=1)
    return logits, labels, torch.softmax(logits / T, -1)


# --- 02.1 ---


def alike(probabilities, labels):
    """Row c: the mean answer (C,) to images of class c, with 0 in the place of class c itself."""
    classes = probabilities.shape[-1]
    means = torch.stack([probabilities[labels == c].mean(0) for c in range(classes)])
    return means.fill_diagonal_(0)


def _alike(attempt):
    _, labels, p = _teacher()
    classes, before = p.shape[-1], p.clone()
    found = torch.as_tensor(attempt(p, labels)).to(p.dtype)
    if not torch.equal(p, before):
        return "the probabilities that were handed in have changed: work on a copy"
    if tuple(found.shape) != (classes, classes):
        return (
            f"a row for each true class and a column for each answer: ({classes}, {classes}), "
            f"got {tuple(found.shape)}"
        )
    right = alike(p, labels)
    if torch.allclose(found, right, atol=1e-5):
        return ""
    diagonal = found.diagonal()
    if not torch.equal(diagonal, torch.zeros_like(diagonal)):
        return "the right answers are still there: put 0 on the diagonal"
    for sentence, wrong in _slips_of_alike(p, labels).items():
        if torch.allclose(found, wrong.fill_diagonal_(0), atol=1e-5):
            return sentence
    return (
        "row c is the mean of probabilities[labels == c]; row 0 should begin with "
        f"{_told(right[0, 1:4])} after its 0, got {_told(found[0, 1:4])}"
    )


def _slips_of_alike(p, labels):
    """{what to say: the table that the slip gives}; the diagonal is set to 0 by the check."""
    classes = p.shape[-1]
    means, hard = alike(p, labels), F.one_hot(p.argmax(-1), classes).to(p.dtype)
    by_answer = [p[p.argmax(-1) == c].mean(0) for c in range(classes)]
    wrong_mass = p.scatter(-1, labels[:, None], 0.0)
    unlike_peak = p.scatter(-1, p.argmax(-1, keepdim=True), 0.0)
    sums = torch.stack([p[labels == c].sum(0) for c in range(classes)])
    return {
        "rows and columns are exchanged: a row is a true class": means.T.clone(),
        "these are sums: divide by the number of images of each class": sums,
        "divide by the images of class c, not by all of them": sums / len(p),
        "that counts first answers, a confusion matrix; take the mean of the probabilities": (
            alike(hard, labels)
        ),
        "these are counts of first answers; take the mean of the probabilities": (
            torch.stack([hard[labels == c].sum(0) for c in range(classes)])
        ),
        "rows are grouped by the teacher's first answer; group them by their label": (
            torch.stack(by_answer)
        ),
        "they are probabilities already: a second softmax flattens them": (
            alike(torch.softmax(p, -1), labels)
        ),
        "each row was divided by its sum again; a sure teacher shall give small numbers": (
            means / means.sum(-1, keepdim=True)
        ),
        "each image was divided by its wrong answers' sum; leave the probabilities as they are": (
            alike(wrong_mass / wrong_mass.sum(-1, keepdim=True), labels)
        ),
        "the largest answer of each image was set to 0; it is the label's that is set apart": (
            alike(unlike_peak, labels)
        ),
        "every row is the mean over all images; choose those of class c": (
            p.mean(0).expand(classes, -1).clone()
        ),
        "that is the median; take the mean": torch.stack(
            [p[labels == c].median(0).values for c in range(classes)]
        ),
    }


def _told(values):
    return ", ".join(f"{float(v):.3f}" for v in values)


# --- 02.2 ---


def shuffle_wrong(logits, labels, generator):
    """The wrong classes' logits in a random order, a new one for every row; (N, C) → (N, C)."""
    shuffled = logits.clone()
    for row, label in zip(shuffled, labels, strict=True):
        wrong = torch.ones_like(row, dtype=torch.bool)
        wrong[label] = False
        values = row[wrong]
        row[wrong] = values[torch.randperm(len(values), generator=generator)]
    return shuffled


def _shuffle(attempt):
    logits, labels, _ = _teacher()
    before = logits.clone()

    def seeded(seed=0):
        return attempt(logits, labels, torch.Generator().manual_seed(seed))

    found = torch.as_tensor(seeded())
    if not torch.equal(logits, before):
        return "the logits that were handed in have changed: begin with logits.clone()"
    if found.shape != logits.shape:
        return f"the same shape comes back, {tuple(logits.shape)}, got {tuple(found.shape)}"
    return _kept(found, logits, labels) or _mixed(found, logits, labels, seeded)


def _kept(found, logits, labels):
    """What must stay: each row's values, and the right class's in its place."""
    own, classes = labels[:, None], logits.shape[-1]
    if torch.equal(found.sort(0).values, logits.sort(0).values) and not torch.equal(found, logits):
        return "values moved between rows, within a column; shuffle inside each row"
    if torch.allclose(found.sum(-1), torch.ones(len(found)), atol=1e-4):
        return "these are probabilities; give back logits"
    if not torch.equal(found.sort(-1).values, logits.sort(-1).values):
        rest = found.scatter(-1, own, 0.0).sum(-1), logits.scatter(-1, own, 0.0).sum(-1)
        if torch.allclose(*rest, atol=1e-3):
            return "the wrong classes share their mean now; keep their values and move them"
        return "each row must keep its values, so that its entropy stays: some are gone or new"
    if not torch.equal(found.gather(-1, own), logits.gather(-1, own)):
        peak = logits.argmax(-1, keepdim=True)
        if torch.equal(found.gather(-1, peak), logits.gather(-1, peak)):
            return "the largest logit was kept; keep the label's, the teacher is not always right"
        return f"the right class moved too: only the other {classes - 1} are shuffled"
    return ""


def _mixed(found, logits, labels, seeded):
    """What must be random: an order of its own in every row, by the generator."""
    if torch.equal(found, logits):
        return "nothing moved: the order is the one that came in"
    wrong = F.one_hot(labels, logits.shape[-1]) == 0
    given, moved = (z[wrong].view(len(z), -1) for z in (logits, found))
    origin = (moved[:, :, None] == given[:, None, :]).int().argmax(-1)
    if (origin == origin[0]).all() or _one_order_of_columns(found, logits, labels):
        return "all rows were shuffled alike; draw an order for every row"
    ordered = moved.diff(dim=-1)
    if (ordered >= 0).all() or (ordered <= 0).all():
        return "the wrong classes were sorted; draw a random order"
    if not torch.equal(seeded(), torch.as_tensor(seeded())):
        return "the same seed gave another order: hand generator=generator to torch.randperm"
    if torch.equal(found, torch.as_tensor(seeded(1))):
        return "another generator gave the same order: draw from the one that is handed in"
    places = torch.bincount(moved.argmax(-1), minlength=moved.shape[-1]) / len(moved)
    if (
        places.max() > 2.5 / moved.shape[-1]
        or (origin == torch.arange(len(origin[0]))).all(0).any()
    ):
        return "some places are likelier than others: torch.randperm makes all orders alike"
    return ""


def _one_order_of_columns(found, logits, labels):
    """Whether rows of one label all have one order."""
    for c in labels.unique():
        given, moved = logits[labels == c], found[labels == c]
        origin = (moved[:, :, None] == given[:, None, :]).int().argmax(-1)
        if not (origin == origin[0]).all():
            return False
    return True


# --- 02.3 ---


def choose_bias(logits, labels, missing):
    """What to add to the missing class's logit so that most of ALL images are read right."""

    def accuracy(bias):
        moved = logits.clone()
        moved[:, missing] += bias
        return (moved.argmax(-1) == labels).float().mean().item()

    return max((b / 4 for b in range(81)), key=accuracy)


def _student(missing, seed):
    """Made-up validation answers of a student that was never shown one class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(440) % 10
    logits = 12.0 * F.one_hot(labels, 10) + 5 * torch.randn(440, 10, generator=generator)
    logits[:, missing] -= 8.0
    return logits, labels


def _bias(attempt):
    for missing, seed in ((3, 1), (7, 2)):
        logits, labels = _student(missing, seed)
        before = logits.clone()
        found = attempt(logits, labels, missing)
        if not torch.equal(logits, before):
            return "the logits that were handed in have changed: add the bias to a copy"
        if torch.as_tensor(found).numel() != 1:
            return f"one number is wanted, got the shape {tuple(torch.as_tensor(found).shape)}"
        if said := _said_of_bias(float(found), logits, labels, missing):
            return said
    return ""


def _said_of_bias(value, logits, labels, missing):
    """ "" for a bias as good as the best, else what is wrong with it."""

    def share(bias, of=slice(None)):
        moved = logits.clone()
        moved[:, missing] += bias
        return (moved.argmax(-1) == labels)[of].float().mean().item()

    grid = [b / 4 for b in range(81)]
    shares = [share(b) for b in grid]
    best, own = max(shares), labels == missing
    if share(value) >= best - 0.006:
        return ""
    if value < 0:
        return "the missing class is answered too seldom: its bias must go up"
    if value == 0:
        return (
            "0 changes nothing. It looks best where the missing class is left out of the count; "
            "count all images"
        )
    if abs(value - best) < 1e-4:
        return "this is the accuracy at the best bias; give back the bias"
    if value == shares.index(best):
        return "this is the place in the list of candidates; give back the candidate there"
    if share(value, own) > 0.99:
        return (
            f"with {value:.2f} nearly every image of class {missing} is read, and others are lost: "
            "the best accuracy over ALL images decides"
        )
    if value < grid[shares.index(best)] and share(value + 0.5) > share(value):
        return f"with {value:.2f} the accuracy still rises: look at larger values too, up to 20"
    return f"with {value:.2f} the accuracy is {share(value):.3f}, the best is {best:.3f}"


EXERCISES = (
    Exercise(
        "02.1",
        _alike,
        (
            "probabilities[labels == c] are the answers to the images of class c. Take their "
            "mean(0), one row for each c, and put the rows together by torch.stack.",
            "means.fill_diagonal_(0) sets the right answers to 0.",
        ),
        alike,
        {
            "diagonal": lambda p, y: torch.stack([p[y == c].mean(0) for c in range(10)]),
            "exchanged": lambda p, y: alike(p, y).T,
            "these are sums": lambda p, y: (F.one_hot(y, 10).to(p.dtype).T @ p).fill_diagonal_(0),
            "not by all of them": lambda p, y: (
                F.one_hot(y, 10).to(p.dtype).T @ p / len(p)
            ).fill_diagonal_(0),
            "confusion matrix": lambda p, y: alike(F.one_hot(p.argmax(-1), 10).float(), y),
            "counts of first answers": lambda p, y: (
                F.one_hot(y, 10).T @ F.one_hot(p.argmax(-1), 10)
            ).fill_diagonal_(0),
            "teacher's first answer": lambda p, y: alike(p, p.argmax(-1)),
            "second softmax": lambda p, y: alike(torch.softmax(p, -1), y),
            "by its sum again": lambda p, y: F.normalize(alike(p, y), p=1, dim=-1),
            "largest answer": lambda p, y: alike(p.scatter(-1, p.argmax(-1, keepdim=True), 0.0), y),
            "over all images": lambda p, y: p.mean(0).repeat(10, 1).fill_diagonal_(0),
            "median": lambda p, y: torch.stack(
                [p[y == c].median(0).values for c in range(10)]
            ).fill_diagonal_(0),
            "work on a copy": lambda p, y: alike(p.scatter_(-1, y[:, None], 0.0), y),
            "a row for each true class": lambda p, y: p.scatter(-1, y[:, None], 0.0).mean(0),
        },
    ),
    Exercise(
        "02.2",
        _shuffle,
        (
            "For one row: a mask that is False at the label picks the wrong classes' values, and "
            "values[torch.randperm(len(values), generator=generator)] shuffles their values.",
            "Begin with logits.clone() and put the shuffled values back row by row.",
        ),
        shuffle_wrong,
        {
            "right class moved": lambda z, y, g: torch.stack(
                [row[torch.randperm(len(row), generator=g)] for row in z]
            ),
            "largest logit was kept": lambda z, y, g: shuffle_wrong(z, z.argmax(-1), g),
            "all rows were shuffled alike": lambda z, y, g: _alike_in_all_rows(z, y, g),
            "between rows": lambda z, y, g: torch.stack(
                [column[torch.randperm(len(z), generator=g)] for column in z.T], dim=1
            ),
            "begin with logits.clone()": lambda z, y, g: z.copy_(shuffle_wrong(z, y, g)),
            "nothing moved": lambda z, y, g: z.clone(),
            "sorted": lambda z, y, g: _put(z, y, lambda values: values.sort().values),
            "another order": lambda z, y, g: shuffle_wrong(z, y, None),
            "draw from the one": lambda z, y, g: shuffle_wrong(
                z, y, torch.Generator().manual_seed(0)
            ),
            "share their mean": lambda z, y, g: _put(
                z, y, lambda values: values.mean().expand_as(values)
            ),
            "gone or new": lambda z, y, g: _put(
                z, y, lambda values: values[torch.randint(9, (9,), generator=g)]
            ),
            "these are probabilities": lambda z, y, g: torch.softmax(shuffle_wrong(z, y, g), -1),
            "likelier than others": lambda z, y, g: _put(
                z, y, lambda values: _swapped(values, torch.randperm(4, generator=g))
            ),
        },
    ),
    Exercise(
        "02.3",
        _bias,
        (
            "Try 0, 0.25, 0.5, … 20: add each to logits[:, missing] of a copy.",
            "Keep the one with the best accuracy over all images, not over the missing class "
            "alone.",
        ),
        choose_bias,
        {
            "best accuracy over ALL images": lambda z, y, missing: 20.0,
            "nearly every image": lambda z, y, missing: (
                (z.max(-1).values - z[:, missing])[y == missing].quantile(0.999).item() + 0.1
            ),
            "must go up": lambda z, y, missing: -choose_bias(z, y, missing),
            "add the bias to a copy": lambda z, y, missing: (
                z[:, missing].add_(6.0).mul(0).add(6.0)[0].item()
            ),
            "0 changes nothing": lambda z, y, missing: choose_bias(
                z[y != missing], y[y != missing], missing
            ),
            "give back the bias": lambda z, y, missing: max(
                (_moved(z, missing, b / 4).argmax(-1) == y).float().mean().item() for b in range(81)
            ),
            "place in the list": lambda z, y, missing: 4 * choose_bias(z, y, missing),
            "look at larger values": lambda z, y, missing: 1.0,
            "one number": lambda z, y, missing: _moved(z, missing, 6.0),
            "of class 7": lambda z, y, missing: choose_bias(z, y, 3) if missing == 3 else 20.0,
        },
    ),
)


def _put(logits, labels, change):
    """A copy with the wrong classes' values of every row changed."""
    found = logits.clone()
    for row, label in zip(found, labels, strict=True):
        wrong = torch.arange(len(row)) != label
        row[wrong] = change(row[wrong])
    return found


def _alike_in_all_rows(logits, labels, generator):
    order = torch.randperm(logits.shape[-1] - 1, generator=generator)
    return _put(logits, labels, lambda values: values[order])


def _swapped(values, order):
    """The first four in a new order, the others left."""
    return torch.cat([values[:4][order], values[4:]])


def _moved(logits, missing, bias):
    moved = logits.clone()
    moved[:, missing] += bias
    return moved


QUESTIONS = {
    "02.a": Question(
        "A student learns from such answers alone and is never shown a 3. Later it is given 3s. "
        "How many does it read?",
        ("none", "one in ten, by luck", "about half", "most of them"),
        3,
        "Most of them, where T is high enough for the small answers to count. The bars on 9s, 8s, "
        "5s and 2s say where a 3 lies among them.",
    ),
    "02.b": Question(
        "The student has 10 labels a class. Its teacher has seen those same labels and no others. "
        "What do the teacher's soft answers add to the student's accuracy?",
        ("about five points", "hardly anything", "they take some away"),
        1,
        "Hardly anything that six splits can show. A teacher that saw all the labels adds several "
        "points, on the very same images.",
    ),
}
