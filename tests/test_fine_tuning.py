"""Which weights are trained, and how fast, against what a network's layers are called and what Adam's first step is."""

import sys

import pytest
import torch
import torchvision
from torch import nn

from colotride.data.base import InMemoryImages
from colotride.errors import ModelError
from colotride.fine_tuning import blocks_of, parameter_groups
from colotride.models import ModelSettings, build_model
from colotride.presets import preset
from colotride.training.optimizer import TrainingSettings, build_optimizer
from colotride.training.trainer import Trainer

VIT = "timm:test_vit"
RESNET = "timm:test_resnet"


def build(architecture, **values):
    settings = ModelSettings(architecture=architecture, weights="none", embedding_dim=8, **values)
    return build_model(settings, channels=3, image_size=32, seed=0)


def first_step(model, **values):
    """How far Adam's first step moves every weight and statistic, at most."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(model.train(), TrainingSettings(weight_decay=0, **values))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (model(images) * torch.linspace(-1, 1, 8)).sum().backward()
    optimizer.step()
    return {name: float((value - before[name]).abs().max()) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("resnet18", "layer1.0", "layer4.1", 8),
        ("efficientnet_b0", "features.1.0", "features.7.0", 16),
        ("vit_b_16", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11", 12),
        ("mobilenet_v3_small", "features.1", "features.11", 11),
        ("vgg11", None, None, 0),
    ],
)
def test_the_blocks_of_a_network_are_those_that_its_papers_count(name, first, last, count):
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None)
    names = [name for name, _ in blocks_of(network)]
    assert (len(names), *names[:1], *names[-1:]) == (count, *([first, last] if count else []))
    groups = parameter_groups(network)
    assert len(groups) == count + 2
    in_order = [id(parameter) for group in groups for parameter in group]
    assert in_order == [id(parameter) for parameter in network.parameters()], "each once, in the order of the layers"


def test_a_head_that_is_put_around_a_network_makes_no_block_of_it():
    inner = torchvision.models.resnet18(weights=None)
    assert len(parameter_groups(nn.Sequential(inner, nn.Linear(1000, 8)))) == 10


@pytest.mark.parametrize(("architecture", "blocks"), [(RESNET, 1), (VIT, 2), (VIT, 0)])
def test_only_the_last_blocks_and_the_embedding_layer_move(architecture, blocks):
    model = build(architecture, trainable_blocks=blocks, freeze_batchnorm=False)
    names = [f"backbone.{name}." for name, _ in blocks_of(model.backbone)]
    frozen = names[: len(names) - blocks]
    moved = first_step(model, learning_rate=0.01)
    stem = "backbone.conv1" if architecture == RESNET else "backbone.patch_embed"
    for name, distance in moved.items():
        if name.startswith((*frozen, stem)):
            assert distance == 0, f"{name}: neither weights nor statistics of a frozen layer change"
    for block in names[len(names) - blocks :]:
        assert max(distance for name, distance in moved.items() if name.startswith(block)) > 0
    head = {name: distance for name, distance in moved.items() if name.startswith(("backbone.fc.", "backbone.head."))}
    assert len(head) == 2
    assert all(head.values())


def test_each_block_learns_slower_than_the_next_by_the_layer_decay():
    model = build(VIT)
    groups = parameter_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = first_step(model, learning_rate=0.01, layer_decay=0.5)
    for depth, group in enumerate(reversed(groups)):
        # Adam's first step is the learning rate in the direction of the gradient's sign.
        steps = [moved[names[id(parameter)]] for parameter in group]
        assert max(steps) == pytest.approx(0.01 * 0.5**depth, rel=1e-3)


def test_without_an_embedding_layer_the_last_block_learns_at_the_whole_rate_and_without_blocks_nothing_is_told_apart():
    settings = TrainingSettings(learning_rate=0.01, layer_decay=0.5)
    bare = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(2)), nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"training\.layer_decay 0\.5: the network has no blocks.*set it to 1"):
        build_optimizer(bare, settings)
    headless = torchvision.models.resnet18(weights=None)
    headless.fc = nn.Identity()
    rates = [group["lr"] for group in build_optimizer(headless, settings).param_groups]
    assert rates == [0.01 * 0.5**depth for depth in range(9)], "eight blocks and the stem"


def test_low_rank_additions_begin_at_zero_and_alone_move_with_the_embedding_layer():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain, low = build(VIT).eval(), build(VIT, lora_rank=2).eval()
    torch.testing.assert_close(low(images), plain(images))
    with torch.no_grad():
        torch.testing.assert_close(low.inference_forward()(images), plain(images))
    widths = [
        module.in_features + module.out_features
        for _, block in blocks_of(plain.backbone)
        for module in block.modules()
        if isinstance(module, nn.Linear)
    ]
    trained = {name: parameter for name, parameter in low.named_parameters() if parameter.requires_grad}
    head = {name: parameter for name, parameter in trained.items() if "lora" not in name}
    assert set(head) == {f"backbone.{layer}.{part}" for layer in ("norm", "head") for part in ("weight", "bias")}
    assert sum(parameter.numel() for parameter in trained.values()) == 2 * sum(widths) + sum(
        parameter.numel() for parameter in head.values()
    )
    moved = first_step(low, learning_rate=0.01)
    assert {name for name, distance in moved.items() if distance} <= set(trained)
    assert all(moved[name] > 0 for name in trained if "lora_B" in name)


def test_low_rank_additions_can_be_kept_to_the_last_blocks():
    low = build(VIT, lora_rank=2, trainable_blocks=1)
    places = {name.split(".")[2] for name, _ in low.named_parameters() if "lora" in name}
    assert places == {str(len(list(blocks_of(low.backbone))) - 1)}


@pytest.mark.parametrize(
    ("architecture", "values", "complaint"),
    [
        (
            RESNET,
            {"trainable_blocks": 99},
            "model.trainable_blocks 99: the network has 4 blocks; give at most that many",
        ),
        ("two-convolutions", {"trainable_blocks": 1}, "the network has 0 blocks; set it to null"),
        (RESNET, {"lora_rank": 2}, "no linear layers; train its last blocks with model.trainable_blocks instead"),
        (VIT, {"lora_rank": 2, "trainable_blocks": 0}, "give 1 to that many, or null for all"),
    ],
)
def test_what_a_network_cannot_do_is_one_line(architecture, values, complaint):
    with pytest.raises(ModelError) as refused:
        build(architecture, **values)
    assert complaint in str(refused.value)


def test_a_network_without_an_embedding_layer_has_nothing_to_train_behind_its_blocks():
    settings = ModelSettings(architecture="resnet18", weights="none", embedding_dim=None, trainable_blocks=0)
    with pytest.raises(ModelError, match=r"leaves nothing to train.*set model\.embedding_dim"):
        build_model(settings, channels=3, image_size=32, seed=0)


def test_low_rank_without_peft_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'colotride\[lora\]'"):
        build(VIT, lora_rank=2)


@pytest.mark.parametrize("values", [{"model.lora_rank": 2}, {"model.trainable_blocks": 1, "training.layer_decay": 0.5}])
def test_a_run_that_is_interrupted_ends_with_the_same_weights(tmp_path, values):
    config = preset("digits").with_values(
        {
            "model.architecture": VIT, "model.weights": "none", "model.embedding_dim": 8, "data.stored_size": 32,
            "data.image_size": 32, "data.pairs_per_batch": 4, "data.pairs_per_epoch": 8, "pgd.steps": 1,
            "training.epochs": 2, **values,
        }
    )  # fmt: skip
    pixels = torch.randint(256, (16, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = InMemoryImages("toy", pixels, torch.arange(4).repeat(4))

    def trainer(folder):
        return Trainer(config, images, None, device=torch.device("cpu"), directory=tmp_path / folder)

    whole = trainer("whole")
    whole.run()
    asked = iter([False, True])
    assert trainer("parts").run(should_stop=lambda: next(asked)).status == "interrupted"
    resumed = trainer("parts")
    assert resumed.step == 1
    resumed.run()
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
