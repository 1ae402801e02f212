"""Codecs x containers x tags x turns x rates: colours within 3, upright, all frames at their times, sound in step.

Each codec in each container is tried with some of the combinations; with `pytest --long` with all of them, each turned into a stereo clip as well."""
import itertools, os
from fractions import Fraction

import av
import numpy as np
import pytest

from inpaint_nb.clip import stereo_clip
from inpaint_nb.clips import open_clip
from test_clip_colour import COLOURS, FINE, PIXELS, coded, drawing, off, quarters

LONG = os.environ.get('INPAINT_LONG') == '1'
EVEN, UNEVEN = range(0, 400, 40), [0, 40, 120, 160, 200, 360, 400, 440, 600, 640]  # milliseconds
FLASH = 6  # number of the white frame, with which the sound begins
EDGES = {True: 'full', False: 'limited'}
KINDS = [(codec, pixels, suffix) for codec, pixels, suffixes in [
    ('libx264', 'yuv420p', 'mp4 mkv mov avi ts'), ('libx264', 'yuv420p10le', 'mp4 mkv mov ts'), ('libx265', 'yuv420p10le', 'mp4 mkv mov ts'), ('libvpx-vp9', 'yuv420p', 'webm mkv mp4'), ('libsvtav1', 'yuv420p', 'mp4 mkv webm'),
    ('prores_ks', 'yuv422p10le', 'mov mkv'), ('mjpeg', 'yuvj420p', 'avi mov mkv mp4'), ('ffv1', 'yuv420p', 'mkv avi'), ('gif', 'rgb8', 'gif'), ('mpeg2video', 'yuv420p', 'ts mkv mpg mp4')] for suffix in suffixes.split()]
TURNS = {'as it is': None, 'turned': dict(degrees=90), 'mirrored': dict(degrees=0, hflip=True), 'both': dict(degrees=270, vflip=True)}
SOUND = {'webm': 'libopus', 'mpg': 'mp2', 'avi': 'mp2', 'ts': 'aac'}  # else aac; none in gif


def sayable(codec, suffix, matrix, full, turn, even):
    "Whether such a file can be written with what it should say."
    if codec == 'gif': return matrix is None and not full and not turn
    if codec == 'mjpeg' and (matrix != 5 or not full): return False  # JFIF means BT.601, full range
    if matrix is None and full: return codec == 'mjpeg'
    if full and codec in ('prores_ks', 'mpeg2video', 'libvpx-vp9'): return False
    if matrix == 9 and codec == 'mpeg2video': return False
    if codec == 'ffv1' and suffix == 'avi' and (matrix or full): return False
    if turn and suffix not in ('mp4', 'mov'): return codec == 'libsvtav1' and suffix == 'mkv'
    if codec == 'libx264' and suffix == 'avi' and not even: return False  # AVI knows when a frame is decoded, and not when it is shown
    return even or suffix not in ('mpg',) and not (codec == 'mpeg2video' and suffix in ('ts', 'mp4', 'mkv'))


ALL = [(*kind, *rest) for kind in KINDS for rest in itertools.product((None, 1, 5, 9), (False, True), TURNS, (True, False)) if sayable(kind[0], kind[2], rest[0], rest[1], TURNS[rest[2]], rest[3])]


def some(cases):
    "Of each codec in each container a few, so that each matrix, range, turn and rate is among them."
    chosen = []
    for _, group in itertools.groupby(cases, key=lambda case: case[:3]):
        group, seen = list(group), set()
        for case in group[len(chosen) % len(group):] + group:
            if new := {*enumerate(case[3:])} - seen:
                if len(new) > 1 or len(group) < 5: chosen.append(case)
                seen |= new
    return chosen


