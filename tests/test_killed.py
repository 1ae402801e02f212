"""SIGKILL in the long commands, placed by progress: just before a file below the results changes, or a frame is written. The same command afterwards comes to the end of an undisturbed run.

With `pytest --long` fifty moments of each command are tried instead of two."""
import os, random, shutil, signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.clips import open_clip
from stopping import line_stopped
from test_stereo import write_film
from making import contents, to_pixels

pytestmark = pytest.mark.skipif(os.name != 'posix', reason='signals of Unix')
MOMENTS = 50 if os.environ.get('INPAINT_LONG') == '1' else 2
MADE = '--prefix', 'p', '--model-type', 'Pseudo', '--size', '64', '--divergence-level', '3', '--max-workers', '2', '--gpu', '-1'
LINES = {  # name: program, line; SOURCE and DATA stand for folders
    'photos': ('inpaint_create_training_data', ('inpaint', '--dataset-dir', 'SOURCE/photos', '-o', 'DATA', '--num-samples', '1', *MADE)),
    'clips': ('inpaint_create_training_data', ('video_inpaint', '--dataset-dir', 'SOURCE/clips', '-o', 'DATA', '--seq', '3', '--skip-interval', '0', *MADE)),
    'split': ('inpaint_create_training_data', ('split', '-i', 'DATA', '--num-eval', '2')),
    'pack': ('inpaint_create_training_data', ('pack', '-i', 'DATA')),
    'stereo': ('inpaint_stereo', ('SOURCE/film.mp4', '-o', 'DATA', '--checkpoint-file', 'repeat', '--model-type', 'NULL', '--format', 'left,mask', '--gpu', '-1'))}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "Photos, clips and a film."
    folder = tmp_path_factory.mktemp('source')
    for part, seeds in (('train', (1, 2, 3, 4)), ('eval', (6,))):
        (folder/'photos'/part).mkdir(parents=True)
        for seed in seeds: Image.fromarray(to_pixels(random_scene(seed, size=(100, 130)).image)).save(folder/f'photos/{part}/{seed}.png')
    for clip in range(2):
        (folder/f'clips/{clip}').mkdir(parents=True)
        for number, scene in enumerate(random_clip(clip, 6, (100, 130))): Image.fromarray(to_pixels(scene.image)).save(folder/f'clips/{clip}/{number}.png')
    write_film(folder/'film.mp4', [to_pixels(scene.image) for scene in random_clip(5, 16, (64, 96))])
    return folder


def go(name, source, data, report, number=0, at=0):
    program, line = LINES[name]
    return line_stopped(program, [part.replace('SOURCE', str(source)).replace('DATA', str(data)) for part in line], data, report, number, at)


@pytest.fixture(scope='module')
def beginnings(source, tmp_path_factory):
    "What is there before each command: nothing, records, or older films of that name."
    folder = tmp_path_factory.mktemp('beginnings')
    for name in ('photos', 'clips', 'stereo'): (folder/name).mkdir()
    for name in ('film_left.mp4', 'film_mask.mp4'): (folder/'stereo'/name).write_bytes(b'older')
    for name in ('split', 'pack'):
        status, _, said = go('photos', source, folder/name, folder/'steps')
        assert status == 0, said
    shutil.rmtree(folder/'split/eval')
    return folder


def same(name, one, other):
    "Byte by byte; films to what x264 makes of what its memory held before."
    if name != 'stereo': return contents(one) == contents(other)
    if sorted(contents(one)) != sorted(contents(other)): return False
    pairs = [(open_clip(one/file), open_clip(other/file)) for file in contents(one)]
    return all(len(a) == len(b) and np.abs(a.times - b.times).max() == 0 and max(np.abs(x.astype(int) - y).mean() for x, y in zip(a.frames(), b.frames())) < 5 for a, b in pairs)


@pytest.mark.parametrize('name', LINES)
def test_killed(source, beginnings, tmp_path, name):
    whole, report = tmp_path/'whole', tmp_path/'steps'
    shutil.copytree(beginnings/name, whole)
    status, steps, said = go(name, source, whole, report)
    assert status == 0 and steps > 3, said
    chance, killed = random.Random(), 0
    for turn in range(MOMENTS):  # one in each part of the way
        at = chance.randint(turn * steps // MOMENTS + 1, max((turn + 1) * steps // MOMENTS, turn * steps // MOMENTS + 1))
        data = tmp_path/f'{turn}'
        shutil.copytree(beginnings/name, data)
        status, _, said = go(name, source, data, report, signal.SIGKILL, at)
        assert status in (-signal.SIGKILL, 0), (at, steps, status, said)  # with two workers the number of steps may be a few less
        killed += status != 0
        if name == 'stereo':
            films = [data/'film_left.mp4', data/'film_mask.mp4']
            assert all(film.read_bytes() == b'older' or len(open_clip(film)) == 16 for film in films), at
        status, _, said = go(name, source, data, report)
        assert status == 0 and same(name, data, whole), (at, steps, said, sorted(contents(data)), sorted(contents(whole)))
        shutil.rmtree(data)
    assert killed > MOMENTS // 2
