"Colours that a photo's profile means, and pictures that Pillow alone would refuse."
import struct, subprocess, sys, warnings, zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from inpaint_nb import photos
from inpaint_nb.photos import decode_picture, file_kind, look_through, open_picture, read_photo
from making import make_image_records
from inpaint_nb.stereo import read_picture
from inpaint_nb.clips import open_clip

WHITE = 0.9642, 1, 0.8249  # of profiles
PRIMARIES = {'sRGB': ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
             'P3': ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
             'Adobe RGB': ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
             'ProPhoto': ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))}


def profile(tags, space=b'RGB ', connection=b'XYZ '):
    "An ICC profile of version 2."
    tags = {name: data + bytes(-len(data) % 4) for name, data in tags.items()}
    place, table = 132 + 12 * len(tags), struct.pack('>I', len(tags))
    for name, data in tags.items():
        table += struct.pack('>4sII', name, place, len(data))
        place += len(data)
    light = struct.pack('>3I', *(round(value * 65536) for value in WHITE))
    head = struct.pack('>III4s4s4s12x4s28x12s48x', place, 0, 0x02100000, b'mntr', space, connection, b'acsp', light)
    return head + table + b''.join(tags.values())


def xyz(*values): return b'XYZ \0\0\0\0' + struct.pack('>3i', *(round(value * 65536) for value in values))
def gamma(value): return b'curv\0\0\0\0' + struct.pack('>IH', 1, round(value * 256))


def light_of(levels):
    "Light of levels 0..1 in sRGB, and P3."
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def levels_of(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_curve():
    table = np.round(light_of(np.linspace(0, 1, 1024)) * 65535).astype('>u2')
    return b'curv\0\0\0\0' + struct.pack('>I', len(table)) + table.tobytes()


CURVES = {'sRGB': srgb_curve(), 'P3': srgb_curve(), 'Adobe RGB': gamma(563 / 256), 'ProPhoto': gamma(1.8)}
POWERS = {'Adobe RGB': 563 / 256, 'ProPhoto': 1.8}


def rgb_profile(name):
    columns = dict(zip((b'rXYZ', b'gXYZ', b'bXYZ'), (xyz(*column) for column in PRIMARIES[name])))
    return profile({b'wtpt': xyz(*WHITE)} | columns | dict.fromkeys((b'rTRC', b'gTRC', b'bTRC'), CURVES[name]))


def grey_profile(power): return profile({b'wtpt': xyz(*WHITE), b'kTRC': gamma(power)}, b'GRAY')


def cmyk_profile():
    "A press whose four inks together, and black alone, are black, and whose single inks are pale."
    ramp = bytes(range(256))
    corners = b''
    for inks in np.ndindex(2, 2, 2, 2):  # cyan, magenta, yellow, black
        cyan, magenta, yellow, black = inks
        level = 0 if black else 255 - 50 * sum(inks)
        corners += bytes((level, 128 - 40 * cyan * (not black) + 40 * magenta * (not black), 128 + 40 * yellow * (not black)))
    matrix = struct.pack('>9i', *(65536 * (i % 4 == 0) for i in range(9)))
    table = b'mft1\0\0\0\0' + bytes((4, 3, 2, 0)) + matrix + 4 * ramp + corners + 3 * ramp
    return profile({b'wtpt': xyz(*WHITE), b'A2B0': table, b'A2B1': table}, b'CMYK', b'Lab ')


def encoded(image, format='PNG', **options):
    image.save(file := BytesIO(), format, **options)
    return file.getvalue()


def noise(size=(40, 30), mode='RGB'):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode if channels > 1 else None)


def expected(name, pixels):
    "What pixels of a profile are in sRGB, by its definition."
    levels = np.asarray(pixels) / 255
    light = levels ** POWERS[name] if name in POWERS else light_of(levels)
    linear = light @ np.array(PRIMARIES[name]) @ np.linalg.inv(PRIMARIES['sRGB'])
    return levels_of(linear) * 255


# --- profiles

@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'TIFF', 'WEBP', 'AVIF'])
@pytest.mark.parametrize('name', ['P3', 'Adobe RGB', 'ProPhoto'])
def test_colours_are_those_of_the_profile(name, format):
    patch = Image.new('RGB', (32, 32), (200, 60, 70))
    options = {'PNG': {}, 'JPEG': dict(quality=100, subsampling=0), 'TIFF': {}, 'WEBP': dict(lossless=True), 'AVIF': dict(quality=100, subsampling='4:4:4')}
    data = encoded(patch, format, icc_profile=rgb_profile(name), **options[format])
    np.testing.assert_allclose(np.asarray(read_photo(data))[16, 16], expected(name, (200, 60, 70)), atol=3)


