"""DAAM: the identity of its sums, a slow copy with plain hooks, and which models it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from heatlas.engine.features.bank_classifier import BankClassifier
from heatlas.engine.features.feature_bank import build_bank
from heatlas.engine.features.image_features import features_of
from heatlas.engine.methods.attention_capture import run_attention
from heatlas.engine.methods.attention_weights import class_attention_of
from heatlas.engine.methods.daam import DAAM
from heatlas.errors import ModelError
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn
from torchvision.models import VisionTransformer, swin_t

from ..support.oracle_nets import architecture, images_like

TARGETS = torch.tensor([3, 0, 9])
WIDTH, HEADS, DEPTH = 24, 3, 3


def torchvisions() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=DEPTH, num_heads=HEADS, hidden_dim=WIDTH, mlp_dim=48, num_classes=10
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision's starts at zero
    return model.double().eval()


def timms(**changes) -> nn.Module:
    torch.manual_seed(0)
    wanted = {
        "img_size": (32, 48),
        "patch_size": 8,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "num_classes": 10,
    }
    return TimmTransformer(**{**wanted, **changes}).double().eval()


MODELS = {
    "torchvision": (torchvisions, (32, 32)),
    "timm": (timms, (32, 48)),
    "timm with registers": (lambda: timms(reg_tokens=2), (32, 48)),
    "timm with normed queries": (lambda: timms(qk_norm=True), (32, 48)),
    "timm with layer scale": (lambda: timms(init_values=0.3), (32, 48)),
    "distilled DeiT": (
        lambda: timm.create_model(
            "deit_tiny_distilled_patch16_224", img_size=(32, 48), patch_size=8, num_classes=10, depth=2
        ).double().eval(),
        (32, 48),
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS, ids=list(MODELS))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    build, size = MODELS[request.param]
    return build(), images_like(3, 3, size, seed=1).double()


def inputs_of_projections(model: nn.Module, image: Tensor) -> list[Tensor]:
    """T_b itself, where a module's forward shows it."""
    seen: list[Tensor] = []
    handles = [
        module.proj.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, 0]))
        for module in model.modules()
        if hasattr(module, "qkv")
    ]
    model(image[None])
    for handle in handles:
        handle.remove()
    return seen


