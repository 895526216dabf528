"""Each way to tune a tower trains what the method lists and nothing else, and starts where it should."""

from __future__ import annotations

import open_clip
import pytest
import torch

from cleanctl.clip.tune.tower import trained_shapes, tune_tower
from cleanctl.config.tune import TUNES, TuneSettings, parse_tune
from cleanctl.errors import InputError, StoreError, UsageError

TEXT = {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 32}
TIMM = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_proj": "linear", "image_size": 64}
ALL = [f"{name}:1" if name == "partial" else name for name in TUNES]
OWN = ("bias", "partial:1", "full")


def build(vision: dict, *, dtype=torch.float32) -> torch.nn.Module:
    torch.manual_seed(3)
    visual = open_clip.CLIP(16, vision, TEXT).visual.to(dtype).eval()
    with torch.no_grad():  # open_clip's zero biases and unit norms would hide a part that is left out
        for parameter in visual.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return visual


def pictures(side: int = 32, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def gradients(tuned, image) -> set[str]:
    tuned(image).square().sum().backward()
    return {name for name, value in tuned.visual.named_parameters() if value.grad is not None}


# ---- ViT-B/16, from its configuration alone


def counted(name: str, **more) -> int:
    shapes = trained_shapes(open_clip.get_model_config("ViT-B-16"), TuneSettings(name=name, **more))
    return sum(int(torch.Size(shape).numel()) for shape in shapes.values())


def test_vpt_deep_of_vit_b16_trains_twenty_tokens_a_block():
    shapes = trained_shapes(open_clip.get_model_config("ViT-B-16"), parse_tune("vpt-deep"))
    assert shapes == {f"blocks.{i}.prompt": (20, 768) for i in range(12)}
    assert counted("vpt-deep") == 184_320


BLOCK = 2 * 2 * 768 + (768 + 1) * 3 * 768 + (768 + 1) * 768 + (768 + 1) * 3072 + (3072 + 1) * 768


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"name": "vpt-shallow"}, 20 * 768),
        ({"name": "lora", "rank": 5}, 12 * 2 * 2 * 5 * 768),
        ({"name": "adapter", "bottleneck": 8}, 12 * (2 * 768 + (768 + 1) * 8 + (8 + 1) * 768)),
        ({"name": "ssf"}, 12 * 2 * (3 * 768 + 768 + 4 * 768 + 768)),
        ({"name": "bias"}, 12 * (768 + 3 * 768 + 768 + 768 + 4 * 768 + 768) + 2 * 768),
        ({"name": "partial", "last": 2}, 2 * BLOCK),
        ({"name": "full"}, 12 * BLOCK),
    ],
    ids=str,
)
def test_each_way_trains_as_many_numbers_as_the_method_lists(settings, count):
    assert counted(**settings) == count


def test_full_is_the_twelve_blocks_and_not_quite_the_tower():
    shapes = trained_shapes(open_clip.get_model_config("ViT-B-16"), parse_tune("full"))
    assert all(name.startswith("transformer.resblocks.") for name in shapes)
    assert len({name.split(".")[2] for name in shapes}) == 12


# ---- what has a gradient, and what changes


@pytest.mark.parametrize("tune", ALL)
def test_a_vit_has_gradients_where_it_is_trained_and_nowhere_else(tune):
    tuned = tune_tower(build(VIT), parse_tune(tune, published=True))
    with torch.no_grad():  # at zero a factor hides the other's gradient
        for parameter in tuned.trained.values():
            parameter.add_(0.05)
    found = gradients(tuned, pictures())
    trained = {id(parameter) for parameter in tuned.trained.values()}
    assert found == {name for name, value in tuned.visual.named_parameters() if id(value) in trained}
    assert len(found) == len(tuned.trained)


@pytest.mark.parametrize("vision", [RESNET, TIMM], ids=["modified", "timm"])
@pytest.mark.parametrize("tune", OWN)
def test_a_resnet_has_gradients_where_it_is_trained_and_nowhere_else(vision, tune):
    tuned = tune_tower(build(vision), parse_tune(tune))
    assert gradients(tuned, pictures(64)) == set(tuned.trained)
    assert len(tuned.trained) > 2


@pytest.mark.parametrize("vision", [RESNET, TIMM], ids=["modified", "timm"])
def test_training_leaves_running_statistics_of_a_resnet_alone(vision):
    tuned = tune_tower(build(vision), parse_tune("full")).train()
    before = {name: value.clone() for name, value in tuned.visual.named_buffers()}
    tuned(pictures(64)).sum().backward()
    assert before
    assert all(torch.equal(value, before[name]) for name, value in tuned.visual.named_buffers())


