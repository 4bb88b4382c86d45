"""The model's mathematics: EM, what may influence what, both implementations of it, and what peers got wrong."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rnem.model import em, fast
from rnem.model.config import AUTOENCODERS, MODELS, NetworkConfig
from rnem.model.layers import Norm, same_padding
from rnem.model.network import LSTMCore, RecurrentCore, build

SMALL = {"state": 20, "attention": 10}


def network(model="rnem", K=3, autoencoder="tiny16", path="plain", *, double=True, seed=0, **more):
    """A small network whose components differ: biases, gains and weights drawn wider than at the start of training."""
    torch.manual_seed(seed)
    K = K if MODELS[model].several else 1
    net = fast.on_path(build(NetworkConfig(model, K, autoencoder, **(SMALL | more))), path)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.double() if double else net


def training_loss(net):
    """The loss of the path that a network is on."""
    is_fast = any(type(module) in fast.FAST.values() for module in net.modules())
    return fast.training_loss(net, "fast" if is_fast else "plain")


def videos(net, T=4, B=2, seed=1, noise=0.1):
    """Frames (T,B,1,H,W), flips of the same shape, raw gamma (B,K,1,H,W) and actions (T,B,A), or None."""
    g = torch.Generator().manual_seed(seed)
    side, K, A = net.shape.size, net.config.components, net.config.actions
    dtype = next(net.parameters()).dtype
    x = torch.zeros(T, B, 1, side, side, dtype=dtype)
    for t in range(T):
        for b in range(B):
            y = (t + 2 * b) % (side // 2)
            x[t, b, 0, y : y + side // 4, side // 4 : side // 2] = 1
    flips = (torch.rand(x.shape, generator=g) < noise).to(dtype)
    raw = torch.randn(B, K, 1, side, side, generator=g, dtype=torch.float64).to(dtype)
    actions = F.one_hot(torch.randint(0, A, (T, B), generator=g), A).to(dtype) if A else None
    return x, flips, raw, actions


def states(net, x, flips, raw, actions=None, **options):
    with torch.no_grad():
        return list(em.unroll(net, x, flips, raw, actions=actions, **options))


# ------------------------------------------------------------------------------------------------------------ EM


@pytest.mark.parametrize("model", MODELS)
def test_gamma_is_a_distribution_over_components(model):
    net = network(model)
    for state in states(net, *videos(net)):
        assert (state.gamma >= 0).all()
        torch.testing.assert_close(state.gamma.sum(1), torch.ones_like(state.gamma[:, 0]))
        if net.config.components == 1:
            assert (state.gamma == 1).all()


def test_the_first_gamma_is_the_normalised_size_of_a_gaussian_and_one_for_one_component():
    raw = torch.tensor([1.0, -3.0]).view(1, 2, 1, 1, 1)
    assert em.initial_gamma(raw).flatten().tolist() == [0.25, 0.75]
    assert em.initial_gamma(raw[:, 1:]).item() == 1


def test_the_e_step_asks_which_component_explains_the_pixel():
    psi = torch.tensor([0.9, 0.1], dtype=torch.float64).view(1, 2, 1, 1, 1)
    on, off = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    assert em.e_step(psi, on).flatten().tolist() == pytest.approx([0.9, 0.1], abs=1e-5)
    assert em.e_step(psi, off).flatten().tolist() == pytest.approx([0.1, 0.9], abs=1e-5)
    assert em.e_step(torch.zeros_like(psi), on).flatten().tolist() == [0.5, 0.5]  # epsilon decides, not 0/0


def test_the_loss_is_bce_where_a_component_is_responsible_and_kl_to_zero_elsewhere():
    psi = torch.tensor([0.8, 0.3], dtype=torch.float64).view(1, 2, 1, 1, 1)
    gamma = torch.tensor([0.75, 0.25], dtype=torch.float64).view(1, 2, 1, 1, 1)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    loss = em.loss(psi, gamma, x)
    assert loss.intra.item() == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.3))
    assert loss.inter.item() == pytest.approx(-0.25 * math.log(0.2) - 0.75 * math.log(0.7))
    assert loss.total.item() == pytest.approx(loss.intra.item() + loss.inter.item())
    bound = em.upper_bound_loss(psi, x)
    assert bound.intra.item() == pytest.approx(-math.log(0.8))
    assert bound.inter.item() == pytest.approx(-math.log(0.2))  # in full, without gamma


def test_the_relational_loss_counts_masked_pixels_only_and_all_losses_average_over_sequences():
    net = network()
    x, flips, raw, _ = videos(net)
    state = states(net, x, flips, raw)[0]
    mask = (torch.rand(x[0].shape, generator=torch.Generator().manual_seed(3)) < 0.3).double()
    for loss in (lambda s, y, m: em.loss(s.psi, s.gamma, y, m), lambda s, y, m: em.upper_bound_loss(s.psi, y, m)):
        inside, outside = loss(state, x[1], mask).total, loss(state, x[1], 1 - mask).total
        torch.testing.assert_close(inside + outside, loss(state, x[1], None).total)
        assert inside > 0
        alone = [
            loss(em.State(state.theta, state.psi[b : b + 1], state.gamma[b : b + 1]), x[1, b : b + 1], None)
            for b in (0, 1)
        ]
        torch.testing.assert_close(sum(a.total for a in alone) / 2, loss(state, x[1], None).total)


@pytest.mark.parametrize("feeds_on", [True, False])
def test_the_collapsed_loss_is_the_two_term_loss_in_value_and_slope(feeds_on):
    """fast.pixel_step against E-step, literal loss and masked difference, also for the last step, which feeds none."""
    g = torch.Generator().manual_seed(0)
    logits = (
        torch.rand(2, 4, 1, 9, 9, generator=g, dtype=torch.float64) * 26 - 13
    ).requires_grad_()  # no clip below 13.8
    x, noisy = ((torch.rand(2, 1, 9, 9, generator=g) < 0.5).double() for _ in range(2))
    psi = torch.sigmoid(logits)
    gamma = em.e_step(psi.detach(), x)
    literal = em.loss(psi, gamma, x).total, em.masked_difference(gamma, noisy, psi)
    collapsed = fast.pixel_step(logits, x, noisy, em.EPSILON)
    for quick, plain in zip(collapsed, literal, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-11, atol=1e-13)
    weight = torch.randn(logits.shape, generator=g, dtype=torch.float64) * feeds_on
    slopes = [
        torch.autograd.grad(3 * loss + (weight * inputs).sum() if feeds_on else 3 * loss, logits, retain_graph=True)[0]
        for loss, inputs in (collapsed, literal)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    if not feeds_on:
        torch.testing.assert_close(slopes[0], 3 * (psi - gamma * x[:, None]).detach() / 2)


def test_a_shared_linear_layer_has_the_gradients_of_an_ordinary_one():
    """Between begin and end its gradient is one product over all calls; outside it is nn.Linear."""
    g = torch.Generator().manual_seed(0)
    layer = fast.Linear(5, 3).double()
    rows = [torch.randn(4, 5, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    inputs = (*rows, layer.weight, layer.bias)
    plain = torch.autograd.grad(sum((layer(x) ** 2).sum() for x in rows), inputs)
    with fast.unrolling(layer):
        loss = sum((layer(x) ** 2).sum() for x in rows)
    shared = torch.autograd.grad(loss, inputs)
    for a, b in zip(plain, shared, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_gradient_flows_through_psi_and_not_through_gamma():
    psi = torch.full((1, 2, 1, 1, 1), 0.5, requires_grad=True)
    gamma = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1, 1).requires_grad_()
    em.masked_difference(gamma, torch.ones(1, 1, 1, 1), psi).sum().backward()
    assert psi.grad.flatten().tolist() == [-0.75, -0.25]
    assert gamma.grad is None
    em.loss(torch.full_like(gamma, 0.5).requires_grad_(), gamma, torch.ones(1, 1, 1, 1)).total.backward()
    assert gamma.grad is None


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_a_later_loss_reaches_back_through_the_prediction(path):
    net = network(path=path)
    x, _, raw, _ = videos(net)
    first = em.step(net, em.initial_state(net, raw), x[0], x[1])
    psi = first.psi.detach().requires_grad_()
    second = em.step(net, em.State(first.theta.detach(), psi, first.gamma), x[1], x[2])
    em.loss(second.psi, second.gamma, x[2]).total.backward()
    assert psi.grad.norm() > 1e-3


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_training_differentiates_through_all_of_it(path):
    """The slope of the training loss is that of the unrolled equations, and another one where psi is cut off."""
    net = network(path=path)
    x, flips, raw, _ = videos(net)
    weight = net.encoder.convs[0].conv.weight

    def slope(cut: bool):
        state, total = em.initial_state(net, raw), 0.0
        for t in range(len(x) - 1):
            state = em.step(net, state, em.flip(x[t], flips[t]), x[t + 1])
            total = total + em.loss(state.psi, state.gamma, x[t + 1]).total
            state = em.State(state.theta, state.psi.detach() if cut else state.psi, state.gamma)
        return torch.autograd.grad(total / (len(x) - 1), weight)[0]

    trained = torch.autograd.grad(training_loss(net)(x, flips, raw)[0], weight)[0]
    torch.testing.assert_close(trained, slope(cut=False), rtol=1e-9, atol=1e-9)
    assert (trained - slope(cut=True)).norm() > 1e-3 * trained.norm()


# -------------------------------------------------------------------------------------------------------- rollout


class Fixed:
    """A network that predicts the same thing at every step."""

    def __init__(self, psi):
        self.psi = torch.tensor(psi, dtype=torch.float64).view(1, -1, 1, 1, 1)

    def __call__(self, inputs, theta, action=None):
        return torch.logit(self.psi), theta


@pytest.mark.parametrize(("psi", "on"), [((0.9, 0.05), True), ((0.15, 0.02), True), ((0.09, 0.02), False)])
def test_in_a_rollout_a_pixel_is_on_where_some_component_predicts_more_than_a_tenth(psi, on):
    net = Fixed(psi)
    state = em.State(torch.zeros(1, 2, 1), net.psi, torch.full_like(net.psi, 0.5))
    gamma = em.step(net, state, torch.zeros(1, 1, 1, 1), target=em.pseudo_target).gamma
    torch.testing.assert_close(gamma, em.e_step(net.psi, torch.full((1, 1, 1, 1), float(on), dtype=torch.float64)))


@pytest.mark.parametrize("feedback", ["grey", "binary"])
def test_a_rollout_feeds_on_its_own_prediction_and_reads_no_further_frame(feedback):
    net = network()
    x, flips, raw, _ = videos(net, T=6)
    real = 2
    imagined = states(net, x, flips, raw, real_steps=real, feedback=feedback)
    blind = x.clone()
    blind[real + 1 :] = 1 - blind[real + 1 :]
    for a, b in zip(imagined, states(net, blind, flips, raw, real_steps=real, feedback=feedback), strict=True):
        assert torch.equal(a.psi, b.psi)
        assert torch.equal(a.gamma, b.gamma)
    state = imagined[real - 1]
    best = state.psi.amax(1)
    frame = {"grey": (state.gamma * state.psi).sum(1), "binary": (best > 0.4).to(best)}[feedback]
    flipped = torch.where(flips[real] == 1, 1 - frame, frame)
    threshold = {"grey": 0.1, "binary": 0.4}[feedback]
    following = em.step(net, state, flipped, target=lambda psi: (psi.amax(1) > threshold).to(psi))
    torch.testing.assert_close(following.psi, imagined[real].psi)
    torch.testing.assert_close(following.gamma, imagined[real].gamma)
    for a, b in zip(imagined[:real], states(net, x, flips, raw), strict=False):
        assert torch.equal(a.psi, b.psi)


# --------------------------------------------------------------------------------------- what may influence what


def inputs_of(net, B=2, seed=5):
    g = torch.Generator().manual_seed(seed)
    K, side = net.config.components, net.shape.size
    theta = torch.rand(B, K, net.core.carried, generator=g, dtype=torch.float64)
    return torch.randn(B, K, 1, side, side, generator=g, dtype=torch.float64), theta


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_with_identity_n_em_is_k_rnns_that_share_their_weights(path):
    nem, rnn = network("nem", path=path), network("rnn", path=path)
    rnn.load_state_dict(nem.state_dict())
    x, theta = inputs_of(nem)
    alone = [theta[:, k : k + 1] for k in range(3)]
    for _ in range(3):
        with torch.no_grad():
            logits, theta = nem(x, theta)
            for k in range(3):
                one, alone[k] = rnn(x[:, k : k + 1], alone[k])
                torch.testing.assert_close(logits[:, k : k + 1], one, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(theta, torch.cat(alone, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("model", ["rnem", "rnem_noatt", "nem"])
def test_components_touch_each_other_through_the_effect_alone(model, path):
    net = network(model, path=path)
    x, theta = inputs_of(net)
    pushed_x, pushed_theta = x.clone(), theta.clone()
    pushed_x[:, 2] += 1
    pushed_theta[:, 2] = 1 - pushed_theta[:, 2]

    def influence():
        with torch.no_grad():
            (a, b), (c, d) = net(x, theta), net(pushed_x, pushed_theta)
        assert not torch.equal(b[:, 2], d[:, 2])
        return (a[:, :2] - c[:, :2]).abs().max().item() + (b[:, :2] - d[:, :2]).abs().max().item()

    if model != "nem":
        assert influence() > 1e-3
        with torch.no_grad():
            net.core.update.weight[:, SMALL["state"] : 2 * SMALL["state"]] = 0  # the columns that read the effect
    assert influence() == 0


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("model", ["rnem", "rnem_noatt"])
def test_the_effect_follows_a_permutation_of_the_components(model, path):
    net = network(model, K=5, path=path)
    x, theta = inputs_of(net)
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        effect, moved = (net.core.interaction(t, None) for t in (theta, theta[:, order]))
        (logits, new), (moved_logits, moved_new) = net(x, theta), net(x[:, order], theta[:, order])
    torch.testing.assert_close(moved, effect[:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved_new, new[:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved_logits, logits[:, order], rtol=1e-11, atol=1e-11)
    assert (effect - moved).abs().max() > 1e-2


def test_the_effect_is_the_sum_over_the_others_of_one_pairwise_function():
    net = network(K=4)
    interaction, (_, theta) = net.core.interaction, inputs_of(net)
    with torch.no_grad():
        both = interaction(theta, None)
        e, effect = both.chunk(2, 2)
        torch.testing.assert_close(e, interaction.encode(theta.flatten(0, 1)).view_as(e))
        for k in range(4):
            total = torch.zeros_like(effect[:, k])
            for i in set(range(4)) - {k}:
                core = interaction.core(torch.cat([e[:, k], e[:, i]], 1))  # focus first
                attention = interaction.attend(core)
                total += interaction.context(core) * attention
                torch.testing.assert_close(net.attention[:, k, i], attention[:, 0])
            torch.testing.assert_close(effect[:, k], total)
    assert (net.attention.diagonal(dim1=1, dim2=2) == 0).all()


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("model", MODELS)
def test_sequences_of_a_batch_do_not_touch_each_other(model, path):
    net = network(model, path=path)
    x, flips, raw, _ = videos(net, B=3)
    other = x.clone()
    other[:, 1] = 1 - other[:, 1]
    for a, b in zip(states(net, x, flips, raw), states(net, other, flips, raw), strict=True):
        for n in (0, 2):
            assert torch.equal(a.psi[n], b.psi[n])
            assert torch.equal(a.theta[n], b.theta[n])
        assert not torch.equal(a.psi[1], b.psi[1])


@pytest.mark.parametrize(("order", "mixed"), [("correct", False), ("authors", True)])
def test_an_action_reaches_its_own_sequence_unless_the_authors_order_is_asked_for(order, mixed):
    net = network(K=4, autoencoder="tiny16", actions=6)
    x, flips, raw, actions = videos(net)
    other = actions.clone()
    other[:, 1] = actions[:, 1].roll(1, -1)
    a, b = (states(net, x, flips, raw, acts, action_order=order)[-1] for acts in (actions, other))
    assert torch.equal(a.theta[0], b.theta[0]) is not mixed
    assert not torch.equal(a.theta[1], b.theta[1])


# ---------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (NetworkConfig("rnem"), 4_951_978),
        (NetworkConfig("rnem_noatt"), 4_926_577),
        (NetworkConfig("nem"), 4_611_827),
        (NetworkConfig("rnn", 1), 4_611_827),
        (NetworkConfig("lstm", 1), 5_185_077),
        (NetworkConfig("rnem", 4, "atari84", actions=6), 2_331_216),
    ],
    ids=lambda value: value.model if isinstance(value, NetworkConfig) else str(value),
)
def test_the_number_of_parameters_is_the_authors(config, count):
    with torch.device("meta"):
        for path in ("plain", "fast"):
            assert sum(p.numel() for p in fast.on_path(build(config), path).parameters()) == count


def test_kernels_are_the_authors():
    with torch.device("meta"):
        balls, atari = build(NetworkConfig("rnem")), build(NetworkConfig("rnem", 4, "atari84", actions=6))
    assert {c.conv.kernel_size for c in [*balls.encoder.convs, *balls.decoder.convs]} == {(4, 4)}
    assert [c.conv.kernel_size[0] for c in atari.encoder.convs] == [8, 4]
    assert [c.conv.kernel_size[0] for c in atari.decoder.convs] == [4, 8]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(64, 4, 1, (1, 2)), (84, 8, 1, (3, 4)), (64, 4, 2, (1, 1)), (84, 8, 4, (2, 2)), (21, 4, 2, (1, 2))],
)
def test_padding_is_tensorflows_same_rule(size, kernel, stride, padding):
    assert same_padding(size, kernel, stride) == padding


def test_layer_normalisation_has_moments_over_all_axes_and_gain_and_bias_per_channel():
    norm, x = Norm(3).double(), torch.randn(4, 3, 5, 6, dtype=torch.float64)
    assert {tuple(p.shape) for p in norm.parameters()} == {(3,)}
    gain, bias = torch.tensor([2.0, 0.5, -1.0]).double(), torch.tensor([0.0, 1.0, 3.0]).double()
    with torch.no_grad():
        norm.weight.copy_(gain)
        norm.bias.copy_(bias)
        y = norm(x)
    a = x.numpy()
    scaled = (a - a.mean((1, 2, 3), keepdims=True)) / a.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        y, scaled * gain.view(3, 1, 1).numpy() + bias.view(3, 1, 1).numpy(), rtol=1e-9, atol=1e-9
    )


def test_every_normalised_layer_learns_gain_and_bias():
    net = network()
    x, flips, raw, _ = videos(net)
    training_loss(net)(x, flips, raw)[0].backward()
    norms = [m for m in net.modules() if isinstance(m, Norm)]
    assert len(norms) == 3 + 4 + 1 + 3  # encoder; encode, core, context, attention; output; decoder
    assert all(norm.weight.grad.norm() > 0 and norm.bias.grad.norm() > 0 for norm in norms)


def test_the_state_is_carried_without_the_normalisation_that_the_decoder_sees():
    net = network("nem")
    assert isinstance(net.core, RecurrentCore)
    g = torch.Generator().manual_seed(0)
    theta, code = (torch.randn(2, 3, n, generator=g, dtype=torch.float64) for n in (20, net.shape.code))
    with torch.no_grad():
        carried, read = net.core(theta, code)
        new = net.core.update(torch.cat([theta, code], 2)).flatten(0, 1)
        torch.testing.assert_close(carried.flatten(0, 1), torch.sigmoid(new))
        torch.testing.assert_close(read, torch.sigmoid(net.core.norm(new)))


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_the_lstm_is_the_layer_normalised_one_of_tensorflow_1(path):
    torch.manual_seed(0)
    D, code, rows = 5, 7, 3
    core = fast.on_path(LSTMCore(code, D, 0), path).double()
    with torch.no_grad():
        for p in core.parameters():
            p.add_(0.3 * torch.randn_like(p))
        c, h, x = torch.randn(rows, D).double(), torch.randn(rows, D).double(), torch.randn(rows, code).double()
        state, read = core(torch.cat([c, h], 1)[:, None], x[:, None])

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    def norm(name, a):
        module = core.norms[name]
        a = (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-12)
        return a * module.weight.detach().numpy() + module.bias.detach().numpy()

    gates = np.concatenate([x.numpy(), h.numpy()], 1) @ core.gates.weight.detach().numpy().T
    i, j, f, o = (gates[:, n * D : (n + 1) * D] for n in range(4))
    i, j, f, o = norm("input", i), norm("transform", j), norm("forget", f), norm("output", o)
    new_c = norm("state", c.numpy() * sigmoid(f + 1) + sigmoid(i) * np.tanh(j))
    new_h = np.tanh(new_c) * sigmoid(o)
    np.testing.assert_allclose(state[:, 0], np.concatenate([new_c, new_h], 1), rtol=1e-10)
    np.testing.assert_allclose(read, new_h, rtol=1e-10)


# --------------------------------------------------------------------------------------------- plain and fast path


def slopes_agree(plain, quick, arguments) -> None:
    for a, b in zip(
        torch.autograd.grad(plain.sum(), arguments), torch.autograd.grad(quick.sum(), arguments), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("factor", "kernel"), [(2, 4), (4, 8), (2, 3), (3, 4), (4, 4), (2, 5), (3, 7), (5, 4), (4, 1)])
def test_phases_at_low_resolution_are_nearest_upsampling_and_a_convolution(factor, kernel):
    g = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, 3, 5, 5, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, kernel, kernel, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=g, dtype=torch.float64, requires_grad=True)
    before, after = same_padding(5 * factor, kernel, 1)
    big = F.interpolate(x, scale_factor=factor, mode="nearest")
    plain = F.conv2d(F.pad(big, (before, after, before, after)), weight, bias)
    quick = fast.upsampled_conv(x, fast.phase_kernels(weight, factor, before), bias, factor)
    torch.testing.assert_close(plain, quick, rtol=1e-11, atol=1e-11)
    slopes_agree(plain.square(), quick.square(), (x, weight, bias))


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride"),
    [(1, 84, 8, 4), (1, 64, 4, 2), (1, 32, 8, 4), (16, 21, 4, 2), (3, 16, 4, 2)],
)
def test_space_to_depth_is_the_strided_convolution(channels, size, kernel, stride):
    g = torch.Generator().manual_seed(size)
    x = torch.randn(2, channels, size, size, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, channels, kernel, kernel, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=g, dtype=torch.float64, requires_grad=True)
    before, after = same_padding(size, kernel, stride)
    plain = F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, stride)
    quick = fast.strided_conv(x, weight, bias, stride, before, after)
    torch.testing.assert_close(plain, quick, rtol=1e-11, atol=1e-11)
    slopes_agree(plain.square(), quick.square(), (x, weight, bias))


def pair(model, autoencoder, *, double):
    """The same weights on both paths, and a video for them."""
    actions = 6 if autoencoder == "atari84" else 0
    plain, quick = (
        network(model, autoencoder=autoencoder, path=p, double=double, actions=actions) for p in ("plain", "fast")
    )
    quick.load_state_dict(plain.state_dict())
    x, flips, raw, acts = videos(plain, T=4 if autoencoder == "tiny16" else 3)
    return plain, quick, (x, flips, raw, acts)


BOTH = [(model, "tiny16") for model in MODELS] + [("rnem", name) for name in AUTOENCODERS if name != "tiny16"]


@pytest.mark.parametrize(("model", "autoencoder"), BOTH)
def test_the_fast_path_is_the_plain_path_in_double_precision(model, autoencoder):
    plain, quick, arrays = pair(model, autoencoder, double=True)
    for a, b in zip(states(plain, *arrays), states(quick, *arrays), strict=True):
        for name in ("theta", "psi", "gamma"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9)
    losses = [training_loss(net)(*arrays)[0] for net in (plain, quick)]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    slopes = [
        torch.autograd.grad(loss, list(net.parameters())) for loss, net in zip(losses, (plain, quick), strict=True)
    ]
    for (name, _), a, b in zip(plain.named_parameters(), *slopes, strict=True):
        assert (a - b).norm() <= 1e-9 * a.norm() + 1e-9, name
    assert sum(float(a.norm() > 0) for a in slopes[0]) == len(slopes[0])


@pytest.mark.parametrize(("model", "autoencoder"), [("rnem", "coarse32"), ("lstm", "tiny16"), ("rnem", "atari84")])
def test_the_fast_path_is_the_plain_path_up_to_rounding_in_single_precision(model, autoencoder):
    plain, quick, arrays = pair(model, autoencoder, double=False)
    losses = [training_loss(net)(*arrays)[0] for net in (plain, quick)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    slopes = [
        torch.autograd.grad(loss, list(net.parameters())) for loss, net in zip(losses, (plain, quick), strict=True)
    ]
    for (name, _), a, b in zip(plain.named_parameters(), *slopes, strict=True):
        assert (a - b).norm() <= 2e-3 * a.norm(), name


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("model", ["rnem", "nem", "lstm"])
def test_two_stretches_are_one_long_sequence_but_for_the_gradient(model, path):
    net = network(model, path=path, double=True)
    x, flips, raw, _ = videos(net, T=7)
    loss = training_loss(net)
    whole, _ = loss(x, flips, raw)
    first, carried = loss(x[:4], flips[:4], raw)
    assert not carried.theta.requires_grad
    again = torch.randn_like(raw)  # not read where nothing is fresh
    nobody, everybody = (torch.full((len(raw),), answer) for answer in (False, True))
    second, _ = loss(x[3:], flips[3:], again, None, carried, nobody)
    torch.testing.assert_close((first + second) / 2, whole, rtol=1e-10, atol=0)
    fresh, _ = loss(x[3:], flips[3:], again, None, carried, everybody)
    torch.testing.assert_close(fresh, loss(x[3:], flips[3:], again)[0], rtol=0, atol=0)
    assert abs(fresh - second) > 1e-4


def test_attention_is_of_the_last_call_and_none_after_one_that_records_gradients():
    net = network(path="fast")
    states(net, *videos(net))
    assert net.attention is not None
    training_loss(net)(*videos(net))
    assert net.attention is None


def test_an_open_unroll_shares_nothing_and_sees_new_weights():
    """Its next step, and another call beside it, compute with the weights as they are then."""
    plain, quick, arrays = pair("rnem", "tiny16", double=True)
    with torch.no_grad():
        unrolls = [em.unroll(net, *arrays[:3]) for net in (plain, quick)]
        for unrolled in unrolls:
            next(unrolled)
        for net in (plain, quick):
            for parameter in net.parameters():
                parameter.mul_(1.5)
        torch.testing.assert_close(*(next(unrolled).psi for unrolled in unrolls), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(*(states(net, *arrays)[-1].psi for net in (plain, quick)), rtol=1e-9, atol=1e-9)


def test_both_paths_start_alike_and_an_unknown_one_is_refused():
    plain, quick = (network(path=path) for path in ("plain", "fast"))
    assert list(plain.state_dict()) == list(quick.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), quick.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="path is 'quick', and must be one of plain, fast, compiled"):
        fast.on_path(plain, "quick")


def test_the_compiled_path_computes_what_the_fast_path_does():
    """Traced by torch.compile; its eager backend takes the compiler itself out of the test."""
    compiled = network(path="compiled")
    quick = network(path="fast")
    quick.load_state_dict(compiled.state_dict())
    x, flips, raw, _ = videos(quick)
    losses = fast.CompiledTrainingLoss(compiled, "eager")(x, flips, raw)[0], training_loss(quick)(x, flips, raw)[0]
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
    for a, b in zip(
        torch.autograd.grad(losses[0], compiled.parameters()),
        torch.autograd.grad(losses[1], quick.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