def test_display_p3_red():
    data = encoded(Image.new('RGB', (4, 4), (220, 30, 30)), icc_profile=rgb_profile('P3'))
    np.testing.assert_allclose(read_photo(data).getpixel((1, 1)), (240, 0, 0), atol=1)


@pytest.mark.parametrize('name', ['P3', 'Adobe RGB', 'ProPhoto'])
def test_all_colours_of_a_profile(name):
    picture = noise()
    found = np.asarray(read_photo(encoded(picture, icc_profile=rgb_profile(name))), float)
    np.testing.assert_allclose(found, expected(name, picture), atol=3 if name != 'ProPhoto' else 6)


@pytest.mark.parametrize('made', ['Pillow', 'curve of a table'])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'RGBA', '1'])
def test_srgb_stays_to_the_bit(made, mode):
    srgb = rgb_profile('sRGB') if made != 'Pillow' else ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    picture = noise(mode='RGBA') if mode == 'RGBA' else noise().convert(mode)
    assert read_photo(encoded(picture, icc_profile=srgb)).tobytes() == read_photo(encoded(picture)).tobytes()


def test_grey():
    picture = noise(mode='L')
    found = np.asarray(read_photo(encoded(picture, icc_profile=grey_profile(1.0))), float)
    np.testing.assert_allclose(found[..., 0], levels_of(np.asarray(picture) / 255) * 255, atol=1.5)
    assert (found[..., :1] == found).all()
    wide = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    np.testing.assert_array_equal(np.asarray(read_photo(encoded(wide, icc_profile=grey_profile(1.0)))), found)


def test_cmyk():
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 255): (0, 0, 0), (255, 0, 0, 0): None}
    for ink, colour in inks.items():
        data = encoded(Image.new('CMYK', (16, 16), ink), 'TIFF', icc_profile=cmyk_profile())
        found, plain = read_photo(data).getpixel((8, 8)), Image.new('CMYK', (1, 1), ink).convert('RGB').getpixel((0, 0))
        if colour: np.testing.assert_allclose(found, colour, atol=4)
        else: assert max(abs(a - b) for a, b in zip(found, plain)) > 60  # pale, as this press prints it
        jpeg = encoded(Image.new('CMYK', (16, 16), ink), 'JPEG', quality=100, icc_profile=cmyk_profile())
        np.testing.assert_allclose(read_photo(jpeg).getpixel((8, 8)), found, atol=4)


def test_transparent_parts_stay_white_and_palettes_are_converted(recwarn):
    red = Image.new('RGBA', (8, 8), (220, 30, 30, 255))
    red.paste((0, 255, 0, 0), (0, 0, 4, 8))
    found = read_photo(encoded(red, icc_profile=rgb_profile('P3')))
    assert found.getpixel((1, 1)) == (255, 255, 255)
    np.testing.assert_allclose(found.getpixel((6, 6)), (240, 0, 0), atol=1)
    flat = Image.new('RGB', (8, 8), (220, 30, 30)).quantize(4)
    for options in ({}, dict(transparency=bytes(4 * [255]))):
        np.testing.assert_allclose(read_photo(encoded(flat, icc_profile=rgb_profile('P3'), **options)).getpixel((6, 6)), (240, 0, 0), atol=1)
    grey = encoded(Image.new('LA', (8, 8), (100, 255)), icc_profile=grey_profile(1.0))
    assert read_photo(grey).getpixel((3, 3)) == pytest.approx((168, 168, 168), abs=1)
    assert not recwarn.list


BROKEN = {'no profile': b'no profile', 'cut off': rgb_profile('P3')[:200], 'nothing': b'\0',
          'of another kind': grey_profile(2.2), 'of print': cmyk_profile()}

@pytest.mark.parametrize('name', BROKEN)
def test_broken_profiles_are_said_once(name, capsys):
    picture = noise()
    photos._say_once.cache_clear(); photos._complaints.clear()
    for number in range(3):
        assert read_photo(encoded(picture, icc_profile=BROKEN[name]), f'{number}.png').tobytes() == picture.tobytes()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('0.png: its colour profile is of no use'), lines


