"""Homework 7: right answers written in other ways, and wrong ones with the checks that must fail on
each."""

BATCH = """
def collate(rows, pad):
    n = {longest}(len(ids) for ids, _ in rows)
    ids = torch.stack([torch.cat([ids[:n], torch.full((n - len(ids[:n]),), {pad})])
                       for ids, _ in rows])
    labels = torch.stack([torch.cat([labels[:n], torch.full((n - len(labels[:n]),), {unlearnt})])
                          for _, labels in rows])
    real = torch.tensor([len(ids) for ids, _ in rows])[:, None]
    mask = ({mask}).long()
    {end}
    return {{"input_ids": ids, "labels": labels, "attention_mask": mask}}
"""
NATS = """
def nats_a_token(model, batches):
    losses, counts = [], []
    for batch in batches:
        logits = model(batch["input_ids"], {given})
        logits, labels = {shift}
        learnt = {learnt}
        rows = F.cross_entropy(logits.transpose(1, 2), labels.clamp_min(0), reduction="none")
        {rows}
        losses.append(rows), counts.append(learnt)
    {end}
"""
JUDGE = """
def verified(answer, label):
    def last(text):
        found = re.findall({number}, text)
        {nothing}
        return {value}
    said = last(answer)
    return {compared}
"""
BUY = """
def buy(questions, ask, right, budget):
    pairs, spent, left = [], 0, list(questions)
    while left and spent < budget{more}:
        {again}
        for question in {order}:
            {limit}
            answer = ask(question)
            {count}
            if {judged}:
                {hit}
            {miss}
        {after}
    return pairs, spent
"""
TAUGHT = """
def prediction():
    return {predicted}

def wrong_steps(pairs):
    found = [[int(x) for x in re.findall(r"\\\\d", answer)][:9] for _, answer in pairs]
    wrong = [[(a + b - s) % 10 != 0, (s2 * c - p) % 10 != 0, (p2 + d - y) % 10 != 0]
             for a, b, s, s2, c, p, p2, d, y in found]
    return {share}

def gain(new, old):
    {gain}

def finding(estimate):
    low, high = {interval}
    {word}
"""


def batch(
    longest="max",
    pad="pad",
    unlearnt="-100",
    mask="torch.arange(n) < real",
    end="pass",
):
    """The code of an answer to question 1."""
    return BATCH.format(longest=longest, pad=pad, unlearnt=unlearnt, mask=mask, end=end)


def nats(
    given='batch["attention_mask"]',
    shift='logits[:, :-1], batch["labels"][:, 1:]',
    learnt="labels != -100",
    rows="rows = torch.where(learnt, rows, 0.0)",
    end="return sum(x.sum() for x in losses) / sum(n.sum() for n in counts)",
):
    """The code of an answer to question 2."""
    return NATS.format(given=given, shift=shift, learnt=learnt, rows=rows, end=end)


def judge(
    number='r"-?[0-9](?:[0-9,]*[0-9])?(?:[.][0-9]+)?"',
    nothing="if not found: return None",
    value='float(found[-1].replace(",", ""))',
    compared="said is not None and said == last(label)",
):
    """The code of an answer to question 3."""
    return JUDGE.format(number=number, nothing=nothing, value=value, compared=compared)


def buy(
    more="",
    again="again = []",
    order="left",
    limit="if spent == budget: break",
    count="spent += 1",
    judged="right(question, answer)",
    hit="pairs.append((question, answer))",
    miss="else: again.append(question)",
    after="left = again",
):
    """The code of an answer to question 4."""
    return BUY.format(
        more=more,
        again=again,
        order=order,
        limit=limit,
        count=count,
        judged=judged,
        hit=hit,
        miss=miss,
        after=after,
    )


def taught(
    predicted='"no"',
    share="sum(map(any, wrong)) / len(wrong)",
    gain="return new.estimate() - old.estimate()",
    interval="estimate.interval()",
    word="return estimate.verdict(delta=0.5)",
):
    """The code of an answer to question 5."""
    return TAUGHT.format(
        predicted=predicted, share=share, gain=gain, interval=interval, word=word
    ).replace("\\\\", "\\")


FEW = """(
        estimate.interval() if len(estimate.values) > 8
        else [estimate.mean + z * estimate.standard_error() for z in (-1.96, 1.96)])"""
