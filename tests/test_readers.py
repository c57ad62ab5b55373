"""Whatever reads a model reads it in eval mode and leaves every module's mode as it was."""

import functools
import importlib
import inspect
import pkgutil
import tempfile

import pandas as pd
import pytest
import torch
from torch import nn

import kdlab as kd
from kdlab.lessons import encoders, language, reasons, ship, sizes

NAMES = {
    "model",
    "models",
    "module",
    "student",
    "students",
    "teacher",
    "teachers",
    "reference",
    "runs",
}


def public():
    """(qualified name, function) of every public function and method, wherever its file stands."""
    for info in pkgutil.walk_packages(kd.__path__, "kdlab."):
        # a lesson's own pictures and references are given what its cells have just made
        own = info.name.startswith(("kdlab.lessons.figures.", "kdlab.lessons.exercises."))
        if own or info.name.rpartition(".")[2] == "__main__":
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != info.name:
                continue
            methods = vars(value).items() if inspect.isclass(value) else [(name, value)]
            for key, function in methods:
                if inspect.isfunction(function) and (
                    not key.startswith("_") or key in ("__init__", "__call__")
                ):
                    yield function.__qualname__, function


ALL = list(public())
FOUND = {
    name: function for name, function in ALL if NAMES & set(inspect.signature(function).parameters)
}


@functools.cache
def task():
    return kd.load("digits", labels_per_class=3, sizes=(100, 80, 80))