def test_everyone_sees_the_same_pixels(tmp_path):
    picture = Image.new('RGB', (32, 24), (220, 30, 30))
    (tmp_path/'frames').mkdir()
    for number in range(2): picture.save(tmp_path/f'frames/{number}.png', icc_profile=rgb_profile('P3'))
    file = tmp_path/'frames/0.png'
    photo = np.asarray(read_photo(file.read_bytes()))
    np.testing.assert_array_equal((read_picture(file)[0] * 255).round().byte().permute(1, 2, 0), photo)
    np.testing.assert_array_equal(open_clip(tmp_path/'frames')[1], photo)
    np.testing.assert_allclose(photo[0, 0], (240, 0, 0), atol=1)


def test_smaller_jpegs_have_the_same_colours():
    data = encoded(Image.new('RGB', (640, 480), (200, 60, 70)), 'JPEG', quality=100, icc_profile=rgb_profile('P3'))
    small = decode_picture(open_picture(data), 100)
    assert small.size == (160, 120)
    np.testing.assert_allclose(small.getpixel((80, 60)), expected('P3', (200, 60, 70)), atol=3)


def test_records_have_the_colours_of_the_profile(tmp_path):
    stripes = Image.fromarray(np.kron(np.array([[[220, 30, 30], [30, 60, 200]]], np.uint8), np.ones((360, 240, 1), np.uint8)))
    (tmp_path/'photos/eval').mkdir(parents=True)
    stripes.save(tmp_path/'photos/eval/a.png', icc_profile=rgb_profile('P3'))
    made = make_image_records(tmp_path/'photos', tmp_path/'out', 'p', 'Layers', size=128, num_samples=1, divergence_level=2, eval_only=True, progress=False)
    assert made.made
    picture = cv2.imread(str(next((tmp_path/'out/eval').glob('*_C.png'))))[..., ::-1].reshape(-1, 3)
    assert picture.max() > 230 and not np.all(np.abs(picture.astype(int) - (220, 30, 30)) < 4, axis=1).any()


# --- what Pillow alone refuses

def chunk(kind, content, check=None):
    check = zlib.crc32(kind + content) if check is None else check
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)


def with_chunk(picture, piece, at_the_end=False):
    "A PNG file with a further chunk, before its pixels or after them."
    data = encoded(picture)
    place = len(data) - 12 if at_the_end else 33
    return data[:place] + piece + data[place:]


LONG = b'a long note; ' * 200_000
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
EXTRAS = {'text with a wrong checksum': chunk(b'tEXt', b'Comment\0something', 0),
          'packed text with a wrong checksum': chunk(b'zTXt', b'Comment\0\0' + zlib.compress(b'something'), 1),
          'text over a megabyte': chunk(b'zTXt', b'Comment\0\0' + zlib.compress(LONG)),
          'Unicode text over a megabyte': chunk(b'iTXt', b'Comment\0\1\0\0\0' + zlib.compress(LONG)),
          'text that is not packed': chunk(b'zTXt', b'Comment\0\0nonsense'),
          'turning tag over a megabyte': chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(LONG)),
          'turning tag that is not packed': chunk(b'zTXt', b'Raw profile type exif\0\0nonsense'),
          'time with a wrong checksum': chunk(b'tIME', bytes(7), 5),
          'tags with a wrong checksum': chunk(b'eXIf', b'II*\0\x08\0\0\0', 5),
          'profile that is not packed': chunk(b'iCCP', b'name\0\0nonsense'),
          'profile packed in an unknown way': chunk(b'iCCP', b'name\0\7' + bytes(50)),
          'profile with a wrong checksum': chunk(b'iCCP', b'name\0\0' + zlib.compress(b'no profile'), 3)}

@pytest.mark.parametrize('at_the_end', [False, True])
@pytest.mark.parametrize('name', EXTRAS)
def test_what_is_not_the_picture_does_no_harm(name, at_the_end):
    picture = noise()
    assert read_photo(with_chunk(picture, EXTRAS[name], at_the_end)).tobytes() == picture.tobytes()


def test_many_texts():
    picture = noise()
    texts = b''.join(chunk(b'zTXt', b'Comment\0\0' + zlib.compress(bytes([65 + number % 26]) * 1_000_000)) for number in range(80))
    assert read_photo(with_chunk(picture, texts)).tobytes() == picture.tobytes()


def test_profile_over_a_megabyte():
    large = profile({b'wtpt': xyz(*WHITE), b'rTRC': CURVES['P3'], b'gTRC': CURVES['P3'], b'bTRC': CURVES['P3'], b'note': b'text\0\0\0\0' + bytes(3_000_000)}
                    | dict(zip((b'rXYZ', b'gXYZ', b'bXYZ'), (xyz(*column) for column in PRIMARIES['P3']))))
    data = with_chunk(Image.new('RGB', (4, 4), (220, 30, 30)), chunk(b'iCCP', b'large\0\0' + zlib.compress(large)))
    np.testing.assert_allclose(read_photo(data).getpixel((1, 1)), (240, 0, 0), atol=1)