WORD = """small = -0.5 <= low and high <= 0.5
    if low > 0 or high < 0:
        return ("helps" if low > 0 else "hurts") + (" a little" if small else "")
    return "no difference" if small else "cannot tell\""""
PADDED = """
from torch.nn.utils.rnn import pad_sequence

def collate(rows, pad):
    ids, labels = zip(*rows)
    return {"input_ids": pad_sequence(list(ids), batch_first=True, padding_value=pad),
            "labels": pad_sequence(list(labels), batch_first=True, padding_value=-100),
            "attention_mask": pad_sequence([torch.ones_like(x) for x in ids], batch_first=True)}
"""
ONE_BY_ONE = """
def nats_a_token(model, batches):
    total, count = 0.0, 0
    for batch in batches:
        z = model(batch["input_ids"], batch["attention_mask"])
        for row, labels in zip(z, batch["labels"].tolist()):
            for i, label in enumerate(labels[1:]):
                if label != -100:
                    total -= float(row[i].log_softmax(-1)[label])
                    count += 1
    return total / count
"""
WORDS = """
def verified(answer, label):
    def last(text):
        for word in reversed(re.sub("[^0-9.,-]", " ", text).split()):
            try:
                return float(word.strip(".,").replace(",", ""))
            except ValueError:
                pass
    return last(answer) is not None and last(answer) == last(label)
"""
COUNTED = """
def buy(questions, ask, right, budget):
    times, found, spent = dict.fromkeys(questions, 0), {}, 0
    while spent < budget and len(found) < len(times):
        question = min((q for q in times if q not in found), key=times.get)
        answer = ask(question)
        times[question] += 1
        spent += 1
        if right(question, answer):
            found[question] = answer
    return list(found.items()), spent
"""
BY_HAND = """
def prediction():
    return "yes"

def wrong_steps(pairs):
    bad = 0
    for question, answer in pairs:
        number, said = sums.read(question, answer)
        a, b, c = (int(digit) for digit in f"{number:04d}"[:3])
        bad += said != [(a + b) % 10, (a + b) * c % 10]
    return bad / len(pairs)

def gain(new, old):
    new, old = (runs.estimate().values for runs in (new, old))
    found = {unit: new[unit] - old[unit] for unit in old.index}
    return kd.Estimate(pd.Series(found), "gain", "points")

def finding(estimate):
    from scipy import stats
    v = estimate.values.astype(float)
    half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5
    low, high = v.mean() - half, v.mean() + half
    WORD
""".replace("WORD", WORD)

ALTERNATIVES = {
    "hw7-q1": [batch(), PADDED],
    "hw7-q2": [nats(), ONE_BY_ONE],
    "hw7-q3": [judge(), WORDS],
    "hw7-q4": [buy(), COUNTED],
    "hw7-q5": [taught(word=WORD), BY_HAND],
}
ALL = {"hw7-q1-ids", "hw7-q1-labels", "hw7-q1-mask"}

