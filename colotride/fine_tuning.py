"""Which weights of a network are trained, and how fast each of them learns.

A network counts as a row of blocks: the composite members of its sequences, such as the residual blocks of a ResNet and
the layers of a transformer. What stands before the first block is the stem, what follows the last one is the head; a
new embedding layer belongs to the head.
"""

import importlib
from collections.abc import Iterator

from torch import nn

from colotride.errors import ModelError

SEQUENCES = (nn.Sequential, nn.ModuleList)

LORA_EXTRA = "lora"
"""The extra that brings peft."""


def parameter_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a network from its input to its output: the stem, each block, the head.

    Parameters that belong to no layer, such as the position embeddings of a transformer, count to the stem. The head is
    empty for a network without one; a network without blocks is all stem.
    """
    blocks = dict(blocks_of(network))
    groups: list[list[nn.Parameter]] = [[] for _ in range(len(blocks) + 2)]
    place, position = 0, {name: number for number, name in enumerate(blocks, 1)}
    for name, parameter in network.named_parameters():
        block = next((path for path in _above(name) if path in position), None)
        if block is not None:
            place = position[block]
        elif blocks and place == len(blocks):
            place += 1
        groups[place].append(parameter)
    return groups


def blocks_of(network: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The blocks of a network in the order of its layers, with their dotted names.

    Where sequences lie within each other, as in networks of several stages, the innermost ones count.
    """
    for name, module in network.named_children():
        path = f"{above}{name}"
        inner = list(blocks_of(module, f"{path}."))
        member = isinstance(network, SEQUENCES) and not isinstance(module, SEQUENCES)
        # One within may be a part, such as the squeeze-and-excitation of a convolution; a stage has several.
        if member and _is_composite(module) and len(inner) < 2:
            yield path, module
        else:
            yield from inner


def train_last_blocks(network: nn.Module, blocks: int) -> None:
    """Freeze all but the last blocks and the head.

    Args:
        network: whose parameters lose their gradients.
        blocks: how many; 0 trains the head alone.

    Raises:
        ModelError: the network has fewer blocks, or nothing would be trained.
    """
    groups = parameter_groups(network)
    there = len(groups) - 2
    if not there or blocks > there:
        raise ModelError(
            f"model.trainable_blocks {blocks}: the network has {there} blocks; "
            + ("give at most that many" if there else "set it to null")
        )
    for group in groups[: len(groups) - 1 - blocks]:
        for parameter in group:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ModelError(
            f"model.trainable_blocks {blocks} leaves nothing to train: the network has no embedding layer; raise it, or "
            "set model.embedding_dim"
        )


def add_low_rank(network: nn.Module, rank: int, blocks: int | None) -> None:
    """Freeze the linear layers of the blocks, and train a product of two narrow matrices beside each (LoRA).

    The product is 0 to begin with, so that the network starts as it is. Hu et al., "LoRA: Low-Rank Adaptation of Large
    Language Models", ICLR 2022, with alpha = rank: the product is added unscaled. Everything else of the stem and the
    blocks is frozen; the head is trained as a whole.

    Args:
        network: changed in place; its parameters get other names.
        rank: width of the narrow matrices.
        blocks: how many of the last blocks; None for all.

    Raises:
        ModelError: peft is not installed, there are fewer blocks, or they have no linear layers.
    """
    try:
        peft = importlib.import_module("peft")
    except ImportError:
        raise ModelError(
            f"model.lora_rank needs peft, which is not installed: pip install 'colotride[{LORA_EXTRA}]'"
        ) from None
    found = list(blocks_of(network))
    if blocks is not None and not 1 <= blocks <= len(found):
        raise ModelError(
            f"model.trainable_blocks {blocks} with model.lora_rank: the network has {len(found)} blocks; give 1 to that "
            "many, or null for all"
        )
    chosen = found if blocks is None else found[len(found) - blocks :]
    # Attention of torch's own kind reads the weights of its layers without calling them.
    passive = {
        f"{path}.{name}."
        for path, block in chosen
        for name, module in block.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    targets = [
        f"{path}.{name}"
        for path, block in chosen
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and not any(f"{path}.{name}".startswith(one) for one in passive)
    ]
    if not targets:
        raise ModelError(
            f"model.lora_rank {rank}: the blocks of this network have no linear layers; train its last blocks with "
            "model.trainable_blocks instead"
        )
    head = parameter_groups(network)[-1]
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets), network
    )
    for parameter in head:
        parameter.requires_grad_(True)


def _is_composite(module: nn.Module) -> bool:
    # What peft has put around a layer is still a layer.
    return any(True for _ in module.children()) and not hasattr(module, "base_layer")


def _above(name: str) -> Iterator[str]:
    """The dotted names of the modules above a parameter, the innermost first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
