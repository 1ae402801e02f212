"""What many tests make and look at: pixels of a scene, what a folder holds, and records.

The makers of records are called as a command line calls them, with all that there is to say in one row: tests vary one thing at a
time, while the package wants options, and how to work, each as one object.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

import numpy as np
from torch import Tensor

from inpaint_nb import records, video
from inpaint_nb.crops import RecordOptions, draw_parameters
from inpaint_nb.depth import DepthOptions
from inpaint_nb.records import RecordWork
from inpaint_nb.video import ClipOptions

DEPTH = dict(resolution='resolution', seed='seed', tta='tta', depth_weights='weights', trust_remote_code='trust_remote_code')


def to_pixels(image: Tensor) -> np.ndarray:
    "The picture 1 3 h w, 0..1, of a scene as h w 3 in 8 bits."
    return (image[0].permute(1, 2, 0) * 255).byte().numpy()


def contents(folder: str | Path) -> dict[str, bytes]:
    "All files below a folder."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob('*')) if path.is_file()}


def options_of(kind: type[RecordOptions], prefix: str, model_type: str, resolution: int | None = None, **given) -> RecordOptions:
    "Options of a class, from the names that a command line or a note gives them."
    usual = {field.name: field.default for field in fields(kind)}['depth']
    depth = {field: given.pop(name) for name, field in DEPTH.items() if name in given}
    for name in ('batch_size', 'depth_batch_size'):
        if name in given: depth['batch_size'] = given.pop(name)
    if resolution is not None: depth['resolution'] = resolution
    return kind(prefix, model_type, **given, depth=DepthOptions(**dict(seed=usual.seed, batch_size=usual.batch_size) | depth))


def _make(maker, kind, sources: str | Path, target: str | Path, given: dict, row: tuple):
    given = dict(zip(('prefix', 'model_type', 'resolution'), row)) | given
    work = {field.name: given.pop(field.name) for field in fields(RecordWork) if field.name in given}
    return maker(sources, target, options_of(kind, **given), RecordWork(**work))


def make_image_records(dataset_dir, data_dir, *row, **given):
    return _make(records.make_image_records, RecordOptions, dataset_dir, data_dir, given, row)


def make_video_records(dataset_dir, data_dir, *row, **given):
    return _make(video.make_video_records, ClipOptions, dataset_dir, data_dir, given, row)


def _draw_small(rng, size, level=1, is_metric=False, resolution=None, least=0):
    drawn = draw_parameters(rng, size, level, is_metric, resolution, least)
    return replace(drawn, short_side=max(drawn.short_side // 4, least * 5 // 4))


@contextmanager
def worked_small() -> Iterator[None]:
    "Holes are made at a quarter of the 720 or 1080 pixels of a photo or clip: where files, names and their order matter, not pixels."
    with mock.patch.object(records, 'draw_parameters', _draw_small), mock.patch.object(video, 'draw_parameters', _draw_small): yield


def make_small(maker, *given):
    "One of the package's makers of records, for a process of its own."
    with worked_small(): maker(*given)


def small_line(words: list[str]) -> int:
    "The command line that makes records, for a process of its own."
    from inpaint_nb.cli import inpaint_create_training_data
    with worked_small(): return inpaint_create_training_data(words)
