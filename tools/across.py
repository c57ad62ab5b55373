"""What crosses between a submission's process and the process of the checks: calls, answers, data.

Both ends run this file. A value crosses as JSON with raw numbers beside it; functions and modules
stay where they were made, the other end holds a name for them and asks. Only the submission's end
believes what it receives so far as to unpickle it. Gradients cross too: an answer that needs one
asks for it, in its own backward pass.
"""

import builtins
import contextlib
import importlib
import io
import json
import math
import pickle
import secrets
import struct
import sys
import traceback
from collections import abc

LARGEST = 2**28  # bytes of one message
LONGEST = 500  # characters of what an error says
DEEPEST = 50  # lists within lists
KINDS = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32"]
KINDS += ["float64", "complex64", "complex128"]
KNOWN = {"Estimate": "kdlab"}  # a class of data alone → the package that has it
ENDS = []  # the ends of this process: an Away names its own by number


class GoneError(RuntimeError):
    """The other end has ended, or speaks no longer as it should."""


def torch_here():
    """torch where it has been imported: a homework without it starts quickly."""
    return sys.modules.get("torch")


def is_a(value, *dotted):
    """Whether value belongs to one of these classes, of modules that may not be imported."""
    found = []
    for name in dotted:
        module, _, kind = name.rpartition(".")
        found += [getattr(sys.modules[module], kind)] if module in sys.modules else []
    return isinstance(value, tuple(found))


def raw(tensor):
    """The bytes of a tensor's numbers."""
    torch = torch_here()
    flat = tensor.detach().as_subclass(torch.Tensor)
    flat = flat.to_dense() if flat.layout != torch.strided else flat
    return flat.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def as_bytes(tensor):
    return raw(tensor).numpy().tobytes() if tensor.numel() else b""


def from_bytes(kind, shape, content):
    """A fresh tensor. Raises ValueError where bytes and shape don't agree."""
    torch = torch_here() or importlib.import_module("torch")
    if kind not in KINDS or any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"no tensor: {str(kind)[:40]}")
    dtype = getattr(torch, kind)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError("no tensor: its bytes don't fit its shape")
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def grow(parameter):
    """Make it hang on a graph, as one does that was changed where gradients are recorded."""
    torch = torch_here()
    with torch.enable_grad():
        zero = torch.zeros((), dtype=parameter.dtype, requires_grad=True)
        return parameter.detach_().requires_grad_(False).add_(zero)


def named_tensors(module):
    """name → parameter or buffer, each name that there is."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )


def is_away(value):
    """Whether it lives at another end."""
    return isinstance(value, Away) or "module" in _MADE and isinstance(value, _MADE["module"])


def plain(value):
    """Whether it is data through and through, which crosses as it is."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float) or is_a(value, "torch.Tensor")


def has_hooks(module):
    """Whether something of the module's own home listens to it."""
    parts = [*module.modules(), *module.parameters()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, hook, None) for part in parts for hook in hooks)


class Pickler(pickle.Pickler):
    """pickle, with tensors beside it and names for what both ends have."""

    def __init__(self, file, pack):
        super().__init__(file, protocol=5)
        self.pack = pack

    def persistent_id(self, value):
        if is_a(value, "torch.Tensor"):
            return "tensor", self.pack.tensor(value, owned=True)
        name = self.pack.end.name_of(value)
        return ("name", name) if name else None


def packed(module, pack):
    """The module as bytes, with its own classes and all they refer to; its tensors go into pack."""
    import cloudpickle

    class CloudPickler(cloudpickle.Pickler):
        def persistent_id(self, value):
            return ("tensor", pack.tensor(value)) if is_a(value, "torch.Tensor") else None

    file = io.BytesIO()
    CloudPickler(file).dump(module)
    return file.getvalue()


class Unpickler(pickle.Unpickler):
    def __init__(self, file, got):
        super().__init__(file)
        self.got = got

    def persistent_load(self, found):
        kind, value = found
        return self.got.tensors[value] if kind == "tensor" else self.got.end.names[value]