def network():
    """Outside eval mode its dropout draws, and its batch norm changes its buffers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        kd.students.builders.Dropout(0.5),
        nn.ReLU(),
        nn.Linear(8, 10),
    )


def writer(seed=0):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=11,
            n_positions=64,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.5,
            embd_pdrop=0.5,
            attn_pdrop=0.5,
            initializer_range=0.5,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def adapted():
    """The writer with an adapter that adds something, and has dropout of its own."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["c_attn"], lora_dropout=0.5, fan_in_fan_out=True)
    model = get_peft_model(writer(), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(weight)
    return model


def reader():
    """An encoder that classifies, and draws in train mode."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = dict(hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=2)
    drops = dict(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, initializer_range=0.5)
    config = BertConfig(vocab_size=11, num_labels=3, **sizes, **drops)
    return BertForSequenceClassification(config)


def spelt(texts, max_length, **_):
    """A tokenizer of the letters b to k, padded with a."""
    ids = [[ord(c) - ord("a") for c in text.replace(" ", "")][:max_length] for text in texts]
    return {
        "input_ids": [row + [0] * (max_length - len(row)) for row in ids],
        "attention_mask": [[1] * len(row) + [0] * (max_length - len(row)) for row in ids],
    }


TEXTS = encoders.encoded(spelt, {"text": ["bcd ef", "gh"] * 8, "label": [0, 2] * 8})
WINDOWS = torch.arange(96).view(2, 48) % 11


class Letters:
    """A tokenizer of the letters a to k."""

    bos_token_id = 0

    def __new__(cls, text, add_special_tokens=False, return_tensors=None):
        ids = [ord(letter) - ord("a") for letter in text]
        return {"input_ids": torch.tensor([ids]) if return_tensors else ids}

    @staticmethod
    def decode(ids):
        return "".join(chr(ord("a") + i) for i in ids)


class Lists(Letters):
    """The same for a list of texts."""

    def __new__(cls, texts):
        return {"input_ids": [Letters(text)["input_ids"] for text in texts]}

    @staticmethod
    def decode(ids, skip_special_tokens):
        return Letters.decode(ids)


BATCH = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]),
    "labels": torch.tensor([[-100, -100, 3, 4]] * 2),
}


@functools.cache
def frame():
    return kd.train(kd.mlp(2), task(), epochs=1).frame


def runs(model):
    """Runs whose one student is the model itself."""
    return kd.Runs([task()], frame(), {run: lambda: model for run in frame()["run"]})


def results(runs):
    return runs.frame.drop(columns="seconds")


def trainer(model):
    from transformers import TrainingArguments

    from kdlab.training.trainer import DistillationTrainer

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, report_to="none", use_cpu=True)
        return DistillationTrainer(model, arguments, teacher=writer(1), train_dataset=[]).fused


def hint(model):
    loss = kd.HiddenLoss(kd.features.similarity, [("1", "1")])
    loss.prepare(model, task().train.x[:1], {"1": torch.zeros(1, 8)}, 0)


def as_a_file(model):
    x = task().train.x[:3]
    with tempfile.TemporaryDirectory() as folder:
        return kd.to_onnx(model, x, f"{folder}/net.onnx")(x)


def as_gguf(model):
    tokenizer = kd.language_model("docs_lm")[1]
    with tempfile.TemporaryDirectory() as folder:
        file = kd.to_gguf(model, tokenizer, f"{folder}/lm.gguf", ["Return a list."], "f32")
        return kd.language_model(file.path)[0](WINDOWS).logits.detach()


def kept_on_disk(model):
    rows = [{"id": 0, "input_ids": [1, 2, 3, 4]}]
    with tempfile.TemporaryDirectory() as folder:
        return kd.signals.from_teacher(folder, model, rows, k=3)[[0]]["log_probs"][0]


def kept_of_all(model):
    with tempfile.TemporaryDirectory() as folder:
        return sizes.ask(f"{folder}/new", model, WINDOWS, [0])[[0]]["log_probs"][0]


# name → (the model, what is asked of it; None where only the modes can be compared)
READERS = {
    "logits": (network, lambda m: kd.outputs.logits(m, task().train.x, batch=7)),
    "hidden": (network, lambda m: kd.outputs.hidden(m, task().train.x, ["1", "4"], batch=7)),
    "each": (network, lambda m: kd.each(runs(m), [task()])),
    "Runs.values": (network, lambda m: runs(m).values("nll", on="test")["value"]),
    "Runs.logits_of_unit": (network, lambda m: runs(m).logits_of_unit(task(), task().test.x)),
    "answers_of": (network, lambda m: FOUND["answers_of"](m, [task()], "train")),
    "distill": (network, lambda m: results(kd.distill(kd.mlp(4), m, task(), epochs=1))),
    "sweep": (network, lambda m: results(kd.sweep(kd.mlp(4), task(), teacher=m, epochs=1))),
    "HiddenLoss.prepare": (network, hint),
    "WithoutAdapter.__init__": (adapted, lambda m: kd.WithoutAdapter(m)(WINDOWS).logits),
    "temperature_explorer": (
        network,
        lambda m: FOUND["temperature_explorer"](task(), m, network()).answer["lines"],
    ),
    "latency_ratios": (
        network,
        lambda m: FOUND["latency_ratios"]({"m": m}, m, task().train.x[:1], 4, 2) and None,
    ),
    "completions": (writer, lambda m: kd.completions(m, [[1, 2, 3], [4]], 6)),
    "OnPolicy.__call__": (writer, lambda m: kd.OnPolicy(1.0, 6)(m, [BATCH], 0)),
    "costs": (writer, lambda m: kd.costs({"m": m}, WINDOWS, calls=1)["peak"]),
    "flops": (writer, lambda m: FOUND["flops"](m, WINDOWS)),
    "reads_3": (network, lambda m: ship.reads_3(m, task().test)),
    "right": (network, lambda m: ship.right(m, task().test)),
    "rounded": (
        network,
        lambda m: kd.outputs.logits(ship.rounded(m, lambda w, bits: w, 8), task().test.x),
    ),
    "to_onnx": (lambda: network().float(), as_a_file),
    "to_gguf": (lambda: kd.language_model("docs_lm")[0], as_gguf),
    "from_teacher": (writer, kept_on_disk),
    "ask": (lambda: kd.language_model("docs_base")[0], kept_of_all),
    "goes_on": (writer, lambda m: ship.goes_on(m, Letters, "dcb", 4)),
    "perplexity": (writer, lambda m: kd.perplexity(m, BATCH)),
    "nats": (writer, lambda m: language.nats(m, WINDOWS)),
    "knows": (
        writer,
        lambda m: language.knows(
            m, writer(1), {"f": dict.fromkeys(("train", "validation"), WINDOWS.repeat(4, 1))}
        ),
    ),
    "written": (writer, lambda m: language.written(m, WINDOWS)),
    "bought": (writer, lambda m: language.bought(m, WINDOWS[:, : language.PROMPT])),
    "oddity": (writer, lambda m: language.oddity(m, m, WINDOWS)),
    "measures": (writer, lambda m: language.measures(m, {"test": WINDOWS})(m)),
    "exposure": (writer, lambda m: language.exposure(m, {"test": WINDOWS})(m)),
    "expected": (writer, lambda m: language.expected(m, Letters, "dcb", top=3)),
    "how_sure": (writer, lambda m: language.how_sure(m, Letters, "dcb", ks=(1, 3))),
    "shaded": (writer, lambda m: language.shaded(m, Letters, WINDOWS[0])),
    "writes": (writer, lambda m: reasons.writes(m, Lists, ["dcb", "fg"], new=4)),
    "right_of": (writer, lambda m: reasons.right_of(m, Lists, ["dcb"], {"dcb": "3"}, new=4)),
    "answers": (reader, lambda m: encoders.answers(m, TEXTS)),
    "accuracy": (reader, lambda m: encoders.accuracy(m, TEXTS)),
    "rests_on": (reader, lambda m: encoders.rests_on(m, spelt, "bcd ef gh")),
    "lesson": (
        reader,
        lambda m: encoders.lesson(TEXTS, kd.KDLoss(), m)(reader().eval(), 0).detach(),
    ),
    "fusible": (writer, lambda m: FOUND["fusible"](m, writer(1), None)),
    "DistillationTrainer.__init__": (writer, trainer),
}
NO_READERS = {
    "its student is a person": ["my_split", "as_known"],
    "a module around the teacher, whose mode is its own: the trainer sets it": [
        "Prompted.__init__",
    ],
    "takes layers or logits, no model": [
        "Objective.rows",
        "HiddenLoss.rows",
        "LayerMap.rows",
        "Relations.rows",
        "Relating.rows",
        "SquaredError.rows",
        "SquaredError.__call__",
        "fitnets",
        "attention_transfer",
        "similarity",
        "rkd_distance",
        "rkd_angle",
        "rationale_loss",
        "Answers.__init__",
    ],
    "takes a builder; the students that it trains are its own": [
        "train",
        "generations",
        "build",
        "worth_a_thread",
    ],
    "looks at a model without running it": [
        "Objective.prepare",
        "has_layers",
        "place",
        "check_shapes",
        "check_kind",
        "device_of",
        "layers",
        "perceptron",
        "small",
        "fingerprint_model",
        "bytes_on_disk",
        "bytes_resident",
        "size_of",
        "plan",
        "find_encoder",
        "EncoderLoss.prepare",
        "LayersLoss.prepare",
        "LayerMap.fit",
        "Relations.fit",
        "Relating.fit",
        "Pair.__init__",
        "narrow",
        "threads_for",
        "parameters",
        "positions",
        "inside",
        "takes",
        "unwrapped",
        "check_ids",
        "reserved_positions",
        "compiled",
        "student_from",
        "save",
        "Runs.__init__",
        "Tapped.__init__",
        "check",
        "known_tokens",
        "check_gradients",
        "vocabulary",
    ],
    "a step of training, in the mode the caller chose": ["memory"],
    "the caller runs the model within it": [
        "tap",
        "EncoderLoss.collect",
        "LayersLoss.collect",
        "evaluating",
    ],
    "trains or validates the sweep's own students": [
        "Begun.__init__",
        "Budgets.__init__",
        "Stack.__init__",
        "epoch",
        "one_step_of",
        "step",
        "train_stack",
        "validate",
    ],
    "trains the model and says in which mode it gives it back": ["fit"],
    "Trainer's own loops set the mode before they call it": [
        "DistillationTrainer.compute_loss",
        "Side.forward",
        "DistillationTrainer.prediction_step",
    ],
    "refuses a model in train mode": ["app", "serve"],
    "costs sets the mode before it calls it": ["peak"],
    "asks by sizes.ask, of texts of its own": ["from_nothing"],
    "its answers, not the model": ["Audit.__init__"],
    "the model is a name": ["APITeacher.__init__", "model_card"],
    "the model is Jupyter's word for a file that it saves": ["on_save"],
    "draws what Runs has recorded, or reads copies that Runs makes": [
        "alikeness",
        "curve",
        "choose_student_explorer",
    ],
}


def test_every_public_function_that_takes_a_model_is_held_here_or_says_why_not():
    listed = [*READERS, *(name for names in NO_READERS.values() for name in names)]
    assert len(set(listed)) == len(listed)
    new, gone = sorted(set(FOUND) - set(listed)), sorted(set(listed) - {name for name, _ in ALL})
    assert new == [], "put it into READERS, or into NO_READERS with its reason"
    assert gone == [], "take it out"


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


def in_train_mode(make):
    """A model in train mode, but for one layer that its owner keeps in eval mode."""
    model = make().train()
    last = [module for module in model.modules() if not list(module.children())][-1]
    last.eval()
    assert set(modes(model).values()) == {True, False}
    return model


def assert_same(a, b):
    if isinstance(a, (pd.DataFrame, pd.Series)):
        assert a.equals(b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for pair in zip(a, b, strict=True):
            assert_same(*pair)
    elif torch.is_tensor(a):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    else:
        assert a == b


each_reader = pytest.mark.parametrize("name", READERS)


@each_reader
def test_a_model_left_in_train_mode_is_read_as_in_eval_mode_and_keeps_its_modes(name):
    make, call = READERS[name]
    expected, model = call(make().eval()), in_train_mode(make)
    before, state = modes(model), {k: v.clone() for k, v in model.state_dict().items()}
    seen, gradients = set(), [p.requires_grad for p in model.parameters()]
    for module in model.modules():
        module.register_forward_pre_hook(
            lambda m, _: seen.add((m.training, torch.is_grad_enabled()))
        )
    first, second = call(model), call(model)
    if (
        name != "DistillationTrainer.__init__"
    ):  # which reads the student only where its loss could be fused
        assert seen
    assert seen <= {(False, False)}
    assert_same(first, expected)
    assert_same(second, expected)
    assert modes(model) == before and [p.requires_grad for p in model.parameters()] == gradients
    assert_same(dict(model.state_dict()), state)


@each_reader
def test_a_reader_that_fails_puts_the_modes_back(name):
    make, call = READERS[name]
    model = in_train_mode(make)
    before = modes(model)
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(model)
    assert modes(model) == before
