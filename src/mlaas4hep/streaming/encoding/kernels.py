"""The compiled inner loops: one pass over the values, no Python object an event, the interpreter's lock released.

Each has a slow twin in the tests that says the same per event, and hypothesis compares the two.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["STATISTICS", "count_bins", "encode_rows", "order_objects", "summarise"]

STATISTICS = 6
"""Length of what :func:`summarise` fills: finite values, smallest, largest, mean, sum of squared deviations, values that are not finite."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Boolean = npt.NDArray[np.bool_]
Further = tuple[Int64, Boolean, npt.NDArray[np.float64], Float32]


@numba.njit(nogil=True, cache=True)
def summarise(
    content: npt.NDArray[Any],
    offsets: Int64,
    chosen: Boolean,
    everything: npt.NDArray[np.float64],
    selected: npt.NDArray[np.float64],
) -> int:
    """Sum up the values of one branch, for all events and for the chosen ones.

    Parameters
    ----------
    content : number array of shape ``[values]``
    offsets : int64 array of shape ``[events + 1]``
        Event ``i`` holds ``content[offsets[i]:offsets[i + 1]]``.
    chosen : bool array of shape ``[events]``
    everything, selected : float64 array of shape ``[STATISTICS]``
        Filled with count, minimum, maximum, mean, sum of squared deviations from the mean, and number of values that are not finite. Minimum is +inf
        and maximum -inf where there is no finite value.

    Returns
    -------
    int
        Length of the longest of the chosen events.
    """
    widest = 0
    count = bad = 0
    low, high = np.inf, -np.inf
    total = squares = 0.0
    count_chosen = bad_chosen = 0
    low_chosen, high_chosen = np.inf, -np.inf
    total_chosen = squares_chosen = 0.0
    for event in range(chosen.size):
        start, stop = offsets[event], offsets[event + 1]
        take = chosen[event]
        if take and stop - start > widest:
            widest = stop - start
        for position in range(start, stop):
            value = np.float64(content[position])
            if not np.isfinite(value):
                bad += 1
                bad_chosen += take
                continue
            count += 1
            total += value
            low = min(low, value)
            high = max(high, value)
            if take:
                count_chosen += 1
                total_chosen += value
                low_chosen = min(low_chosen, value)
                high_chosen = max(high_chosen, value)
    mean = total / count if count else 0.0
    mean_chosen = total_chosen / count_chosen if count_chosen else 0.0
    # A second pass keeps the variance exact where the mean, or a single far value, is large against the spread.
    for event in range(chosen.size):
        take = chosen[event]
        for position in range(offsets[event], offsets[event + 1]):
            value = np.float64(content[position])
            if np.isfinite(value):
                squares += (value - mean) * (value - mean)
                if take:
                    squares_chosen += (value - mean_chosen) * (value - mean_chosen)
    everything[0], everything[1], everything[2] = count, low, high
    everything[3], everything[4], everything[5] = mean, squares, bad
    selected[0], selected[1], selected[2] = count_chosen, low_chosen, high_chosen
    selected[3], selected[4], selected[5] = mean_chosen, squares_chosen, bad_chosen
    return widest


@numba.njit(nogil=True, cache=True)
def count_bins(bits: npt.NDArray[np.uint32], offsets: Int64, chosen: Boolean, counts: Int64) -> tuple[int, int]:
    """Count float32 values by the upper half of their bits, in the order of the values.

    Parameters
    ----------
    bits : uint32 array of shape ``[values]``
        The bits of the values; those of NaN and ±inf do not count.
    offsets : int64 array of shape ``[events + 1]``
        Event ``i`` holds ``bits[offsets[i]:offsets[i + 1]]``.
    chosen : bool array of shape ``[events]``
    counts : int64 array of shape ``[2, 65536]``
        Added to: values of all events, and of the chosen ones.

    Returns
    -------
    low, high : int
        Smallest and largest number of an occupied bin; ``low > high`` where there is none.
    """
    low, high = 65535, 0
    for event in range(chosen.size):
        for position in range(offsets[event], offsets[event + 1]):
            upper = int(bits[position] >> np.uint32(16))
            if upper & 0x7F80 == 0x7F80:
                continue
            # Negative numbers fall as their bits rise, and stand below the positive ones; -0 is 0.
            number = 0x8000 + upper if upper < 0x8000 else (0xFFFF - upper if upper > 0x8000 else 0x8000)
            low = min(low, number)
            high = max(high, number)
            counts[0, number] += 1
            if chosen[event]:
                counts[1, number] += 1
    return low, high


