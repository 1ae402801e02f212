"""Hostile photos, clips and depth maps, through the programs' own functions: one line, the right status, soon, and nothing written that should not be.

Each input is made by the test itself. Whoever finds another one adds a row."""
import os, re, socket, stat, struct, time, zipfile, zlib
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb import cli, photos
from inpaint_nb.datasets import list_records
from inpaint_nb.records import shown
from inpaint_nb.scenes import random_clip, random_scene
from making import to_pixels

POSIX = pytest.mark.skipif(os.name != 'posix', reason='files of Unix')
SIZE = 48, 72  # rows and columns of the good photo
SOON = 20  # processor seconds that nothing may take, nor fifteen times as many by the clock


def picture(seed=3, size=SIZE):
    return Image.fromarray(to_pixels(random_scene(seed, size=size).image))


PICTURE = picture()


def encoded(image=PICTURE, kind='PNG', **options):
    image.save(file := BytesIO(), kind, **options)
    return file.getvalue()


def chunk(kind, data, crc=None):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data) if crc is None else crc)


def png(width, height, bits=8, colour=2, data=b'', extra=b'', interlace=0):
    "A PNG that claims what it likes."
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, interlace))
    return b'\x89PNG\r\n\x1a\n' + head + extra + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')


def jpeg_of(width, height):
    "A JPEG whose frame header claims another size."
    data = bytearray(encoded(kind='JPEG'))
    place = data.index(b'\xff\xc0') + 5
    data[place:place + 4] = struct.pack('>HH', height, width)
    return bytes(data)


def gif_of(width, height): return b'GIF89a' + struct.pack('<HH', width, height) + b'\x80\0\0\0\0\0\xff\xff\xff' + b'\x2c\0\0\0\0' + struct.pack('<HH', width, height) + b'\0\x02\x02\x44\x01\0\x3b'