def test_full_on_a_resnet_leaves_stem_and_pooling():
    trained = tune_tower(build(RESNET), parse_tune("full")).trained
    assert {name.split(".")[0] for name in trained} == {"layer1", "layer2", "layer3", "layer4"}


def test_partial_trains_the_last_blocks():
    trained = tune_tower(build(VIT), parse_tune("partial:2")).trained
    assert {name.split(".")[2] for name in trained} == {"1", "2"}
    assert {name.rsplit(".", 2)[0] for name in tune_tower(build(RESNET), parse_tune("partial:1")).trained} >= {
        "layer4.0"
    }


def test_bias_on_a_vit_takes_those_outside_of_blocks_too():
    trained = tune_tower(build(VIT), parse_tune("bias")).trained
    assert {"ln_pre.bias", "ln_post.bias", "transformer.resblocks.2.attn.in_proj_bias"} <= set(trained)


# ---- where it starts


@pytest.mark.parametrize("tune", ["lora", "adapter", "ssf", "bias", "partial:2", "full"])
def test_starts_as_the_untuned_model(tune):
    image = pictures()
    with torch.no_grad():
        untuned = build(VIT)(image)
        tuned = tune_tower(build(VIT), parse_tune(tune))(image)
    torch.testing.assert_close(tuned, untuned, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tune", ["vpt-deep", "vpt-shallow"])
def test_prompts_start_uniform_and_change_the_output(tune):
    tuned = tune_tower(build(VIT), parse_tune(tune))
    bound = (6 / (3 * 8 * 8 + 32)) ** 0.5
    drawn = torch.cat([prompt.flatten() for prompt in tuned.trained.values()])
    assert bound * 0.95 < drawn.abs().max() <= bound
    assert not torch.allclose(tuned(pictures()), build(VIT)(pictures()), atol=1e-3)


def test_the_released_adapter_starts_without_its_mlp_branches():
    visual, image = build(VIT), pictures()
    for block in visual.transformer.resblocks:
        block.mlp = Zero()
    tuned = tune_tower(build(VIT), parse_tune("adapter", published=True))
    torch.testing.assert_close(tuned(image), visual(image), rtol=1e-5, atol=1e-6)


class Zero(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def test_one_seed_gives_one_start():
    first, again, other = (tune_tower(build(VIT), parse_tune("vpt-deep"), seed=seed).values() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.prompt"], other["blocks.0.prompt"])


# ---- the same as a plain transcription of C.1


def plain_vit(visual, image, *, prompts=None, lora=None, ssf=None, adapter=None):
    """The forward pass of the method's text, written out; each argument is a list with an entry a block."""
    x = visual._embeds(image)
    length = x.shape[1]
    for number, block in enumerate(visual.transformer.resblocks):
        if prompts and prompts[number] is not None:
            x = torch.cat([x[:, :length], prompts[number].expand(len(x), -1, -1)], 1)
        h = block.ln_1(x)
        qkv = h @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        if ssf:
            qkv = qkv * ssf[number]["qkv"][0] + ssf[number]["qkv"][1]
        q, k, v = qkv.chunk(3, -1)
        if lora:
            (a_q, b_q), (a_v, b_v) = lora[number]
            q, v = q + h @ a_q @ b_q / a_q.shape[1], v + h @ a_v @ b_v / a_v.shape[1]
        heads = [part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
        weight = (heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5).softmax(-1)
        out = block.attn.out_proj((weight @ heads[2]).transpose(1, 2).flatten(2))
        if ssf:
            out = out * ssf[number]["out"][0] + ssf[number]["out"][1]
        x = x + out
        h = block.mlp.c_fc(block.ln_2(x))
        if ssf:
            h = h * ssf[number]["mlp_in"][0] + ssf[number]["mlp_in"][1]
        h = block.mlp.c_proj(torch.nn.functional.gelu(h))
        if ssf:
            h = h * ssf[number]["mlp_out"][0] + ssf[number]["mlp_out"][1]
        if adapter:
            h = h + adapter[number](h)
        x = x + h
    return visual.ln_post(x[:, 0]) @ visual.proj


def moved(tune: str):
    """A float64 tower whose trained numbers are no longer where they began."""
    tuned = tune_tower(build(VIT, dtype=torch.float64), parse_tune(tune))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trained.values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return tuned


def arguments(tune: str, value: dict) -> dict:
    rows = range(3)
    if tune.startswith("vpt"):
        return {"prompts": [value.get(f"blocks.{i}.prompt") for i in rows]}
    if tune == "lora":
        return {"lora": [[(value[f"blocks.{i}.{p}.A"], value[f"blocks.{i}.{p}.B"]) for p in "qv"] for i in rows]}
    if tune == "ssf":
        places = ("qkv", "out", "mlp_in", "mlp_out")
        return {
            "ssf": [{p: (value[f"blocks.{i}.{p}.scale"], value[f"blocks.{i}.{p}.shift"]) for p in places} for i in rows]
        }

    def adapter(i):
        def apply(h):
            part = {key.rsplit("adapter.", 1)[1]: v for key, v in value.items() if key.startswith(f"blocks.{i}.")}
            h = torch.nn.functional.layer_norm(h, h.shape[-1:], part["norm.weight"], part["norm.bias"])
            h = (h @ part["down.weight"].T + part["down.bias"]).relu()
            return h @ part["up.weight"].T + part["up.bias"]

        return apply

    return {"adapter": [adapter(i) for i in rows]}


@pytest.mark.parametrize("tune", ["vpt-deep", "vpt-shallow", "lora", "ssf", "adapter"])
def test_outputs_and_gradients_equal_a_plain_transcription(tune):
    tuned, image = moved(tune), pictures(dtype=torch.float64)
    value = {name: parameter.detach().clone().requires_grad_() for name, parameter in tuned.trained.items()}
    expected = plain_vit(build(VIT, dtype=torch.float64), image, **arguments(tune, value))
    actual = tuned(image)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    actual.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in tuned.trained.items():
        torch.testing.assert_close(parameter.grad, value[name].grad, rtol=1e-7, atol=1e-9)


# ---- memory


@pytest.mark.parametrize(("vision", "tune"), [(VIT, tune) for tune in ALL] + [(RESNET, "full"), (TIMM, "partial:2")])
def test_recomputing_changes_no_gradient(vision, tune):
    side = vision["image_size"]
    one, other = (tune_tower(build(vision, dtype=torch.float64), parse_tune(tune)) for _ in range(2))
    other.recompute()
    for tuned in (one, other):
        tuned(pictures(side, torch.float64)).square().sum().backward()
    for name, parameter in one.trained.items():
        torch.testing.assert_close(other.trained[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


# ---- other pools, other towers, refusals


def test_prompts_are_not_pooled_where_all_tokens_are():
    tuned = tune_tower(build(VIT | {"pool_type": "avg"}), parse_tune("vpt-deep"))
    seen = []
    tuned.visual.ln_post.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    tuned(pictures())
    assert seen[0][1] == 4 * 4 + 1


def test_a_vit_of_other_blocks_can_be_tuned_by_its_own_numbers():
    custom = VIT | {"scale_attn": True}
    assert gradients(tuned := tune_tower(build(custom), parse_tune("partial:1")), pictures()) == set(tuned.trained)
    with pytest.raises(UsageError, match="bias, partial:K, full"):
        tune_tower(build(custom), parse_tune("lora"))


@pytest.mark.parametrize("tune", ["vpt-deep", "vpt-shallow", "lora", "adapter", "ssf"])
def test_a_resnet_says_how_it_can_be_tuned(tune):
    with pytest.raises(UsageError, match=r"the image tower is a ResNet.*bias, partial:K, full"):
        tune_tower(build(RESNET), parse_tune(tune))


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(UsageError, match=r"'partial:4'.* 3 blocks"):
        tune_tower(build(VIT), parse_tune("partial:4"))


def test_an_unknown_tower_is_refused_with_what_can_be_tuned():
    vision = {"timm_model_name": "convnext_atto", "timm_model_pretrained": False, "image_size": 64}
    with pytest.raises(InputError, match=r"timm's ConvNeXt.*ViT and ResNet"):
        tune_tower(open_clip.CLIP(16, vision, TEXT).visual, parse_tune("bias"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("vpt-dep", "did you mean 'vpt-deep'"),
        ("partial", "how many"),
        ("partial:0", "how many"),
        ("partial:x", "how many"),
        ("lora:4", "takes no number"),
        ("", "not known"),
    ],
)
def test_other_texts_are_refused(text, what):
    with pytest.raises(UsageError, match=what):
        parse_tune(text)


def test_values_go_into_a_tower_of_the_same_kind_alone():
    tuned = moved("lora")
    again = tune_tower(build(VIT, dtype=torch.float64), parse_tune("lora"))
    again.set_values(tuned.values())
    assert torch.equal(again(pictures(dtype=torch.float64)), tuned(pictures(dtype=torch.float64)))
    with pytest.raises(StoreError, match=r"blocks\.0\.prompt"):
        tune_tower(build(VIT), parse_tune("vpt-deep")).set_values(tuned.values())