@numba.njit(nogil=True, cache=True)
def order_objects(key: npt.NDArray[np.float64], offsets: Int64, descending: bool) -> Int64:
    """Order the objects of each event by a value of theirs.

    Equal ones stay in their order; those whose key is NaN come last.

    Parameters
    ----------
    key : float64 array of shape ``[values]``
    offsets : int64 array of shape ``[events + 1]``
        Event ``i`` holds the objects ``offsets[i] … offsets[i + 1] - 1``.
    descending : bool
        Whether the largest key comes first.

    Returns
    -------
    int64 array of shape ``[values]``
        For each position, the object that comes to stand there.
    """
    order = np.arange(key.size)
    # Smallest rank first; NaN has the rank of the last number, and stands behind it.
    rank = np.empty_like(key)
    for position in range(key.size):
        value = -key[position] if descending else key[position]
        rank[position] = np.inf if np.isnan(value) else value
    for event in range(offsets.size - 1):
        start, stop = offsets[event], offsets[event + 1]
        if stop - start > 64:
            # Inserting takes the square of the length: not for lists that may have any.
            inner = start + np.argsort(rank[start:stop], kind="mergesort")
            front = start
            for wanted in (False, True):
                for moving in inner:
                    if np.isnan(key[moving]) == wanted:
                        order[front] = moving
                        front += 1
            continue
        for position in range(start + 1, stop):
            moving = order[position]
            value, is_nan = rank[moving], np.isnan(key[moving])
            place = position
            while place > start:
                before = order[place - 1]
                if rank[before] > value or (rank[before] == value and np.isnan(key[before]) and not is_nan):
                    order[place] = before
                    place -= 1
                else:
                    break
            order[place] = moving
    return order


@numba.njit(nogil=True, cache=True)
def encode_rows(
    content: Float32,
    starts: Int64,
    offsets: Int64,
    offsets_of: Int64,
    first_place: Int64,
    width: Int64,
    shift: Float32,
    scale: Float32,
    further: Further | None,
    rows: Int64,
    destinations: Int64,
    x: Float32,
    mask: npt.NDArray[np.uint8],
    absent: float,
    counts: Int64,
) -> int:
    """Select events, scale, pad and mask them in one pass, each into its row of a block.

    Parameters
    ----------
    content : float32 array of shape ``[values]``
        Values of all features, one feature after the other.
    starts : int64 array of shape ``[features]``
        Where each feature's values begin in ``content``.
    offsets : int64 array of shape ``[events + 1, lists]``
        Boundaries of the events, shared by the features that have the same.
    offsets_of : int64 array of shape ``[features]``
        Column of ``offsets`` for each feature; -1 for a flat one.
    first_place, width : int64 array of shape ``[features]``
        First place and number of places of each feature.
    shift, scale : float32 array of shape ``[features]``
        The scaled value is ``u = (value - shift) * scale``.
    further : tuple of arrays, or None
        What most vectors do without, and then does not cost them anything, since the kernel is compiled for each of the two cases:

        - int64 ``[features]``, the distance from one place of a feature to the next;
        - bool ``[features]``, whether ``(log(1 + max(0, u)) - log_shift) * log_scale`` follows;
        - float64 ``[features, 2]``, its ``log_shift`` and ``log_scale``;
        - float32 ``[features, 2]``, the smallest and the largest value after that.
    rows : int64 array of shape ``[n]``
        Events to take.
    destinations : int64 array of shape ``[n]``
        Row of the block that each goes to.
    x : float32 array of shape ``[block, places]``
        Filled with scaled values.
    mask : uint8 array of shape ``[block, places]``
        Filled with 1 where absent, 0 where there is a value.
    absent : float
        What ``x`` holds where absent.
    counts : int64 array of shape ``[features]``
        Added to: values that were cut off.

    Returns
    -------
    int
        Number of values that were cut off because an event held more than the feature has places.
    """
    cut = 0
    empty = np.float32(absent)
    for index in range(rows.size):
        row = rows[index]
        to_x = x[destinations[index]]
        to_mask = mask[destinations[index]]
        # Most places are absent in most events: filling the row first costs less than a loop over each feature's padding.
        to_x[:] = empty
        to_mask[:] = 1
        for feature in range(starts.size):
            which = offsets_of[feature]
            if which < 0:
                begin = starts[feature] + row
                count = 1
            else:
                begin = starts[feature] + offsets[row, which]
                count = offsets[row + 1, which] - offsets[row, which]
                if count > width[feature]:
                    cut += count - width[feature]
                    counts[feature] += count - width[feature]
                    count = width[feature]
            place = first_place[feature]
            minus = shift[feature]
            times = scale[feature]
            if further is None:
                for position in range(count):
                    value = content[begin + position]
                    if np.isfinite(value):
                        to_x[place + position] = (value - minus) * times
                        to_mask[place + position] = 0
            else:
                # Out of the loop by hand: for all that the compiler knows, what is written could be these arrays.
                strides, is_log, logarithms, clips = further
                step, log = strides[feature], is_log[feature]
                log_shift, log_scale = logarithms[feature]
                low, high = clips[feature]
                for position in range(count):
                    value = content[begin + position]
                    if np.isfinite(value):
                        scaled = (value - minus) * times
                        if log:
                            logarithm = np.log1p(np.float64(scaled)) if scaled > 0 else 0.0
                            scaled = np.float32((logarithm - log_shift) * log_scale)
                        to_x[place] = low if scaled < low else high if scaled > high else scaled
                        to_mask[place] = 0
                    place += step
    return cut