def bmp_of(width, height): return b'BM' + struct.pack('<IHHI', 70, 0, 0, 54) + struct.pack('<IiiHHIIiiII', 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(16)


def tiff(entries, after=0, big=b''):
    "A TIFF of raw tags: number, kind, count, value; `after` is where its next folder should be."
    return b'II*\0\x08\0\0\0' + struct.pack('<H', len(entries)) + b''.join(struct.pack('<HHII', *entry) for entry in entries) + struct.pack('<I', after) + big


def exif(orientation, kind=3):
    return b'Exif\0\0' + tiff([(0x0112, kind, 1, orientation)])


def cut(data, share): return data[:int(len(data) * share)]


def with_bytes(data, place, new):
    place = int(len(data) * place)
    return data[:place] + new + data[place + len(new):]


PNG, JPEG, TIFF, WEBP = (encoded(kind=kind) for kind in ('PNG', 'JPEG', 'TIFF', 'WEBP'))
BMP, GIF, PPM = (encoded(kind=kind) for kind in ('BMP', 'GIF', 'PPM'))
NAN = np.full(SIZE, np.nan, np.float32)


def fifo(path): os.mkfifo(path)


def loop(path): path.symlink_to(path)


def two_loops(path): path.symlink_to(path.with_name('other')), path.with_name('other').symlink_to(path)


def unreadable(path): path.write_bytes(PNG), path.chmod(0)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as one: one.bind(str(path))


NO_FILES = {  # what is no file at all
    'folder': Path.mkdir, 'fifo': fifo, 'loop': loop, 'two loops': two_loops, 'dangling': lambda path: path.symlink_to('nowhere'), 'socket': bound_socket,
    'device': lambda path: path.symlink_to('/dev/zero'), 'full device': lambda path: path.symlink_to('/dev/full'), 'missing': lambda path: None, 'below a file': lambda path: path.with_name('file').write_text('')}

BAD_PHOTOS = {
    **{f'{share:g} of {name}': cut(data, share) for name, data in (('a.png', PNG), ('a.jpg', JPEG), ('a.webp', WEBP), ('a.tif', TIFF), ('a.bmp', BMP), ('a.ppm', PPM)) for share in (.01, .5)},
    'empty.png': b'', 'zeros.png': bytes(5000), 'noise.jpg': np.random.default_rng(0).bytes(5000), 'text.png': b'not a picture\n', 'page.jpg': b'<!DOCTYPE html><html><body>404</body></html>',
    'signature only.png': PNG[:8], 'signature only.jpg': b'\xff\xd8\xff', 'json.webp': b'{"error": "not found"}', 'pdf.jpg': b'%PDF-1.7\n1 0 obj\n<<>>\nendobj\n', 'program.png': b'\x7fELF\2\1\1' + bytes(100), 'zip.png': b'PK\5\6' + bytes(18),
    'vector.png': b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', 'postscript.png': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'pointer.jpg': b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n',
    'no width.png': png(0, 9), 'no height.png': png(9, 0), 'largest.png': png(2 ** 31 - 1, 2 ** 31 - 1), 'large.png': png(60000, 60000), 'negative.png': png(2 ** 32 - 1, 9), 'odd depth.png': png(9, 9, bits=7), 'odd colour.png': png(9, 9, colour=5),
    'no rows.png': png(9, 9), 'wrong filter.png': png(9, 9, data=b'\x09' * 28 * 9), 'wrong sum.png': with_bytes(PNG, .5, b'1234'), 'no end of a chunk.png': PNG[:33] + struct.pack('>I', 2 ** 31 - 1) + b'IDAT', 'huge extra.png': PNG[:33] + struct.pack('>I', 2 ** 32 - 1) + b'tEXt',
    'large.jpg': jpeg_of(65500, 65500), 'no height.jpg': jpeg_of(9, 0), 'hole.jpg': JPEG[:200] + JPEG[-50:], 'large.bmp': bmp_of(2 ** 31 - 1, 2 ** 31 - 1), 'negative.bmp': bmp_of(-9, -9), 'large.ppm': b'P6 99999999 99999999 255\n' + bytes(9), 'words.ppm': b'P6 nine nine 255\n',
    'large.pfm': b'Pf\n99999999 99999999\n-1.0\n' + bytes(9), 'no tags.tif': tiff([]), 'round.tif': tiff([(256, 3, 1, 9), (257, 3, 1, 9)], after=8), 'large.tif': tiff([(256, 4, 1, 2 ** 32 - 1), (257, 4, 1, 2 ** 32 - 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, 9)]),
    'far tags.tif': b'II*\0' + struct.pack('<I', 2 ** 31), 'many tags.tif': tiff([(256, 4, 2 ** 31, 2 ** 31)]), 'large.webp': b'RIFF' + struct.pack('<I', 2 ** 31) + b'WEBPVP8 ' + bytes(30), 'heic.jpg': b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'jxl.png': b'\0\0\0\x0cJXL \r\n\x87\n' + bytes(20),
    'raw.jpg': b'FUJIFILMCCD-RAW ' + bytes(200), 'icon.png': b'\0\0\1\0\xff\xff' + bytes(40)}

GOOD_PHOTOS = {
    'wrong ending.jpg': PNG, 'wrong ending.png': JPEG, 'no ending': WEBP, 'two endings.png.jpg': BMP, 'one bit.png': encoded(PICTURE.convert('1')), 'palette.png': encoded(PICTURE.quantize(16)), 'grey.png': encoded(PICTURE.convert('L')), 'grey and clear.png': encoded(PICTURE.convert('LA')),
    'clear.png': encoded(PICTURE.convert('RGBA')), 'wide.png': encoded(Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 17)), 'ink.jpg': encoded(PICTURE.convert('CMYK'), 'JPEG'), 'lab.tif': encoded(PICTURE.convert('LAB'), 'TIFF'),
    'brightness.tif': encoded(PICTURE.convert('YCbCr'), 'TIFF'), 'floats.tif': encoded(PICTURE.convert('F'), 'TIFF'), 'no numbers.tif': encoded(Image.fromarray(NAN), 'TIFF'), 'all infinite.tif': encoded(Image.fromarray(NAN + np.inf), 'TIFF'), 'integers.tif': encoded(PICTURE.convert('I'), 'TIFF'),
    'pages.tif': encoded(kind='TIFF', save_all=True, append_images=[PICTURE]), 'moving.webp': encoded(kind='WEBP', save_all=True, append_images=[PICTURE.rotate(180)]), 'one pixel.png': encoded(PICTURE.resize((1, 1))), 'a row.png': encoded(PICTURE.resize((90, 1))), 'a column.png': encoded(PICTURE.resize((1, 90))),
    'broken profile.png': encoded(icc_profile=b'no profile'), 'zeros for a profile.jpg': encoded(kind='JPEG', icc_profile=bytes(200)), 'long profile.jpg': encoded(kind='JPEG', icc_profile=b'acsp' * 50000), 'not a profile.webp': encoded(kind='WEBP', icc_profile=PNG),
    **{f'orientation {value}.jpg': encoded(kind='JPEG', exif=exif(value)) for value in (0, 9, 255, 65535)}, 'orientation in words.jpg': encoded(kind='JPEG', exif=exif(0x41424344, kind=2)), 'broken exif.jpg': encoded(kind='JPEG', exif=b'Exif\0\0' + b'II*\0\xff\xff\xff\xff'),
    'endless exif.jpg': encoded(kind='JPEG', exif=b'Exif\0\0' + tiff([(0x8769, 4, 1, 8)], after=8)), 'large exif.jpg': encoded(kind='JPEG', exif=b'Exif\0\0' + tiff([(0x010e, 2, 2 ** 31, 99)])), 'text for exif.webp': encoded(kind='WEBP', exif=b'no exif'),
    'unpacked comment.png': PNG[:33] + chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(2 ** 24), 9)) + PNG[33:], 'unpacked profile.png': PNG[:33] + chunk(b'iCCP', b'a\0\0' + zlib.compress(bytes(2 ** 26), 9)) + PNG[33:], 'wrong sum of a comment.png': PNG[:33] + chunk(b'tEXt', b'a\0b', 0) + PNG[33:],
    'more after the end.png': PNG + bytes(1000), 'more after the end.jpg': JPEG + b'trailing' * 100, 'script after the end.jpg': JPEG + b'<?php exit;'}