class Pack:
    """Values on their way out: trees of JSON, their tensors and other bytes."""

    def __init__(self, end):
        self.end, self.homes = end, {}  # homes: a tensor of the other end's → its handle and name
        self.tensors, self.metas, self.owned, self.modules, self.blobs = [], [], set(), [], []
        self._places = {}

    def blob(self, content):
        self.blobs.append(bytes(content))
        return len(self.blobs) - 1

    def tensor(self, value, owned=False):
        """The tensor's number; owned: it belongs to a module or an optimiser."""
        torch = torch_here()
        if id(value) not in self._places:
            self._places[id(value)] = len(self.tensors)
            self.tensors.append(value)
            meta = {
                "kind": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
                "grad": bool(value.requires_grad),
                "parameter": isinstance(value, torch.nn.Parameter),
                "grown": isinstance(value, torch.nn.Parameter) and not value.is_leaf,
                "blob": self.blob(as_bytes(value)),
            }
            if id(value) in self.homes:
                meta["home"] = self.homes[id(value)]
            self.metas.append(meta)
        place = self._places[id(value)]
        if owned:
            self.owned.add(place)
        return place

    def tree(self, value, depth=0):
        """The value as JSON. Raises TypeError where it is no data and cannot be asked for."""
        if depth > DEEPEST:
            raise TypeError("lists within lists within lists: is it a list that holds itself?")
        if value is None or isinstance(value, bool):
            return value
        if is_a(value, "numpy.ndarray", "numpy.generic"):
            return self._array(value)
        for kind in (str, int, float):
            if isinstance(value, kind):
                return kind(value)
        if is_a(value, "torch.Tensor"):
            return ["tensor", self.tensor(value)]
        return self._container(value, depth) or self._rich(value, depth)

    def _array(self, value):
        array = importlib.import_module("numpy").asarray(value)
        if array.dtype.kind not in "biufc":
            return self.tree(array.tolist())
        single = not is_a(value, "numpy.ndarray")
        return ["array", array.dtype.str, list(array.shape), self.blob(array.tobytes()), single]

    def _container(self, value, depth):
        if (name := self.end.name_of(value)) and not plain(value):
            return ["name", name]
        if isinstance(value, dict):
            tree = [[self.tree(k, depth + 1), self.tree(v, depth + 1)] for k, v in value.items()]
            return ["dict", tree]
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return [kind.__name__, [self.tree(one, depth + 1) for one in value]]
        return None

    def _rich(self, value, depth):
        if is_away(value) and value._away[0] == self.end.number:
            return self._yours(value)
        if name := self.end.name_of(value):
            return ["name", name]
        if is_a(value, "torch.nn.Module"):
            return self._module(value)
        if is_a(value, "torch.Generator"):
            return ["generator", self.tensor(value.get_state())]
        if is_a(value, "torch.dtype", "torch.device"):
            return ["torch", str(value)]
        if is_a(value, "torch.optim.Optimizer") and not self.end.pickles:
            return self._optimiser(value, depth)
        if isinstance(value, complex):
            return ["complex", [value.real, value.imag]]
        if isinstance(value, abc.Iterator | range):
            return ["list", [self.tree(one, depth + 1) for one in value]]
        if callable(value):
            return ["function", self.end.handle(value)]
        return self._pickled(value) if self.end.pickles else self._data(value, depth)

    def _yours(self, value):
        """What lives at the other end; a module goes home with its numbers as they are here."""
        handle = value._away[1]
        if isinstance(value, Away):
            return ["yours", handle, {}]
        for name, tensor in named_tensors(value).items():
            self.homes[id(tensor)] = [handle, name]
            self.tensor(tensor, owned=True)
        return ["yours", handle, modes(value)]

    def _data(self, value, depth):
        if is_a(value, "pandas.Series"):
            parts = [value.index.tolist(), value.tolist()]
            return ["series", [self.tree(part, depth + 1) for part in parts]]
        kind = type(value).__name__
        if kind in KNOWN and hasattr(value, "__dataclass_fields__"):
            fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
            return ["known", kind, self.tree(fields, depth + 1)]
        if isinstance(value, abc.Iterable):
            return ["list", [self.tree(one, depth + 1) for one in value]]
        if hasattr(value, "__float__"):
            return float(value)
        raise TypeError(f"a {kind} came, which is no number, text, list, dict or tensor")

    def _pickled(self, value):
        file = io.BytesIO()
        Pickler(file, self).dump(value)
        return ["pickle", self.blob(file.getvalue())]

    def _module(self, module):
        place = len(self.modules)
        self.modules.append(module)
        if self.end.pickles and not has_hooks(module):
            return ["module", place, self._pickled(module)]
        tensors = named_tensors(module)
        buffers = [name for name, _ in module.named_buffers(remove_duplicate=False)]
        mine = {name: self.tensor(value, owned=True) for name, value in tensors.items()}
        return ["away", place, self.end.handle(module), modes(module), mine, buffers]

    def _optimiser(self, optimiser, depth):
        groups = []
        for group in optimiser.param_groups:
            params = [self.tensor(one, owned=True) for one in group["params"]]
            others = {key: value for key, value in group.items() if key != "params"}
            groups.append([params, self.tree(others, depth + 1)])
        return ["optimiser", type(optimiser).__name__, groups]


