"""A page of rendered samples to look at: what each kind shows, in grey too, and what is known of it.

    kinds, seeds --render--> strips of eight frames --> page.html (pictures inside) or one contact sheet .png

Usage: python -m familial.synth.samples --out page.html
"""

from __future__ import annotations

import argparse
import base64
import html
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.actions.catalogue import BY_NAME_ALONE
from familial.synth.capture_archive import read_archive
from familial.synth.clip import KINDS, RenderedClip, render_clip
from familial.synth.command import frame_size
from familial.synth.mocap import render_motion
from wire.errors import DataError

__all__ = ["main"]

_ACROSS = 8
_COLOURS = np.array(  # BGR of each person's silhouette
    [
        [0, 0, 0],
        [80, 200, 80],
        [220, 120, 60],
        [70, 90, 230],
        [60, 200, 220],
        [200, 80, 200],
        [160, 160, 60],
        [120, 120, 250],
        [90, 220, 150],
        [200, 200, 200],
    ],
    dtype=np.uint8,
)

_ORDER = [*sorted(set(KINDS) - set(BY_NAME_ALONE)), *BY_NAME_ALONE]  # what is drawn keeps its seeds


@dataclass(frozen=True, slots=True)
class _Sample:
    title: str
    description: str
    strips: tuple[NDArray[np.uint8], ...]  # (H, W, 3) BGR each


def _instants(clip: RenderedClip) -> NDArray[np.int64]:
    """Indices of the frames to show: one before the action, six during it, and the last."""
    shown, length = clip.annotations[0], float(clip.times_s[-1])
    end = max(min(shown.end_s, shown.start_s + 4.0), shown.start_s + 1.2) + 0.2
    times = [shown.start_s * 0.4, *np.linspace(shown.start_s - 0.3, end, _ACROSS - 2), length]
    return np.clip(np.searchsorted(clip.times_s, times), 0, len(clip.frames) - 1)


def _labels(clip: RenderedClip, at: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Silhouettes in a colour per person and key points in white, side by side."""
    pictures = _COLOURS[clip.silhouettes[at] % len(_COLOURS)]
    for picture, points in zip(pictures, clip.keypoints[at], strict=True):
        for x, y, visible in points.reshape(-1, 3).tolist():
            if visible:
                cv2.circle(picture, (round(x), round(y)), 1, (255, 255, 255), -1)
    return np.hstack(list(pictures))


def _sample(title: str, clip: RenderedClip) -> _Sample:
    at = _instants(clip)
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in clip.frames[at]]
    tags = sorted({f"{tag.label} {tag.start_s:.1f}-{tag.end_s:.1f} s" for tag in clip.tags})
    shown = clip.annotations[0]
    known = f"{clip.label}: {clip.caption}; {shown.start_s:.1f}-{shown.end_s:.1f} s; {clip.count.max()} seen"
    return _Sample(
        title,
        "; ".join([known, *tags[:4]]),
        (
            np.hstack(list(clip.frames[at])),
            cv2.cvtColor(np.hstack(grey), cv2.COLOR_GRAY2BGR).astype(np.uint8),
            _labels(clip, at),
        ),
    )


def _samples(kinds: list[str], seed: int, each: int, size: tuple[int, int], archive: Path | None) -> Iterator[_Sample]:
    for i, kind in enumerate(kinds):
        for j in range(each):
            own = seed + 101 * _ORDER.index(kind) + j
            print(f"\r{i * each + j + 1}/{len(kinds) * each} clips", end="", file=sys.stderr, flush=True)
            yield _sample(f"{kind} {own}", render_clip(own, kind, size=size))
    for i, (name, motion) in enumerate((read_archive(archive) if archive else {}).items()):
        long = max(4.0, 1.5 * float(motion.times_s[-1]))
        yield _sample(f"captured: {name}", render_motion(seed + i, motion, size=size, seconds=long))
    print(file=sys.stderr)


def _page(samples: Iterator[_Sample]) -> str:
    rows = []
    for sample in samples:
        pictures = []
        for strip in sample.strips:
            _, packed = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 80])
            pictures.append(f'<img src="data:image/jpeg;base64,{base64.b64encode(packed.tobytes()).decode()}">')
        rows.append(f"<h2>{html.escape(sample.title)}</h2><p>{html.escape(sample.description)}</p>{''.join(pictures)}")
    style = "body{font:14px sans-serif;margin:2em}h2{font-size:15px;margin:1.5em 0 0}img{display:block;max-width:100%}"
    head = f"<!doctype html><meta charset=utf-8><title>Rendered samples</title><style>{style}</style>"
    intro = "<h1>Rendered samples</h1><p>Each: the camera's frames; the same in grey; who is where.</p>"
    return f"{head}{intro}{''.join(rows)}\n"


def _sheet(samples: Iterator[_Sample]) -> bytes:
    """A PNG of one strip of grey frames for each sample."""
    strips = []
    for sample in samples:
        strip = sample.strips[1].copy()
        for colour, thick in ((0, 2), (255, 1)):
            cv2.putText(strip, sample.title, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (colour,) * 3, thick)
        strips.append(strip)
    return cv2.imencode(".png", np.vstack(strips))[1].tobytes()


def main(argv: list[str] | None = None) -> int:
    """Write the page, or a contact sheet."""
    parser = argparse.ArgumentParser(prog="python -m familial.synth.samples", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="page.html, or a contact sheet .png of grey frames")
    parser.add_argument("--kinds", default="", help="comma-separated; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=1, help="clips of each kind")
    parser.add_argument("--size", default="120x160", help="HxW")
    parser.add_argument("--archive", type=Path, help="also captured motions: DeepMimic's .tar.xz")
    args = parser.parse_args(argv)
    kinds = args.kinds.split(",") if args.kinds else list(KINDS)
    if odd := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--kinds: unknown {', '.join(odd)}; known are {', '.join(KINDS)}")
    try:
        samples = _samples(kinds, args.seed, args.each, frame_size(args.size), args.archive)
        if args.out.suffix == ".png":
            args.out.write_bytes(_sheet(samples))
        else:
            args.out.write_text(_page(samples), encoding="utf-8")
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
