"""Intervals of rates and means where users repeat: the user is the unit, not the event."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.special

from rankloop.v1.stats_pb2 import Interval
from server.statistics.intervals import LEVEL, Z


def clustered_wilson(users: Iterable[tuple[int, int]]) -> Interval | None:
    """The interval of successes ÷ trials, given (successes, trials) of each user; None without trials.

    Wilson's interval for n ÷ d trials, d the design effect: the variance of the ratio between users, linearised (Cochran 1977, eq. 6.9),
    over that of n independent trials (Dean and Pagano 2015). d is at least 1, and where every trial ended the same way n ÷ d is the number
    of users, since nothing is known of how alike trials of one user are.
    """
    pairs = np.array(users if isinstance(users, np.ndarray) else list(users), dtype=np.float64).reshape(-1, 2)
    pairs = pairs[pairs[:, 1] > 0]
    trials = float(pairs[:, 1].sum())
    if not trials:
        return None
    share = float(pairs[:, 0].sum()) / trials
    count = len(pairs)
    if share in (0.0, 1.0):
        effective = float(count)
    elif count < 2:
        effective = 1.0
    else:
        between = count / (count - 1) * float(((pairs[:, 0] - share * pairs[:, 1]) ** 2).sum()) / trials**2
        effective = trials / max(1.0, between / (share * (1 - share) / trials))
    spread = Z * math.sqrt(share * (1 - share) / effective + Z * Z / (4 * effective * effective))
    centre, scale = share + Z * Z / (2 * effective), 1 + Z * Z / effective
    low = 0.0 if share == 0.0 else (centre - spread) / scale
    high = 1.0 if share == 1.0 else (centre + spread) / scale
    return Interval(low=low, high=high, level=LEVEL)


def clustered_mean(users: Sequence[tuple[float, int]]) -> Interval | None:
    """The interval of a mean over events, given (sum, count) of each user; None with fewer than two users.

    Student's t with one degree of freedom less than there are users, on the linearised variance of sum ÷ count (Cochran 1977, eq. 6.9).
    """
    count = len(users)
    if count < 2:
        return None
    pairs = np.array(users, dtype=np.float64)
    total = float(pairs[:, 1].sum())
    mean = float(pairs[:, 0].sum()) / total
    variance = count / (count - 1) * float(((pairs[:, 0] - mean * pairs[:, 1]) ** 2).sum()) / total**2
    half = float(scipy.special.stdtrit(count - 1, 0.5 + LEVEL / 2)) * math.sqrt(variance)
    return Interval(low=mean - half, high=mean + half, level=LEVEL)