def modes(module):
    """name → whether this part of the module is in train mode."""
    return {name: part.training for name, part in module.named_modules()}


class Got:
    """A message that came: its tensors, and its trees as values again."""

    def __init__(self, end, message, blobs):
        self.end, self.message, self.blobs = end, message, blobs
        self.tensors = [self._tensor(meta) for meta in message.get("tensors", [])]
        self.modules = {}
        self._before = None

    def _tensor(self, meta):
        torch = torch_here() or importlib.import_module("torch")
        value = from_bytes(meta["kind"], meta["shape"], self.blobs[meta["blob"]])
        if "home" in meta:
            handle, name = meta["home"]
            mine = named_tensors(self.end.handles[handle])[name]
            if as_bytes(mine) != self.blobs[meta["blob"]]:
                mine.data.copy_(value)
            return mine
        if meta["grown"]:
            return grow(torch.nn.Parameter(value, requires_grad=False))
        if meta["parameter"]:
            return torch.nn.Parameter(value, requires_grad=bool(meta["grad"]))
        return value.requires_grad_() if meta["grad"] else value

    def value(self, tree):
        """The value of a tree. Raises ValueError where the other end sent none."""
        if not isinstance(tree, list):
            return tree
        kind, *parts = tree
        make = getattr(self, f"_make_{kind}", None)
        if make is None or kind in ("pickle", "module", "name") and not self.end.believes:
            raise ValueError(f"no value: {str(kind)[:40]}")
        return make(*parts)

    def _make_tensor(self, place):
        return self.tensors[place]

    def _make_array(self, kind, shape, blob, single):
        numpy = importlib.import_module("numpy")
        if numpy.dtype(kind).kind not in "biufc":
            raise ValueError("no array of numbers")
        array = numpy.frombuffer(self.blobs[blob], kind).reshape(shape).copy()
        return array[()] if single else array

    def _make_dict(self, pairs):
        return {self.value(key): self.value(value) for key, value in pairs}

    def _make_list(self, items):
        return [self.value(one) for one in items]

    def _make_tuple(self, items):
        return tuple(self._make_list(items))

    def _make_set(self, items):
        return set(self._make_list(items))

    def _make_frozenset(self, items):
        return frozenset(self._make_list(items))

    def _make_complex(self, parts):
        return complex(*parts)

    def _make_yours(self, handle, training):
        mine = self.end.handles[handle]
        for name, mode in training.items():
            dict(mine.named_modules())[name].training = bool(mode)
        return mine

    def _make_name(self, name):
        return self.end.names[name]

    def _make_function(self, handle):
        return Away(self.end, handle)

    def _make_torch(self, text):
        torch = importlib.import_module("torch")
        name = text.removeprefix("torch.")
        return getattr(torch, name) if name in KINDS else torch.device(name)

    def _make_generator(self, place):
        generator = importlib.import_module("torch").Generator()
        generator.set_state(self.tensors[place])
        return generator

    def _make_series(self, parts):
        index, values = (self.value(part) for part in parts)
        return importlib.import_module("pandas").Series(values, index=index)

    def _make_known(self, kind, fields):
        return getattr(importlib.import_module(KNOWN[kind]), kind)(**self.value(fields))

    def _make_pickle(self, blob):
        return Unpickler(io.BytesIO(self.blobs[blob]), self).load()

    def _make_module(self, place, tree):
        self.modules[place] = self.value(tree)
        return self.modules[place]

    def _make_away(self, place, handle, training, tensors, buffers):
        mine = {name: self.tensors[i] for name, i in tensors.items()}
        self.modules[place] = away_module()(self.end, handle, training, mine, buffers)
        return self.modules[place]

    def _make_optimiser(self, kind, groups):
        torch = importlib.import_module("torch")
        made = getattr(torch.optim, kind, None)
        if not (isinstance(made, type) and issubclass(made, torch.optim.Optimizer)):
            raise ValueError("no optimiser of torch.optim")
        groups = [(params, self.value(others)) for params, others in groups]
        return made([others | {"params": [self.tensors[i] for i in p]} for p, others in groups])

    # --- what a call did to its arguments ---

    def note(self):
        """Remember the arguments as they came."""
        self._before = [
            (t.data_ptr(), as_bytes(t), t.grad if t.is_leaf else None, t.requires_grad)
            for t in self.tensors
        ]
        self._grads = [None if b[2] is None else as_bytes(b[2]) for b in self._before]
        self._parts = {k: (modes(m), named_tensors(m)) for k, m in self.modules.items()}

    def effects(self, pack):
        """What has changed since: of tensors, and of modules. JSON; its numbers go into pack."""
        pointers = {b[0]: i for i, b in enumerate(self._before) if self.tensors[i].numel()}
        changed = {}
        for i, (tensor, before) in enumerate(zip(self.tensors, self._before, strict=True)):
            found = {}
            other = pointers.get(tensor.data_ptr(), i)
            if other != i and tensor.data_ptr() != before[0]:
                found["alias"] = other
            elif as_bytes(tensor) != before[1]:
                found["data"] = pack.tensor(tensor.detach().clone(), owned=True)
            grad = tensor.grad if tensor.is_leaf else None
            if (None if grad is None else as_bytes(grad)) != self._grads[i]:
                found["grad"] = None if grad is None else pack.tensor(grad, owned=True)
            if tensor.requires_grad != before[3]:
                found["requires"], found["grown"] = tensor.requires_grad, not tensor.is_leaf
            if found:
                changed[i] = found
        return {"tensors": changed, "modules": self._changed_modules(pack, pointers)}

    def _changed_modules(self, pack, pointers):
        found = {}
        for place, (training, tensors) in self._parts.items():
            module = self.modules[place]
            now = {name: mode for name, mode in modes(module).items() if training.get(name) != mode}
            new = {}
            for name, tensor in named_tensors(module).items():
                if tensors.get(name) is not tensor:
                    alias = pointers.get(tensor.data_ptr()) if tensor.numel() else None
                    new[name] = [pack.tensor(tensor, owned=True), alias]
            if now or new:
                found[place] = {"training": now, "new": new}
        return found