@pytest.mark.parametrize('packed', [False, True])
def test_texts_that_turn_a_picture_are_kept(packed):
    text = (b'\1\0\0\0' + zlib.compress(XMP)) if packed else b'\0\0\0\0' + XMP
    data = with_chunk(noise(), chunk(b'iTXt', b'XML:com.adobe.xmp\0' + text))
    assert read_photo(data).size == (30, 40)
    exif = Image.Exif(); exif[0x0112] = 6
    raw = b'Raw profile type exif\0\0' + zlib.compress(b'\nexif\n%8d\n%s\n' % (len(exif.tobytes()), exif.tobytes().hex().encode()))
    assert read_photo(with_chunk(noise(), chunk(b'zTXt', raw))).size == (30, 40)


def test_damage_to_the_picture_is_still_an_error():
    data = bytearray(encoded(noise()))
    data[data.index(b'IDAT') + 40] ^= 1
    with pytest.raises(ValueError, match='not a readable picture'): read_photo(bytes(data))
    seen = encoded(noise().quantize(16), transparency=bytes(16))
    place = seen.index(b'tRNS') + 4 + 16
    with pytest.raises(ValueError, match='not a readable picture'): read_photo(seen[:place] + b'1234' + seen[place + 4:])


def huge_png(width, height):
    "A grey PNG of any size, black and small as a file."
    pack, row = zlib.compressobj(9), bytes(width + 1)
    pixels = b''.join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


def test_large_pictures_are_opened_without_a_warning(recwarn):
    most = Image.MAX_IMAGE_PIXELS
    assert open_picture(huge_png(12000, 9000)).size == (12000, 9000)
    with pytest.raises(ValueError, match='20000 x 10000 pixels are more than the 180 million'): read_photo(huge_png(20000, 10000))
    assert not recwarn.list and Image.MAX_IMAGE_PIXELS == most


def test_a_jpeg_beyond_the_limit_comes_smaller(monkeypatch, capsys):
    monkeypatch.setattr(photos, 'MOST_PIXELS', 30_000)
    for progressive in (False, True):
        data = encoded(Image.new('RGB', (400, 300), (200, 60, 70)), 'JPEG', progressive=progressive)
        found = read_photo(data, 'IMG_1.jpg')
        assert found.size == (200, 150) and found.getpixel((50, 50)) == pytest.approx((200, 60, 70), abs=3)
        line, = capsys.readouterr().err.splitlines()
        assert line.startswith('IMG_1.jpg: 400 x 300 pixels are read as 200 x 150')
        assert decode_picture(open_picture(data), 37).size == (50, 38) and not capsys.readouterr().err
        assert decode_picture(open_picture(data), 280).size == (200, 150)


