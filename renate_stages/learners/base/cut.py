"""`Cut`: a model cut at one of its layers, for learners that replay the layer's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from renate_stages.errors import ModelMismatchError, did_you_mean
from renate_stages.models import RenateModule
from renate_stages.models.features import digest_of, without_growth
from renate_stages.models.modes import evaluating
from renate_stages.models.module import unwrap

NEW, REPLAYED = 2, 3  # rows of the batch that checks a cut
RELATIVE, ABSOLUTE = 1e-3, 1e-5  # tolerance of outputs: other batch sizes reorder sums
SHOWN = 20  # layers in a message
CURE = "name another layer in hyperparameters.latent_layer, or choose another learner such as ER"


class Replayed:
    """A forward hook that appends rows to a layer's output.

    A copy of a model that has the hook appends nothing.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return None if self.rows is None else torch.cat([output, self.rows.to(output)])

    def __reduce__(self) -> tuple[type[Replayed], tuple[()]]:
        return Replayed, ()


class Cut:
    """A model cut at one of its layers.

    Below are the parameters that the layer's output depends on, and the modules that have run when it
    is computed. The cut is checked: in evaluation mode, the outputs for stored outputs of the layer
    must be those for the inputs. `shape` is that of the layer's output for one example.

    Args:
        model: The model; its modes and its parameters are restored.
        name: Name of the layer, such as `features` or `features.4`, without a wrapper's prefix.
        inputs: A batch of `NEW + REPLAYED` rows on the model's device.
        call: Returns the model's outputs for a batch.

    Raises:
        ModelMismatchError: If there is no such layer, no parameter is below or above it, or the
            outputs depend on more than the layer's output.
    """

    def __init__(
        self, model: RenateModule, name: str, inputs: Any, call: Callable[[Any], Any]
    ) -> None:
        self.name = name
        self._model = model
        self._layer = _layer(unwrap(model), name)
        self._replayed = Replayed()
        self._hook: RemovableHandle | None = None
        self._frozen: list[nn.Parameter] = []
        flags = [(each, each.requires_grad) for each in model.parameters()]
        try:
            for parameter in model.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            with evaluating(model):
                self._find_parts(inputs, call)
                self._check(inputs, call)
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    # -- in training ------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop training what is below, until `end`."""
        self._frozen = [each for each in self.below if each.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)

    def start(self) -> None:
        """Let `replaying` append rows; call it when nothing copies the model any more."""
        self._hook = self._layer.register_forward_hook(self._replayed)

    def end(self) -> None:
        """Remove the hook, and let what was frozen be trained again."""
        if self._hook is not None:
            self._hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def keep_evaluating(self) -> None:
        """Put the modules below into evaluation mode; a caller may have set another mode."""
        for module in self._modules:
            module.training = False

    @contextmanager
    def replaying(self, rows: Tensor) -> Iterator[None]:
        """Append rows to the layer's output in each call within the block.

        Args:
            rows: Stored outputs of the layer, `(M, ...)`, any float dtype.
        """
        self._replayed.rows = rows
        try:
            yield
        finally:
            self._replayed.rows = None

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """Yield a list that receives the layer's output of each call within the block."""
        outputs: list[Any] = []
        hook = self._layer.register_forward_hook(lambda *given: outputs.append(given[-1]))
        try:
            yield outputs
        finally:
            hook.remove()

    def digest(self) -> str:
        """Return the SHA-256 of the layer's name, and of the tensors below: weights and buffers."""
        weights, modules = set(map(id, self.below)), set(map(id, self._started))
        tensors: dict[str, Tensor] = {
            name: each for name, each in self._model.named_parameters() if id(each) in weights
        }
        tensors = without_growth(self._model, tensors)
        for name, module in self._model.named_modules():
            if id(module) in modules:
                own = module.named_buffers(name, recurse=False)
                tensors |= {key: each for key, each in own if each is not None}
        return digest_of({f"{self.name}: {key}": _single(each) for key, each in tensors.items()})

    # -- the check --------------------------------------------------------------------------------

    def _find_parts(self, inputs: Any, call: Callable[[Any], Any]) -> None:
        """Find parameters and modules below, by one forward and two backward passes."""
        started: list[nn.Module] = []
        ended: list[nn.Module] = []
        layer_outputs: list[Any] = []
        leaves: list[Tensor] = []
        before: list[tuple[list[nn.Module], list[nn.Module]]] = []

        def cut(_: nn.Module, __: Any, output: Any) -> Any:
            layer_outputs.append(output)
            before.append(([*started], [*ended, self._layer]))
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            leaves.append(output.detach().requires_grad_())
            return leaves[-1]

        hooks = [self._layer.register_forward_hook(cut)]
        for module in self._model.modules():
            hooks.append(module.register_forward_pre_hook(lambda each, _: started.append(each)))
            hooks.append(module.register_forward_hook(lambda each, *_: ended.append(each)))
        try:
            with torch.enable_grad():
                outputs = call(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        if len(layer_outputs) != 1 or not leaves:
            raise self._refused(
                f"runs {len(layer_outputs)} times in a call and returns "
                f"{type(layer_outputs[0]).__name__ if layer_outputs else 'nothing'}; expected once, "
                "and a float tensor"
            )
        if not isinstance(outputs, Tensor):
            raise self._refused(
                f"is in a model that returns {type(outputs).__name__}, not a tensor"
            )
        self._outputs, self._latents = outputs.detach(), layer_outputs[0].detach()
        self.shape = tuple(self._latents.shape[1:])
        parameters = [each for each in self._model.parameters() if each.is_floating_point()]
        below = _reached(layer_outputs[0], parameters)
        above = _reached(outputs, [*parameters, leaves[0]])
        if not any(each is leaves[0] for each in above):
            raise self._refused("does not change the model's outputs")
        if not below or len(above) == 1:
            side = "below" if not below else "above"
            raise self._refused(f"has no parameters {side} it; both sides need some")
        shared = {id(each) for each in below} & {id(each) for each in above}
        if shared:
            raise self._refused(
                "does not separate the model: parameters below it change the outputs in another way "
                "too, such as a connection around it, or weights that layers above share"
            )
        self.below, self.above = below, [each for each in above if each is not leaves[0]]
        ((opened, done),) = before
        later = {id(each) for each in started[len(opened) :]}
        self._modules = [each for each in _unique(done) if id(each) not in later]
        self._started = [each for each in _unique(opened) if id(each) not in later]

    @torch.no_grad()
    def _check(self, inputs: Any, call: Callable[[Any], Any]) -> None:
        """Check that rows can be replayed, on one batch."""
        few = tree_map(lambda each: each[:NEW], inputs)
        hook = self._layer.register_forward_hook(self._replayed)
        try:
            with self.replaying(self._latents[NEW:]):
                found = call(few)
        except Exception as error:
            raise self._refused(f"cannot be replayed: the model fails with {error!r}") from error
        finally:
            hook.remove()
        largest = float(self._outputs.abs().max())
        if found.shape != self._outputs.shape or not torch.allclose(
            found, self._outputs, RELATIVE, ABSOLUTE * max(1.0, largest), equal_nan=True
        ):
            raise self._refused("cannot be replayed: the outputs depend on more than its output")
        del self._outputs, self._latents

    def _refused(self, problem: str) -> ModelMismatchError:
        model = type(unwrap(self._model)).__name__
        return ModelMismatchError(f"layer `{self.name}` of {model} {problem}", CURE)


def _layer(module: nn.Module, name: str) -> nn.Module:
    layers = dict(module.named_modules())
    if not name or name not in layers:
        known = [each for each in layers if each]
        raise ModelMismatchError(
            f"{type(module).__name__} has no layer `{name}`{did_you_mean(name, known)} (its layers: "
            f"{', '.join(known[:SHOWN]) or 'none'}{', ...' if known[SHOWN:] else ''})",
            CURE,
        )
    return layers[name]


def _reached(output: Tensor, leaves: list[Any]) -> list[Any]:
    """Return the tensors that an output depends on."""
    if not output.requires_grad:
        return []
    gradients = torch.autograd.grad(output.sum(), leaves, allow_unused=True, retain_graph=True)
    return [each for each, gradient in zip(leaves, gradients, strict=True) if gradient is not None]


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _unique(modules: list[nn.Module]) -> list[nn.Module]:
    return list({id(each): each for each in modules}.values())
