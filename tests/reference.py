"""Float64 references of losses, schedules and updates, written from the papers' equations.

Slow and plain on purpose, and independent of `src`: a test that compares the package with these
compares it with the paper. Arrays are NumPy float64; B is the batch, D a dimension, K prototypes
and V views, the two global ones first.

Sources: Zbontar et al. 2021, "Barlow Twins", arXiv 2103.03230 (BT); Caron et al. 2021, "Emerging
Properties in Self-Supervised Vision Transformers", arXiv 2104.14294 (DINO); You et al. 2017, "Large
Batch Training of Convolutional Networks", arXiv 1708.03888 (LARS); Ioffe and Szegedy 2015, arXiv
1502.03167 (BN); Hendrycks and Gimpel 2016, arXiv 1606.08415 (GELU); Salimans and Kingma 2016, arXiv
1602.07868 (WN). Where a paper leaves a detail open, the official code's behaviour is stated.
"""

import math

import numpy as np

# Barlow Twins


def standardise(z, eps=1e-5):
    """BatchNorm without affine parameters, over the batch (BN, algorithm 1; BT, section 2.1).

    `z` [B, D]; the variance is the biased one, mean of squares around the mean, and `eps` is added
    to it. Gives [B, D].
    """
    mean = z.mean(axis=0)
    variance = ((z - mean) ** 2).mean(axis=0)
    return (z - mean) / np.sqrt(variance + eps)


def cross_correlation(z1, z2, eps=1e-5):
    """BT, equation 2: `z1`, `z2` [B, D] give C [D, D], summed over the batch and divided by B."""
    return standardise(z1, eps).T @ standardise(z2, eps) / len(z1)


def barlow_twins_loss(z1, z2, lambd=0.0051, eps=1e-5):
    """BT, equation 1: (loss, invariance term, redundancy term without lambda) of `z1`, `z2` [B, D].

    loss = sum_i (1 - C_ii)^2 + lambda * sum_i sum_{j != i} C_ij^2
    """
    c = cross_correlation(z1, z2, eps)
    invariance = redundancy = 0.0
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            if i == j:
                invariance += (1 - c[i, j]) ** 2
            else:
                redundancy += c[i, j] ** 2
    return invariance + lambd * redundancy, invariance, redundancy


def barlow_twins_gradient(z1, z2, lambd=0.0051, eps=1e-5):
    """Gradient of BT, equation 1, in `z1` and `z2` [B, D], derived by hand; two arrays [B, D].

    dL/dC is -2 (1 - C_ii) on and 2 lambda C_ij off the diagonal; dL/dz1_hat = z2_hat (dL/dC)^T / B
    and dL/dz2_hat = z1_hat (dL/dC) / B; then backwards through the standardisation (BN, section 3).
    """
    c = cross_correlation(z1, z2, eps)
    by_c = 2 * lambd * c
    np.fill_diagonal(by_c, -2 * (1 - np.diag(c)))
    hat1, hat2 = standardise(z1, eps), standardise(z2, eps)
    batch = len(z1)
    by_hat1, by_hat2 = hat2 @ by_c.T / batch, hat1 @ by_c / batch
    return _through_standardise(z1, by_hat1, eps), _through_standardise(z2, by_hat2, eps)


def _through_standardise(z, by_hat, eps):
    hat = standardise(z, eps)
    deviation = np.sqrt(z.var(axis=0) + eps)
    return (by_hat - by_hat.mean(axis=0) - hat * (by_hat * hat).mean(axis=0)) / deviation


def numerical_gradient(function, x, step=1e-6):
    """Central differences of a scalar `function` at the array `x`; an array of the shape of `x`."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (function(above) - function(below)) / (2 * step)
    return gradient


def barlow_twins_learning_rates(peak, total_steps, warmup_steps, final_share=0.001):
    """BT, section 2.2: linear warm-up, then a cosine down to a thousandth; array [total_steps].

    The official code's warm-up starts at 0 and is one step short of `peak` at its last step; the
    cosine starts at `peak` and would reach `final_share * peak` at `total_steps`.
    """
    rates = []
    for step in range(total_steps):
        if step < warmup_steps:
            rates.append(peak * step / warmup_steps)
            continue
        done = (step - warmup_steps) / (total_steps - warmup_steps)
        share = 0.5 * (1 + math.cos(math.pi * done))
        rates.append(peak * share + peak * final_share * (1 - share))
    return np.array(rates)


def lars_update(weight, gradient, momentum_buffer, lr, weight_decay=1e-6, momentum=0.9, eta=0.001):
    """One step of LARS as in Barlow Twins; gives (new weight, new buffer), inputs stay as they are.

    LARS, algorithm 1, with the official Barlow Twins code's reading: the decay joins
    the gradient first and the norm is taken of their sum, the trust ratio eta |w| / |g + wd w| is 1
    if either norm is 0, the momentum sums the adapted gradients and the learning rate multiplies
    the sum. Weights of one dimension (biases, BatchNorm) have neither decay nor adaptation
    (BT, section 2.2). All arrays have the shape of `weight`; the first buffer is zeros.
    """
    direction = np.array(gradient, dtype=np.float64)
    if weight.ndim > 1:
        direction = direction + weight_decay * weight
        weight_norm = math.sqrt((weight**2).sum())
        direction_norm = math.sqrt((direction**2).sum())
        if weight_norm > 0 and direction_norm > 0:
            direction = direction * (eta * weight_norm / direction_norm)
    buffer = momentum * momentum_buffer + direction
    return weight - lr * buffer, buffer


# DINO


def log_softmax(logits):
    """Logarithm of DINO, equation 1 at temperature 1, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def dino_loss(student, teacher, centre, student_temperature=0.1, teacher_temperature=0.04):
    """DINO, equation 3 with algorithm 1's centring and sharpening; a float.

    `student` [V, B, K] and `teacher` [2, B, K] are raw logits, `centre` [K]. Each global view of
    the teacher is the target of every view of the student but itself: the batch mean of the cross
    entropy, averaged over these 2 (V - 1) pairs (algorithm 1 writes the case of V = 2).
    """
    terms = []
    for i in range(teacher.shape[0]):
        target = np.exp(log_softmax((teacher[i] - centre) / teacher_temperature))
        for v in range(student.shape[0]):
            if v == i:
                continue
            predicted = log_softmax(student[v] / student_temperature)
            terms.append(-(target * predicted).sum(axis=-1).mean())
    return sum(terms) / len(terms)


