"""Clips of a camera that moves, as if it stood still (Vondrick et al. 2016, section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_gen.errors import DataError

SIDE = 128
"""Pixels at which frames are compared: at 64 too few features are found."""

RATIO, LEAST_MATCHES, TOLERANCE = 0.7, 10, 2.0
"""A feature counts if its second nearest one in the frame before is so much farther; a homography needs so many of
them, and takes those that it moves to within so many pixels."""

LEAST_SEEN = 0.5
"""Share of the first frame that has to stay in sight."""


def stabilize(frames: Tensor) -> Tensor | None:
    """Lay all frames of a clip over the first.

    Between each frame and the one before, the homography is found that most of their SIFT features agree on (RANSAC),
    and these are chained. What a frame does not show is taken from the one before, as laid over the first.

    Args:
        frames: uint8, `(C, T, H, W)`; C is 1 or 3.

    Returns:
        The same shape, or None if two frames cannot be matched or the camera turns away.

    Raises:
        DataError: if OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            "Videos are steadied by OpenCV; type: pip install 'lightning_gen[steady]', or give stabilize=false."
        ) from error
    sift, matcher = cv2.SIFT_create(), cv2.BFMatcher()
    pictures = [np.ascontiguousarray(frame.numpy()) for frame in frames.permute(1, 2, 3, 0)]  # (H, W, C)
    size = frames.shape[-1], frames.shape[-2]
    steady: list[Any] = [pictures[0]]
    chain, before = np.eye(3), find_features(cv2, sift, pictures[0])
    for picture in pictures[1:]:
        features = find_features(cv2, sift, picture)
        step = homography(cv2, matcher, features, before)
        if step is None:
            return None
        chain, before = chain @ step, features
        warped = cv2.warpPerspective(picture, chain, size).reshape(picture.shape)
        seen = cv2.warpPerspective(np.ones(size[::-1], np.uint8), chain, size)
        seen = cv2.erode(seen, np.ones((5, 5), np.uint8), borderValue=1)  # Its border pixels are mixed with black.
        if seen.mean() < LEAST_SEEN:
            return None
        steady.append(np.where(seen[..., None] > 0, warped, steady[-1]))
    return torch.from_numpy(np.stack(steady)).permute(3, 0, 1, 2)


def find_features(cv2: Any, sift: Any, picture: Any) -> tuple[Any, Any]:
    """Where the features of a picture `(S, S, C)` are, `(F, 2)`, and what they look like, `(F, 128)`."""
    grey = picture[..., 0] if picture.shape[-1] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    points, looks = sift.detectAndCompute(grey, None)
    return np.array([point.pt for point in points], np.float32), looks


def homography(cv2: Any, matcher: Any, features: tuple[Any, Any], before: tuple[Any, Any]) -> Any | None:
    """The 3 x 3 matrix that takes a frame's points to those of the frame before, None if there is none to trust."""
    (points, looks), (old_points, old_looks) = features, before
    if min(len(points), len(old_points)) < LEAST_MATCHES:
        return None
    pairs = [
        (nearest.queryIdx, nearest.trainIdx)
        for nearest, second in matcher.knnMatch(looks, old_looks, k=2)
        if nearest.distance < RATIO * second.distance
    ]
    if len(pairs) < LEAST_MATCHES:
        return None
    rows, old_rows = (list(column) for column in zip(*pairs, strict=True))
    found, _ = cv2.findHomography(points[rows], old_points[old_rows], cv2.RANSAC, TOLERANCE)
    return found
