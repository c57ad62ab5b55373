"""One optimiser over a stack of replicas."""

import itertools
import math

import torch

from kdlab.losses.slopes import SLOPE
from kdlab.training import backprop

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Stepper:
    """One optimiser over the stacked weights of a `Replicas`, a learning rate a replica.

    lr_t = lr · ½ (1 + cos(π t / steps)), or lr with schedule="constant". `clip` bounds each
    replica's own gradient norm. The optimisers are torch's ("adam", "adamw", "sgd"); further
    options (momentum, weight_decay) are passed on. Replicas of one learning rate share a call, so
    sort them by it. pixels: the numbers of one input, see backprop.layers."""

    def __init__(
        self,
        replicas,
        lr,
        steps,
        optimiser="adam",
        schedule="cosine",
        clip=None,
        pixels=0,
        **options,
    ):
        if optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {sorted(OPTIMISERS)}, got {optimiser!r}")
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {schedule!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be above 0, or None, got {clip!r}")
        self.replicas, self.steps, self.schedule, self.clip, self.t = (
            replicas,
            steps,
            schedule,
            clip,
            0,
        )
        self.on_gpu = replicas.device.type == "cuda"
        self.chain = self._by_hand_here(pixels)
        # a frozen weight stays
        learns = [k for k, p in replicas.base.named_parameters() if p.requires_grad]
        if replicas.block is not None:
            weights, slopes = [replicas.block], [torch.zeros_like(replicas.block)]
            self.grads = backprop.views(slopes[0], replicas.parameters)
        else:
            weights = [replicas.parameters[k] for k in learns]
            slopes = [torch.zeros_like(weight) for weight in weights]
            self.grads = dict(zip(learns, slopes, strict=True))
        groups, at = [], 0
        for rate, same in itertools.groupby(lr):
            rows = slice(at, at + len(list(same)))
            parts = [weight[rows] for weight in weights]
            for part, slope in zip(parts, slopes, strict=True):
                part.grad = slope[rows]
            # on a GPU a tensor, which a recorded step reads anew
            first = torch.tensor(rate, device=replicas.device) if self.on_gpu else rate
            groups.append({"params": parts, "lr": first, "base": rate})
            at = rows.stop
        if self.on_gpu and optimiser != "sgd":
            options = options | {"capturable": True}
        self.optimiser = OPTIMISERS[optimiser](groups, fused=True, **options)

    def _by_hand_here(self, pixels):
        """What `backprop` knows of the network; None where torch's own layers are to be used: for
        convolutions on another device than the CPU, and within autocast."""
        place = self.replicas.device.type
        cast = torch.amp.is_autocast_available(place) and torch.is_autocast_enabled(place)
        here = place == "cpu" or backprop.perceptron(self.replicas.base)
        return backprop.layers(self.replicas.base, pixels) if here and not cast else None

    def step(self, x, loss_of):
        """A step on x (R, B, ...): loss_of(logits) → terms {"loss": (R, B), …}, detached."""
        self.schedule_rates()
        return self.update(x, loss_of)

    def schedule_rates(self):
        """Set each group's learning rate for the next step."""
        if self.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * self.t / self.steps))
            for group in self.optimiser.param_groups:
                rate = group["base"] * share
                group["lr"] = group["lr"].fill_(rate) if self.on_gpu else rate
        self.t += 1

    def state(self):
        """{name: tensor} of all that `update` changes."""
        own = self.replicas.parameters | self.replicas.buffers
        found = {f"replicas.{name}": value for name, value in own.items()}
        for i, kept in enumerate(self.optimiser.state.values()):
            found |= {f"{i}.{key}": v for key, v in kept.items() if torch.is_tensor(v)}
        return found

    def update(self, x, loss_of):
        """The same at the rates that stand."""
        terms = (self._by_hand if self.chain else self._by_vmap)(x, loss_of)
        if self.clip:
            norm = sum(g.flatten(1).square().sum(1) for g in self.grads.values()).sqrt()
            scale = (self.clip / norm.clamp_min(1e-12)).clamp_max(1)
            for g in self.grads.values():
                g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
        self.optimiser.step()
        return {k: v.detach() for k, v in terms.items()}

    def _by_vmap(self, x, loss_of):
        """The gradients of any architecture, by autograd through `vmap`."""
        leaves = {k: self.replicas.parameters[k].detach().requires_grad_() for k in self.grads}
        terms = loss_of(self.replicas.forward(x, self.replicas.parameters | leaves))
        # replicas share no weight: the sum's gradient is each one's own
        total = terms["loss"].mean(-1).sum()
        torch._foreach_copy_(
            list(self.grads.values()), torch.autograd.grad(total, list(leaves.values()))
        )
        return terms

    def _by_hand(self, x, loss_of):
        """The same for what `backprop` knows: autograd through the loss alone."""
        parameters = self.replicas.parameters
        logits, kept = backprop.forward(self.chain, parameters, x, self.replicas.noise(x))
        terms = loss_of(logits.requires_grad_())
        g = terms.pop(SLOPE, None)  # of each row's own loss, where it is known
        if g is None:
            (g,) = torch.autograd.grad(terms["loss"].mean(-1).sum(), logits)
        else:
            g = g.div_(g.shape[1]).to(logits.dtype)  # of half precision too
        backprop.backward(self.chain, parameters, self.grads, kept, g)
        return terms
