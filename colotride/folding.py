"""BatchNorm folded into the convolution before it, for a network that is frozen.

In evaluation mode BatchNorm is a scale and a shift per channel, which the convolution can apply itself. A
perturbation passes through the network dozens of times between two updates of the weights: folding once per
perturbation saves two passes over every activation at every step, and is exact within rounding.
"""

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

SAME = "Conv2dSame"
"""timm's convolution with TensorFlow's padding, which depends on the size of what comes in."""

NORM_AND_ACTIVATION = "BatchNormAct2d"
"""timm's BatchNorm with what follows it, `drop` and `act`."""


class FoldedConvolution(nn.Module):
    """A convolution and its BatchNorm as one convolution; `refresh` adopts their present weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        # A tuple keeps both out of this module's own parameters: the network remains their owner.
        self._folded = (convolution, norm)
        weight, bias = self._product()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def refresh(self) -> None:
        """Fold again, from the weights and statistics as they are now, into the same memory where it fits."""
        weight, bias = self._product()
        if (weight.device, weight.dtype) == (self.weight.device, self.weight.dtype):
            self.weight.copy_(weight)
            self.bias.copy_(bias)
        else:
            self.weight, self.bias = weight, bias

    def forward(self, images: Float[Tensor, "images channels height width"]) -> Tensor:
        """The output of the convolution and its BatchNorm in evaluation mode."""
        convolution = self._folded[0]
        if _is_timm(convolution, SAME):
            images = _padded(images, convolution)
        return convolution._conv_forward(images, self.weight, self.bias)

    def _product(self) -> tuple[Tensor, Tensor]:
        convolution, norm = self._folded
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
        return weight.detach(), bias.detach()


class FoldedNetwork(nn.Module):
    """A network in evaluation mode whose foldable BatchNorms are gone; all other layers are the network's own."""

    def __init__(self, graph: fx.GraphModule, convolutions: list[FoldedConvolution]) -> None:
        super().__init__()
        self.graph, self._convolutions = graph, tuple(convolutions)

    def refresh(self) -> None:
        """Fold again, from the network's weights and statistics as they are now."""
        for convolution in self._convolutions:
            convolution.refresh()

    def forward(self, images: Tensor) -> Tensor:
        """The output of the network in evaluation mode."""
        result: Tensor = self.graph(images)
        return result


class _Tracer(fx.Tracer):
    """Looks into a module only where BatchNorm is inside; everything else stays as it is, whatever its code does."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            super().is_leaf_module(m, module_qualified_name)
            or isinstance(m, nn.Conv2d | nn.BatchNorm2d)
            or not any(isinstance(inner, nn.BatchNorm2d | nn.Conv2d) for inner in m.modules())
        )


def fold_batchnorm(network: nn.Module) -> FoldedNetwork | None:
    """Trace a network as it is in evaluation mode, and fold every BatchNorm that follows a convolution.

    Args:
        network: its modes are restored afterwards.

    Returns:
        The folded network, or None where there is nothing to fold or the network's code cannot be traced.
    """
    return fold(network)[0]


def fold(network: nn.Module) -> tuple[FoldedNetwork | None, str]:
    """`fold_batchnorm`, and in words which path the network takes: how many BatchNorms are folded, or why none is."""
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if not norms:
        return None, "plain: it has no BatchNorm"
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        graph = fx.GraphModule(network, _Tracer().trace(network))
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        # Control flow that depends on the pixels: such a network runs as it is.
        return None, f"plain: it cannot be traced ({type(error).__name__})"
    finally:
        for module, training in modes:
            module.training = training
    convolutions = [folded for node in list(graph.graph.nodes) if (folded := _fold(graph, node)) is not None]
    graph.recompile()
    if not convolutions:
        return None, f"plain: none of its {norms} BatchNorms follows a convolution"
    return FoldedNetwork(graph, convolutions), f"folded: {len(convolutions)} of {norms} BatchNorms"


def _fold(graph: fx.GraphModule, node: fx.Node) -> FoldedConvolution | None:
    """Replace one convolution and the BatchNorm that is its only reader."""
    norm = _module(graph, node)
    source = node.args[0] if node.args else None
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, fx.Node) or len(source.users) != 1:
        return None
    fused = _is_timm(norm, NORM_AND_ACTIVATION)
    convolution = _module(graph, source)
    if not isinstance(convolution, nn.Conv2d) or norm.running_mean is None:
        return None
    # A subclass may do anything with its weights, and one of BatchNorm anything with its outputs.
    if (type(norm) is not nn.BatchNorm2d and not fused) or not (
        type(convolution) is nn.Conv2d or _is_timm(convolution, SAME)
    ):
        return None
    folded = FoldedConvolution(convolution, norm)
    name = f"folded_{source.name}"
    graph.add_submodule(name, folded)
    source.target = name
    if fused:
        parts = [f"{node.target}.{part}" for part in ("drop", "act")]
        kept = [part for part in parts if not isinstance(graph.get_submodule(part), nn.Identity)]
    else:
        kept = []
    result = source
    with graph.graph.inserting_before(node):
        for part in kept:
            result = graph.graph.call_module(part, (result,))
    node.replace_all_uses_with(result)
    graph.graph.erase_node(node)
    return folded


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_timm(module: nn.Module, name: str) -> bool:
    """Whether a module is of this class of timm, which need not be installed."""
    return type(module).__name__ == name and type(module).__module__.startswith("timm.layers")


def _padded(images: Tensor, convolution: nn.Conv2d) -> Tensor:
    """TensorFlow's "same" padding: as many outputs as inputs over the stride, the odd pixel at the end."""
    pads: list[int] = []
    for axis in (1, 0):
        side, kernel, stride = images.shape[2 + axis], convolution.kernel_size[axis], convolution.stride[axis]
        total = max((-(-side // stride) - 1) * stride + (kernel - 1) * convolution.dilation[axis] + 1 - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(images, pads) if any(pads) else images