def applied(effects, pack, got, all_of_them):
    """Do to the arguments that were sent what was done to their copies.

    all_of_them: also to tensors that belong to no module or optimiser.
    """
    for i, found in effects.get("tensors", {}).items():
        i = int(i)
        if i not in pack.owned and not all_of_them:
            continue
        mine = pack.tensors[i]
        if "alias" in found:
            mine.data = pack.tensors[found["alias"]].data
        if "data" in found:
            mine.data.copy_(got.tensors[found["data"]])
        if found.get("grown"):
            grow(mine)
        elif "requires" in found and mine.is_leaf:
            mine.requires_grad_(bool(found["requires"]))
        if "grad" in found and mine.is_leaf:
            mine.grad = None if found["grad"] is None else got.tensors[found["grad"]].detach()
    for place, found in effects.get("modules", {}).items():
        module = pack.modules[int(place)]
        parts = dict(module.named_modules())
        for name, mode in found["training"].items():
            parts[name].training = bool(mode)
        for name, (i, alias) in found["new"].items():
            where, _, last = name.rpartition(".")
            value = got.tensors[i]
            if alias is not None:
                value.data = pack.tensors[alias].data
            setattr(parts[where], last, value)


class Away:
    """A function that lives at the other end."""

    def __init__(self, end, handle):
        self._away = end.number, handle

    def __call__(self, *args, **kwargs):
        return ENDS[self._away[0]].call(self, args, kwargs)