def test_the_parts_add_up_to_the_projections_input(case: tuple[nn.Module, Tensor]) -> None:
    model, images = case
    _, run = run_attention(model, images)
    assert len(run.blocks) >= 2
    for number, block in enumerate(run.blocks):
        result = class_attention_of(block.module, block.tokens)
        parts = result.parts()
        assert parts.shape[:2] == block.tokens.shape[:2]
        torch.testing.assert_close(parts.sum(dim=1), result.total())
        if isinstance(block.module, nn.MultiheadAttention):
            torch.testing.assert_close(block.module.out_proj(parts.sum(dim=1)), block.output[:, 0])
        else:
            there = torch.stack([inputs_of_projections(model, image)[number] for image in images])
            torch.testing.assert_close(parts.sum(dim=1), there)
    assert run.grid == (images.shape[2] // 8, images.shape[3] // 8)


def slow_block_maps(
    model: nn.Module, image: Tensor, score: Callable[[Tensor], Tensor], rectified: bool = True
) -> list[Tensor]:
    """L_b of one image by eqs. 7 to 9, head by head and token by token, T_b made a node of the graph."""
    kept: list[Tensor] = []
    totals: list[Tensor] = []

    def rerun(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        tokens = args[0]
        packed = isinstance(module, nn.MultiheadAttention)
        qkv = tokens @ module.in_proj_weight.T + module.in_proj_bias if packed else module.qkv(tokens)
        heads = [part.unflatten(2, (module.num_heads, -1)) for part in qkv.split(qkv.shape[2] // 3, dim=2)]
        if not packed:
            heads[0], heads[1] = module.q_norm(heads[0]), module.k_norm(heads[1])
        columns = []
        for head in range(module.num_heads):
            query, key, value = (part[0, :, head] for part in heads)
            scores = key @ query[0] / key.shape[1] ** 0.5
            columns.append(scores.softmax(0)[:, None] * value)
        parts = torch.cat(columns, dim=1)
        total = parts.sum(dim=0)
        kept.append(parts.detach())
        totals.append(total)
        projection = module.out_proj if packed else module.proj
        whole = output[0] if isinstance(output, tuple) else output
        new = torch.cat([projection(total)[None, None], whole[:, 1:]], dim=1)
        return (new, None) if isinstance(output, tuple) else new

    blocks = [entry for entry in model.modules() if isinstance(entry, nn.MultiheadAttention) or hasattr(entry, "qkv")]
    handles = [block.register_forward_hook(rerun) for block in blocks]
    number = score(model(image[None].clone().requires_grad_()))
    for handle in handles:
        handle.remove()
    return [
        torch.relu(parts @ (torch.relu(slope) if rectified else slope))
        for parts, slope in zip(kept, torch.autograd.grad(number, totals), strict=True)
    ]


def test_block_maps_are_equations_7_to_9(case: tuple[nn.Module, Tensor]) -> None:
    model, images = case
    result = DAAM(
        model,
    ).maps(images, TARGETS, [0] * 3)
    for number, (image, target) in enumerate(zip(images, TARGETS.tolist(), strict=True)):
        maps = slow_block_maps(model, image, lambda logits, target=target: logits[0, target])
        rows, columns = images.shape[2] // 8, images.shape[3] // 8
        expected = torch.stack([entry[-rows * columns :].reshape(rows, columns) for entry in maps])
        assert float(expected.amax()) > 0
        torch.testing.assert_close(result.extras["block_maps"][number], (expected / expected.sum(dim=0).max()).float())
        total = nn.functional.interpolate(
            expected.sum(dim=0)[None, None], size=images.shape[2:], mode="bilinear", align_corners=False
        )[0, 0]
        torch.testing.assert_close(result.maps[number], (total / total.max()).float())


def test_images_of_a_batch_do_not_merge(case: tuple[nn.Module, Tensor]) -> None:
    model, images = case
    method = DAAM(
        model,
    )
    batch = method.maps(images, TARGETS, [0] * 3)
    for number in range(3):
        alone = method.maps(images[number : number + 1], TARGETS[number : number + 1], [0])
        torch.testing.assert_close(batch.maps[number], alone.maps[0])
        torch.testing.assert_close(batch.extras["block_maps"][number], alone.extras["block_maps"][0])
    assert float((batch.maps[0] - batch.maps[1]).abs().max()) > 0.01


def test_blocks_count_alike_where_each_is_normed() -> None:
    model, images = torchvisions(), images_like(3, 3, (32, 32), seed=1).double()
    result = DAAM(model, norm_per_block=True).maps(images, TARGETS, [0] * 3)
    blocks = result.extras["block_maps"].double()
    total = (blocks / blocks.amax(dim=(2, 3), keepdim=True)).sum(dim=1)
    full = nn.functional.interpolate(total[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(result.maps.double(), full / full.amax(dim=(1, 2), keepdim=True), atol=1e-6, rtol=0)


def test_the_rendering_saturates_but_keeps_the_order() -> None:
    model, images = torchvisions(), images_like(3, 3, (32, 32), seed=1).double()
    plain = DAAM(
        model,
    ).maps(images, TARGETS, [0] * 3)
    drawn = DAAM(model, rendering=True).maps(images, TARGETS, [0] * 3)
    total = plain.extras["block_maps"].sum(dim=1)
    level = (5 * total / total.amax(dim=(1, 2), keepdim=True)).sigmoid()
    level = (level - level.amin(dim=(1, 2), keepdim=True)) / (level - level.amin(dim=(1, 2), keepdim=True)).amax(
        dim=(1, 2), keepdim=True
    )
    full = nn.functional.interpolate(level[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(drawn.maps, full, atol=1e-5, rtol=0)


class Gated(nn.Module):
    """Looks like timm's attention and does something else."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = 3, 8**-0.5
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, **kwargs) -> Tensor:
        return self.proj(self.qkv(tokens)[:, :, :WIDTH].sigmoid() * tokens)


def gated() -> nn.Module:
    model = timms()
    for block in model.blocks:
        block.attn = Gated().double()
    return model


@pytest.mark.parametrize(
    ("build", "size", "text"),
    [
        (lambda: architecture("mobilenet_v2").double(), (64, 80), "no self-attention"),
        (lambda: timms(class_token=False, global_pool="avg"), (32, 48), "no class token"),
        (lambda: timms(global_pool="avg"), (32, 48), "do not depend on the class token"),
        (lambda: swin_t(num_classes=10).double().eval(), (32, 32), "no class token"),
        (gated, (32, 48), "in a way that DAAM does not know"),
    ],
    ids=["CNN", "no class token", "averages patches", "Swin", "another formula"],
)
def test_models_that_it_cannot_read_are_refused(build, size: tuple[int, int], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        DAAM(
            build(),
        ).maps(images_like(3, 3, size, seed=1).double(), TARGETS, [0] * 3)


def test_half_precision_is_not_taken_for_another_formula() -> None:
    model, images = timms().bfloat16(), images_like(3, 3, (32, 48), seed=1)
    wide = (
        DAAM(
            timms(),
        )
        .maps(images.double(), TARGETS, [0] * 3)
        .maps
    )
    half = (
        DAAM(
            model,
        )
        .maps(images.bfloat16(), TARGETS, [0] * 3)
        .maps
    )
    assert float((wide - half).abs().mean()) < 0.05


def test_a_self_supervised_model_is_explained_by_its_nearest_features() -> None:
    model, images = timms(num_classes=0), images_like(40, 3, (32, 48), seed=1).double()
    labels = torch.arange(40) % 3
    bank = build_bank(model, [(images[:25], labels[:25]), (images[25:], labels[25:])])
    with torch.no_grad():
        features = F.normalize(model(images), dim=1)
    torch.testing.assert_close(bank.features, features)
    classes = bank.classes(features[:3])
    result = DAAM(
        BankClassifier(model, bank),
    ).maps(images[:3], classes, [0] * 3)
    for number in range(3):
        near = (features @ features[number]).argsort(descending=True)[:20]
        votes = dict.fromkeys(range(3), 0.0)
        for place in near.tolist():
            votes[int(labels[place])] += float(((features @ features[number])[place] / 0.07).exp())
        chosen = max(votes, key=votes.__getitem__)
        assert int(classes[number]) == chosen
        alike = torch.stack([features[place] for place in near.tolist() if labels[place] == chosen])
        weights = (features[number] * alike).mean(dim=0)
        weights = weights / weights.sum().abs()
        weights = (weights - weights.min()) / (weights.max() - weights.min())
        maps = slow_block_maps(
            model, images[number], lambda output, weights=weights: (output[0] * weights).sum(), rectified=False
        )
        expected = torch.stack([entry[-24:].reshape(4, 6) for entry in maps])
        expected = expected / expected.sum(dim=0).max()
        torch.testing.assert_close(result.extras["block_maps"][number], expected.float())


def test_a_class_that_no_neighbour_has_gives_a_constant_map() -> None:
    model, images = timms(num_classes=0), images_like(30, 3, (32, 48), seed=1).double()
    labels = torch.zeros(30, dtype=torch.long)
    bank = build_bank(model, [(images, labels)], num_classes=6)
    result = DAAM(
        BankClassifier(model, bank),
    ).maps(images[:2], torch.tensor([0, 5]), [0] * 2)
    assert float(result.maps[0].amax()) == 1
    assert float(result.maps[1].amax()) == 0


def test_features_are_what_the_classifier_is_given() -> None:
    model, images = timms(), images_like(2, 3, (32, 48), seed=1).double()
    with torch.no_grad():
        torch.testing.assert_close(
            features_of(model, images), model.forward_head(model.forward_features(images), pre_logits=True)
        )
        torch.testing.assert_close(features_of(timms(num_classes=0), images), timms(num_classes=0)(images))
