"""Many photos and clips in one command: what becomes of each, what is kept, and what a kill in between costs."""
import errno, os, shutil, signal, threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inpaint_nb import cli, many, stereo
from inpaint_nb.clips import open_clip
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.stereo import StereoModels, StereoOptions, save_picture, stereo_photo
from stopping import line_stopped
from test_stereo import write_film
from making import to_pixels

FAST = dict(checkpoint_file='repeat', gpu=-1, progress=False)
LINE = ('--checkpoint-file', 'repeat', '--gpu', '-1')


@pytest.fixture(scope='module')
def tree(tmp_path_factory) -> Path:
    "Four photos in two folders, a clip, a damaged photo, a text, a hidden file."
    root = tmp_path_factory.mktemp('tree')/'in'
    (root/'deep/er').mkdir(parents=True)
    for seed, name in enumerate(('a.png', 'b.jpg', 'deep/a.png', 'deep/er/c.png')):
        save_picture(random_scene(seed, size=(48, 64)).image, root/name)
    write_film(root/'deep/film.mp4', [to_pixels(scene.image) for scene in random_clip(5, 8, (48, 64))])
    (root/'bad.png').write_bytes((root/'a.png').read_bytes()[:500])
    (root/'notes.txt').write_text('sunny')
    shutil.copy(root/'a.png', root/'.hidden.png')
    return root


WHOLE = {'a_LRF_Full_SBS.png', 'b_LRF_Full_SBS.png', 'deep/a_LRF_Full_SBS.png', 'deep/er/c_LRF_Full_SBS.png', 'deep/film_LRF_Full_SBS.mp4'}

def results(folder: Path) -> set[str]: return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_tree_is_mirrored(tree, tmp_path):
    summary = many.stereo_many([tree], tmp_path, recursive=True, **FAST)
    assert results(tmp_path) == WHOLE
    assert summary.made == {'picture': 4, 'clip': 1} and [*summary.unread] == [f'{tree}/notes.txt']
    (name, reason), = summary.failed.items()
    assert name == f'{tree}/bad.png' and reason.startswith('not a readable picture')
    for name in ('a', 'deep/er/c'):
        alone, = stereo_photo(tree/f'{name}.png', tmp_path/'alone.png', 'repeat', progress=False)
        assert alone.read_bytes() == (tmp_path/f'{name}_LRF_Full_SBS.png').read_bytes()


def test_not_recursive_and_several_inputs(tree, tmp_path):
    many.stereo_many([tree], tmp_path/'one', **FAST)
    assert results(tmp_path/'one') == {'a_LRF_Full_SBS.png', 'b_LRF_Full_SBS.png'}
    many.stereo_many([tree/'deep', tree/'b.jpg', tree/'deep/er'], tmp_path/'some', **FAST)
    assert results(tmp_path/'some') == {'deep/a_LRF_Full_SBS.png', 'deep/film_LRF_Full_SBS.mp4', 'b_LRF_Full_SBS.png', 'er/c_LRF_Full_SBS.png'}


def test_results_within_the_inputs_are_no_inputs(tree, tmp_path):
    shutil.copytree(tree, tmp_path/'in')
    for _ in range(2): summary = many.stereo_many([tmp_path/'in'], tmp_path/'in/out', recursive=True, **FAST)
    assert summary.there == 5 and results(tmp_path/'in/out') == WHOLE


def test_what_is_there_is_kept(tree, tmp_path):
    make = lambda **more: many.stereo_many([tree/'deep'], tmp_path, recursive=True, **FAST | more)
    make()
    before = {name: (tmp_path/name).stat().st_mtime_ns for name in results(tmp_path)}
    (tmp_path/'a_LRF_Full_SBS.png').write_bytes(b'mine')
    summary = make(format='full_sbs,mask')
    assert (tmp_path/'a_LRF_Full_SBS.png').read_bytes() == b'mine' and summary.there == 0 and len(results(tmp_path)) == 6
    assert all((tmp_path/name).stat().st_mtime_ns == stamp for name, stamp in before.items() if name != 'a_LRF_Full_SBS.png')
    assert make(format='full_sbs,mask').there == 3
    assert make(yes=True).made == {'picture': 2, 'clip': 1} and (tmp_path/'a_LRF_Full_SBS.png').read_bytes() != b'mine'


