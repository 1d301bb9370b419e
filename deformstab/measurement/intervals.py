"""Intervals: of a sensitivity over its images, and of a mean over seeds."""

import numpy as np


def mean_interval(values, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): Student's t interval of a mean; NaN bounds for fewer than two values."""
    values = np.asarray(values, "float64")
    if len(values) < 2:
        return float(values.mean()) if len(values) else np.nan, np.nan, np.nan
    half = _student(len(values) - 1, confidence) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def mean_p_value(values, bound: float = 0.0) -> float:
    """The two-sided p-value of Student's t test that a mean is `bound`; NaN for under two values."""
    from scipy import special

    values = np.asarray(values, "float64")
    if len(values) < 2:
        return np.nan
    away, error = values.mean() - bound, values.std(ddof=1) / np.sqrt(len(values))
    if error == 0:
        return 1.0 if away == 0 else 0.0
    return float(2 * special.stdtr(len(values) - 1, -abs(away / error)))


def ratio_interval(numerator, denominator, confidence: float = 0.95) -> tuple[float, float, float]:
    """(ratio, low, high) of two means of paired values, none of them below zero: Fieller's (1954).

    The interval holds every ratio r for which numerator - r · denominator may have mean 0, by
    Student's t test; ∞ is its end where the denominator may be 0. NaN bounds for under two values.
    """
    pairs = np.stack([np.asarray(numerator, "float64"), np.asarray(denominator, "float64")])
    top, bottom = pairs.mean(axis=1) if pairs.size else (np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.maximum(top, 0) / np.maximum(bottom, 0))
    count = pairs.shape[1]
    if count < 2:
        return ratio, np.nan, np.nan
    error = _student(count - 1, confidence) ** 2 * np.cov(pairs) / count
    # a r² + b r + c ≤ 0 for the ratios in the interval.
    a, b = bottom**2 - error[1, 1], -2 * (top * bottom - error[0, 1])
    c = top**2 - error[0, 0]
    inner = b**2 - 4 * a * c
    if a > 0:
        inner = max(inner, 0)  # top / bottom is in the interval, whatever rounding says
    positive = []
    if a and inner >= 0:
        roots = ((-b + sign * np.sqrt(inner)) / (2 * a) for sign in (-1, 1))
        positive = sorted(float(root) for root in roots if root > 0)
    if a <= 0 or bottom <= 0:
        return ratio, positive[0] if c > 0 and top > 0 and positive else 0.0, np.inf
    return ratio, positive[0] if c > 0 and positive else 0.0, positive[-1] if positive else 0.0


def holm(p_values) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979); NaN ones do not count and stay NaN."""
    p_values = np.asarray(p_values, "float64")
    adjusted = np.full(len(p_values), np.nan)
    order = [place for place in np.argsort(p_values) if np.isfinite(p_values[place])]
    largest = 0.0
    for done, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - done) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def sensitivity_interval(
    distances, pairs, confidence: float = 0.95
) -> tuple[float, float, float, float, float]:
    """A sensitivity with its interval over images.

    The delete-one jackknife of log(sensitivity) over images: each image is left out once, from the
    mean of the numerator and from all its pairs at the same time, and Student's t with n - 1
    degrees of freedom gives the interval. A bootstrap would resample images with repetition, and
    pair an image with its own copy; the jackknife has no such pairs, draws nothing, and takes
    n² log n operations. (Leaving one *value* out fails for the median of n values; the median over
    the n²/2 pairs, of which an image takes away n, is smooth enough. A simulation in the tests
    shows the coverage.)

    Args:
        distances: [images], of each image to its deformed self (mean over its deformations).
        pairs: [images, images], distances between images; only i < j is read.
        confidence: of the interval.

    Returns:
        (distance, baseline, sensitivity, low, high): the mean of `distances`, the median over all
        pairs, their ratio, and its interval (NaN for fewer than four images).
    """
    distance, baseline, sensitivity, replicates = leave_one_out(distances, pairs)
    if distance == 0 and baseline > 0 and len(replicates):  # no deformation moved anything
        return distance, baseline, sensitivity, 0.0, 0.0
    factor = np.exp(_half_width(replicates, confidence))
    return distance, baseline, sensitivity, sensitivity / factor, sensitivity * factor


def leave_one_out(distances, pairs):
    """A sensitivity, and what it would be without each image in turn.

    Args:
        distances, pairs: as for `sensitivity_interval`.

    Returns:
        (distance, baseline, sensitivity, logs): the mean of `distances`, the median over all pairs,
        their ratio; and its logarithm without each image, [images] ([0] for fewer than four).
    """
    distances, pairs = np.asarray(distances, "float64"), np.asarray(pairs, "float64")
    images = len(distances)
    first, second = np.triu_indices(images, 1)
    values = pairs[first, second]
    order = np.argsort(values, kind="stable")
    values, first, second = values[order], first[order], second[order]
    distance, baseline = float(distances.mean()), _median_of_sorted(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = float(np.divide(distance, baseline))
        if images < 4:
            return distance, baseline, sensitivity, np.empty(0)
        means = (distances.sum() - distances) / (images - 1)
        logs = np.log(means / _leave_one_out_medians(values, first, second, images))
    return distance, baseline, sensitivity, logs


def jackknife_interval(value: float, replicates, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) of a value from what it would be without each image: `value` ± t · deviation.

    Replicates of two quantities from the same images may be subtracted before: then the interval is
    paired. NaN for fewer than four images or a replicate that is not finite.
    """
    half = _half_width(replicates, confidence)
    return value - half, value + half


