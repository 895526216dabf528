"""The scorer `joint` written out plainly in numpy, everything in memory: what the streamed one is compared with."""

from __future__ import annotations

import numpy as np

HEAD, PROMPTS = (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0), (0, 0.15, 0.3, 0.5, 0.75, 1.0)


def softmax(logit_NC):
    mass = np.exp(logit_NC - logit_NC.max(axis=1, keepdims=True))
    return mass / mass.sum(axis=1, keepdims=True)


def prompt_logits(image_ND, text_PD, class_P, classes, scale):
    mass_NP = scale * image_ND @ text_PD.T
    mass_NP = np.exp(mass_NP - mass_NP.max(axis=1, keepdims=True))
    mass_NC = np.stack([mass_NP[:, class_P == k].sum(axis=1) for k in range(classes)], axis=1)
    log_NC = np.log(np.maximum(mass_NC, 1e-30))
    return log_NC - log_NC.max(axis=1, keepdims=True)


def responsibilities(q_NC, label_N, rate_CC):
    joint = q_NC * rate_CC[:, label_N].T
    total = np.maximum(joint.sum(axis=1), 1e-30)
    return joint / total[:, None], total


def channel(q_NC, label_N, iterations=60, uneven=False):
    classes = q_NC.shape[1]
    given = np.eye(classes)[label_N]
    base = q_NC.T @ q_NC
    np.fill_diagonal(base, 0)
    base /= np.maximum(base.sum(axis=1, keepdims=True), 1e-12)
    rate = 0.8 * np.eye(classes) + 0.2 * base
    even_NC = q_NC
    for _ in range(iterations):
        count = responsibilities(q_NC, label_N, rate)[0].T @ given
        if uneven:
            q_NC = even_NC * (count.sum(axis=1) + 20 / classes) / (len(label_N) + 20)
        rows, mean = count.sum(axis=1), 1 - np.trace(count) / count.sum()
        np.fill_diagonal(count, 0)
        wrong = count.sum(axis=1)
        error = (wrong + 20 * mean) / (rows + 20)
        new = (count + 20 * base) * (error / (wrong + 20))[:, None] + np.diag(1 - error)
        step, rate = np.abs(new - rate).max(), new
        if step < 1e-5:
            break
    r_NC, total = responsibilities(q_NC, label_N, rate)
    return rate, r_NC, total, q_NC / q_NC.sum(axis=1, keepdims=True)


def head_logits(image_ND, r_NC, fold_N):
    centred = image_ND - image_ND.mean(axis=0)
    out = np.zeros(r_NC.shape)
    for fold in (0, 1):
        x, r = centred[fold_N != fold], r_NC[fold_N != fold]
        rows = r.sum(axis=0)
        mean = x.T @ r / (rows + 1)
        cov = (x.T @ x - (mean * rows) @ mean.T) / rows.sum()
        cov = 0.95 * cov + 0.05 * np.trace(cov) / len(cov) * np.eye(len(cov))
        coef = np.linalg.solve(cov, mean)
        out[fold_N == fold] = centred[fold_N == fold] @ coef - 0.5 * (mean * coef).sum(axis=0)
    return out - out.max(axis=1, keepdims=True)


def sharpness(logit_NC, target):
    def sure(m):
        return softmax(m * logit_NC).max(axis=1).mean()

    if sure(1.0) >= target:
        return 1.0
    low, high = 1.0, 40.0
    for _ in range(25):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sure(middle) < target else (low, middle)
    return middle