_MADE = {}


def away_module():
    """The class of modules that live at the other end; made when torch is there."""
    if "module" in _MADE:
        return _MADE["module"]
    torch = importlib.import_module("torch")

    class AwayModule(torch.nn.Module):
        """Parameters, buffers and modes as at home; the forward pass is asked for."""

        def __init__(self, end, handle, training, tensors, buffers):
            super().__init__()
            self._away = end.number, handle
            parts = {"": self}
            for name in training:
                where, _, last = name.rpartition(".")
                if name:
                    parts[name] = torch.nn.Module()
                    parts[where].add_module(last, parts[name])
            for name, value in tensors.items():
                where, _, last = name.rpartition(".")
                if name in buffers:
                    parts[where].register_buffer(last, value)
                else:
                    parts[where].register_parameter(last, value)
            for name, mode in training.items():
                parts[name].training = bool(mode)

        def forward(self, *args, **kwargs):
            return ENDS[self._away[0]].call(self, args, kwargs)

    _MADE["module"] = AwayModule
    return AwayModule


def attached(end, tape, outputs, inputs):
    """The outputs of a call, with a backward pass that asks the other end."""
    if "attach" not in _MADE:
        _MADE["attach"] = _attach()
    return _MADE["attach"].apply(end, tape, outputs, *inputs)


def _attach():
    torch = importlib.import_module("torch")

    class Attach(torch.autograd.Function):
        @staticmethod
        def forward(ctx, end, tape, outputs, *inputs):
            ctx.end, ctx.tape = end, tape
            ctx.set_materialize_grads(False)
            return tuple(output.detach() for output in outputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, *grads):
            wanted = ctx.needs_input_grad[3:]
            found = ctx.end.gradients(ctx.tape, list(grads))
            found = [g if need else None for g, need in zip(found, wanted, strict=True)]
            return None, None, None, *found

    return Attach


