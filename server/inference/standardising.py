"""A variant's users as they would be had the shares stood still, from periods in which they did not.

A base rate that changes with time (a season, a weekday) moves every variant alike, but a variant whose share grew saw more of the later
days: pooled over periods its value is a mixture of times of its own, and differs from another's without any difference between them. So
every variant is brought to the same mixture: each period counts as much as it had users of all variants together.

    m = Σ_t q_t · m_t,   q_t = N_t ÷ Σ_t N_t,   n = 1 ÷ Σ_t (q_t² ÷ n_t)

with n_t the variant's users of period t and N_t those of all variants. Shares follow from earlier periods only, so that within its period
m_t is unbiased whatever they are, and so is m of the mean over the same time for all variants. The price is n, the number of users
that would tell as much had the shares stood still: at most Σ n_t, and equal to it where they did.

Source: direct standardisation; Fleiss, Levin and Paik, "Statistical methods for rates and proportions", 3rd edition, chapter 19. As an
estimate under adaptive shares it is inverse-propensity weighting by period: Hadad et al., "Confidence intervals for policy evaluation in
adaptive experiments", PNAS 118, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.inference.moments import Floats, Moments, together


def standardised(periods: Sequence[Moments], user_counts: Sequence[int], covariance: Floats | None = None) -> Moments:
    """The moments of a variant's users, each period counting as `user_counts` says.

    Args:
        periods: (n_periods,) the variant's, each of at least one user.
        user_counts: (n_periods,) users of all variants in each.
        covariance: (n_values, n_values) of the values between users; None: that of the variant's users of all periods together.

    Returns:
        Moments whose mean is m, whose count is n, rounded, and whose covariance is that given.
    """
    shares = np.asarray(user_counts, dtype=np.float64) / sum(user_counts)
    counts = np.array([period.count for period in periods], dtype=np.float64)
    mean = shares @ np.stack([period.mean for period in periods])
    count = round(1.0 / float(np.sum(shares**2 / counts)))
    if covariance is None:
        covariance = together(periods, len(mean)).covariance
    return Moments(count, mean, np.asarray(covariance * max(count - 1, 0), dtype=np.float64))
