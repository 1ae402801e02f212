"""How clips are cut, coded and labelled: read back by FFmpeg."""
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.sidedata.sidedata import Type

from inpaint_nb import cli
from inpaint_nb.clip import begin_clip, stereo_clip
from inpaint_nb.writing import part_of
from inpaint_nb.clips import open_clip
from inpaint_nb.depth import write_depth
from inpaint_nb.encoding import ENCODERS, EncodingOptions
from inpaint_nb.layouts import PACKINGS
from inpaint_nb.scenes import random_clip
from inpaint_nb.stereo import StereoOptions
from test_stereo import write_film
from making import to_pixels

FAST = dict(checkpoint_file='repeat', gpu=-1, progress=False)


@pytest.fixture(scope='module')
def film(tmp_path_factory) -> Path:
    "Two seconds, each frame with a grey of its own in the sky, and a tone."
    path = tmp_path_factory.mktemp('film')/'film.mp4'
    frames = [to_pixels(scene.image) for scene in random_clip(5, 48, (48, 64))]
    for number, frame in enumerate(frames): frame[:16] = 5 * number
    write_film(path, frames)
    return path


def told(path):
    "How views lie, and the bounds of the sphere, as FFmpeg reads them."
    with av.open(str(path)) as container: frame = next(container.decode(video=0))
    sides = [frame.side_data[i] for i in range(len(frame.side_data))]  # PyAV 19 iterates over their types
    found = {data.type: bytes(data) for data in sides}
    stereo = struct.unpack('<2i', found[Type.STEREO3D][:8]) if Type.STEREO3D in found else None
    return stereo, struct.unpack('<8I', found[Type.SPHERICAL][:32])[4:] if Type.SPHERICAL in found else None


CODED = [('libx264', 'yuv420p', 'mp4'), ('libx264', 'yuv444p10le', 'mkv'), ('libx265', 'yuv420p10le', 'mp4'), ('libx265', 'yuv420p', 'mov'),
         ('av1', 'yuv420p10le', 'mp4'), ('av1', 'yuv420p', 'mkv'), ('ffv1', 'yuv444p', 'mkv'), ('ffv1', 'bgr0', 'mkv')]

@pytest.mark.parametrize('codec, pix_fmt, ending', CODED)
def test_codecs(film, tmp_path, codec, pix_fmt, ending):
    "Every frame at its time, in the kind of pixels that was asked for, with its sound."
    out, = stereo_clip(film, tmp_path/f'out.{ending}', format='left', view='right', crf=10, encoding=EncodingOptions(video_codec=codec, pix_fmt=pix_fmt), **FAST)
    with av.open(str(out)) as container:
        video, = container.streams.video
        assert {'h264': 'libx264', 'hevc': 'libx265', 'ffv1': 'ffv1'}.get(video.codec_context.name, 'av1') == codec and video.codec_context.pix_fmt == pix_fmt
        assert len(container.streams.audio) == 1
        if codec == 'libx265' and ending != 'mkv': assert video.codec_context.codec_tag == 'hvc1'
    new, old = open_clip(out), open_clip(film)
    assert len(new) == 48 and np.abs(new.times - old.times).max() < 2e-3
    worst = max(np.abs(a.astype(int) - b).mean() for a, b in zip(new.frames(), old.frames()))
    assert worst < (0.6 if pix_fmt == 'bgr0' else 4)


@pytest.mark.parametrize('layout, stereo', [('full_sbs', (1, 0)), ('half_tb', (2, 0)), ('vr180', (1, 0)), ('cross_eyed', None), ('left', None)])
@pytest.mark.parametrize('codec, ending', [('libx264', 'mp4'), ('libx265', 'mov'), ('av1', 'mp4')])
def test_labels_of_mp4(film, tmp_path, layout, stereo, codec, ending):
    options = EncodingOptions(end_time='0.2', video_codec=codec, metadata=True)
    out, = stereo_clip(film, tmp_path/f'out.{ending}', format=layout, encoding=options, **FAST)
    quarter = 2 ** 30
    assert told(out) == (stereo, (quarter, 0, quarter, 0) if layout == 'vr180' else None)
    assert len(open_clip(out)) == 5  # its tables still point at the frames
    with av.open(str(out)) as container: assert sum(1 for _ in container.decode(audio=0)) > 0


@pytest.mark.parametrize('layout, stereo', [('full_sbs', (1, 0)), ('full_tb', (2, 0)), ('cross_eyed', (1, 1)), ('mask', None)])
def test_labels_of_matroska(film, tmp_path, layout, stereo):
    out, = stereo_clip(film, tmp_path/'out.mkv', format=layout, encoding=EncodingOptions(end_time='0.2', metadata=True), **FAST)
    assert told(out)[0] == stereo