def test_same_names(tmp_path):
    for folder, suffix in (('one', 'png'), ('one', 'jpg'), ('two', 'png')):
        (tmp_path/folder).mkdir(exist_ok=True)
        save_picture(random_scene(1, size=(48, 64)).image, tmp_path/f'{folder}/x.{suffix}')
    many.stereo_many([tmp_path/'one'], tmp_path/'out', **FAST)
    assert results(tmp_path/'out') == {'x_png_LRF_Full_SBS.png', 'x_jpg_LRF_Full_SBS.png'}
    with pytest.raises(ValueError, match='would both become'): many.stereo_many([tmp_path/'one/x.png', tmp_path/'two/x.png'], tmp_path/'out2', **FAST)


def test_shares(tree, tmp_path):
    parts = [many.stereo_many([tree], tmp_path, recursive=True, shard=f'{part}/3', **FAST) for part in (1, 2, 3)]
    assert results(tmp_path) == WHOLE and sum(part.there for part in parts) == 0
    assert sum(sum(part.made.values()) for part in parts) == 5 and sum(len(part.failed) for part in parts) == 1
    assert [len(part.unread) for part in parts] == [1, 0, 0]


def test_processes_of_torchrun_share(tree, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        many.stereo_many([tree], tmp_path/rank, recursive=True, **FAST)
    assert results(tmp_path/'0') | results(tmp_path/'1') == WHOLE and not results(tmp_path/'0') & results(tmp_path/'1')


def test_models_are_loaded_once(tree, tmp_path, monkeypatch):
    calls = []
    for name in ('create_depth_model', 'load_model'):
        def counted(*given, real=getattr(stereo, name), name=name, **more):
            calls.append(name)
            return real(*given, **more)
        monkeypatch.setattr(f'inpaint_nb.stereo.{name}', counted)
    many.stereo_many([tree], tmp_path, recursive=True, gpu=-1, progress=False)
    assert sorted(calls) == ['create_depth_model', 'load_model', 'load_model']  # of photos and of clips


def test_reading_and_writing_go_on_meanwhile(tree, tmp_path, monkeypatch):
    "While a photo is computed the next one is read, and while that is computed the one before is written."
    second_read, first_written = threading.Event(), threading.Event()
    read, views, write = many.read_pixels, many.photo_views, many.save_pixels
    def reads(path):
        if path.name == 'b.jpg': second_read.set()
        return read(path)
    def computes(path, *given):
        assert (second_read if path.name == 'a.png' else first_written).wait(60)
        return views(path, *given)
    def writes(pixels, path, *given):
        write(pixels, path, *given)
        if path.name.startswith('a_'): first_written.set()
    for name, new in (('read_pixels', reads), ('photo_views', computes), ('save_pixels', writes)): monkeypatch.setattr(many, name, new)
    sources, _ = many.find_sources([tree/'a.png', tree/'b.jpg'], tmp_path, ['left'])
    assert [error for _, error in many.make_photos(sources, StereoModels(StereoOptions('repeat', gpu=-1)))] == [None, None]


def test_full_disk_ends_it(tree, tmp_path, monkeypatch):
    def full(*_): raise OSError('could not write it') from OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(many, 'save_pixels', full)
    with pytest.raises(OSError, match='could not write'): many.stereo_many([tree], tmp_path, **FAST)


@pytest.mark.parametrize('names, status, says', [
    (['a.png', 'b.jpg'], 0, '2 photos and 0 clips made'), (['a.png', 'bad.png'], 3, 'incomplete: 1 photos or clips failed'),
    (['bad.png', 'bad.png', '--recursive'], 1, 'error: 1 photos or clips failed'), (['notes.txt', 'a.png'], 3, 'notes.txt: not a readable picture'),
    (['a.png', 'nowhere.png'], 1, 'nowhere.png'), (['deep/er', '--shard', '2/2'], 0, '0 photos'), (['.', '--shard', '0/2'], 2, '0/2'),
    (['deep', '--format', 'cinema'], 2, 'cinema'), (['a.png', 'b.jpg', '-o', 'x.png'], 2, 'x.png is one file'), (['deep', '--depth-file', 'a.png'], 2, 'Files:FOLDER')])
def test_exit_status(tree, tmp_path, monkeypatch, capsys, names, status, says):
    monkeypatch.chdir(tree)
    try: given = cli.inpaint_stereo(['-o', str(tmp_path/'out'), *LINE, *names])
    except SystemExit as end: given = end.code
    said = capsys.readouterr()
    assert given == status and says in said.out + said.err, said


def test_frames_are_a_clip_only_when_asked(tmp_path):
    frames = [scene.image for scene in random_clip(2, 4, (48, 64))]
    (tmp_path/'frames').mkdir()
    for number, frame in enumerate(frames): save_picture(frame, tmp_path/f'frames/{number}.png')
    go = lambda *line: cli.inpaint_stereo([str(part) for part in line])
    lines = {'photos': (), 'clip': ('--clip',), 'slow': ('--fps', 5), 'both': ('--clip', '--recursive')}
    for name, more in lines.items():
        assert go(tmp_path/'frames', '-o', tmp_path/name, *LINE, *more) == 0
    assert go(tmp_path/'frames', '-o', tmp_path/'named.mkv', *LINE) == 0
    assert results(tmp_path/'photos') == {f'{number}_LRF_Full_SBS.png' for number in range(4)}
    clips = [tmp_path/f'{name}/frames_LRF_Full_SBS.mp4' for name in ('clip', 'slow', 'both')] + [tmp_path/'named.mkv']
    assert [round(open_clip(clip).fps) for clip in clips] == [30, 5, 30, 30]
    assert go(tmp_path, '-o', tmp_path/'all', *LINE, '--clip', '--recursive') == 0
    assert 'frames_LRF_Full_SBS.mp4' in results(tmp_path/'all')


@pytest.mark.skipif(os.name != 'posix', reason='signals of Unix')
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_run_again(tree, tmp_path, number):
    "Every file is whole or not there, nothing that was there is made again, and in the end all is there once."
    line = [tree, '-o', tmp_path/'out', '--recursive', *LINE]
    go = lambda *stop: line_stopped('inpaint_stereo', line, tmp_path/'out', tmp_path/'report', *stop)
    status, steps, said = go()
    assert status == 3 and 'failed' in said
    whole = {name: (tmp_path/f'out/{name}').read_bytes() for name in results(tmp_path/'out')}
    for part in (0.3, 0.6, 0.9):
        shutil.rmtree(tmp_path/'out')
        status, _, said = go(number, int(part * steps))
        assert status == (130 if number == signal.SIGINT else -number), said
        there = {name: (tmp_path/f'out/{name}').stat().st_mtime_ns for name in results(tmp_path/'out') if '.tmp' not in name} if (tmp_path/'out').exists() else {}
        assert all((tmp_path/f'out/{name}').read_bytes() == whole[name] for name in there if name.endswith('.png'))
        status, _, said = go()
        assert status == 3 and f'{len(there)} there already' in said, said
        assert results(tmp_path/'out') == WHOLE
        assert all((tmp_path/f'out/{name}').stat().st_mtime_ns == stamp for name, stamp in there.items())
        assert len(open_clip(tmp_path/'out/deep/film_LRF_Full_SBS.mp4')) == 8
        for name in WHOLE: assert name.endswith('mp4') or np.array_equal(Image.open(tmp_path/f'out/{name}'), Image.open(BytesIO(whole[name])))
