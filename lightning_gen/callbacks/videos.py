"""Videos as pictures: strips of frames, animations, and which of the frames were given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gen.callbacks.files import image_grid, whole_file
from lightning_gen.errors import LightningGenError

GIVEN, CONTINUED = (0.2, 0.6, 1.0), (1.0, 0.5, 0.1)  # blue and orange


def outlined(videos: Tensor, context_frames: int) -> Tensor:
    """Videos in colour; if frames of them were given, with a line of two pixels around each frame, blue or orange.

    Args:
        videos: `(N, C, T, H, W)` in [0, 1].
        context_frames: how many of the first frames were given (blue); the others continue them (orange).

    Returns:
        `(N, 3, T, H + 4, W + 4)`, or `(N, 3, T, H, W)` if none was given.
    """
    videos = videos.cpu().clamp(0, 1).expand(-1, 3, -1, -1, -1)
    if not context_frames:
        return videos
    number, _, num_frames, height, width = videos.shape
    pictures = torch.empty(number, 3, num_frames, height + 4, width + 4)
    pictures[:, :, :context_frames] = torch.tensor(GIVEN).view(3, 1, 1, 1)
    pictures[:, :, context_frames:] = torch.tensor(CONTINUED).view(3, 1, 1, 1)
    pictures[..., 2:-2, 2:-2] = videos
    return pictures


def film_strips(videos: Tensor, context_frames: int = 0, real: Tensor | None = None) -> Tensor:
    """Lay out each video as a row of its frames.

    Args:
        videos: `(N, C, T, H, W)` in [0, 1].
        context_frames: how many of the first frames were given, see `outlined`.
        real: what truly happened, a row above each video's; of the same shape.

    Returns:
        One colour image `(3, H', W')`.
    """
    rows = outlined(videos, context_frames)
    if real is not None:
        rows = torch.cat([outlined(real, context_frames), rows], 3)
    return image_grid(rows, num_columns=1)


def film_frames(videos: Tensor, num_columns: int, context_frames: int = 0, real: Tensor | None = None) -> list[Tensor]:
    """Lay out all videos beside each other, frame by frame.

    Args:
        videos: `(N, C, T, H, W)` in [0, 1].
        num_columns: videos in a row.
        context_frames: how many of the first frames were given, see `outlined`.
        real: what truly happened, on the left of each video; of the same shape.

    Returns:
        T colour images `(3, H', W')`.
    """
    pictures = outlined(videos, context_frames)
    if real is not None:
        pictures = torch.cat([outlined(real, context_frames), pictures], 4)
    return [image_grid(frame, num_columns) for frame in pictures.unbind(2)]


def write_gif(frames: Sequence[Tensor], path: Path, milliseconds: int = 100, pause: int | None = None) -> None:
    """Write colour images as an animation that repeats.

    Args:
        frames: each `(3, H, W)` in [0, 1].
        path: the file.
        milliseconds: between two frames.
        pause: milliseconds that the last frame stands; as any other if None.
    """
    from torchvision.transforms.functional import to_pil_image

    first, *others = (to_pil_image(frame.mul(255).round().byte()) for frame in frames)
    durations = [milliseconds] * len(others) + [pause or milliseconds]
    with whole_file(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)


def write_mp4(frames: Sequence[Tensor], path: Path, milliseconds: int = 100) -> None:
    """Write colour images as a film in H.264; sides are rounded up to even numbers, which the format asks for.

    Args:
        frames: each `(3, H, W)` in [0, 1].
        path: the file.
        milliseconds: between two frames.

    Raises:
        LightningGenError: if PyAV is not installed.
    """
    from fractions import Fraction

    try:
        import av
    except ImportError as error:
        raise LightningGenError(
            "An .mp4 is written by PyAV, which is not installed; type: pip install 'lightning_gen[video]', or give "
            "the output the suffix .gif."
        ) from error
    height, width = frames[0].shape[1:]
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(1000, milliseconds), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in frames:
            pixels = torch.zeros(stream.height, stream.width, 3, dtype=torch.uint8)
            pixels[:height, :width] = frame.mul(255).round().byte().permute(1, 2, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")))
        container.mux(stream.encode())
