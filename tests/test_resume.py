"""A stereo clip that is killed while it is written, and goes on: the same frames, times and sound as if nothing had happened."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from inpaint_nb import many, writing
from inpaint_nb.clip import stereo_clip
from inpaint_nb.clips import open_clip
from inpaint_nb.encoding import EncodingOptions
from stopping import PROCESSES
from test_stereo import write_film

OPTIONS = dict(resume=True, progress=False, gpu=-1, model_type='NULL', encoding=EncodingOptions(video_codec='ffv1'))


def _killed(at: int, source: str, out: str, options: dict):
    "In the new process: make a clip in parts of eight frames, and die at a frame."
    writing.PART_FRAMES, write, steps = 8, writing.PartsWriter.write, iter(range(1000))
    def counted(*given):
        if next(steps) == at: os.kill(os.getpid(), signal.SIGKILL)
        write(*given)
    writing.PartsWriter.write = counted
    stereo_clip(source, out, **options)


def kill_at(at, source, out, options):
    "The exit status of a run that dies before its frame number `at`, counted from where it begins."
    process = PROCESSES.Process(target=_killed, args=(at, str(source), str(out), options))
    process.start(); process.join(240)
    return process.exitcode


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    "Two shots, 19 and 17 frames, with sound."
    path = tmp_path_factory.mktemp('film')/'film.mkv'
    rows, columns = np.mgrid[:64, :96]
    shots = [np.stack([(columns * 3 + number * 4) % 256, (rows * 4) % 256, 0 * rows + 40], -1) for number in range(19)]
    shots += [np.stack([0 * rows + 250, 255 - (columns * 2 + number * 5) % 256, (rows + columns) % 256], -1) for number in range(17)]
    write_film(path, [frame.astype(np.uint8) for frame in shots])
    assert len(open_clip(path)) == 36
    return path


def pictures(path): return [frame.tobytes() for frame in open_clip(path).frames()]


# kills before a frame, counted from where each run begins, and the parts that are there then
@pytest.mark.parametrize('network, kills', [
    ('repeat', {3: 0, 12: 1, 2: 1, 13: 2, 6: 2}),  # before frames 3, 12, 10, 21, 22
    ('light_video_inpaint_v1', {12: 1, 13: 2}), ('pretrained', {12: 1, 13: 2})])
def test_goes_on_after_each_kill(film, tmp_path, monkeypatch, network, kills):
    monkeypatch.setattr(writing, 'PART_FRAMES', 8)
    file = Path(writing.__file__).parent/f'weights/{network}.pth'
    options = OPTIONS | dict(checkpoint_file=str(file) if file.exists() else network, format='half_sbs')
    whole, = stereo_clip(film, tmp_path/'whole.mkv', **options)
    out = tmp_path/'out.mkv'
    for at, parts in kills.items():
        assert kill_at(at, film, out, options) == -signal.SIGKILL
        assert len(list((tmp_path/'.out.mkv.parts').glob('*.npz'))) == parts and not out.exists()
    made, = stereo_clip(film, out, **options)
    assert pictures(made) == pictures(whole)
    assert np.array_equal(open_clip(made).times, open_clip(whole).times) and not list(tmp_path.glob('.*'))


def test_other_options_begin_again(film, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, 'PART_FRAMES', 8)
    options, out = OPTIONS | dict(checkpoint_file='repeat', format='left'), tmp_path/'out.mkv'
    kill_at(20, film, out, options)
    made, = stereo_clip(film, out, **options | dict(divergence=4.0))
    assert 'it begins again' in capsys.readouterr().err
    plain, = stereo_clip(film, tmp_path/'plain.mkv', **options | dict(divergence=4.0, resume=False))
    assert pictures(made) == pictures(plain)


def test_many_and_several_formats(film, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'PART_FRAMES', 8)
    options = OPTIONS | dict(checkpoint_file='repeat', format='left,right', encoding=EncodingOptions(end_time='1'))
    assert kill_at(27, film, tmp_path/'out', options) == -signal.SIGKILL  # a write is one format
    (tmp_path/'out/.film_left.mp4.parts/8.npz').write_bytes(b'damaged')
    begun = []
    real = many.stereo_frames
    monkeypatch.setattr(many, 'stereo_frames', lambda *given, **more: begun.append(more['done']) or real(*given, **more))
    summary = many.stereo_many([str(film)], tmp_path/'out', **options)
    assert begun == [8] and summary.made == {'clip': 1}
    assert {path.name for path in (tmp_path/'out').iterdir()} == {'film_left.mp4', 'film_right.mp4'}
    assert len(open_clip(tmp_path/'out/film_left.mp4')) == len(open_clip(tmp_path/'out/film_right.mp4'))
