"""SOAP against the published code, written again in numpy, and what a rotated basis must give."""

import numpy as np
import pytest
import torch
from closeness import assert_near
from torch import nn

from dtp_dist.algorithm.optimizers.kept import kept_tensors, laid_out_like, load_kept
from dtp_dist.algorithm.optimizers.kinds import SOAPOptions

LR, STEPS = 0.05, 9
SHAPES = {"wide": (3, 4), "tall": (4, 3), "three dimensions": (2, 3, 2), "vector": (4,)}
SETTINGS = {
    "published": {},
    "all set": {
        "beta1": 0.8,
        "beta2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "covariance": 0.7,
        "every": 2,
    },
    "one side": {"max_dim": 3, "every": 3},
}


def gradients(shape) -> list[np.ndarray]:
    """Return gradients with a few large directions, as a layer's are."""
    draw = np.random.default_rng(5)
    scale = 1.0 + 3.0 * draw.random(shape)
    return [draw.standard_normal(shape) * scale for _ in range(STEPS)]


def walk(options: SOAPOptions, given: list[np.ndarray], start: np.ndarray) -> list[torch.Tensor]:
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = options.build([parameter])
    optimizer.param_groups[0]["lr"] = LR
    found = []
    for gradient in given:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        found.append(parameter.detach().clone())
    return found


class Published:
    """``soap.py`` of nikhilvyas/SOAP without merging dimensions, in float64; names are the authors'.

    A vector has no preconditioner (``precondition_1d=False``); the first moment is projected back and forth
    at every step, as there.
    """

    def __init__(self, betas, shampoo_beta, eps, weight_decay, precondition_frequency, max_precond_dim):
        self.betas, self.shampoo_beta, self.eps, self.weight_decay = betas, shampoo_beta, eps, weight_decay
        self.precondition_frequency, self.max_precond_dim = precondition_frequency, max_precond_dim
        self.Q, self.t = None, 0

    def step(self, p, grad):
        if self.Q is None:
            self.exp_avg, self.exp_avg_sq = np.zeros_like(grad), np.zeros_like(grad)
            self.GG = [
                np.zeros((n, n)) if grad.ndim > 1 and n <= self.max_precond_dim else None for n in grad.shape
            ]
            self.update_preconditioner(grad)
            return p
        beta1, beta2 = self.betas
        grad_projected = self.project(grad)
        self.t += 1
        self.exp_avg = self.exp_avg * beta1 + (1 - beta1) * grad_projected
        self.exp_avg_sq = self.exp_avg_sq * beta2 + (1 - beta2) * grad_projected**2
        denom = np.sqrt(self.exp_avg_sq) + self.eps
        step_size = LR * np.sqrt(1 - beta2**self.t) / (1 - beta1**self.t)
        p = p - step_size * self.project_back(self.exp_avg / denom)
        p = p - LR * self.weight_decay * p
        self.update_preconditioner(grad)
        return p

    def project(self, grad):
        for mat in self.Q:
            grad = np.moveaxis(grad, 0, -1) if mat is None else np.tensordot(grad, mat, axes=[[0], [0]])
        return grad

    def project_back(self, grad):
        for mat in self.Q:
            grad = np.moveaxis(grad, 0, -1) if mat is None else np.tensordot(grad, mat, axes=[[0], [1]])
        return grad

    def update_preconditioner(self, grad):
        if self.Q is not None:
            self.exp_avg = self.project_back(self.exp_avg)
        for idx, factor in enumerate(self.GG):
            if factor is not None:
                others = [axis for axis in range(grad.ndim) if axis != idx]
                outer_product = np.tensordot(grad, grad, axes=[others, others])
                self.GG[idx] = factor + (1 - self.shampoo_beta) * (outer_product - factor)
        if self.Q is None:
            self.Q = [None if m is None else np.linalg.eigh(m)[1][:, ::-1] for m in self.GG]
        if self.t > 0 and self.t % self.precondition_frequency == 0:
            self.Q = self.get_orthogonal_matrix_QR()
        if self.t > 0:
            self.exp_avg = self.project(self.exp_avg)

    def get_orthogonal_matrix_QR(self):  # noqa: N802
        final = []
        for ind, (m, o) in enumerate(zip(self.GG, self.Q, strict=True)):
            if m is None:
                final.append(None)
                continue
            sort_idx = np.argsort(-np.diag(o.T @ m @ o))
            self.exp_avg_sq = np.take(self.exp_avg_sq, sort_idx, axis=ind)
            final.append(np.linalg.qr(m @ o[:, sort_idx])[0])
        return final


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_soap_is_the_published_code(shape, settings):
    options = SOAPOptions(lr=1.0, **SETTINGS[settings])
    given, p = gradients(SHAPES[shape]), np.ones(SHAPES[shape])
    published = Published(
        (options.beta1, options.beta2),
        options.beta2 if options.covariance is None else options.covariance,
        options.eps,
        options.weight_decay,
        options.every,
        options.max_dim,
    )
    for gradient, mine in zip(given, walk(options, given, p), strict=True):
        p = published.step(p, gradient)
        assert_near(mine, torch.from_numpy(p))


def test_its_steps_turn_with_the_problem():
    """What Adam's do not: other bases of a layer's inputs and outputs give the same steps, turned."""
    draw = np.random.default_rng(2)
    left, right = (np.linalg.qr(draw.standard_normal((n, n)))[0] for n in (3, 4))
    options = SOAPOptions(lr=1.0, every=2)
    given = gradients((3, 4))
    straight = walk(options, given, np.ones((3, 4)))
    turned = walk(options, [left @ each @ right for each in given], left @ np.ones((3, 4)) @ right)
    for one, other in zip(straight, turned, strict=True):
        assert_near(other, torch.from_numpy(left @ one.numpy() @ right))


def test_a_parameter_whose_memory_is_transposed_has_the_same_bits():
    """Also where its state was put back, which lies as the parameter does."""
    options, given, found = SOAPOptions(lr=1.0, every=2), gradients((4, 4)), []
    ones = torch.ones(4, 4, dtype=torch.float64)
    for start in (ones, ones.as_strided((4, 4), (1, 4))):
        parameter = nn.Parameter(start.clone())
        optimizer = options.build([parameter])
        optimizer.param_groups[0]["lr"] = LR
        for number, gradient in enumerate(given):
            if number == 5:
                load_kept([optimizer], [parameter], kept_tensors([optimizer], [parameter]))
            parameter.grad = laid_out_like(parameter, torch.from_numpy(gradient))
            optimizer.step()
        found.append((parameter.is_contiguous(), parameter.detach()))
    (one, straight), (other, transposed) = found
    assert one
    assert not other
    assert torch.equal(straight, transposed)


def test_the_first_gradient_moves_nothing():
    """It makes the bases."""
    first, second = walk(SOAPOptions(lr=1.0), gradients((3, 4))[:2], np.ones((3, 4)))
    assert torch.equal(first, torch.ones(3, 4, dtype=torch.float64))
    assert not torch.equal(second, first)


def test_a_longer_memory_is_of_the_first_moment_alone():
    options = SOAPOptions(lr=1.0)
    assert options.has_momentum
    assert not SOAPOptions(lr=1.0, beta1=0.0).has_momentum
    assert options.with_memory(1.0) == options
    longer = options.with_memory(2.0)
    assert longer.beta1 == pytest.approx(0.975)
    assert (longer.beta2, longer.covariance) == (options.beta2, options.covariance)