NAMES = ['new\nline.png', 'tab\tand\x07bell.png', 'red\x1b[31m.png', 'back\x08space.png', os.fsdecode(b'latin\xff\xfe.png'), 'x' * 251 + '.png', '-o.png', ' .png', 'right to left \u202egnp.png', '映画 🎞.png', '%s {0} $HOME `x`.png', 'quo"te\'s.png', 'a:b.png', 'http:.png', '*?.png', 'zero\u200bwidth.png', 'ending .png']


@pytest.fixture
def shop(tmp_path, monkeypatch):
    "A folder with a good photo and its depth, and a place for results."
    torch.set_num_threads(1)
    photos._complaints.clear(), photos._say_once.cache_clear()
    monkeypatch.chdir(tmp_path)
    Path('good.png').write_bytes(PNG)
    np.save('good.npy', np.linspace(0, 1, SIZE[1], dtype=np.float32)[None].repeat(SIZE[0], 0))
    for name in ('in', 'out'): Path(name).mkdir()
    return tmp_path


def inventory(folder):
    "All that is there, with size, time of change and number."
    return {path: (one.st_mode, one.st_size, one.st_mtime_ns, one.st_ino) for path in folder.rglob('*') for one in [path.lstat()] if not stat.S_ISDIR(one.st_mode)}