def test_two_hundred_megapixels_within_memory(tmp_path):
    Image.new('RGB', (16320, 12240), (200, 60, 70)).save(tmp_path/'large.jpg')
    code = ('import resource, sys\nfrom pathlib import Path\nfrom inpaint_nb.photos import read_photo\n'
            'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
            f'print(*read_photo(Path({str(tmp_path/"large.jpg")!r}).read_bytes()).size)\n'
            'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    size, grown = done.stdout.splitlines()
    assert size == '8160 6120' and int(grown) < 720_000, done.stdout
    assert len(done.stderr.splitlines()) == 1 and 'Warning' not in done.stderr


# --- content decides

HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(64)

def write_clip(path, format=None, codec='mpeg4'):
    import av
    with av.open(str(path), 'w', format=format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def preview_tiff():
    "A TIFF file as raw photos begin: its first picture is marked as a preview."
    from PIL import TiffImagePlugin
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    return encoded(Image.new('RGB', (16, 12)), 'TIFF', tiffinfo=tags)


def test_content_decides(tmp_path):
    picture = noise()
    kinds = {'a.jfif': (encoded(picture, 'JPEG'), 'photo'), 'b.avif': (encoded(picture, 'AVIF'), 'photo'),
             'c.jp2': (encoded(picture, 'JPEG2000'), 'photo'), 'd.mpo': (encoded(picture, 'MPO', save_all=True, append_images=[picture]), 'photo'),
             'e': (encoded(picture, 'WEBP'), 'photo'), 'f.mp4': (encoded(picture), 'photo'), 'g.tga': (encoded(picture, 'TGA'), 'photo'),
             'h.gif': (encoded(picture, 'GIF', save_all=True, append_images=[picture.rotate(90)]), 'clip'), 'i.gif': (encoded(picture, 'GIF'), 'clip'),
             'j.heic': (HEIC, None), 'k.jxl': (b'\xff\x0a' + bytes(40), None), 'l.cr3': (b'\0\0\0\x18ftypcrx ' + bytes(40), None),
             'm.dng': (preview_tiff(), None), 'n.txt': (b'words\n' * 100, None), 'o.nfo': (b'\x1b[31m words', None), 'p.eps': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', None),
             'q.db': (bytes(range(256)), None), 'r.vob': (encoded(picture, 'TGA'), 'clip'), 's.empty': (b'', None)}
    for name, (data, _) in kinds.items(): (tmp_path/name).write_bytes(data)
    clips = {'t.vob': ('mpeg', 'mpeg2video'), 'u.asf': ('asf', 'mpeg4'), 'v.mxf': ('mxf', 'mpeg2video'), 'w.f4v': ('mp4', 'mpeg4'),
             'x.jpg': ('mp4', 'mpeg4'), 'y': ('avi', 'mjpeg'), 'z.rm': ('matroska', 'mpeg4')}
    for name, how in clips.items(): write_clip(tmp_path/name, *how)
    assert {name: file_kind(tmp_path/name) for name in [*kinds, *clips]} == {name: kind for name, (_, kind) in kinds.items()} | dict.fromkeys(clips, 'clip')
    assert file_kind(tmp_path/'none') is None is file_kind(tmp_path)


def test_what_is_not_read_is_named(tmp_path):
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    picture = noise((400, 300))
    for name, format in {'a.jfif': 'JPEG', 'b.avif': 'AVIF', 'c.JP2': 'JPEG2000', 'd': 'WEBP'}.items(): (tmp_path/'photos/train'/name).write_bytes(encoded(picture.rotate(len(name) * 7), format))
    for name, data in {'e.heic': HEIC, 'f.heic': HEIC, 'g.xmp': b'<x/>', 'h.dng': preview_tiff(), '.hidden.heic': HEIC}.items(): (tmp_path/'photos/train'/name).write_bytes(data)
    photos, others = look_through(tmp_path/'photos/train')
    assert [path.name for path in photos] == ['a.jfif', 'b.avif', 'c.JP2', 'd'] and [path.name for path in others] == ['e.heic', 'f.heic', 'g.xmp', 'h.dng']
    summary = make_image_records(tmp_path/'photos', tmp_path/'out', 'p', 'Pseudo', size=64, num_samples=1, divergence_level=2, resolution=64, progress=False)
    assert summary.photos == 4 and not summary.failed
    line = next(line for line in str(summary).splitlines() if 'not read' in line)
    for part in ('4 files not read', '2 .heic (train/e.heic, ...: HEIC', 'pip install pillow-heif', '1 .xmp (train/g.xmp', '1 .dng (train/h.dng: a raw photo'): assert part in line
    for path in photos: path.unlink()
    with pytest.raises(FileNotFoundError, match='no photos in .*4 files not read: 2 .heic'):
        make_image_records(tmp_path/'photos', tmp_path/'out', 'p', 'Pseudo', progress=False)


def test_errors_say_what_a_file_is():
    for data, says in ((HEIC, 'pip install pillow-heif'), (b'\xff\x0a' + bytes(40), 'JPEG XL'), (preview_tiff(), 'develop it'), (b'words', 'unknown format')):
        with pytest.raises(ValueError, match=f'not a readable picture: .*{says}'): read_photo(data)


def test_heic_is_read_where_the_package_is(tmp_path):
    pillow_heif = pytest.importorskip('pillow_heif')
    pillow_heif.register_heif_opener()
    data = encoded(Image.new('RGB', (64, 48), (220, 30, 30)), 'HEIF', quality=100, icc_profile=rgb_profile('P3'))
    np.testing.assert_allclose(read_photo(data).getpixel((20, 20)), (240, 0, 0), atol=6)
    (tmp_path/'a.heic').write_bytes(data)
    assert file_kind(tmp_path/'a.heic') == 'photo' and look_through(tmp_path) == ([tmp_path/'a.heic'], {})


def test_a_large_picture_is_no_matter_of_warnings(tmp_path):
    "More pixels than Pillow's guard likes: what the file holds is said without a word."
    path = tmp_path/'wide.png'
    Image.new('1', (12000, 9000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert file_kind(path) == 'photo'