def paired_ratio(numerator, denominator, intervals: bool = True) -> tuple[float, float, float]:
    """The ratio of two means over the same images, with its 95 % interval.

    Delete-one jackknife of its logarithm: an image is left out of both at once, so that what is
    hard about an image cancels.

    Args:
        numerator, denominator: [images] or [images, draws], at least 0.
        intervals: whether to compute the interval.

    Returns:
        (ratio, low, high); NaN bounds without intervals and for fewer than four images.
    """
    ratio, replicates = leave_one_out_ratio(numerator, denominator)
    if not intervals:
        return ratio, np.nan, np.nan
    if ratio == 0:
        return ratio, 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.exp(jackknife_interval(np.log(ratio), replicates))
    return ratio, float(low), float(high)


def leave_one_out_ratio(numerator, denominator) -> tuple[float, np.ndarray]:
    """The ratio of two means over the same images, and its logarithm without each image in turn.

    Args:
        numerator, denominator: as for `paired_ratio`.

    Returns:
        (ratio, logs [images], or [0] for fewer than four images).
    """
    top, bottom = (
        np.asarray(each, "float64").reshape(len(each), -1).mean(axis=1)
        for each in (numerator, denominator)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(top.mean() / bottom.mean())
        if len(top) < 4:
            return ratio, np.empty(0)
        left_out = [(each.sum() - each) / (len(each) - 1) for each in (top, bottom)]
        return ratio, np.log(left_out[0]) - np.log(left_out[1])


def proportion_interval(hits, confidence: float = 0.95) -> tuple[float, float, float]:
    """(share, low, high): Wilson's score interval of a share of hits, by image.

    Draws of one image are alike, so they do not count as independent: the number of trials is the
    effective one, images · share · (1 - share) / variance between images, at least the number of
    images and at most that of all draws. A simulation in the tests shows the coverage: for few
    images and shares near 0 or 1 it is above `confidence`.

    Args:
        hits: [images, draws], 0 or 1.
    """
    from scipy import special

    images, draws = np.shape(hits)
    if images == 0:
        return np.nan, np.nan, np.nan
    by_image = np.mean(hits, axis=1, dtype="float64")
    share = by_image.mean()
    # Where misses are rare, few images show how unlike images are, and most samples too little of
    # it. So one image of hits and one of misses are added, to this variance only.
    more = np.append(by_image, [0, 1])
    alike = more.var(ddof=1) / (more.mean() * (1 - more.mean()))
    trials = np.clip(images / alike, images, images * draws)
    z = special.ndtri(0.5 + confidence / 2)
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    half = z / (1 + z**2 / trials) * spread
    # Of all misses or all hits one bound is the share itself, but for rounding.
    low, high = np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
    return float(share), float(low), float(high)


def _half_width(replicates, confidence) -> float:
    images = len(replicates)
    if images < 4 or not np.isfinite(replicates).all():
        return np.nan
    return _student(images - 1, confidence) * np.sqrt((images - 1) * np.var(replicates))


def _leave_one_out_medians(values, first, second, images) -> np.ndarray:
    """The median of the sorted pair values without the pairs of each image in turn: [images].

    The k-th value that is left stands at k + (how many of the removed stand before it).
    """
    places = np.arange(len(values))
    owner = np.concatenate([first, second])
    # The places of each image's pairs, in ascending order: [images, images - 1].
    by_image = np.concatenate([places, places])[np.argsort(owner, kind="stable")]
    by_image = np.sort(by_image.reshape(images, images - 1), axis=1)
    kept_before = by_image - np.arange(images - 1)
    left = len(values) - (images - 1)
    middle = []
    for rank in ((left - 1) // 2, left // 2):
        middle.append(values[rank + (kept_before <= rank).sum(axis=1)])
    return (middle[0] + middle[1]) / 2


def _median_of_sorted(values) -> float:
    count = len(values)
    return float((values[(count - 1) // 2] + values[count // 2]) / 2)


def _student(degrees: int, confidence: float) -> float:
    from scipy import special  # here: importing it takes longer than the rest of the package

    return float(special.stdtrit(degrees, 0.5 + confidence / 2))