def told(capfd, program, *line):
    "Call a program: its status, what it said, and the lines of errors; without bars, and what is assumed of colours."
    capfd.readouterr()
    start, work = time.monotonic(), time.process_time()
    try: status = getattr(cli, program)([str(part) for part in line])
    except SystemExit as end: status = end.code
    assert time.process_time() - work < SOON and time.monotonic() - start < 15 * SOON
    out, err = capfd.readouterr()
    return status, out, [line for line in re.split('[\r\n]', err) if line and not re.search(r'\d%\||no tag says|profile is of no use', line)]


def refused(capfd, shop, name, program, *line):
    "Status 1, one line that can be printed and names the file, and nothing changed."
    before = inventory(shop)
    status, out, errors = told(capfd, program, *line)
    assert status == 1 and len(errors) == 1 and errors[0].startswith('error: '), (status, errors)
    assert errors[0].isprintable() and len(errors[0]) < 800 and shown(name) in errors[0], errors
    assert inventory(shop) == before
    return errors[0]


def put(shop, name, content):
    "A file of that name, or what a function makes of it."
    path = shop/'in'/name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return path/'x.png' if name == 'below a file' else path


QUICK = '--checkpoint-file', 'repeat', '--model-type', 'NULL', '--gpu', '-1'


@pytest.mark.parametrize('name', BAD_PHOTOS)
def test_bad_photo(shop, capfd, name):
    refused(capfd, shop, name, 'inpaint_stereo', put(shop, name.replace('/', ''), BAD_PHOTOS[name]), '-o', 'out/pair.png', *QUICK)


@pytest.mark.parametrize('name', GOOD_PHOTOS)
def test_odd_photo(shop, capfd, name):
    "Odd, but a photo all the same."
    path, before = put(shop, name, GOOD_PHOTOS[name]), inventory(shop)
    status, out, errors = told(capfd, 'inpaint_stereo', path, '-o', 'out/pair.png', *QUICK)
    assert (status, errors) == (0, []) and set(inventory(shop)) - set(before) == {shop/'out/pair.png'}
    width, height = Image.open('out/pair.png').size
    assert (width // 2, height) == {'one pixel.png': (1, 1), 'a row.png': (90, 1), 'a column.png': (1, 90)}.get(name, SIZE[::-1])


@POSIX
@pytest.mark.parametrize('name', NO_FILES)
@pytest.mark.parametrize('as_depth', [False, True])
def test_no_file(shop, capfd, name, as_depth):
    path = put(shop, name, NO_FILES[name])
    line = ('good.png', '--depth-file', path) if as_depth else (path,)
    target = 'out' if line == (path,) and path.is_dir() else 'out/pair.png'  # several results
    refused(capfd, shop, path.name, 'inpaint_stereo', *line, '-o', target, *QUICK)


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='a file that its reader may not read')
def test_unreadable(shop, capfd):
    refused(capfd, shop, 'a.png', 'inpaint_stereo', put(shop, 'a.png', unreadable), '-o', 'out/pair.png', *QUICK)


@POSIX
@pytest.mark.parametrize('name', NAMES, ids=shown)
def test_name(shop, capfd, name):
    "Of a good photo, and of a bad one; what is said can be printed."
    path = put(shop, name, PNG)
    status, out, errors = told(capfd, 'inpaint_stereo', path, '-o', 'out', '--format', 'right', *QUICK)
    result = f'{path.stem}_right.png'
    if len(os.fsencode(result)) > 255:
        assert status == 1 and len(errors) == 1 and 'too long' in errors[0], errors
    else:
        assert (status, errors, os.listdir('out')) == (0, [], [result]) and out.count('\n') == 1 and out.rstrip('\n').isprintable()
    path.write_bytes(b'no picture')
    refused(capfd, shop, re.sub(r'[\n\t]', ' ', name), 'inpaint_stereo', path, '-o', 'out/pair.png', *QUICK)