def follows(q_NC, r_NC, count, label_N):
    """Of the labels that are held for wrong, the share that goes where the image points, 1 % of the rows added; and
    their share of all."""
    rows, classes = q_NC.shape
    point = (q_NC + 1e-6) / (1 + classes * 1e-6)
    log_NC = np.log(point)
    held = label = image = 0.0
    for z in range(classes):
        other = np.arange(classes) != z
        went = count[z, other] / max(count[z, other].sum(), 1e-30)
        usual_N = log_NC[:, other] @ went
        drawn_N = (point * log_NC)[:, other].sum(axis=1) / point[:, other].sum(axis=1)
        weight_N = np.where(label_N == z, 0.0, r_NC[:, z])
        held += weight_N.sum() / rows
        label += weight_N @ (log_NC[np.arange(rows), label_N] - usual_N)
        image += weight_N @ (drawn_N - usual_N)
    share = np.clip(label / image, 0, 1) if image > 0 else 1.0
    return (share * held + 0.01) / (held + 0.01), held


def with_shares(v_NC, share_C, few):
    """v, its columns weighted so that the means over the rows `few` are these."""
    for _ in range(20):
        v_NC = v_NC * (share_C / v_NC[few].mean(axis=0))
        v_NC = v_NC / v_NC.sum(axis=1, keepdims=True)
    return v_NC


def allowed(v_NC, label_N, few):
    """1/2 and more unless v is for another class nearly as sure as it usually is of that class."""

    def log_odds(p):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        return np.log(p / (1 - p))

    given_N = v_NC[np.arange(len(label_N)), label_N]
    usual = given_N[few].mean()
    bound = []
    for k in range(v_NC.shape[1]):
        of_class = given_N[few][label_N[few] == k]
        bound.append(0.4 * log_odds((of_class.sum() + 5 * usual) / (len(of_class) + 5)))
    allows = []
    for one, label in zip(log_odds(v_NC) - np.array(bound), label_N):
        against = max(np.delete(one, label)) - max(one[label], 0)
        allows.append(1 / (1 + np.exp(against)))
    return np.array(allows)


def joint(image_ND, text_PD, class_P, classes, label_N, scale):
    """P(right) (N,), T (C, C) and the weights (head, prompts, sharpness)."""
    row = np.arange(len(label_N))
    hash_N = (row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)
    fold_N, few = (hash_N % np.uint64(2)).astype(int), np.sort(np.argsort(hash_N, kind="stable")[:8000])
    prompts = prompt_logits(image_ND, text_PD, class_P, classes, scale)
    q = softmax(prompts)
    sure = q[few].max(axis=1).mean()
    r = 0.5 * channel(q, label_N)[1]
    r[row, label_N] += 0.5
    for turn in range(2):
        head = head_logits(image_ND, r, fold_N)
        best = (-np.inf, 0.0, 1.0)
        for b in PROMPTS:
            for a in HEAD:
                if a or b:
                    mixed = softmax(b * prompts[few] + a * head[few])
                    fit = np.log(channel(mixed, label_N[few], 12)[2]).mean()
                    if fit > best[0] + 1e-4:
                        best = (fit, a, b)
        mixed = best[2] * prompts + best[1] * head
        m = sharpness(mixed[few], sure)
        q = softmax(m * mixed)
        share = np.bincount(label_N, minlength=classes) / len(label_N)
        entropy = -sum(one * np.log(one) for one in share if one)
        uneven = turn == 1 and np.exp(entropy) < 0.95 * np.count_nonzero(share)
        rate, r, _, q = channel(q, label_N, uneven=uneven)
    right = r[row, label_N] * (0.9 + 0.1 * q[row, label_N])
    zero_shot = softmax(prompts)
    others = (zero_shot.argmax(axis=1) != label_N).sum()
    following, held = follows(q[few], r[few], r.T @ np.eye(classes)[label_N], label_N[few])
    if classes > 2 and others >= 100 and following >= 0.33:
        trust = np.clip(0.8 - 4 * held, 0.2, 0.7)
        v = with_shares(zero_shot, q[few].mean(axis=0), few)
        right = trust * right + (1 - trust) * (q[row, label_N] + v[row, label_N]) / 2
        alone = np.clip((0.02 - held) / 0.015, 0, 1)
        right = (1 - alone) * right + alone * allowed(v, label_N, few)
    return right, rate, (best[1], best[2], m)
