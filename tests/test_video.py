"Clips of every kind, hostile files, and video records: counts, workers, kill and rerun."
import gc, json, multiprocessing, os, random, shutil, signal, subprocess, sys, threading, time
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from inpaint_nb import clips, crops, datasets, depth, video
from inpaint_nb.datasets import read_record
from inpaint_nb.depth import write_depth
from inpaint_nb.scenes import random_clip
from inpaint_nb.frames import ClipError
from inpaint_nb.clips import open_clip
from inpaint_nb.records import RecordWork
from inpaint_nb.sequences import VideoDataset, list_clip_records
from inpaint_nb.video import ClipMaker, clip_note
from commands import PROCESSES
from making import contents, make_small, make_video_records, options_of, to_pixels, worked_small
from stopping import stopped

VIDEOS = Path(__file__).parents[2]/'shared/data/videos'
LEGS = os.name == 'posix'


def scene_frames(seed, number, size=(72, 96)):
    return [to_pixels(scene.image) for scene in random_clip(seed, number, size)]


def write(path, frames, rate=25, codec='libx264', pixels='yuv420p', times=None, turn=0, options=None, container=None):
    with av.open(str(path), 'w', options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if times is not None: stream.codec_context.time_base = Fraction(1, 1000)
        if turn: stream.set_display_rotation(turn)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format='rgb24')
            if times is not None: frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_sound(path):
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('aac', rate=44100)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.sample_rate = 44100
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


FRAMES = scene_frames(7, 30)


@pytest.fixture(scope='module', autouse=True)
def small():
    with worked_small(): yield


@pytest.fixture(scope='module')
def clip(tmp_path_factory): return write(tmp_path_factory.mktemp('clip')/'clip.mp4', FRAMES)


make = partial(make_video_records, prefix='t', model_type='Pseudo', seq=2, skip_interval=8, size=256, divergence_level=3, progress=False)


# Reading

@pytest.mark.parametrize('name, settings', [
    ('plain.mp4', {}), ('no count.mkv', {}), ('stream.ts', {}), ('ten.mp4', dict(pixels='yuv420p10le')), ('full.mp4', dict(pixels='yuv444p')),
    ('film.gif', dict(codec='gif', pixels='rgb8')), ('old.avi', dict(codec='mpeg4')),
    ('naïve 映画 клип.webm', dict(codec='libvpx-vp9')), ('new.mp4', dict(codec='libsvtav1'))])
def test_kinds_of_files(tmp_path, name, settings):
    try: path = write(tmp_path/name, FRAMES[:12], **settings)
    except (av.error.FFmpegError, ValueError): pytest.skip(f'cannot write {name} here')
    clip = open_clip(path)
    assert (len(clip), clip.size) == (12, (96, 72)) and abs(clip.fps - 25) < .2
    rough = 40 if name.endswith('gif') else 15
    for frame, truth in zip(clip.frames(), FRAMES, strict=False): assert np.abs(frame.astype(int) - truth).mean() < rough
    assert np.array_equal(clip[7], list(clip.frames())[7])


@pytest.mark.parametrize('name', ['old.mpg', 'old.ts', 'an mpg called.mp4'])
def test_mpeg_streams(tmp_path, name):
    "Some readers count their frames right, and give others: 12 frames late from the beginning (ts), or after a jump (mpg)."
    path = write(tmp_path/name.replace('mp4', 'mpg'), FRAMES, codec='mpeg2video').rename(tmp_path/name)
    clip = open_clip(path)
    assert len(clip) == 30 and clip.reader == 'av'
    for numbers in (range(30), range(0, 30, 4)):
        for number, frame in zip(numbers, clip.frames(numbers), strict=True):
            distances = [np.abs(frame.astype(int) - other).mean() for other in FRAMES]
            assert abs(np.argmin(distances) - number) <= 1 and distances[number] < 15


@pytest.mark.skipif(not LEGS, reason='no colons in names here')
def test_colon_in_the_name(clip, tmp_path, monkeypatch):
    "FFmpeg would take the beginning for a protocol."
    shutil.copy(clip, tmp_path/'clip:one.mp4')
    monkeypatch.chdir(tmp_path)
    opened = open_clip('clip:one.mp4')
    assert (len(opened), opened.reader, str(opened.path)) == (30, open_clip(clip).reader, 'clip:one.mp4')
    assert np.array_equal(opened[3], open_clip(clip)[3])


def test_folder_is_listed_once(tmp_path):
    for number in (10, 9, 2): Image.fromarray(FRAMES[number]).save(tmp_path/f'{number}.png')
    Image.fromarray(FRAMES[0]).save(tmp_path/'.0.png')
    clip = open_clip(tmp_path)
    with mock.patch.object(clips, 'frame_files', side_effect=clips.frame_files) as listed:
        assert [clips.frame_paths(clip, [number])[0].name for number in range(3)] == ['2.png', '9.png', '10.png']
    assert listed.call_count == 1


