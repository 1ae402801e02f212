"Clips of many kinds: are their colours, their place and their time those that were meant?"
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb.clip import is_clip, stereo_clip
from inpaint_nb.layouts import ANAGLYPHS, anaglyph
from inpaint_nb.warp import StereoViews
from inpaint_nb.clips import list_clips, open_clip
from inpaint_nb.video import middle_frame

COLOURS = ((200, 40, 40), (255, 255, 255)), ((40, 200, 60), (30, 60, 220))  # upper left red, upper right white, lower left green, lower right blue
MIXED = {1: (.2126, .0722), 5: (.299, .114), 9: (.2627, .0593)}  # matrix: shares of red and blue in brightness


def drawing(size=(96, 64), colours=COLOURS):
    "Four plain quarters."
    width, height = size
    return np.asarray(colours, np.float64).repeat(height // 2, 0).repeat(width // 2, 1)


def coded(rgb, pixels, matrix=1, full=False):
    "A frame made of colours 0..255, its samples worked out here."
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pixels)
    if pixels == 'rgb8':
        red, green, blue = np.moveaxis(rgb.round().astype(np.uint8), -1, 0)
        frame.planes[0].update((red >> 5 << 5 | green >> 5 << 2 | blue >> 6).tobytes())
        return frame
    if frame.format.is_rgb or len(frame.format.components) < 3: return av.VideoFrame.from_ndarray(rgb.round().astype(np.uint8), format='rgb24').reformat(format=pixels)
    kr, kb = MIXED[matrix]
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    planes = y, (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    bits = frame.format.components[0].bits
    for number, (plane, values) in enumerate(zip(frame.planes, planes)):
        values = values[::rgb.shape[0] // plane.height, ::rgb.shape[1] // plane.width]
        if full: samples = values * (2 ** bits - 1) + 2 ** (bits - 1) * bool(number)
        else: samples = (values * (224 if number else 219) + (128 if number else 16)) * 2 ** (bits - 8)
        kind = np.uint16 if bits > 8 else np.uint8
        rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        rows[:, :plane.width] = samples.round()
        plane.update(rows.tobytes())
    return frame


FINE = {'libx264': {'qp': '0', 'preset': 'ultrafast'}, 'libx265': {'x265-params': 'lossless=1:log-level=none:pools=1', 'preset': 'ultrafast'}, 'libvpx-vp9': {'lossless': '1', 'cpu-used': '8'},
        'libsvtav1': {'crf': '1', 'preset': '10', 'svtav1-params': 'lp=1'}, 'mjpeg': {'qmin': '1', 'qmax': '1'}, 'mpeg2video': {'qmin': '1', 'qmax': '1'}, 'mpeg4': {'qmin': '1', 'qmax': '1'}}
PIXELS = {'libx264': 'yuv420p', 'libx265': 'yuv420p10le', 'prores_ks': 'yuv422p10le', 'mjpeg': 'yuvj420p', 'ffv1': 'yuv420p', 'gif': 'rgb8', 'png': 'rgb24'}


def write(path, codec='libx264', pixels=None, size=(96, 64), frames=8, matrix=None, full=None, tags=None, times=None, turn=None, picture=None, options=None, container=None):
    "A clip of plain quarters; without `matrix` and `full` nothing is tagged."
    pixels, picture = pixels or PIXELS.get(codec, 'yuv420p'), drawing(size) if picture is None else picture
    frame = coded(picture, pixels, matrix or (1 if size[1] >= 720 else 5), pixels.startswith('yuvj') or bool(full))
    with av.open(str(path), 'w', options=container or {}) as out:
        stream = out.add_stream(codec, rate=25, options=FINE.get(codec, {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        context = stream.codec_context
        if times: context.time_base = Fraction(1, 1000)
        if matrix: context.colorspace = matrix
        if full is not None: context.color_range = 2 if full else 1
        for name, value in (tags or {}).items(): setattr(context, name, value)
        if turn: stream.set_display_rotation(**turn)
        for number in range(frames):
            frame.pts, frame.time_base = (times[number], Fraction(1, 1000)) if times else (number, Fraction(1, 25))
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def quarters(picture):
    "The colours in the middle of the four quarters."
    rows, columns = picture.shape[0] // 4, picture.shape[1] // 4
    return picture[rows::2 * rows, columns::2 * columns][:2, :2].astype(int)


def off(picture, colours=COLOURS): return np.abs(quarters(picture) - colours).max()


KINDS = [(codec, pixels, suffix) for codec, all_pixels, suffixes in [
    ('libx264', ['yuv420p'], 'mp4 mkv mov avi ts flv'), ('libx264', ['yuv420p10le', 'yuv422p10le', 'yuv444p'], 'mp4 mkv'), ('libx265', ['yuv420p10le'], 'mp4 mkv mov ts'),
    ('libvpx-vp9', ['yuv420p'], 'webm mkv mp4'), ('libsvtav1', ['yuv420p', 'yuv420p10le'], 'mp4 webm mkv'), ('prores_ks', ['yuv422p10le'], 'mov mkv'),
    ('mjpeg', ['yuvj420p'], 'avi mov mkv'), ('ffv1', ['yuv420p', 'yuv422p10le'], 'mkv avi'), ('gif', ['rgb8'], 'gif'), ('mpeg2video', ['yuv420p'], 'ts mpg mkv vob'), ('mpeg4', ['yuv420p'], 'avi mp4'), ('png', ['rgb24'], 'mov avi')]
    for pixels in all_pixels for suffix in suffixes.split()]


@pytest.mark.parametrize('codec, pixels, suffix', KINDS)
def test_untagged(tmp_path, codec, pixels, suffix):
    "From 720 lines on BT.709, below BT.601."
    for size in ((96, 64), (96, 720)):
        clip = open_clip(write(tmp_path/f'{size[1]}.{suffix}', codec, pixels, size, matrix=5 if codec == 'mjpeg' else None))
        frames = list(clip.frames())
        assert (len(frames), len(clip), clip.size, clip.missing) == (8, 8, size, 0)
        assert off(frames[1], [[(219, 36, 0), (255, 255, 255)], [(36, 219, 0), (0, 36, 255)]] if codec == 'gif' else COLOURS) <= 3  # the palette of rgb8
        assert abs(clip.duration - 8 / 25) <= 1 / 25
        guessed = 'yuv' in pixels and codec != 'mjpeg'
        assert bool(clip.assumed) == guessed and (not guessed or ('BT.709' if size[1] == 720 else 'BT.601') in clip.assumed[0]), clip.assumed


TAGGED = [('libx264', 'mp4 mkv mov avi ts'), ('libx265', 'mp4 mkv ts'), ('libvpx-vp9', 'webm mp4'), ('libsvtav1', 'mp4 webm'), ('prores_ks', 'mov mkv'), ('ffv1', 'mkv'), ('mpeg2video', 'ts mkv mpg')]

@pytest.mark.parametrize('codec, suffix', [(codec, suffix) for codec, suffixes in TAGGED for suffix in suffixes.split()])
def test_tags_are_believed(tmp_path, codec, suffix):
    "Against the number of lines; a range, where it is not the usual one, too."
    for size, matrix, full in (((96, 720), 5, None), ((96, 64), 1, None), ((96, 64), 9, None), ((96, 64), 1, True)):
        if full and codec in ('prores_ks', 'mpeg2video', 'libvpx-vp9') or matrix == 9 and codec == 'mpeg2video': continue  # cannot be said there
        clip = open_clip(write(tmp_path/f'{size[1]} {matrix} {full}.{suffix}', codec, size=size, matrix=matrix, full=full))
        assert off(clip[1]) <= 3 and not clip.assumed, (size, matrix, full, quarters(clip[1]).tolist(), clip.assumed)


@pytest.mark.parametrize('codec, suffix', [('ffv1', 'mkv'), ('libx264', 'mp4'), ('libx264rgb', 'mkv'), ('qtrle', 'mov'), ('utvideo', 'avi')])
def test_rgb_needs_no_matrix(tmp_path, codec, suffix):
    pixels = {'ffv1': 'bgr0', 'libx264': 'yuv444p', 'utvideo': 'gbrp'}.get(codec, 'rgb24')
    clip = open_clip(write(tmp_path/f'rgb.{suffix}', codec, pixels, (96, 720), matrix=1 if codec == 'libx264' else None))
    assert off(clip[1]) <= 3 and not clip.assumed


def test_unknown_matrix(tmp_path, capfd):
    "YCgCo is no mixture of brightness and differences."
    with pytest.raises(ValueError, match='matrix 8 of ITU-T H.273'): open_clip(write(tmp_path/'cg.mp4', tags={'colorspace': 8}))
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('codec, suffix', [('libx264', 'mp4'), ('libx265', 'mp4'), ('libsvtav1', 'mkv'), ('prores_ks', 'mov')])
def test_turned_and_mirrored(tmp_path, codec, suffix):
    "All eight ways to hold a camera, front cameras among them: first turned against the clock, then mirrored."
    for degrees in (0, 90, 180, 270):
        for hflip, vflip in ((False, False), (True, False), (False, True)):
            clip = open_clip(write(tmp_path/f'{degrees}{hflip}{vflip}.{suffix}', codec, size=(128, 64), matrix=5, turn=dict(degrees=degrees, hflip=hflip, vflip=vflip)))
            truth = np.rot90(COLOURS, degrees // 90)
            truth = truth[::-1 if vflip else 1, ::-1 if hflip else 1]
            assert clip.size == ((64, 128) if degrees % 180 else (128, 64))
            assert off(clip[1], truth) <= 3, (degrees, hflip, vflip, quarters(clip[1]).tolist())


def test_turned_by_little(tmp_path):
    "As FFmpeg's program: around the middle, the size stays."
    picture = np.zeros((96, 96, 3))
    picture[8:24, 40:56] = 255  # above the middle
    clip = open_clip(write(tmp_path/'askew.mp4', size=(96, 96), picture=picture, turn=dict(degrees=30)))
    rows, columns = np.nonzero(clip[0][..., 0] > 128)
    assert clip.size == (96, 96) and abs(columns.mean() - 47.5 + 32 * .5) < 2 and abs(rows.mean() - 47.5 + 32 * .866) < 2


def write_changing(path, sizes, codec='libx264', frames=40):
    "One stream, whose size changes after so many frames."
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options=FINE.get(codec, {}))
        pixels = PIXELS.get(codec, 'yuv420p')
        stream.width, stream.height, stream.pix_fmt = *sizes[0], pixels
        for part, size in enumerate(sizes):
            context = av.CodecContext.create(codec, 'w')
            context.width, context.height, context.pix_fmt, context.time_base, context.framerate, context.options = *size, pixels, Fraction(1, 25), 25, FINE.get(codec, {})
            for number in range(part * frames, (part + 1) * frames):
                frame = coded(drawing(size), pixels, 5, pixels.startswith('yuvj'))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                for packet in context.encode(frame): packet.stream = stream; out.mux(packet)
            for packet in context.encode(): packet.stream = stream; out.mux(packet)
    return path


@pytest.mark.parametrize('codec, suffix', [('libx264', 'ts'), ('libvpx-vp9', 'webm'), ('mjpeg', 'mkv')])
def test_size_changes_on_the_way(tmp_path, capfd, codec, suffix):
    path = write_changing(tmp_path/f'changing.{suffix}', [(96, 64), (64, 96), (192, 128)], codec)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert len(frames) == len(clip) == 120 and {frame.shape for frame in frames} == {(64, 96, 3)}
    assert max(map(off, frames)) <= 3
    assert capfd.readouterr().err == f'{path}: from frame 40 on it is 64 x 96, brought to 96 x 64 as before\n'
    assert np.array_equal(clip[119], frames[119]) and np.array_equal(clip[50], frames[50])


def test_chunks_that_repeat(tmp_path):
    "AVI counts an empty chunk for a picture that stays; the file is whole all the same."
    times = [number * 40 for number in range(30) if number % 4 or number in (0, 28)]
    for codec in ('mpeg4', 'mjpeg', 'libx264'):
        path = write(tmp_path/f'{codec}.avi', codec, frames=len(times), times=times, matrix=5)
        clip = open_clip(path)
        with av.open(str(path)) as container: assert container.streams.video[0].frames > len(times)
        assert (len(clip), clip.missing) == (len(times), 0) and np.abs(clip.times * 1000 - times).max() <= (41 if codec == 'libx264' else 1)
        cut = tmp_path/f'{codec} cut.avi'
        cut.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
        assert open_clip(cut).missing > 0


@pytest.mark.parametrize('codec, pixels, suffix', [('libx264', 'yuv420p', 'mp4'), ('libx264', 'yuv420p', 'mkv'), ('gif', 'rgb8', 'gif'), ('mjpeg', 'yuvj420p', 'mov'), ('libvpx-vp9', 'yuv420p', 'webm'), ('libx264', 'yuv420p', 'ts')])
def test_slide_show(tmp_path, codec, pixels, suffix):
    "Three pictures of 1, 1 and 2.5 s: in TS nothing tells of the last second and a half."
    path = tmp_path/f'slides.{suffix}'
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options=FINE.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        stream.codec_context.time_base, stream.codec_context.flags = Fraction(1, 1000), stream.codec_context.flags | av.codec.context.Flags.frame_duration
        for start, seconds in ((0, 1), (1, 1), (2, 2.5)):
            frame = coded(drawing(), pixels, 5, pixels.startswith('yuvj'))
            frame.pts, frame.time_base, frame.duration = 1000 * start, Fraction(1, 1000), int(1000 * seconds)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    clip = open_clip(path)
    assert np.allclose(clip.times, [0, 1, 2]) and clip.missing == 0
    if suffix == 'ts': return
    assert abs(clip.duration - 4.5) < .04
    for ending in ('mp4', 'mkv'):
        out, = stereo_clip(path, tmp_path/f'out.{ending}', progress=False, checkpoint_file='repeat')
        assert abs(open_clip(out).duration - 4.5) < .04
        assert np.allclose(open_clip(out).times, [0, 1, 2], atol=.02)


def pq(light): return ((3424 / 4096 + 2413 / 128 * (power := (light / 10000) ** (2610 / 16384))) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(light):
    scene = light / 1000 * np.maximum((light / 1000) @ [.2627, .678, .0593], 1e-9)[..., None] ** (1 / 1.2 - 1)
    return np.where(scene <= 1 / 12, (3 * scene) ** .5, .17883277 * np.log(np.maximum(12 * scene - .28466892, 1e-9)) + .55991073)


def bright(picture, transfer):
    "A picture as HDR in BT.2020, white paper at 203 cd/m2, as values 0..255."
    linear = np.where(picture <= 10.31475, picture / 255 / 12.92, ((picture / 255 + .055) / 1.055) ** 2.4)
    light = 203 * linear @ np.array([[.6274039, .3292830, .0433131], [.0690973, .9195404, .0113623], [.0163914, .0880133, .8955953]]).T
    return 255 * (pq(light) if transfer == 16 else hlg(light))


@pytest.mark.parametrize('codec, suffix', [('libx265', 'mp4'), ('libx265', 'mkv'), ('libsvtav1', 'webm'), ('prores_ks', 'mov'), ('libx264', 'mkv')])
@pytest.mark.parametrize('transfer, name', [(16, 'PQ'), (18, 'HLG')])
def test_hdr_is_made_ordinary(tmp_path, codec, suffix, transfer, name):
    pixels = {'prores_ks': 'yuv422p10le'}.get(codec, 'yuv420p10le')
    path = write(tmp_path/f'hdr.{suffix}', codec, pixels, (96, 720), matrix=9, picture=bright(drawing((96, 720)), transfer), tags=dict(color_trc=transfer, color_primaries=9))
    clip = open_clip(path)
    assert off(clip[1]) <= 3, quarters(clip[1]).tolist()
    assert clip.assumed == (f'HDR ({name}) is made ordinary: white paper, 203 cd/m2, becomes white, brighter light is clipped',)


@pytest.mark.parametrize('primaries, matrix, name', [(9, 9, 'BT.2020'), (12, 1, 'Display P3')])
def test_wide_colours_without_hdr(tmp_path, primaries, matrix, name):
    turn = {9: [[.6274039, .3292830, .0433131], [.0690973, .9195404, .0113623], [.0163914, .0880133, .8955953]], 12: [[.8224622, .1775380, 0], [.0331942, .9668058, 0], [.0170826, .0723974, .9105199]]}[primaries]
    light = np.where(drawing() <= 10.31475, drawing() / 255 / 12.92, ((drawing() / 255 + .055) / 1.055) ** 2.4) @ np.transpose(turn)
    wide = 255 * np.where(light <= .0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - .055)
    clip = open_clip(write(tmp_path/'wide.mp4', 'libx264', 'yuv420p10le', matrix=matrix, picture=wide, tags=dict(color_trc=1, color_primaries=primaries)))
    assert off(clip[1]) <= 3 and clip.assumed == (f'its wide colours ({name}) are clipped to those of sRGB',)


@pytest.mark.parametrize('codec, pixels, suffix', [('ffv1', 'yuva420p', 'mkv'), ('png', 'rgba', 'mov'), ('qtrle', 'argb', 'mov'), ('prores_ks', 'yuva444p10le', 'mov'), ('libvpx-vp9', 'yuva420p', 'webm')])
def test_transparent_parts_are_white(tmp_path, codec, pixels, suffix):
    "As photos: what is behind nothing is not seen."
    rgba = np.dstack([drawing(), np.full((64, 96), 255)]).astype(np.uint8)
    rgba[:32, :48, 3], rgba[32:, :48, 3] = 0, 128
    path = tmp_path/f'clear.{suffix}'
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options={'cpu-used': '8', 'crf': '4', 'b:v': '0'} if codec == 'libvpx-vp9' else {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for _ in range(4): out.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format='rgba').reformat(format=pixels)))
        out.mux(stream.encode())
    assert off(open_clip(path)[2], [[(255, 255, 255), (255, 255, 255)], [(147, 227, 157), (30, 60, 220)]]) <= 4


def write_fields(path, codec, frames=6):
    "A bar that moves four columns from one half picture to the next."
    def bar(place): return np.where((np.arange(96) >= place) & (np.arange(96) < place + 24), 255, 0)[None, :, None].repeat(64, 0).repeat(3, 2).astype(np.uint8)
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options={'x264-params': 'interlaced=1', 'crf': '5'} if codec == 'libx264' else {'qmin': '1', 'qmax': '2'})
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        if codec != 'libx264': stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        for number in range(frames):
            picture = bar(8 * number)
            picture[::2] = bar(8 * number + 4)[::2]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize('codec, suffix', [('libx264', 'mp4'), ('libx264', 'ts'), ('mpeg2video', 'mpg'), ('mpeg2video', 'mkv')])
def test_interlaced_clips_lose_their_combs(tmp_path, codec, suffix):
    path = write_fields(tmp_path/f'fields.{suffix}', codec)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert len(frames) == 6 and 'interlaced' in clip.assumed[-1]
    with av.open(str(path)) as container: raw = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    def combs(picture): return np.abs(np.diff(picture[8:-8].astype(float), axis=0)).mean()
    assert all(combs(before) > 10 and combs(after) < 4 for before, after in zip(raw[1:-1], frames[1:-1], strict=True))
    assert all(np.array_equal(clip[number], frames[number]) for number in (0, 3, 5))


def write_tracks(path, subtitles='subrip'):
    "Two seconds with a title, two chapters, a German and an English sound track and subtitles in each language."
    with av.open(str(path), 'w') as out:
        video = out.add_stream('libx264', rate=5, options=FINE['libx264'])
        video.width, video.height, video.pix_fmt = 96, 64, 'yuv420p'
        sounds, texts = [out.add_stream('aac', rate=48000, layout='mono') for _ in range(2)], [out.add_mux_stream(subtitles) for _ in range(2)]
        for stream, language in zip(sounds + texts, ('ger', 'eng', 'ger', 'eng')): stream.metadata['language'] = language
        out.metadata['title'] = 'Über den Dächern'
        out.set_chapters([dict(id=number, start=1000 * number, end=1000 * number + 1000, time_base=Fraction(1, 1000), metadata={'title': f'chapter {number}'}) for number in range(2)])
        out.start_encoding()
        for number in range(10):
            frame = coded(drawing(), 'yuv420p', 5)
            frame.pts, frame.time_base = number, Fraction(1, 5)
            out.mux(video.encode(frame))
        for stream, pitch in zip(sounds, (440, 880)):
            for start in range(0, 96000, 1024):
                piece = av.AudioFrame.from_ndarray(np.sin(2 * np.pi * pitch * np.arange(start, start + 1024) / 48000, dtype=np.float32)[None] / 4, format='fltp', layout='mono')
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                out.mux(stream.encode(piece))
            out.mux(stream.encode())
        for stream in texts:
            for second in (0, 1):
                packet = av.Packet(f'line {second}'.encode() if subtitles == 'subrip' else len(text := f'line {second}'.encode()).to_bytes(2, 'big') + text)
                packet.stream, packet.pts, packet.dts, packet.duration, packet.time_base = stream, 1000 * second, 1000 * second, 900, Fraction(1, 1000)
                out.mux(packet)
        out.mux(video.encode())
    return path


def packets_of(path, kind, number):
    "Contents and times of one track's packets."
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(getattr(container.streams, kind)[number]) if packet.size]
        return [bytes(packet) for packet in packets], [float(packet.pts * packet.time_base) for packet in packets]


@pytest.mark.parametrize('subtitles, name, ending, kept', [('subrip', 'a.mkv', 'mkv', True), ('subrip', 'a.mkv', 'mp4', False), ('mov_text', 'a.mp4', 'mp4', True), ('mov_text', 'a.mp4', 'mov', True), ('mov_text', 'a.mp4', 'mkv', False)])
def test_all_tracks(tmp_path, capfd, subtitles, name, ending, kept):
    path = write_tracks(tmp_path/name, subtitles)
    out, = stereo_clip(path, tmp_path/f'out.{ending}', progress=False, checkpoint_file='repeat')
    said = capfd.readouterr().err
    with av.open(str(out)) as container, av.open(str(path)) as source:
        assert container.metadata['title'] == 'Über den Dächern'
        assert [(chapter['metadata']['title'], float(chapter['start'] * chapter['time_base'])) for chapter in container.chapters()] == [('chapter 0', 0), ('chapter 1', 1)]
        assert [stream.language for stream in container.streams.audio] == ['ger', 'eng']
        assert [stream.language for stream in container.streams.subtitles] == (['ger', 'eng'] if kept else [])
    for number in range(2):
        (new, times), (old, old_times) = (packets_of(file, 'audio', number) for file in (out, path))
        assert new == old and np.allclose(times, old_times, atol=.025)
        if kept: assert [text[-6:] for text in packets_of(out, 'subtitles', number)[0] if b'line' in text] == [b'line 0', b'line 1']
    assert said.count('subtitles') == (0 if kept else 2) and (kept or 'eng) cannot be written to ' in said), said


def test_rate_of_a_folder(tmp_path):
    (tmp_path/'frames').mkdir()
    for number in range(6): Image.fromarray(drawing().astype(np.uint8)).save(tmp_path/f'frames/{number}.png')
    for fps in (12, 24000 / 1001, 30):
        out, = stereo_clip(tmp_path/'frames', tmp_path/'out.mp4', progress=False, checkpoint_file='repeat', fps=fps)
        clip = open_clip(out)
        assert abs(clip.fps - fps) < .01 and abs(clip.duration - 6 / fps) < .01
    with pytest.raises(ValueError, match='fps is more than 0'): stereo_clip(tmp_path/'frames', tmp_path/'out.mp4', fps=0)


def test_records_and_stereo_see_the_same(tmp_path):
    "And players see what was meant: 720 lines without a tag, turned and mirrored, in ten bits."
    path = write(tmp_path/'clip.mkv', 'libx264', 'yuv420p10le', (160, 720), frames=4, turn=dict(degrees=90, hflip=True))
    truth = np.rot90(COLOURS)[:, ::-1]
    out, = stereo_clip(path, tmp_path/'left.mkv', progress=False, checkpoint_file='repeat', format='left', divergence=0, crf=1)
    clip = open_clip(out)
    with av.open(str(out)) as container: assert container.streams.video[0].codec_context.colorspace == 1
    assert clip.size == (720, 160) and off(clip[1], truth) <= 3
    assert off(middle_frame(path), truth) <= 3 and off(next(open_clip(path).frames([2])), truth) <= 3


def test_content_decides_what_is_a_clip(tmp_path):
    "Whatever a name ends with; a photo is none, nor is a text."
    kinds = [('libx264', 'mp4', 'one.f4v'), ('mpeg2video', 'vob', 'two.vob'), ('mpeg4', 'asf', 'three.asf'), ('mpeg2video', 'mxf', 'four.mxf'), ('libx264', 'mkv', 'five'), ('libx264', 'mp4', 'six.backup')]
    for codec, suffix, name in kinds: write(tmp_path/f'a.{suffix}', codec, size=(96, 80)).rename(tmp_path/name)
    photo = Image.fromarray(drawing().astype(np.uint8))
    for name, kind in (('photo.mp4', 'JPEG'), ('photo.jpg', 'JPEG'), ('pages.tif', 'TIFF')): photo.save(tmp_path/name, kind, **(dict(save_all=True, append_images=[photo]) if kind == 'TIFF' else {}))
    (tmp_path/'read me.txt').write_text('not a film')
    assert [path.name for path in list_clips(tmp_path)] == sorted(name for *_, name in kinds)
    for *_, name in kinds: assert is_clip(tmp_path/name) and len(open_clip(tmp_path/name)) == 8 and off(open_clip(tmp_path/name)[1]) <= 3
    assert not is_clip(tmp_path/'photo.mp4') and not is_clip(tmp_path/'pages.tif')


def test_maps_of_repeated_chunks_are_refused(tmp_path):
    "Somebody who unpacked an AVI with its repeated pictures has more maps than it has pictures."
    times = [number * 40 for number in range(30) if number % 4]
    path = write(tmp_path/'a.avi', 'mpeg4', frames=len(times), times=times, matrix=5)
    (tmp_path/'depth').mkdir()
    for number in range(30): Image.fromarray(np.full((64, 96), 8 * number, np.uint8)).save(tmp_path/f'depth/{number:02}.png')
    with pytest.raises(ValueError, match=f'30 depth maps, but .* has {len(times)} frames'): stereo_clip(path, tmp_path/'out.mp4', depth_file=tmp_path/'depth', progress=False)
    for _ in range(2): assert len(open_clip(stereo_clip(path, tmp_path/'out.mp4', progress=False, checkpoint_file='repeat')[0])) == len(times)


def test_dubois_mixes_light():
    "On noise, beside the same sums in double precision."
    views = StereoViews(*torch.rand(2, 1, 3, 16, 16, generator=torch.manual_seed(0)), None, None)
    light = lambda levels: np.where(levels <= .04045, levels / 12.92, ((levels + .055) / 1.055) ** 2.4)
    mixed = sum(np.einsum('ij,bjhw->bihw', np.array(matrix), light(eye.double().numpy())) for matrix, eye in zip((ANAGLYPHS['dubois'].left, ANAGLYPHS['dubois'].right), views[:2])).clip(0, 1)
    assert np.abs(anaglyph(views).numpy() - np.where(mixed <= .0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - .055)).max() < 1e-5


@pytest.mark.parametrize('codec, suffix', [('libx264', 'mp4'), ('libx264', 'mkv'), ('libvpx-vp9', 'webm'), ('mjpeg', 'mov'), ('gif', 'gif'), ('libx264', 'ts')])
def test_variable_rate(tmp_path, codec, suffix):
    times = [0, 40, 120, 160, 400, 440, 1000, 1040]
    clip = open_clip(write(tmp_path/f'variable.{suffix}', codec, times=times, matrix=None if codec == 'gif' else 5))
    assert len(clip) == 8 and np.abs(clip.times * 1000 - times).max() <= 1 and clip.missing == 0
    out, = stereo_clip(clip.path, tmp_path/'out.mp4', progress=False, checkpoint_file='repeat')
    assert np.abs(open_clip(out).times * 1000 - times).max() <= 1 and abs(open_clip(out).duration - 1.08) <= .04