def dino_loss_gradient(student, teacher, centre, student_temperature=0.1, teacher_temperature=0.04):
    """Gradient of `dino_loss` in `student`, [V, B, K]; the teacher gets none (DINO, section 3.1).

    For one pair it is (softmax(s / tau_s) - target) / (tau_s B), since a target sums to one.
    """
    gradient = np.zeros_like(student)
    views, batch, _ = student.shape
    pairs = teacher.shape[0] * (views - 1)
    for i in range(teacher.shape[0]):
        target = np.exp(log_softmax((teacher[i] - centre) / teacher_temperature))
        for v in range(views):
            if v != i:
                predicted = np.exp(log_softmax(student[v] / student_temperature))
                gradient[v] += (predicted - target) / (student_temperature * batch * pairs)
    return gradient


def update_centre(centre, teacher, momentum=0.9):
    """DINO, equation 4: c <- m c + (1 - m) mean of the teacher's raw logits over batch and views.

    `centre` [K], `teacher` [2, B, K]; gives [K].
    """
    return momentum * centre + (1 - momentum) * teacher.reshape(-1, teacher.shape[-1]).mean(axis=0)


def update_teacher(teacher, student, momentum):
    """DINO, section 3.1: theta_t <- lambda theta_t + (1 - lambda) theta_s; arrays of one shape."""
    return momentum * teacher + (1 - momentum) * student


def teacher_temperatures(start, end, warmup_epochs, epochs):
    """DINO, section 3.2: from `start` linearly to `end`, then constant; array [epochs].

    The official code has both ends among the `warmup_epochs` values, one value for an epoch.
    """
    rising = np.linspace(start, end, warmup_epochs)
    return np.concatenate([rising, np.full(epochs - warmup_epochs, end)])


def cosine_schedule(base, final, total_steps, warmup_steps=0, start=0.0):
    """DINO, section 3.2: linear warm-up, then a cosine from `base` to `final`; array [total_steps].

    The official code's warm-up has both `start` and `base` among its values, so that `base` stands
    twice; the cosine over n steps takes i / n for i = 0 ... n - 1 and never quite reaches `final`.
    Learning rate: base 0.0005 B / 256, 10 epochs of warm-up. Weight decay: 0.04 to 0.4. Teacher's
    momentum: 0.996 to 1. The last two have no warm-up; all three change at every update.
    """
    values = list(np.linspace(start, base, warmup_steps)) if warmup_steps else []
    steps = total_steps - warmup_steps
    for i in range(steps):
        values.append(final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / steps)))
    return np.array(values)


def clip_per_tensor(gradients, max_norm=3.0):
    """Scales each array on its own so that its norm is at most `max_norm`; a list of arrays.

    The official DINO code's clipping: not the norm of all gradients together, and with 1e-6 added
    to the norm that divides.
    """
    clipped = []
    for gradient in gradients:
        factor = max_norm / (math.sqrt((gradient**2).sum()) + 1e-6)
        clipped.append(gradient * factor if factor < 1 else gradient.copy())
    return clipped


def gelu(x):
    """GELU, section 2: x Phi(x) with the exact normal distribution function."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def dino_head(x, layers, directions, lengths=None):
    """DINO's projection head (section 3.1 and appendix C); gives logits [B, K].

    `x` [B, D]. `layers` are the (weight [out, in], bias [out]) of the MLP, three by default, with a
    GELU after each but the last. Its output is L2-normalised, and multiplied with the
    weight-normalised last layer (WN, equation 2): row k is lengths[k] * directions[k] /
    |directions[k]|, with `directions` [K, bottleneck] and `lengths` [K], ones if not given.
    """
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if number < len(layers) - 1:
            x = gelu(x)
    x = x / np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), 1e-12)
    rows = directions / np.sqrt((directions**2).sum(axis=1, keepdims=True))
    if lengths is not None:
        rows = rows * np.reshape(lengths, (-1, 1))
    return x @ rows.T