def test_odd_size(tmp_path):
    path = write(tmp_path/'odd.mp4', [frame[:71, :95] for frame in FRAMES[:5]], pixels='yuv444p')
    assert [frame.shape for frame in open_clip(path).frames()] == 5 * [(71, 95, 3)]


@pytest.mark.parametrize('turn', [90, 180, -90])
def test_rotation_is_obeyed(tmp_path, turn):
    path = write(tmp_path/'turned.mp4', FRAMES[:3], turn=turn)
    clip, plain = open_clip(path), open_clip(write(tmp_path/'plain.mp4', FRAMES[:3]))
    assert clip.size == ((96, 72) if turn == 180 else (72, 96))
    right, wrong = (np.abs(clip[1].astype(int) - np.rot90(plain[1], turn // 90 + more)).mean() for more in (0, 2))
    assert right < 6 < wrong  # two files, not always encoded alike


def test_variable_rate(tmp_path):
    times = [0, 20, 40, 200, 220, 500, 520, 540, 560, 1000]
    clip = open_clip(write(tmp_path/'variable.mp4', FRAMES[:10], times=times))
    assert np.allclose(clip.times, np.array(times) / 1000, atol=2e-3)
    assert clips.sample_frames(clip.times, 10).tolist() == [0, 3, 5, 9]


@pytest.mark.parametrize('stamps', [9 * [(0, 0, False)], 9 * [(None, 5, False)], 9 * [(None, None, False)]])
def test_stamps_that_say_nothing(stamps):
    "Then the mean rate counts."
    stream = mock.Mock(average_rate=Fraction(20), time_base=Fraction(1, 1000))
    assert np.allclose(clips._times(stamps, stream), np.arange(9) / 20)
    stream.average_rate = None
    assert np.allclose(clips._times(stamps, stream), np.arange(9) / 25)


def test_few_equal_stamps():
    stream = mock.Mock(average_rate=Fraction(20), time_base=Fraction(1, 1000))
    assert np.allclose(clips._times([(0, 0, False), (10, 10, False), (10, 10, False), (50, 50, False)], stream), [0, .01, .01, .05])


def test_backwards_and_again(clip):
    with open_clip(clip).reading() as read:
        later, early = read(20), read(3)
        assert np.array_equal(read(20), later) and not np.array_equal(early, later)


HOSTILE = {'zero.mp4': b'', 'text.mp4': b'hello ' * 999, 'noise.mp4': np.random.default_rng(0).bytes(9999), 'page.mkv': b'<html></html>'}

@pytest.mark.parametrize('name', HOSTILE)
def test_no_clip(tmp_path, capfd, name):
    (tmp_path/name).write_bytes(HOSTILE[name])
    with pytest.raises(ClipError, match=f'{name} is no clip that can be read') as error: open_clip(tmp_path/name)
    assert '\n' not in str(error.value)
    assert capfd.readouterr() == ('', '')
    with pytest.raises(ClipError): make(tmp_path/name, tmp_path/'out')


def test_only_sound(tmp_path):
    with pytest.raises(ClipError, match='only sound'): open_clip(write_sound(tmp_path/'sound.mp4'))


def test_too_short_too_small_too_long(tmp_path):
    with pytest.raises(ClipError, match='1 frame at 30 per second'): make(write(tmp_path/'one.mp4', FRAMES[:1]), tmp_path/'out')
    with pytest.raises(ClipError, match='5 x 5 pixels, too small'): make(write(tmp_path/'tiny.mp4', 9 * [FRAMES[0][:5, :5]], pixels='yuv444p'), tmp_path/'out')
    with pytest.raises(ClipError, match='three times'): make(write(tmp_path/'long.mp4', 9 * [FRAMES[0][:20, :80]]), tmp_path/'out')


def test_frame_folder_with_a_bad_frame(tmp_path):
    for number, frame in enumerate(FRAMES[:6]): Image.fromarray(frame).save(tmp_path/f'{number}.png')
    (tmp_path/'4.png').write_text('no picture')
    number = 0
    with pytest.raises(ClipError, match='frame 4 on: 4.png is not a readable picture'):
        for number, _ in enumerate(open_clip(tmp_path).frames(), 1): pass
    assert number == 4
    Image.fromarray(FRAMES[0][:30]).save(tmp_path/'4.png')
    with pytest.raises(ClipError, match='4.png is 96 x 30'): list(open_clip(tmp_path).frames())


def until_damage(path, pause=0.0):
    frames = []
    try:
        for frame in open_clip(path).frames():
            frames.append(frame)
            time.sleep(pause)
    except ClipError as error: return frames, str(error)
    return frames, ''


def test_damage_is_where_it_is(tmp_path):
    "Threads of a decoder may stumble early or late; what we hand out must not depend on that."
    data = bytearray(write(tmp_path/'clip.mp4', FRAMES * 4).read_bytes())
    place = len(data) * 6 // 10
    data[place:place + 300] = bytes(300)
    (tmp_path/'hurt.mp4').write_bytes(data)
    frames, message = until_damage(tmp_path/'hurt.mp4')
    assert 10 < len(frames) < 120 and f'from frame {len(frames)} on' in message
    slow, same = until_damage(tmp_path/'hurt.mp4', .002)
    assert same == message and all(np.array_equal(a, b) for a, b in zip(frames, slow, strict=True))


def test_broken_off(tmp_path):
    data = write(tmp_path/'clip.mp4', FRAMES * 4, container={'movflags': 'faststart'}).read_bytes()
    (tmp_path/'half.mp4').write_bytes(data[:len(data) * 6 // 10])
    summary = make(tmp_path/'half.mp4', tmp_path/'out', skip_interval=30)
    assert summary.sequences > 0 and list(summary.failed) == ['half.mp4'] and 'half.mp4' in str(summary)


@pytest.mark.parametrize('name, settings', [('clip.mkv', {}), ('clip.ts', {}), ('clip.flv', {}), ('clip.avi', dict(codec='mpeg4')), ('clip.mpg', dict(codec='mpeg2video'))])
def test_broken_off_without_a_count(tmp_path, name, settings):
    "A whole file misses nothing; a broken one is announced where the container promises a length."
    try: path = write(tmp_path/name, FRAMES * 4, **settings)
    except (av.error.FFmpegError, ValueError): pytest.skip(f'cannot write {name} here')
    assert (len(open_clip(path)), open_clip(path).missing) == (120, 0)
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 6 // 10])
    broken = open_clip(path)
    assert 20 < len(broken) < 100
    if name in ('clip.mkv', 'clip.flv', 'clip.avi'): assert abs(len(broken) + broken.missing - 120) <= 2


def test_sound_may_be_longer(tmp_path):
    with av.open(str(tmp_path/'clip.mkv'), 'w') as out:
        pictures, sound = out.add_stream('mpeg4', rate=25), out.add_stream('aac', rate=44100)
        pictures.height, pictures.width, pictures.pix_fmt = *FRAMES[0].shape[:2], 'yuv420p'
        for number in range(100):
            if number < 20: out.mux(pictures.encode(av.VideoFrame.from_ndarray(FRAMES[number], format='rgb24')))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.sample_rate = 44100
            out.mux(sound.encode(frame))
        for stream in (pictures, sound): out.mux(stream.encode())
    clip = open_clip(tmp_path/'clip.mkv')
    assert (len(clip), clip.missing) == (20, 0)


def read_in_child(path, queue): queue.put(open_clip(path)[5].sum())

@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='no fork here')
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_read_after_fork(clip):
    opened = open_clip(clip)
    here = opened[5].sum()
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    with opened.reading() as read:
        read(0)
        child = context.Process(target=read_in_child, args=(clip, queue))
        child.start()
        assert queue.get(timeout=240) == here
    child.join(240)
    assert child.exitcode == 0


# Counts

def starts(path, folder, **options):
    "Where sequences begin, without making records."
    found = []
    def note(self, clip, source, sequence, shot, result):
        found.append(shot.numbers[0])
        return result
    with mock.patch.object(ClipMaker, 'make_records', note): summary = make(path, folder, **options)
    assert summary.sequences == len(found)
    return found, summary


@pytest.mark.parametrize('options, expected', [
    (dict(skip_interval=0), list(range(0, 29, 2))), (dict(skip_interval=120), [0]), (dict(seq=16), [0]), (dict(skip_first=7), [7, 17, 27]),
    (dict(seq=4, skip_interval=6), [0, 10, 20]), (dict(seq=30), [0]), (dict(max_fps=5, skip_interval=1), [0, 15])])
def test_sequences_as_options_predict(clip, tmp_path, options, expected):
    assert starts(clip, tmp_path, **options)[0] == expected


def test_no_record_spans_a_cut(tmp_path):
    path = write(tmp_path/'cuts.mp4', sum((scene_frames(seed, number) for seed, number in ((1, 9), (2, 3), (3, 12), (4, 5))), []))
    found, summary = starts(path, tmp_path/'out', seq=4, skip_interval=0)
    assert found == [0, 4, 12, 16, 20, 24]
    assert (summary.cuts, summary.lost) == (2, 4)  # the third cut falls between two sequences


def test_frames_after_the_last_cut(tmp_path):
    path = write(tmp_path/'cuts.mp4', scene_frames(1, 9) + scene_frames(2, 7))
    found, summary = starts(path, tmp_path/'out', seq=8, skip_interval=0)
    assert (found, summary.cuts, summary.lost) == ([0], 1, 8)


@pytest.mark.parametrize('model_type, kept', [('Pseudo', [0, 0, 0]), ('Files', [2, 2, 2])])
def test_frames_are_dropped_when_placed(clip, tmp_path, model_type, kept):
    "Only depth from files looks at them again."
    seen = []
    def depth(model, shot, *args):
        seen.append(len(shot.frames))
        return lambda t: torch.zeros(1, 1, 720, 720)
    with mock.patch.object(video, 'clip_depth', depth), mock.patch.object(video, 'clip_crops', lambda *args: {}):
        make(clip, tmp_path/'out', model_type=model_type if model_type == 'Pseudo' else f'Files:{tmp_path}')
    assert seen == kept


def test_memory_stays_bounded(clip, tmp_path):
    "Frames of no more sequences than workers and two are held at a time."
    held, most, lock = 0, [], threading.Lock()
    def read(self, *args):
        nonlocal held
        shot = original(self, *args)
        with lock: held += 1; most.append(held)
        return shot
    def work(self, clip, source, sequence, shot, result):
        nonlocal held
        time.sleep(.02)
        with lock: held -= 1
        return result
    original = ClipMaker.wait_and_read
    with mock.patch.object(ClipMaker, 'wait_and_read', read), mock.patch.object(ClipMaker, 'make_records', work):
        make(clip, tmp_path, skip_interval=0, max_workers=2)
    assert len(most) == 15 and max(most) <= 4


# Cuts

def change(before, now): return clips.shot_change(*(clips.thumbnail(np.uint8(frame)) for frame in (before, now)))


def test_dim_cuts_and_short_dissolves():
    shots = [scene_frames(seed, 1)[0].astype(np.float32) for seed in range(6)]
    for a, b in zip(shots, shots[1:]):
        assert change(a, b) > 1 and change(.4 * a, .4 * b) > 1
        assert max(change(a, (a + b) / 2), change((a + b) / 2, b)) > 1


# Records

@pytest.fixture(scope='module')
def records(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    summary = make(clip, folder, max_workers=1)
    assert (summary.sequences, summary.made + summary.rejected) == (3, 6) and summary.made > 2
    return folder


def test_names_and_files(clip, records):
    for name in list_clip_records(records):
        prefix, model, digest, number, sample = name.split('_')
        assert (prefix, model, sample) == ('t', 'Pseudo', '0') and digest == video.clip_digest(clip)[:8] and 1 <= int(number) <= 6
        assert sorted(path.name for path in (records/name).iterdir()) == ['0000_C.png', '0000_M.png', '0001_C.png', '0001_M.png']
        picture, mask = read_record(records/name, '0001')
        assert picture.shape == (256, 256, 3) and set(np.unique(mask)) <= {0, 255}


def test_workers_do_not_matter(clip, records, tmp_path):
    shutil.copy(clip, tmp_path/'renamed.mp4')
    make(tmp_path/'renamed.mp4', tmp_path/'out', max_workers=3, batch_size=1)
    ours, theirs = ({name: data for name, data in contents(folder).items() if not name.endswith('.json')} for folder in (tmp_path/'out', records))  # the journal knows names
    assert ours == theirs


def test_more_samples(clip, records, tmp_path):
    shutil.copytree(records, tmp_path/'out')
    summary = make(clip, tmp_path/'out', num_samples=2)
    assert summary.made + summary.rejected == 12
    before, after = contents(records), contents(tmp_path/'out')
    assert before.keys() <= after.keys() and all(after[name] == data for name, data in before.items() if not name.endswith(('0000_M.png', '.json')))


OPTIONS, WORK = video.ClipOptions('t', 'Pseudo', seq=2, skip_interval=8, size=256, divergence_level=3), RecordWork(max_workers=2, progress=False)


def go(clip, folder, number=0, at=0):
    "As `make`, in a process that gets a signal just before its change number `at`."
    return stopped(partial(make_small, video.make_video_records, clip, folder, OPTIONS, WORK), folder, folder.with_suffix('.report'), number, at)


@pytest.mark.skipif(not LEGS, reason='no SIGKILL here')
def test_kill_and_rerun(clip, records, tmp_path):
    "Each time just before a change that chance chose."
    out, chance = tmp_path/'out', random.Random()
    changes = go(clip, tmp_path/'count').steps
    assert changes > len(contents(records))
    for turn in range(3):
        at = chance.randint(1, changes)
        killed = go(clip, out, signal.SIGKILL, at)
        assert killed.status == -signal.SIGKILL or turn and killed.status == 0, (at, changes, killed)
        for path in out.glob('[!.]*'): assert contents(path) == contents(records/path.name)
    make(clip, out)
    assert contents(out) == contents(records)


def test_other_options_are_refused(clip, records):
    before = contents(records)
    for option in (dict(seq=3), dict(skip_first=1), dict(seed=1), dict(size=128)):
        with pytest.raises(ValueError, match='give another prefix'): make(clip, records, **option)
    assert contents(records) == before


def test_options_of_all_clips_first(clip, tmp_path):
    "Records of the last clip with other options stop the run before anything is made."
    (tmp_path/'in').mkdir()
    for name, frames in (('a.mp4', FRAMES[:20]), ('b.mp4', FRAMES[4:24])): write(tmp_path/'in'/name, frames)
    make(tmp_path/'in/b.mp4', tmp_path/'out', seed=1)
    before = contents(tmp_path/'out')
    with pytest.raises(ValueError, match='made with seed 1, not 71'): make(tmp_path/'in', tmp_path/'out')
    assert before and contents(tmp_path/'out') == before


def test_rate_as_int_or_float(clip, records, tmp_path):
    assert video.ClipOptions('a', 'b', max_fps=30) == video.ClipOptions('a', 'b') and isinstance(video.ClipOptions('a', 'b', max_fps=30).max_fps, float)
    for number, rate in enumerate((30, 30.0)):
        make(clip, tmp_path/str(number), max_fps=rate)
        assert contents(tmp_path/str(number)) == contents(records)


@pytest.mark.parametrize('lost', ['0001_C.png', '0001_M.png', '0000_M.png'])
def test_record_with_a_frame_less(clip, records, tmp_path, lost):
    shutil.copytree(records, tmp_path/'out')
    (tmp_path/'out'/list_clip_records(records)[-1]/lost).unlink()
    assert make(clip, tmp_path/'out').made > 0
    assert contents(tmp_path/'out') == contents(records)


def test_old_record_is_whole_or_gone(records, tmp_path):
    "At no moment is there half of a record under its name, and the next run clears the rest away."
    name = list_clip_records(records)[0]
    shutil.copytree(records/name, tmp_path/name)
    remove = shutil.rmtree
    def stop(path, **options):
        if Path(path).exists():
            assert contents(tmp_path/name) == contents(records/name) and Path(path).name.startswith('.') and Path(path).name.endswith('.part')
            raise KeyboardInterrupt
    pairs = [read_record(records/name, f'{t:04}') for t in (0, 1)]
    pictures, masks = np.stack([picture[..., ::-1] for picture, _ in pairs]), np.stack([mask > 0 for _, mask in pairs])
    with mock.patch.object(shutil, 'rmtree', stop), pytest.raises(KeyboardInterrupt):
        video.write_clip_record(tmp_path, name, pictures, masks, clip_note(records/name))
    assert len(list(tmp_path.iterdir())) == 2
    options = options_of(video.ClipOptions, **clip_note(records/name)['options'])
    with mock.patch.object(shutil, 'rmtree', remove): video.check_clip_records(tmp_path, options, clip_note(records/name)['source'])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_of_clips(clip, tmp_path):
    (tmp_path/'in').mkdir()
    for name in ('a.mp4', 'b.mp4'): shutil.copy(clip, tmp_path/'in'/name)
    (tmp_path/'in/c.mp4').write_text('no video')
    summary = make(tmp_path/'in', tmp_path/'in/out', skip_interval=100)
    assert summary.clips == 1 and 'same content as a.mp4' in summary.skipped['b.mp4'] and summary.failed['c.mp4'].startswith('no clip that can be read: it is damaged')
    assert make(tmp_path/'in', tmp_path/'in/out', skip_interval=100).made == 0


def test_depth_from_files(tmp_path):
    "A folder of frames with its maps; the hole is right of the near half."
    (tmp_path/'shot').mkdir()
    (tmp_path/'maps').mkdir()
    depth = (torch.arange(96) < 48).float().expand(72, 96)
    for number in range(4):
        Image.fromarray(FRAMES[number]).save(tmp_path/f'shot/{number}.png')
        if number < 3: write_depth(depth, tmp_path/f'maps/{number}.png')
    done = make(tmp_path/'shot', tmp_path/'out', model_type=f"Files:{tmp_path/'maps'}", skip_interval=0, size=512)
    assert 'no depth map for' in done.failed['shot'] and done.made >= 1
    for name in list_clip_records(tmp_path/'out'):
        masks = [read_record(tmp_path/'out'/name, f'{t:04}')[1] for t in (0, 1)]
        assert (masks[0] > 0).mean() > .005 and np.array_equal(*masks)


# Composed records

def test_composed_clips(clip, tmp_path):
    "Whole records, the same with any number of workers, none made twice; two clips lend each other parts."
    shutil.copytree(clip.parent, tmp_path/'clips')
    write(tmp_path/'clips/other.mp4', FRAMES[::-1])
    options = dict(model_type='Layers', size=64, seq=3, skip_interval=12)
    summary = make(tmp_path/'clips', tmp_path/'out', max_workers=1, **options)
    assert summary.made and not summary.failed
    for name in list_clip_records(tmp_path/'out'):
        note = clip_note(tmp_path/'out'/name)
        assert len(list((tmp_path/'out'/name).iterdir())) == 6 and len(note['helpers']) == 1 and note['parameters']['angle'] is None
        pictures, masks = zip(*(datasets.read_record(tmp_path/'out'/name, f'{t:04}') for t in range(3)))
        assert not np.array_equal(pictures[0], pictures[2]) and np.mean(np.stack(masks) > 0) < .5
    assert make(tmp_path/'clips', tmp_path/'out', **options).reused == summary.made
    make(tmp_path/'clips', tmp_path/'again', max_workers=3, **options)
    assert contents(tmp_path/'again') == contents(tmp_path/'out')


def test_same_crop_of_every_frame():
    "With nothing moving before them, the frames behind are cut alike."
    frames = [np.full((90, 120, 3), value, np.uint8) for value in (10, 60)]
    drawn = crops.PhotoParameters('none', .5, 0, 720, 'right', None, 'BICUBIC', 6.0, False)
    options = video.ClipOptions('p', 'Layers', size=64)
    made = [video.composed_clip(crops.keyed_random('still', number), frames, [255 - frames[0]], drawn, options) for number in range(6)]
    pictures = np.stack([pictures for pictures, *_ in filter(None, made)])
    assert len(pictures) and {10, 60} <= {*np.unique(pictures)} and (pictures[:, 0] == 60).mean() < .02


# Loading

@pytest.fixture(scope='module')
def sequences(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sequences')
    rng = np.random.default_rng(1)
    for record in range(3):
        masks = np.zeros((16, 96, 128), bool)
        masks[:, 40:60, 50:60 + 5 * record] = True
        pictures = rng.integers(0, 200, (16, 96, 128, 3), dtype=np.uint8)
        pictures[..., 0] = 10 * np.arange(16)[:, None, None]
        video.write_clip_record(folder, f'r_{record}', pictures, masks)
    return folder


def test_items(sequences):
    data = VideoDataset(sequences, size=64)
    for key in ((0, 0, 0), (2, 5, 7)):
        x, mask, y, index = data[key]
        assert (x.shape, mask.shape, y.shape, mask.dtype, index) == ((12, 3, 64, 64), (12, 1, 64, 64), (12, 3, 32, 32), torch.bool, key[0])
        assert torch.equal(y, x[..., 16:-16, 16:-16]) and mask.any((1, 2, 3)).all() and 0 <= x.min() and x.max() <= 1
        assert (mask == mask[:1]).all()


def test_order_of_time(sequences):
    "The red channel tells the frame's number; colour jitter keeps it ascending or descending."
    data = VideoDataset(sequences, size=64)
    red = [data[0, 0, draw][0][:, 0, 5, 5] for draw in range(24)]
    ways = {tuple(step.diff().sign().unique().tolist()) for step in red}
    assert ways <= {(1.0,), (-1.0,), (-1.0, 0.0, 1.0), (-1.0, 1.0)} and {(1.0,), (-1.0,)} <= ways
    middle = VideoDataset(sequences, training=False, size=64)[0][0][:, 0, 5, 5] * 25.5
    assert torch.allclose(middle, torch.arange(2, 14).float(), atol=.01)


def test_workers_of_the_loader(sequences):
    keys = [(index, 3, draw) for draw, index in enumerate((2, 0, 1, 2))]
    here = [VideoDataset(sequences, size=64)[key] for key in keys]
    loader = DataLoader(VideoDataset(sequences, size=64), batch_size=None, sampler=keys, num_workers=2)
    for ours, theirs in zip(here, loader, strict=True):
        for a, b in zip(ours[:3], theirs[:3]): assert torch.equal(a, b)


def test_bad_records(sequences, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'): VideoDataset(tmp_path/'none')
    with pytest.raises(FileNotFoundError, match='no video records'): VideoDataset(tmp_path)
    with pytest.raises(ValueError, match='smaller than the crops of 128'): VideoDataset(sequences, size=128)[0]
    with pytest.raises(ValueError, match='has 16 frames, fewer than 20'): VideoDataset(sequences, size=64, frames=20)[0]


# Real clips

@pytest.mark.skipif(not VIDEOS.is_dir(), reason='no clips beside the checkout')
@pytest.mark.parametrize('name, size, number', [('sam2_01_dog', (1280, 720), 4), ('sam2_bedroom', (960, 540), 3), ('vda_davis_rollercoaster', (960, 540), 1)])
def test_real_clips(tmp_path, name, size, number):
    clip = open_clip(VIDEOS/f'{name}.mp4')
    found, summary = starts(clip.path, tmp_path, seq=16, skip_interval=64)
    assert clip.size == size and len(found) == number and found == list(range(0, 80 * number, 80)) and summary.cuts == 0


@pytest.mark.parametrize('name, codec, options', [('a.mp4', 'libx264', {'bf': '3'}), ('open.mkv', 'libx264', {'x264-params': 'open-gop=1'}), ('a.avi', 'mpeg4', {}), ('a.ts', 'mpeg2video', {'bf': '2'})])
def test_jumps_are_exact(tmp_path, name, codec, options):
    "Far ahead and far back, by a key frame or from the beginning: the same pixels as one frame after the other."
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    frames = [np.kron(np.roll(noise, number, 1), np.ones((2, 2, 1), np.uint8)) for number in range(400)]
    clip = open_clip(write(tmp_path/name, frames, codec=codec, options={'g': '40'} | options))
    one_by_one = list(clip.frames())
    assert len(one_by_one) == 400
    for number in (390, 5, 200, 201, 60, 399, 0):
        with clip.reading() as read: assert np.array_equal(read(10), one_by_one[10]) and np.array_equal(read(number), one_by_one[number])
    with closing(clips.AVReader(clip.path)) as reader:
        reader.read(300)
        assert reader.stamps and reader.next == 301
        decoded = mock.Mock(wraps=reader.jump)
        reader.jump = decoded
        assert np.array_equal(reader.read(301), one_by_one[301]) and not decoded.called
        assert np.array_equal(reader.read(150), one_by_one[150]) and decoded.called


def test_no_frame_is_decoded_twice_on_the_way_forward(tmp_path):
    "Where seeking is no good, a jump ahead goes on from where the reader is."
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    clip = open_clip(write(tmp_path/'a.ts', [np.roll(noise, number, 1) for number in range(700)], codec='mpeg2video', options={'g': '40'}))
    with closing(clips.AVReader(clip.path, careful=True)) as reader:
        with mock.patch.object(reader, 'rewind', side_effect=AssertionError('began again')):
            for number in (0, 200, 400, 650): reader.read(number)
    with clip.reading() as read, mock.patch.object(clips.AVReader, 'rewind', autospec=True, side_effect=clips.AVReader.rewind) as begun:
        ahead = {number: read(number) for number in (0, 200, 400, 650)}
    assert begun.call_count <= 3  # for the time stamps, and to try a key frame once
    for number, frame in enumerate(clip.frames()):
        if number in ahead: assert np.array_equal(frame, ahead[number])


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='the memory in use is told by Linux only')
def test_a_slow_reader_holds_few_frames(tmp_path):
    "No decoder goes on while somebody works on a frame."
    path = write(tmp_path/'a.mp4', [np.full((720, 1280, 3), number, np.uint8) for number in range(240)], options={'preset': 'ultrafast'})
    clip, before = open_clip(path), None
    with clip.reading() as read:
        for number in range(60):
            read(number)
            time.sleep(.02)
            memory = int(Path('/proc/self/statm').read_text().split()[1]) * 4096
            if number == 10: before = memory
    assert memory - before < 100e6


def write_cut(path, codec, options):
    "320 frames that differ, without the first packets: it begins amid frames that build on others. And the frames that are left, one after the other."
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    whole = write(path.with_name('whole.mkv'), [np.kron(np.roll(noise, number, 1), np.ones((4, 4, 1), np.uint8)) for number in range(320)], codec=codec, options=options)
    with av.open(str(whole)) as clip, av.open(str(path), 'w') as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in list(clip.demux(video=0))[7:-1]:
            packet.stream = stream
            out.mux(packet)
    with av.open(str(path)) as clip: return [frame.to_ndarray(format='rgb24') for frame in clip.decode(video=0)]


@pytest.mark.parametrize('name, codec, options', [('a.mkv', 'libx264', {'g': '24', 'bf': '3'}), ('a.mp4', 'libx264', {'g': '24', 'bf': '3'}), ('a.ts', 'libx264', {'g': '24'}), ('a.mkv', 'mpeg2video', {'g': '12', 'bf': '2'})])
def test_a_clip_that_begins_between_key_frames(tmp_path, name, codec, options):
    "What cannot be decoded is no frame, neither for the count nor for a jump."
    frames = write_cut(tmp_path/name, codec, options)
    clip = open_clip(tmp_path/name)
    assert 290 < len(frames) < 313 and (len(clip), clip.missing) == (len(frames), 0)
    assert clip.times[0] == 0 and np.allclose(np.diff(clip.times), .04, atol=.002)
    with closing(clips.AVReader(clip.path)) as reader:
        for number in (250, 3, 200, len(frames) - 1): assert np.array_equal(reader.read(number), frames[number])
    assert np.array_equal(clip[250], frames[250])
    assert sum(1 for _ in clip.frames()) == len(frames)


# Threads and processes

@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='counts threads by /proc')
def test_no_decoder_stays_behind(clip):
    "Garbage that holds a decoder would hang a process that is forked later, when it waits for threads that are not there."
    threads = lambda: len(os.listdir('/proc/self/task'))
    opened = clips.open_clip(clip)
    with opened.reading() as read: read(0)  # OpenCV's and NumPy's threads are there from now on
    gc.collect(); gc.disable()
    try:
        before = threads()
        with opened.reading() as read:
            read(5)
            assert threads() > before or len(os.sched_getaffinity(0)) == 1
        assert threads() == before
        with pytest.raises(ClipError), opened.reading() as read: read(10 ** 6)
        assert threads() == before
    finally: gc.enable()


def noted(said, clip, folder):
    "In a process of its own: the records, and what it says in a file."
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    make_small(video.make_video_records, clip, folder, OPTIONS, WORK)


@pytest.mark.parametrize('late', [0, 3])
def test_two_runs_at_once(clip, tmp_path, late):
    "The same command twice: neither fails, nothing is left behind, the records are those of one run."
    runs = []
    for number in range(2):
        runs.append(PROCESSES.Process(target=noted, args=(tmp_path/f'said {number}', clip, tmp_path/'out')))
        runs[-1].start()
        while late and not number and not list(tmp_path.glob('out/.*.part')) and runs[0].exitcode is None: time.sleep(.005)
    for number, run in enumerate(runs):
        run.join(240)
        assert ((tmp_path/f'said {number}').read_text(), run.exitcode) == ('', 0)
    make(clip, tmp_path/'alone')
    assert contents(tmp_path/'out') == contents(tmp_path/'alone')


def test_parts_of_other_runs(tmp_path):
    "What is still being written stays; what a dead run left goes."
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    options = video.ClipOptions('t', 'Pseudo')
    parts = {name: tmp_path/f'.t_Pseudo_01234567_1_0.{name}.part' for name in (f'{video._COMPUTER}-{os.getppid()}', f'{video._COMPUTER}-{ended.pid}', f'{video._COMPUTER}-{os.getpid()}', 'elsewhere-1', 'elsewhere-2')}
    parts['older version'] = tmp_path/'.t_Pseudo_01234567_1_0.part'
    for part in parts.values(): part.mkdir()
    os.utime(parts['elsewhere-2'], (time.time() - 3600,) * 2)
    video.check_clip_records(tmp_path, options, '01234567' * 8)
    assert {name for name, part in parts.items() if part.exists()} == {f'{video._COMPUTER}-{os.getppid()}', 'elsewhere-1'}


def test_lost_lines_are_written_again(clip, records, tmp_path):
    shutil.copytree(records, tmp_path/'out')
    before = {name: json.loads(data) for name, data in contents(tmp_path/'out').items() if name.endswith('.json')}
    for name in before: (tmp_path/'out'/name).unlink()
    assert make(clip, tmp_path/'out').made == 0
    after = {name: json.loads(data) for name, data in contents(tmp_path/'out').items() if name.endswith('.json')}
    assert before and after == {name: line | {'version': 'unknown'} for name, line in before.items() if line['records']}


def test_depth_that_fails_is_tried_again(clip, records, tmp_path):
    def refuse(*_): raise ValueError('no finite depth for this picture')
    with mock.patch.object(depth.DepthModel, 'origin', lambda *_: ''), mock.patch('inpaint_nb.pseudo.Pseudo.infer_clip', refuse):
        summary = make(clip, tmp_path/'out')
    assert list(summary.failed) == ['clip.mp4'] and not summary.made and not list((tmp_path/'out').iterdir())
    make(clip, tmp_path/'out')
    assert contents(tmp_path/'out') == contents(records)


@pytest.mark.parametrize('rounds', [1, 2, 3, 4, 6])
def test_holes_of_a_crop_are_those_of_the_picture(rounds, monkeypatch):
    "However far the closing of holes reaches."
    monkeypatch.setitem(crops.CLOSING, 'n_iter', rounds)
    rng = np.random.default_rng(rounds)
    depth = torch.from_numpy(rng.random((1, 1, 120, 160), np.float32) < .02).float()
    drawn = crops.PhotoParameters('none', .5, 0, 120, 'right', None, 'BICUBIC', 6.0, False)
    whole = crops.photo_holes(depth, drawn)
    for top in range(0, 61, 5):
        assert np.array_equal(video.crop_holes(depth, drawn, top, 20, 60), whole[top:top + 60, 20:80])