class End:
    """One end of the connection.

    believes: unpickles what it receives; pickles: sends what is no data pickled. names: what both
    ends have, by name. serve: what the other end may ask for.
    """

    def __init__(self, connection, names, believes, asked):
        self.connection, self.names, self.believes, self.pickles = (
            connection,
            names,
            believes,
            not believes,
        )
        self.asked, self.handles, self.tapes, self.opened = asked, [], [], []
        self.effects_on_all = believes  # the checks' end keeps its tensors as they were
        self.answered, self._told = 0, None
        self.number = len(ENDS)
        ENDS.append(self)

    def name_of(self, value):
        if isinstance(value, str | int | float | bool | type(None)):
            return None
        return next((name for name, mine in self.names.items() if mine is value), None)

    def handle(self, value):
        for number, mine in enumerate(self.handles):
            if mine is value:
                return number
        self.handles.append(value)
        return len(self.handles) - 1

    # --- messages ---

    def send(self, do, pack=None, **more):
        pack = pack or Pack(self)
        head = {"do": do, "tensors": pack.metas, "sizes": [len(b) for b in pack.blobs], **more}
        text = json.dumps(head).encode()
        self.connection.send_bytes(b"".join([struct.pack(">Q", len(text)), text, *pack.blobs]))

    def receive(self):
        try:
            whole = self.connection.recv_bytes(None if self.believes else LARGEST)
            size = struct.unpack(">Q", whole[:8])[0]
            message, blobs, at = json.loads(whole[8 : 8 + size]), [], 8 + size
            for length in message["sizes"]:
                blobs.append(whole[at : at + length])
                at += length
        except (EOFError, OSError) as error:
            raise GoneError(f"the submission's process has ended ({error})") from None
        return message, blobs

    def request(self, do, pack=None, **more):
        """Ask, serve what is asked meanwhile, and return the answer as a Got."""
        key = secrets.token_hex(8)  # what was said before is no answer
        self.send(do, pack, key=key, **more)
        while True:
            message, blobs = self.receive()
            if message["do"] in ("answer", "error"):
                if message.get("key") != key:
                    continue
                self.answered += 1
                if message["do"] == "error":
                    raise self.error(message)
                return Got(self, message, blobs)
            self.serve(message, blobs)

    def answer(self, message, pack=None, **more):
        """Answer a request, and no other."""
        self.send("answer", pack, key=message["key"], **more)

    def error(self, message):
        """The error that the other end reports, of the same name where Python has it."""
        kind, text = str(message["kind"])[:80], str(message["text"])[:LONGEST]
        known = getattr(builtins, kind, None)
        if isinstance(known, type) and issubclass(known, Exception):
            with contextlib.suppress(TypeError):
                error = known(text)
                error.away = str(message.get("trace", ""))[-4000:]
                return error
        error = RuntimeError(f"{kind}: {text}")
        error.away = str(message.get("trace", ""))[-4000:]
        return error

    def serve(self, message, blobs):
        """Do what is asked and send the answer, or the error that it met."""
        try:
            if message["do"] not in self.asked:
                raise ValueError("this end is not asked so")
            getattr(self, f"_{message['do']}")(message, blobs)
        except GoneError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            trace = traceback.format_exc()
            said = {"kind": type(error).__name__, "text": str(error)[:LONGEST], "trace": trace}
            self.send("error", key=message.get("key"), **said)

    # --- calls ---

    def call(self, target, args, kwargs):
        """Call what lives at the other end: an Away, or what has this name there."""
        torch, pack = torch_here(), Pack(self)
        target = target if isinstance(target, str) else pack.tree(target)
        tree = pack.tree([list(args), kwargs])
        grad = torch.is_grad_enabled() if torch else True
        wanted = grad and any(tensor.requires_grad for tensor in pack.tensors)
        seed = self._random(torch, pack)
        more = {"target": target, "tree": tree, "grad": grad, "wanted": wanted, "random": seed}
        got = self.request("call", pack, **more)
        applied(got.message["effects"], pack, got, self.effects_on_all)
        tape, places = got.message["tape"], got.message["follows"]
        if wanted and tape is not None and places:
            outputs = attached(self, tape, [got.tensors[i] for i in places], pack.tensors)
            for place, output in zip(places, outputs, strict=True):
                got.tensors[place] = output
        else:
            for place in places:
                got.tensors[place] = got.tensors[place].detach()
        return got.value(got.message["tree"])

    def _random(self, torch, pack):
        """Where the random numbers stand, if they were set since the last call."""
        if torch is None or self.believes:
            return None
        state = torch.get_rng_state()
        if self._told is not None and torch.equal(state, self._told):
            return None
        self._told = state
        return pack.tensor(state, owned=True)

    def _target(self, got, target):
        if isinstance(target, str) and self.believes:
            return self.names.get(target, self.extra.get(target))
        return got.value(target)

    def _call(self, message, blobs):
        torch = torch_here()
        got = Got(self, message, blobs)
        function = self._target(got, message["target"])
        args, kwargs = got.value(message["tree"])
        got.note()
        if message["random"] is not None:
            torch.set_rng_state(got.tensors[message["random"]])
        with torch.set_grad_enabled(message["grad"]) if torch else contextlib.nullcontext():
            result = function(*args, **kwargs)
            pack = Pack(self)
            tree = pack.tree(result)
        follows = [i for i, t in enumerate(pack.tensors) if t.requires_grad and i not in pack.owned]
        tape = None
        if message["wanted"] and follows:
            tape = len(self.tapes)
            self.tapes.append((got.tensors, [pack.tensors[i] for i in follows]))
        effects = got.effects(pack)
        found = {"tree": tree, "follows": follows, "tape": tape, "effects": effects}
        self.answer(message, pack, **found)

    def gradients(self, tape, grads):
        """The gradients of a call's tensors, from those of its answer; None where there is none."""
        pack = Pack(self)
        tree = pack.tree(grads)
        got = self.request("back", pack, tape=tape, tree=tree)
        return got.value(got.message["tree"])

    def _back(self, message, blobs):
        torch = torch_here()
        inputs, outputs = self.tapes[message["tape"]]
        got = Got(self, message, blobs)
        grads = got.value(message["tree"])
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
        kept = [t.grad if t.is_leaf else None for t in inputs]
        for tensor in inputs:
            tensor.grad = None
        torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs], retain_graph=True)
        found = [t.grad for t in inputs]
        for tensor, before in zip(inputs, kept, strict=True):
            tensor.grad = before
        pack = Pack(self)
        self.answer(message, pack, tree=pack.tree(found))