MUTANTS = [
    ("hw7-q1", "cut to the shortest", batch(longest="min"), ALL),
    ("hw7-q1", "padded by 0", batch(pad="0"), {"hw7-q1-ids"}),
    (
        "hw7-q1",
        "ids padded on the left, labels and mask on the right",
        batch(end="ids = torch.stack([r.roll(n - int(k)) for r, k in zip(ids, real)])"),
        {"hw7-q1-ids"},
    ),
    (
        "hw7-q1",
        "labels and mask padded on the left",
        batch(
            end="labels, mask = (torch.stack([r.roll(n - int(k)) for r, k in zip(x, real)])"
            " for x in (labels, mask))"
        ),
        {"hw7-q1-labels", "hw7-q1-mask"},
    ),
    ("hw7-q1", "labels of padding are 0", batch(unlearnt="0"), {"hw7-q1-labels"}),
    ("hw7-q1", "labels of padding are the padding", batch(unlearnt="pad"), {"hw7-q1-labels"}),
    (
        "hw7-q1",
        "labels masked by id: no answer learns to end",
        batch(end="labels = labels.masked_fill(labels == pad, -100)"),
        {"hw7-q1-labels"},
    ),
    (
        "hw7-q1",
        "labels made of the ids: the prompt is learnt",
        batch(end="labels = ids.masked_fill(mask == 0, -100)"),
        {"hw7-q1-labels"},
    ),
    (
        "hw7-q1",
        "labels shifted here too",
        batch(end="labels = labels.roll(-1, 1); labels[:, -1] = -100"),
        {"hw7-q1-labels"},
    ),
    ("hw7-q1", "the mask by id", batch(mask="ids != pad"), {"hw7-q1-mask"}),
    ("hw7-q1", "the mask by label", batch(mask="labels != -100"), {"hw7-q1-mask"}),
    ("hw7-q1", "the mask turned round", batch(mask="torch.arange(n) >= real"), {"hw7-q1-mask"}),
    ("hw7-q1", "all of it is read", batch(mask="torch.ones(ids.shape)"), {"hw7-q1-mask"}),
    ("hw7-q1", "the mask as booleans", batch(end="mask = mask.bool()"), {"hw7-q1-numbers"}),
    (
        "hw7-q1",
        "labels with a point",
        batch(end="labels = labels.float()"),
        {"hw7-q1-numbers"},
    ),
    (
        "hw7-q1",
        "a row alone loses its axis",
        batch(end="ids, labels, mask = (x.squeeze(0) for x in (ids, labels, mask))"),
        {"hw7-q1-numbers"},
    ),
    (
        "hw7-q1",
        "kdlab's own collator",
        """
def collate(rows, pad):
    return kd.Collator(pad=pad)([{"input_ids": ids, "labels": labels} for ids, labels in rows])
""",
        ALL | {"hw7-q1-numbers"},
    ),
    ("hw7-q2", "no shift", nats(shift='logits, batch["labels"]'), {"hw7-q2-shift"}),
    (
        "hw7-q2",
        "shifted the other way",
        nats(shift='logits[:, 1:], batch["labels"][:, :-1]'),
        {"hw7-q2-shift", "hw7-q2-learnt", "hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "the prompt is counted",
        nats(
            learnt='batch["attention_mask"][:, 1:] == 1',
            shift='logits[:, :-1], batch["input_ids"][:, 1:]',
        ),
        {"hw7-q2-learnt"},
    ),
    ("hw7-q2", "the end is not learnt", nats(learnt="labels > 0"), {"hw7-q2-learnt"}),
    ("hw7-q2", "0 times NaN", nats(rows="rows = rows * learnt"), {"hw7-q2-learnt"}),
    (
        "hw7-q2",
        "the mask is not told",
        nats(given='(batch["labels"] != -100).long()'),
        {"hw7-q2-learnt"},
    ),
    (
        "hw7-q2",
        "a mean of the batches' means",
        nats(
            end="means = [x.sum() / n.sum().clamp_min(1) for x, n in zip(losses, counts)]\n"
            "    return sum(means) / len(means)"
        ),
        {"hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "a mean of the rows' means",
        nats(
            end="means = [x.sum(1) / n.sum(1).clamp_min(1) for x, n in zip(losses, counts)]\n"
            "    return torch.cat(means).mean()"
        ),
        {"hw7-q2-learnt", "hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "divided by all places",
        nats(end="return sum(x.sum() for x in losses) / sum(n.numel() for n in counts)"),
        {"hw7-q2-learnt", "hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "the last batch alone",
        nats(end="return losses[-1].sum() / counts[-1].sum()"),
        {"hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "0 / 0 in a batch that teaches nothing",
        nats(
            end="total = sum(x[n].mean() * n.sum() for x, n in zip(losses, counts))\n"
            "    return total / sum(n.sum() for n in counts)"
        ),
        {"hw7-q2-mean"},
    ),
    (
        "hw7-q2",
        "in bits",
        nats() + "\nmine = nats_a_token\ndef nats_a_token(*a): return mine(*a) / 0.6931\n",
        {"hw7-q2-shift", "hw7-q2-learnt", "hw7-q2-mean"},
    ),
    (
        "hw7-q3",
        "the label anywhere in it",
        judge(compared="label in answer"),
        {"hw7-q3-last", "hw7-q3-forms", "hw7-q3-unlike"},
    ),
    (
        "hw7-q3",
        "any number of it",
        "import re\n"
        + judge()
        + """
mine = verified
def verified(answer, label):
    return any(mine(word, label) for word in answer.split())
""",
        {"hw7-q3-last"},
    ),
    (
        "hw7-q3",
        "the first number",
        judge(value='float(found[0].replace(",", ""))'),
        {"hw7-q3-last", "hw7-q3-forms"},
    ),
    ("hw7-q3", "texts compared", judge(value="found[-1]"), {"hw7-q3-forms"}),
    (
        "hw7-q3",
        "a point at the end taken along",
        judge(number='r"-?[0-9][0-9,.]*"'),
        {"hw7-q3-forms"},
    ),
    (
        "hw7-q3",
        "commas part numbers",
        judge(number='r"-?[0-9]+(?:[.][0-9]+)?"'),
        {"hw7-q3-forms", "hw7-q3-unlike"},
    ),
    ("hw7-q3", "digits alone", judge(number='"[0-9]+"'), {"hw7-q3-forms", "hw7-q3-unlike"}),
    (
        "hw7-q3",
        "the sign is lost",
        judge(value='abs(float(found[-1].replace(",", "")))'),
        {"hw7-q3-unlike"},
    ),
    (
        "hw7-q3",
        "what is behind the point is lost",
        judge(value='int(float(found[-1].replace(",", "")))'),
        {"hw7-q3-unlike"},
    ),
    (
        "hw7-q3",
        "the end of the text",
        judge(compared='answer.strip(" .*\\n").endswith(label)'),
        {"hw7-q3-last", "hw7-q3-forms", "hw7-q3-unlike"},
    ),
    (
        "hw7-q3",
        "nearly the same",
        judge(compared="said is not None and abs(said - last(label)) < 0.3"),
        {"hw7-q3-unlike"},
    ),
    ("hw7-q3", "no number is 0", judge(nothing="if not found: return 0.0"), {"hw7-q3-none"}),
    ("hw7-q3", "no number is an error", judge(nothing=""), {"hw7-q3-none"}),
    (
        "hw7-q3",
        "all is right",
        judge(compared="True"),
        {"hw7-q3-last", "hw7-q3-unlike", "hw7-q3-none"},
    ),
    ("hw7-q3", "nothing is right", judge(compared="False"), {"hw7-q3-last", "hw7-q3-forms"}),
    (
        "hw7-q3",
        "kdlab's own judge",
        "def verified(answer, label):\n    return bool(kd.exact_match([answer], [label])[0])\n",
        {"hw7-q3-last", "hw7-q3-forms", "hw7-q3-unlike", "hw7-q3-none"},
    ),
    (
        "hw7-q4",
        "wrong ones are kept",
        buy(judged="pairs.append((question, answer)) or right(question, answer)", hit="pass"),
        {"hw7-q4-kept"},
    ),
    (
        "hw7-q4",
        "kept with another question",
        buy(hit="pairs.append((left[0], answer))"),
        {"hw7-q4-kept"},
    ),
    ("hw7-q4", "answers alone", buy(hit="pairs.append(answer)"), {"hw7-q4-kept"}),
    ("hw7-q4", "the answer first", buy(hit="pairs.append((answer, question))"), {"hw7-q4-kept"}),
    (
        "hw7-q4",
        "the judge asked the other way round",
        buy(judged="right(answer, question)"),
        {"hw7-q4-kept", "hw7-q4-once", "hw7-q4-budget", "hw7-q4-rounds"},
    ),
    (
        "hw7-q4",
        "evenly",
        buy(
            hit="(question, answer) in pairs or pairs.append((question, answer))",
            miss="",
            again="if len(pairs) == len(questions): break",
            after="",
        ),
        {"hw7-q4-once", "hw7-q4-budget"},
    ),
    (
        "hw7-q4",
        "a right one asked once more, to be sure",
        buy(
            hit="pairs.append((question, answer))\n"
            "                if spent < budget: ask(question); spent += 1"
        ),
        {"hw7-q4-once", "hw7-q4-budget"},
    ),
    ("hw7-q4", "the budget looked at between rounds", buy(limit=""), {"hw7-q4-budget"}),
    (
        "hw7-q4",
        "one too many",
        buy(more=" + 1", limit="if spent > budget: break"),
        {"hw7-q4-budget"},
    ),
    (
        "hw7-q4",
        "what was kept told as spent",
        buy()
        + "\nmine = buy\ndef buy(*a):\n    pairs, spent = mine(*a)\n    return pairs, len(pairs)\n",
        {"hw7-q4-budget"},
    ),
    (
        "hw7-q4",
        "no round that can't be paid whole",
        buy(more=" - len(left) + 1"),
        {"hw7-q4-budget"},
    ),
    ("hw7-q4", "a single round", buy(after="break"), {"hw7-q4-kept", "hw7-q4-budget"}),
    (
        "hw7-q4",
        "taken from the list that is walked",
        buy(
            again="",
            hit="pairs.append((question, answer)); left.remove(question)",
            miss="",
            after="",
        ),
        {"hw7-q4-rounds"},
    ),
    (
        "hw7-q4",
        "one question until it is right",
        buy(order="left[:1]", again="again, rest = [], left[1:]", after="left = again + rest"),
        {"hw7-q4-rounds"},
    ),
    (
        "hw7-q4",
        "the latest first",
        buy(
            order="left[:1]",
            again="again, rest = [], left[1:]",
            miss="else: rest.insert(len(rest) // 2, question)",
            after="left = rest",
        ),
        {"hw7-q4-rounds"},
    ),
    ("hw7-q5", "no guess", taught(predicted="'perhaps'"), {"hw7-q5-measured"}),
    (
        "hw7-q5",
        "the first step alone",
        taught(share="sum(w[0] for w in wrong) / len(wrong)"),
        {"hw7-q5-later"},
    ),
    (
        "hw7-q5",
        "the first step is passed over",
        taught(share="sum(any(w[1:]) for w in wrong) / len(wrong)"),
        {"hw7-q5-first", "hw7-q5-later"},
    ),
    (
        "hw7-q5",
        "wrong steps counted, not answers",
        taught(share="sum(map(sum, wrong)) / len(wrong)"),
        {"hw7-q5-later"},
    ),
    (
        "hw7-q5",
        "a share of steps",
        taught(share="sum(map(sum, wrong)) / (3 * len(wrong))"),
        {"hw7-q5-first", "hw7-q5-later"},
    ),
    (
        "hw7-q5",
        "a count",
        taught(share="sum(map(any, wrong))"),
        {"hw7-q5-first", "hw7-q5-later", "hw7-q5-measured"},
    ),
    (
        "hw7-q5",
        "the share without a wrong step",
        taught(share="1 - sum(map(any, wrong)) / len(wrong)"),
        {"hw7-q5-first", "hw7-q5-later", "hw7-q5-measured"},
    ),
    (
        "hw7-q5",
        "a number from elsewhere",
        taught(share="0.13"),
        {"hw7-q5-first", "hw7-q5-later", "hw7-q5-measured"},
    ),
    (
        "hw7-q5",
        "old minus new",
        taught(gain="return old.estimate() - new.estimate()"),
        {"hw7-q5-paired"},
    ),
    (
        "hw7-q5",
        "not paired",
        taught(
            gain="a, b = (r.estimate().values.sort_values() for r in (new, old))\n"
            "    found = pd.Series(a.to_numpy() - b.to_numpy(), a.index)\n"
            "    return kd.Estimate(found, 'gain', 'points')"
        ),
        {"hw7-q5-paired"},
    ),
    (
        "hw7-q5",
        "on the images of training",
        taught(gain="return new.estimate(on='train') - old.estimate(on='train')"),
        {"hw7-q5-paired"},
    ),
    ("hw7-q5", "one arm alone", taught(gain="return new.estimate()"), {"hw7-q5-paired"}),
    (
        "hw7-q5",
        "z for t, where splits are few",
        taught(interval=FEW, word=WORD),
        {"hw7-q5-finding"},
    ),
    (
        "hw7-q5",
        "another margin",
        taught(word="return estimate.verdict(delta=0.25)"),
        {"hw7-q5-finding"},
    ),
    ("hw7-q5", "no margin", taught(word="return estimate.verdict(delta=0.0)"), {"hw7-q5-finding"}),
    (
        "hw7-q5",
        "the mean alone",
        taught(word="return 'helps a little' if estimate.mean > 0 else 'hurts a little'"),
        {"hw7-q5-finding", "hw7-q5-measured"},
    ),
    (
        "hw7-q5",
        "one word for all",
        taught(word="return 'no difference'"),
        {"hw7-q5-finding", "hw7-q5-measured"},
    ),
]