def test_nothing_is_said_unless_asked(film, tmp_path):
    for ending in ('mp4', 'mkv'):
        out, = stereo_clip(film, tmp_path/f'out.{ending}', encoding=EncodingOptions(end_time='0.2'), **FAST)
        assert told(out) == (None, None)


@pytest.mark.parametrize('options, numbers', [
    (dict(start_time='0.5'), range(12, 48)), (dict(end_time='0.5'), range(12)), (dict(start_time='0:00:01', end_time='1.25'), range(24, 30)),
    (dict(max_fps=12), range(0, 48, 2)), (dict(max_fps=30), range(48)), (dict(start_time='1', max_fps=8), range(24, 48, 3))])
def test_parts(film, tmp_path, options, numbers):
    out, = stereo_clip(film, tmp_path/'out.mp4', format='left', view='right', crf=5, encoding=EncodingOptions(**options), **FAST)
    new = open_clip(out)
    assert [round(frame[:12].mean() / 5) for frame in new.frames()] == [*numbers]
    seconds = numbers.step / 24 * len(numbers)
    assert abs(new.duration - seconds) < 0.05 and np.abs(new.times - np.arange(len(numbers)) * numbers.step / 24).max() < 2e-3
    with av.open(str(out)) as container: sound = [float(frame.pts * frame.time_base) for frame in container.decode(audio=0)]
    assert abs(sound[0]) < 0.05 and abs(sound[-1] - seconds) < 0.1


def test_sound_of_a_part_is_that_of_its_time(tmp_path):
    "A tone only in the second half: the part that begins there begins with it."
    frames = 48 * [np.full((48, 64, 3), 90, np.uint8)]
    path = tmp_path/'film.mkv'
    with av.open(str(path), 'w') as container:
        video, sound = container.add_stream('libx264', rate=24), container.add_stream('pcm_s16le', rate=48000, layout='mono')
        video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        for number, frame in enumerate(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
            level = 12000 if number >= 24 else 0
            tone = (level * np.sin(np.arange(2000) * 0.1)).astype(np.int16)[None]
            piece = av.AudioFrame.from_ndarray(tone, format='s16', layout='mono')
            piece.sample_rate, piece.pts = 48000, 2000 * number
            container.mux(sound.encode(piece))
        for stream in (video, sound): container.mux(stream.encode())
    out, = stereo_clip(path, tmp_path/'out.mkv', format='left', encoding=EncodingOptions(start_time='0.75', end_time='1.5'), **FAST)
    with av.open(str(out)) as container:
        loud = [float(frame.pts * frame.time_base) for frame in container.decode(audio=0) if np.abs(frame.to_ndarray()).max() > 6000]
    assert abs(loud[0] - 0.25) < 0.05


def test_depth_of_a_part(film, tmp_path):
    "A map for each frame of the whole clip; those of the part are taken."
    (tmp_path/'maps').mkdir()
    for number in range(48): write_depth(torch.full((1, 1, 48, 64), number / 48), tmp_path/f'maps/{number:02}.png')
    options = StereoOptions(depth_file=tmp_path/'maps', encoding=EncodingOptions(start_time='1'))
    part, maps = begin_clip(film, [tmp_path/'out.mp4'], options)
    assert [path.stem for path in maps] == [str(number) for number in range(24, 48)] and part.begin == 1
    out, = stereo_clip(film, tmp_path/'out.mp4', depth_file=tmp_path/'maps', format='rgbd', encoding=options.encoding, **FAST)
    shown = [frame[:, 64:].mean() for frame in open_clip(out).frames()]
    assert np.abs(np.array(shown) - np.arange(24, 48) * 255 / 48).max() < 4


@pytest.mark.parametrize('line, status, says', [
    ('--video-codec h266', 2, 'h266'), ('--video-codec av1 --preset slow', 2, 'av1 has no preset'), ('--pix-fmt rgb8', 2, 'pix fmt'), ('--tune loud', 2, 'loud'),
    ('--start-time noon', 2, 'noon'), ('--start-time 2 --end-time 1', 2, 'is empty'), ('--max-fps 0', 2, 'max fps'), ('--start-time 1:00', 1, 'nothing of it'),
    ('--video-codec ffv1', 1, 'name a file that ends in .mkv')])
def test_bad_lines(film, tmp_path, capsys, line, status, says):
    try: given = cli.inpaint_stereo([str(film), '-o', str(tmp_path/'out.mp4'), '--checkpoint-file', 'repeat', '--gpu', '-1', *line.split()])
    except SystemExit as end: given = end.code
    assert given == status and says in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_rows():
    for row in ENCODERS.values(): assert row.pix_fmts and (not row.preset or row.preset in row.presets)
    assert {packing.stereo for packing in PACKINGS.values()} <= {'', 'left_right', 'right_left', 'top_bottom', 'anaglyph_cyan_red'}
