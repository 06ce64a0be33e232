"""BatchNorm folded into the convolution before it, for a network that is frozen.

In evaluation mode BatchNorm is a scale and a shift per channel, which the convolution can apply itself. A
perturbation passes through the network dozens of times between two updates of the weights: folding once per
perturbation saves two passes over every activation at every step, and is exact within rounding.
"""

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


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
        return self._folded[0]._conv_forward(images, self.weight, self.bias)

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


def fold_batchnorm(network: nn.Module) -> FoldedNetwork | None:
    """Trace a network as it is in evaluation mode, and fold every BatchNorm that follows a convolution.

    Args:
        network: its modes are restored afterwards.

    Returns:
        The folded network, or None where there is nothing to fold or the network's code cannot be traced.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return None
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        graph = fx.symbolic_trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError):
        # Control flow that depends on the pixels: such a network runs as it is.
        return None
    finally:
        for module, training in modes:
            module.training = training
    convolutions = [fold for node in list(graph.graph.nodes) if (fold := _fold(graph, node)) is not None]
    graph.recompile()
    return FoldedNetwork(graph, convolutions) if convolutions else None


def _fold(graph: fx.GraphModule, node: fx.Node) -> FoldedConvolution | None:
    """Replace one convolution and the BatchNorm that is its only reader."""
    norm = _module(graph, node)
    source = node.args[0] if node.args else None
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, fx.Node) or len(source.users) != 1:
        return None
    convolution = _module(graph, source)
    if not isinstance(convolution, nn.Conv2d) or norm.running_mean is None:
        return None
    folded = FoldedConvolution(convolution, norm)
    name = f"folded_{source.name}"
    graph.add_submodule(name, folded)
    source.target = name
    node.replace_all_uses_with(source)
    graph.graph.erase_node(node)
    return folded


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None
