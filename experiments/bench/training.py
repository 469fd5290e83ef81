"""A train step of ctxjax as a side, its peers' in PyTorch, and what both share."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from experiments.bench.measure import Side, Step


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command line says to every kind of work.

    Attributes:
      tiny: shapes small enough to see that everything runs, for tests; nothing is recorded.
      corpus: folder of a prepared corpus; generated where it is empty and the item allows it.
      text: file of text, of `prepare`.
    """

    tiny: bool = False
    corpus: str = ""
    text: str = ""


def need_accelerator(name: str, settings: Settings) -> None:
    """Refuse what would take hours on a processor.

    Raises:
      ConfigError: there is no accelerator, and shapes are not tiny.
    """
    import jax

    from ctxjax.config import ConfigError

    if not settings.tiny and jax.default_backend() == "cpu":
        raise ConfigError(f"{name} is of a size for an accelerator and JAX sees none; take another item or --tiny")


def step_flops(objective: Any, model: Any, batch: Mapping[str, Any]) -> float:
    """FLOPs of a step of training, by the analytic count: a backward pass costs two forward ones."""
    return 3.0 * float(objective.flops(model, batch))


def our_step(
    model: Any, objective: Any, rule: Mapping[str, Any], batch: Any, amount: float, carry_rows: int = 0
) -> Side:
    """`make_train_step` on one batch, compiled, which keeps its state and waits for the loss.

    Args:
      rule: fields of `optim.make_optimizer`.
      batch: its leaves are in host memory; each step moves them.
      amount: of what is counted in a step.
      carry_rows: lanes of a model with state.
    """
    import jax

    from ctxjax import optim, rngs
    from ctxjax.step import init_state, make_train_step

    root, inputs = rngs.root_key(0), batch["inputs"]
    params = jax.eval_shape(lambda inputs: model.init(root, inputs, method="touch")["params"], inputs)
    tx, _ = optim.make_optimizer(100_000, params, **rule)
    state = jax.jit(lambda inputs, key: init_state(model, tx, inputs, key, carry_rows))(inputs, root)
    compiled = jax.jit(make_train_step(model, objective, tx), donate_argnums=0).lower(state, batch, root).compile()

    def step() -> Step:
        nonlocal state
        state, metrics = compiled(state, batch, root)
        return Step(amount, loss=float(metrics["loss"]))

    return step


# --- PyTorch ---


def place() -> str:
    """Where the peers run: on CUDA where JAX runs on a GPU."""
    import jax
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        from ctxjax.config import ConfigError

        raise ConfigError("JAX runs on a GPU and torch sees none; install a torch with CUDA, or leave --compare out")
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def compiled(model: Any) -> Any:
    """A module or function through torch.compile on a GPU, as its users do there; as it is on a processor."""
    import torch

    return torch.compile(model) if place() == "cuda" else model


def cast(dtype: str) -> Any:
    """Automatic bf16 over f32 parameters, as `dtype` beside `param_dtype` is ours."""
    import torch

    return torch.autocast(place(), torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def tensors(tree: Any) -> Any:
    """NumPy arrays as tensors where the peer runs, integers as int64."""
    import numpy as np
    import torch

    if isinstance(tree, dict):
        return {name: tensors(leaf) for name, leaf in tree.items()}
    tensor = torch.from_numpy(np.ascontiguousarray(tree)).to(place())
    return tensor if tensor.is_floating_point() else tensor.long()


def their_step(
    parameters: Any, optimizer: Any, loss: Callable[[], Any], amount: float, clip: float, scale: float = 1.0
) -> Side:
    """Gradients, clipping by the global norm, and an update, as everybody writes them.

    Args:
      loss: the forward pass.
      clip: of the norm; 0 clips nothing.
      scale: what the loss is multiplied by before the backward pass.
    """
    import torch

    kept = list(parameters)

    def step() -> Step:
        optimizer.zero_grad()
        value = loss()
        (scale * value).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(kept, clip)
        optimizer.step()
        return Step(amount, loss=scale * float(value.detach()))

    return step


def tokens_of(*shape: int) -> float:
    """Tokens of rows of a length."""
    return float(math.prod(shape))