def test_all_photos_in_one_run(shop, capfd):
    "Records of all that can be read, and a line for each of the others."
    for part in ('train', 'eval'): (shop/'in'/part).mkdir()
    whole = {f'good {number}.png': encoded(picture(number, (160, 200))) for number in range(2)}
    for name, content in (BAD_PHOTOS | whole | {f'n{number}{name}': content for number, (name, content) in enumerate((name, b'bad') for name in NAMES if len(name) < 200)}).items(): put(shop, f'train/{name}', content)
    if os.name == 'posix':
        for name, make in NO_FILES.items(): put(shop, f'train/{name}', make)
    before = inventory(shop/'in')
    status, out, errors = told(capfd, 'inpaint_create_training_data', 'inpaint', '--dataset-dir', 'in', '-o', 'out', '--prefix', 'p', '--model-type', 'Pseudo', '--size', '64', '--num-samples', '1', '--gpu', '-1', '--divergence-level', '3')
    assert status == 3 and errors[-1].startswith('incomplete: ') and len(list_records(shop/'out/train')) > 1, errors
    lines = out.split('\n')
    for name in BAD_PHOTOS: assert sum(name in line for line in lines) == 1, (name, [line for line in lines if name in line])
    assert all(line.isprintable() for line in lines) and inventory(shop/'in') == before
    assert all(path.name.startswith(('p_', '.')) and not path.name.endswith('.part') for path in (shop/'out').rglob('*') if path.is_file())


# --- clips

def film(path, codec='libx264', frames=6, size=(64, 96), pixels='yuv420p', container=None, sound=False, video=True):
    "A small clip; its kind by its name."
    with av.open(path, 'w', options=container or {}, format=None if isinstance(path, str) else 'mp4') as out:
        stream = out.add_stream(codec, rate=25) if video else None
        if stream: stream.height, stream.width, stream.pix_fmt = *size, pixels
        tone = out.add_stream('aac', rate=44100, layout='mono') if sound else None
        out.start_encoding()
        for scene in random_clip(5, frames, size) if stream and frames else ():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(to_pixels(scene.image), format='rgb24')))
        if stream and frames: out.mux(stream.encode())
        for number in range(10 * bool(tone)):
            piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            piece.sample_rate, piece.pts, piece.time_base = 44100, 1024 * number, Fraction(1, 44100)
            out.mux(tone.encode(piece))
        if tone: out.mux(tone.encode())
    return path


def filmed(suffix, **options):
    "The bytes of a small clip."
    path = f'made here.{suffix}'
    try: return Path(film(path, **options)).read_bytes()
    finally: Path(path).unlink()