def write(path, codec, pixels, matrix, full, turn, times):
    "Four plain quarters, one white frame, and a tone that begins with it."
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options=FINE.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = 128, 64, pixels
        context = stream.codec_context
        if matrix: context.colorspace, context.color_range = matrix, 2 if full else 1
        if turn: stream.set_display_rotation(**turn)
        tone = None if codec == 'gif' else out.add_stream(SOUND.get(path.suffix[1:], 'aac'), rate=48000, layout='mono')
        plain, white = (coded(drawing((128, 64), colours), pixels, matrix or 5, full or pixels.startswith('yuvj')) for colours in (COLOURS, np.full((2, 2, 3), 255)))
        for number, time in enumerate(times):
            frame = white if number == FLASH else plain
            frame.pts, frame.time_base, frame.colorspace, frame.color_range = time // 40, Fraction(1, 25), context.colorspace, context.color_range
            out.mux(stream.encode(frame))
        if tone:
            seconds = np.arange(int(48 * (times[-1] + 400))) / 48000
            wave = np.where(seconds >= times[FLASH] / 1000, np.sin(2 * np.pi * 1000 * seconds) / 2, 0).astype(np.float32)
            resampler = av.AudioResampler(format=tone.format.name, layout='mono', rate=48000, frame_size=tone.codec_context.frame_size or 1152)
            source = av.AudioFrame.from_ndarray(wave[None], format='flt', layout='mono')
            source.sample_rate, source.pts, source.time_base = 48000, 0, Fraction(1, 48000)
            for piece in [*resampler.resample(source), *resampler.resample(None)]: out.mux(tone.encode(piece))
            out.mux(tone.encode())
        out.mux(stream.encode())
    return path


def begins(path):
    "Seconds from the first frame until the tone."
    with av.open(str(path)) as container: first = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.reformat(format='fltp').to_ndarray() if hasattr(frame, 'reformat') else av.AudioResampler(format='fltp').resample(frame)[0].to_ndarray())[0] > .15
            if loud.any(): return frame.time + loud.argmax() / frame.sample_rate - first
    raise AssertionError('no tone')


def look(clip, times, turn, name, within=3):
    "Colours, place, number and times."
    truth = np.array([[(219, 36, 0), (255, 255, 255)], [(36, 219, 0), (0, 36, 255)]] if name == 'gif' else COLOURS)
    if turn:
        truth = np.rot90(truth, turn['degrees'] // 90)
        truth = truth[::-1 if turn.get('vflip') else 1, ::-1 if turn.get('hflip') else 1]
    frames = list(clip.frames())
    assert (len(frames), len(clip), clip.missing) == (10, 10, 0) and clip.size == ((64, 128) if turn and turn['degrees'] % 180 else (128, 64))
    assert np.abs(clip.times * 1000 - times).max() <= 1.01, clip.times
    for number, frame in enumerate(frames): assert off(frame, np.full((2, 2, 3), 255) if number == FLASH else truth) <= within, (number, quarters(frame).tolist())
    return frames


@pytest.mark.parametrize('codec, pixels, suffix, matrix, full, turn, even', ALL if LONG else some(ALL))
def test_matrix(tmp_path, codec, pixels, suffix, matrix, full, turn, even):
    times, turn = EVEN if even else UNEVEN, TURNS[turn]
    path = write(tmp_path/f'clip.{suffix}', codec, pixels, matrix, full, turn, times)
    clip = open_clip(path)
    look(clip, times, turn, codec)
    assert bool(clip.assumed) == (matrix is None and codec != 'gif'), clip.assumed
    if codec != 'gif': assert abs(begins(path) - times[FLASH] / 1000) < .03, begins(path)
    if not LONG and (even or turn): return
    for ending in ('mp4', 'mkv') if LONG else ('mp4',):
        out, = stereo_clip(path, tmp_path/f'out.{ending}', progress=False, checkpoint_file='repeat', format='left', view='right', crf=1, model_type='NULL')
        look(open_clip(out), times, turn, codec, within=5)  # 8 bits twice
        if codec != 'gif': assert abs(begins(out) - begins(path)) < .025, (begins(out), begins(path))
