"""Logits of a linear classifier → each row's loss, and the gradient of its logits, in their place.

    loss_i = w_i (ln Σ_k exp z_ik - z_iy),   residual_ik = w_i (softmax(z_i)_k - [k = y_i]),   z = logit + intercept

Classes × rows, as the products on both sides want them. `softmax_residual` takes the Triton kernel on CUDA, which reads
the logits twice and writes them once, and elsewhere a row of operations in place; `softmax_residual_reference` is what
both are tested against. Leaves nothing on disk.
"""

from __future__ import annotations

from cleanctl_kernels.arrays import Array, contiguous, device_type, logsumexp, namespace, numbers, pick, put
from cleanctl_kernels.paths import uses_triton


def softmax_residual(logit_KB: Array, intercept_K: Array, target_B: Array, weight_B: Array) -> Array:
    """(B,) float32 losses; logit_KB becomes the residual. logit_KB, intercept_K, weight_B: float32, finite. target_B:
    int64, 0…K-1."""
    if uses_triton(device_type(logit_KB)):
        from cleanctl_kernels.softmax_triton import softmax_residual_triton

        return softmax_residual_triton(logit_KB, contiguous(intercept_K), target_B, weight_B)
    return softmax_residual_in_place(logit_KB, intercept_K, target_B, weight_B)


def softmax_residual_reference(
    logit_KB: Array, intercept_K: Array, target_B: Array, weight_B: Array
) -> tuple[Array, Array]:
    """(B,) losses and (K, B) residuals, in float64."""
    xp = namespace(logit_KB)
    logit_BK = xp.astype((logit_KB + intercept_K[:, None]).T, xp.float64)
    log_prob_BK = logit_BK - logsumexp(logit_BK, axis=1)[:, None]
    residual_BK = xp.exp(log_prob_BK)
    residual_BK[numbers(target_B), target_B] -= 1.0
    return -weight_B * pick(log_prob_BK, target_B), (residual_BK * weight_B[:, None]).T


def softmax_residual_in_place(logit_KB: Array, intercept_K: Array, target_B: Array, weight_B: Array) -> Array:
    """As `softmax_residual`."""
    xp, prob_KB = namespace(logit_KB), logit_KB
    prob_KB += intercept_K[:, None]
    prob_KB -= xp.max(prob_KB, axis=0)
    target_logit_B = pick(prob_KB.T, target_B)
    mass_B = xp.sum(xp.exp(prob_KB, out=prob_KB), axis=0)
    prob_KB *= weight_B / mass_B
    put(prob_KB.T, target_B, pick(prob_KB.T, target_B) - weight_B)
    return weight_B * (xp.log(mass_B) - target_logit_B)