MATROSKA = b'\x1aE\xdf\xa3\x93\x42\x82\x88matroska\x42\x87\x81\4\x42\x85\x81\2'
BAD_CLIPS = {  # ending: how it is made
    'empty.mp4': lambda: b'', 'text.mkv': lambda: b'no film', 'zeros.avi': lambda: bytes(9000), 'noise.webm': lambda: np.random.default_rng(1).bytes(9000), 'page.mov': lambda: b'<html>404</html>', 'head.mp4': lambda: cut(filmed('mp4'), .02),
    'no index.mp4': lambda: cut(filmed('mp4'), .6), 'index only.mp4': lambda: cut(filmed('mp4', container={'movflags': 'faststart'}), .15), 'box.mp4': lambda: b'\0\0\0\x18ftypisom\0\0\2\0isomiso2' + struct.pack('>I', 2 ** 31 - 1) + b'moov',
    'boxes.mp4': lambda: b'\0\0\0\x18ftypisom\0\0\2\0isomiso2' + (struct.pack('>I', 8) + b'free') * 1000, 'head.mkv': lambda: MATROSKA, 'endless.mkv': lambda: MATROSKA + b'\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff', 'nested.mkv': lambda: MATROSKA + b'\x18\x53\x80\x67\xff' + b'\x1f\x43\xb6\x75\xff' * 500,
    'head.avi': lambda: cut(filmed('avi', codec='mpeg4'), .02), 'large.avi': lambda: b'RIFF' + struct.pack('<I', 2 ** 31) + b'AVI LIST' + struct.pack('<I', 2 ** 31 - 1) + b'hdrl', 'cut.gif': lambda: GIF[:20], 'large.gif': lambda: gif_of(65535, 65535), 'colours only.gif': lambda: GIF[:13] + bytes(768) + b';',
    'sync bytes.ts': lambda: (b'G\x1f\xff\x10' + b'\xff' * 184) * 50, 'sound.mp4': lambda: filmed('mp4', video=False, sound=True), 'sound.mkv': lambda: filmed('mkv', video=False, sound=True), 'no frames.mp4': lambda: filmed('mp4', frames=0), 'no frames.mkv': lambda: filmed('mkv', frames=0), 'no frames.y4m': lambda: b'YUV4MPEG2 W96 H64 F25:1 Ip A0:0 C420jpeg\n',
    'large.y4m': lambda: b'YUV4MPEG2 W99999 H99999 F25:1 Ip A0:0 C420jpeg\nFRAME\n' + bytes(99), 'list.mp4': lambda: b'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n', 'list.avi': lambda: b'ffconcat version 1.0\nfile ../good.png\n', 'session.mp4': lambda: b'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    'manifest.mp4': lambda: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation><BaseURL>http://127.0.0.1:9/</BaseURL></Representation></AdaptationSet></Period></MPD>',
    'subtitles.mkv': lambda: b'1\n00:00:00,000 --> 00:00:01,000\nhello\n', 'hurt.mp4': lambda: with_bytes(filmed('mp4', container={'movflags': 'faststart'}), .3, bytes(4000)), 'flash.flv': lambda: b'FLV\1\5\0\0\0\t' + b'\xff' * 300, 'wave.mpg': lambda: b'RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0D\xac\0\0\x88X\1\0\2\0\x10\0data\0\0\0\0'}


@pytest.mark.parametrize('name', BAD_CLIPS)
def test_bad_clip(shop, capfd, name):
    data = BAD_CLIPS[name]()
    refused(capfd, shop, name, 'inpaint_stereo', put(shop, name, data), '-o', 'out/pair.mp4', *QUICK)


def test_all_clips_in_one_run(shop, capfd):
    "A line for each, whatever it is, and records of the whole one."
    for name, data in BAD_CLIPS.items(): put(shop, name, data())
    for name, make in NO_FILES.items() if os.name == 'posix' else (): put(shop, name, make)
    film('in/whole.mp4', frames=8, size=(150, 200))
    before = inventory(shop/'in')
    status, out, errors = told(capfd, 'inpaint_create_training_data', 'video_inpaint', '--dataset-dir', 'in', '-o', 'out', '--prefix', 'p', '--model-type', 'Pseudo', '--size', '128', '--seq', '4', '--gpu', '-1', '--divergence-level', '3')
    lines = out.split('\n')
    assert status == 3 and errors[-1].startswith('incomplete: ') and [path for path in (shop/'out').iterdir() if path.is_dir()], (out, errors)
    for name in BAD_CLIPS: assert sum(name in line for line in lines) == 1, (name, [line for line in lines if name in line])
    assert all(line.isprintable() for line in lines) and inventory(shop/'in') == before


BAD_FRAMES = {
    'hurt': {'0.png': PNG, '1.png': cut(PNG, .5)}, 'sizes': {'0.png': PNG, '1.png': encoded(PICTURE.resize((9, 9)))}, 'texts': {'0.png': b'text', '1.png': b'text'}, 'nothing': {}, 'hidden': {'.0.png': PNG}, 'other': {'a.txt': b'', 'b.html': b''}, 'hidden first': {'0.png': b'', '1.png': PNG}}