def leave(*_):
    """What exit and quit do in a submission: the kernel's own would end it after the cell."""
    raise SystemExit("exit() was called")


class Student(End):
    """The submission's end: it calls what the checks ask for, and tells its names."""

    def __init__(self, connection, namespace):
        asked = ("call", "back", "tell", "enter", "leave", "pack", "load")
        super().__init__(connection, {}, True, asked)
        self.extra = namespace

    def keep(self, names):
        """Both ends have these names now."""
        self.names |= {name: self.extra[name] for name in names if name in self.extra}

    def loop(self):
        """Serve one check, until it is done."""
        try:
            while True:
                message, blobs = self.receive()
                if message["do"] == "done":
                    return
                self.serve(message, blobs)
        finally:
            self.tapes.clear()
            while self.opened:
                self.opened.pop().__exit__(None, None, None)

    def _tell(self, message, blobs):
        """What the submission has under these names: functions by name, anything else as data."""
        pack, told = Pack(self), []
        for name in message["names"]:
            if name in self.extra:
                value = self.extra[name]
                try:
                    if callable(value) and not is_a(value, "torch.nn.Module"):
                        told.append([name, "function", None])
                    else:
                        told.append([name, "value", pack.tree(value)])
                except Exception as error:
                    told.append([name, "odd", str(error)[:LONGEST]])
        self.answer(message, pack, told=told)

    def _enter(self, message, blobs):
        got = Got(self, message, blobs)
        args, kwargs = got.value(message["tree"])
        opened = self.names[message["name"]](*args, **kwargs)
        opened.__enter__()
        self.opened.append(opened)
        self.answer(message)

    def _leave(self, message, blobs):
        self.opened.pop().__exit__(None, None, None)
        self.answer(message)

    def _pack(self, message, blobs):
        """A module on its way to a process of its own."""
        pack = Pack(self)
        blob = pack.blob(packed(self.handles[message["handle"]], pack))
        self.answer(message, pack, blob=blob)

    def _load(self, message, blobs):
        """Take in a module that was packed elsewhere."""
        importlib.import_module("torch").set_num_threads(message["threads"])
        got = Got(self, message, blobs)
        module = Unpickler(io.BytesIO(blobs[message["blob"]]), got).load()
        pack = Pack(self)
        self.answer(message, pack, tree=pack.tree(module))


def house(address, key, sources):
    """A process for modules that were packed: it has functions of the reference, and no data."""
    from multiprocessing.connection import Client

    space = {"__name__": "__main__"}
    for source in sources:
        exec(source, space)
    here = Student(Client(address, authkey=bytes.fromhex(key)), space)
    here.keep(list(space))
    while True:
        here.loop()


if __name__ == "__main__":
    house(*json.loads(sys.stdin.readline()))