@pytest.mark.parametrize('kind', BAD_FRAMES)
def test_bad_folder_of_frames(shop, capfd, kind):
    (shop/'in'/kind).mkdir()
    for name, data in BAD_FRAMES[kind].items(): put(shop, f'{kind}/{name}', data)
    refused(capfd, shop, kind, 'inpaint_stereo', shop/'in'/kind, '-o', 'out/pair.mp4', *QUICK)


# --- depth maps

def npy(values, **options):
    np.save(file := BytesIO(), values, **options)
    return file.getvalue()


def npz(**arrays):
    np.savez(file := BytesIO(), **arrays)
    return file.getvalue()


def claims(shape, kind='<f4', version=b'\1\0'):
    "An array without its values."
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b' ' * (-(len(head) + 11) % 64) + b'\n'
    return b'\x93NUMPY' + version + struct.pack('<H', len(head)) + head


def zipped(**files):
    with zipfile.ZipFile(file := BytesIO(), 'w') as archive:
        for name, data in files.items(): archive.writestr(name.replace('__', '/'), data)
    return file.getvalue()


RAMP = np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
WIDE = Image.fromarray((RAMP * 65535).astype(np.uint16))
BAD_DEPTH = {
    'empty.png': b'', 'text.png': b'text', 'cut.png': cut(encoded(WIDE), .5), 'wrong sum.png': with_bytes(encoded(WIDE), .5, b'1234'), 'colours.png': PNG, 'jpeg.jpg': JPEG, 'jpeg.png': encoded(Image.merge('RGB', [WIDE.convert('L')] * 3), 'JPEG')[:300], 'large.png': png(60000, 60000, bits=16, colour=0), 'no width.png': png(0, 9, colour=0),
    'upright.png': encoded(WIDE.rotate(90, expand=True)), 'one pixel.png': encoded(WIDE.resize((1, 9))), 'ink.png': encoded(PICTURE.convert('CMYK'), 'TIFF'), 'clear.png': encoded(PICTURE.convert('RGBA')),
    'empty.npy': b'', 'text.npy': b'text', 'head.npy': claims(SIZE), 'huge.npy': claims((10 ** 6, 10 ** 6)), 'huge number.npy': claims((10 ** 30, 10 ** 30)), 'negative.npy': claims((-9, 9)), 'version.npy': claims(SIZE, version=b'\x99\0'), 'code.npy': b'\x93NUMPY\1\0\x40\0' + b"__import__('os').mkdir('hacked')".ljust(64), 'objects.npy': npy(np.array([[{}]], dtype=object), allow_pickle=True),
    'words.npy': npy(np.array([['a', 'b']])), 'complex.npy': npy(RAMP.astype(complex)), 'yes or no.npy': npy(RAMP > .5), 'times.npy': npy(RAMP.astype('M8[s]')), 'none.npy': npy(np.zeros((0, 9))), 'line.npy': npy(RAMP[0]), 'colours.npy': npy(np.zeros((*SIZE, 3))), 'number.npy': npy(np.float32(3)), 'upright.npy': npy(RAMP.T),
    'fields.npy': npy(np.zeros(SIZE, dtype=[('near', 'f4')])), 'empty.npz': b'', 'text.npz': b'PK\3\4text', 'nothing.npz': npz(), 'two.npz': npz(left=RAMP, right=RAMP), 'objects.npz': zipped(**{'depth.npy': npy(np.array([[{}]], dtype=object), allow_pickle=True)}), 'outside.npz': zipped(**{'..__..__hacked.npy': b'text'}), 'no array.npz': zipped(**{'readme.txt': b'hello'}),
    'huge.npz': zipped(**{'depth.npy': claims((10 ** 6, 10 ** 6))}), 'cut.npz': cut(npz(depth=RAMP), .7), 'empty.pfm': b'', 'colours.pfm': b'PF\n1 1\n-1.0\n' + bytes(12), 'cut.pfm': b'Pf\n72 48\n-1.0\n1234', 'huge.pfm': b'Pf\n99999999 99999999\n-1.0\n1234', 'negative.pfm': b'Pf\n-9 -9\n-1.0\n1234', 'no scale.pfm': b'Pf\n9 9\nno\n' + bytes(324),
    'map.exr': b'v/1\1text', 'map.tif': TIFF, 'film.mp4': b'text', 'no ending': npy(RAMP)}
GOOD_DEPTH = {
    'no numbers.npy': npy(NAN), 'all infinite.npy': npy(NAN * 0 + np.inf), 'gaps.npy': npy(np.where(RAMP < .5, np.nan, RAMP)), 'flat.npy': npy(np.full(SIZE, 7.)), 'negative.npy': npy(RAMP - 3), 'metres.npy': npy(RAMP * 1e30), 'tiny.npy': npy(RAMP.astype(np.float16) * 1e-7), 'integers.npy': npy((RAMP * 2 ** 40).astype(np.int64)),
    'turned.npy': npy(np.asfortranarray(RAMP)), 'swapped.npy': npy(RAMP.astype('>f8')), 'boxed.npy': npy(RAMP[None, :, :, None]), 'named.npz': npz(depth=RAMP, focal=np.float32(3)), 'alone.npz': npz(x=RAMP), 'one bit.png': encoded(WIDE.convert('L').convert('1')), 'bytes.png': encoded(WIDE.convert('L')), 'palette.png': encoded(WIDE.convert('L').convert('P')),
    'moving.png': encoded(WIDE.convert('L'), save_all=True, append_images=[WIDE.convert('L')]), 'UPPER.PNG': encoded(WIDE), 'floats.pfm': b'Pf\n72 48\n-1.0\n' + RAMP[::-1].astype('<f4').tobytes(), 'no numbers.pfm': b'Pf\n72 48\n-1.0\n' + NAN.tobytes()}


@pytest.mark.parametrize('name', BAD_DEPTH)
def test_bad_depth(shop, capfd, name):
    said = refused(capfd, shop, name, 'inpaint_stereo', 'good.png', '--depth-file', put(shop, name, BAD_DEPTH[name]), '-o', 'out/pair.png', *QUICK)
    assert 'not foreseen' not in said


@pytest.mark.parametrize('name', GOOD_DEPTH)
def test_odd_depth(shop, capfd, name):
    "Odd, but a depth map all the same; views have no gaps."
    path, before = put(shop, name, GOOD_DEPTH[name]), inventory(shop)
    status, out, errors = told(capfd, 'inpaint_stereo', 'good.png', '--depth-file', path, '-o', 'out/pair.png', *QUICK)
    assert (status, errors) == (0, []) and set(inventory(shop)) - set(before) == {shop/'out/pair.png'}
    assert np.asarray(Image.open('out/pair.png')).std() > 10


@pytest.mark.parametrize('name', ['empty.mp4', 'text.mkv', 'no index.mp4', 'sound.mp4', 'no frames.mkv', 'list.mp4', 'cut.gif', 'head.avi', 'large.y4m'])
def test_bad_depth_video(shop, capfd, name):
    film('good.mp4')
    refused(capfd, shop, name, 'inpaint_stereo', 'good.mp4', '--depth-file', put(shop, name, BAD_CLIPS[name]()), '-o', 'out/pair.mp4', *QUICK)


@pytest.mark.parametrize('command', ['stereo', 'records', 'clips'])
def test_benchmark_of_all_that(shop, capfd, command):
    "Where nothing can be read there is nothing to judge."
    for name, content in (BAD_PHOTOS | {name: data() for name, data in BAD_CLIPS.items()}).items(): put(shop, name, content)
    before = inventory(shop)
    status, out, errors = told(capfd, 'inpaint_benchmark', command, 'in')
    assert status == 1 and len(errors) == 1 and errors[0].isprintable() and errors[0].startswith('error: ') and 'not foreseen' not in errors[0], errors
    assert inventory(shop) == before
