"""Stereo pictures and clips: what must hold for any size, network and eye, and for the reference's weights."""
import dataclasses, functools, math, resource, signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from commands import run
from inpaint_nb.depth import DepthModel, DepthOptions, RunningScale, read_depth, write_depth
from inpaint_nb.depth_models import create_depth_model
from inpaint_nb.masks import dilate_inner, dilate_outer, mask_closing
from inpaint_nb.models import MODELS, PRETRAINED, create_model, load_model
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.fills import repeat_background
from inpaint_nb.clip import (
    depth_frames, fade_windows, fill_stream, read_frames, shot_depths, shots, stereo_clip,
    stereo_file, stereo_frames
)
from inpaint_nb.writing import ClipWriter, add_tracks
from inpaint_nb.layouts import PACKINGS, half_side_by_side, side_by_side
from inpaint_nb.stereo import (
    StereoOptions, cpu_has_matrix_units, eight_bits, open_with, StereoModels, fill_views,
    inpaint_view, make_stereo, open_views, output_files, find_depth, read_picture, save_picture,
    stereo_photo, tiles_to_fill
)
from inpaint_nb.warp import StereoViews
from inpaint_nb.clips import open_clip
from inpaint_nb.warp import forward_warp
from stopping import line_stopped

pytestmark = pytest.mark.usefixtures('one_thread')

SHARED = Path(__file__).parents[2] / 'shared'
CHECKPOINT = SHARED / 'reference/checkpoints/inpaint.light_inpaint_v1.pth'
needs_checkpoint = pytest.mark.skipif(not CHECKPOINT.exists(), reason='the reference checkpoint is not beside the checkout')


@pytest.fixture(scope='module')
def model():
    "A network that looks around: large weights in its windows."
    torch.manual_seed(0)
    model = create_model('light_inpaint_v1').eval()
    for name, weights in model.named_parameters():
        if 'proj_spatial.weight' in name: torch.nn.init.normal_(weights, std=0.05)
    return model


def spots(height, width, share):
    "A mask of 16 x 16 squares."
    mask = (torch.rand(1, 1, -(-height // 16), -(-width // 16)) < share).float()
    return mask.repeat_interleave(16, 2).repeat_interleave(16, 3)[..., :height, :width]


class Counting(torch.nn.Module):
    "Fills with red and remembers the sizes that it was shown."
    def __init__(self):
        super().__init__()
        self.sizes = []
    def preprocess(self, image, mask): return image * (1 - mask), mask
    def infer(self, image, mask):
        self.sizes.append(tuple(image.shape[-2:]))
        return torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1) * mask + image * (1 - mask)


# --- filling ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('size', [(64, 64), (97, 333), (70, 448), (33, 40)])
def test_tiles_equal_whole_picture(model, size):
    image, mask = torch.rand(1, 3, *size), spots(*size, 0.1)
    with torch.no_grad(): whole = model.infer(image, mask)
    weight = model.preprocess(image, mask)[1]
    for cell, margin, tolerance in ((64, 128, 5e-5), (128, 256, 1e-6)):
        for largest in (0, 450 ** 2):
            filled, reported = inpaint_view(image, mask, model, cell, margin, largest)
            assert torch.equal(reported, weight)
            assert torch.equal(filled[(weight == 0).expand_as(filled)], image[(weight == 0).expand_as(filled)])
            assert (filled - whole).abs().max() < tolerance


@pytest.fixture
def in_full(monkeypatch):
    "Compute in 32 bits, whatever the CPU is fast at."
    monkeypatch.setattr('inpaint_nb.stereo.cpu_has_matrix_units', lambda: False)


def lively(name):
    "A network of ours whose corrections are large, and depend on what is around."
    torch.manual_seed(0)
    net = create_model(name).eval()
    for part in (net.correction.conv2, *(mix.out for mix in net.time_mix.values())): torch.nn.init.normal_(part.weight, std=0.05)
    return net


@pytest.mark.parametrize('size', [(64, 1000), (97, 733), (700, 80), (33, 40)])
def test_tiles_of_our_network_equal_the_whole_picture(in_full, size):
    image, mask, net = torch.rand(1, 3, *size), spots(*size, 0.1), lively('background_v1')
    with torch.no_grad(): whole = net.infer(image, mask)
    weight = net.preprocess(image, mask)[1]
    for cell in (64, 128):
        for largest in (0, 450 ** 2):
            filled, reported = inpaint_view(image, mask, net, cell, largest=largest)
            assert torch.equal(reported, weight) and (filled - whole).abs().max() < 1e-5
            assert torch.equal(filled[(weight == 0).expand_as(filled)], image[(weight == 0).expand_as(filled)])


@pytest.mark.skipif(not cpu_has_matrix_units(), reason='this CPU has no matrix units')
def test_short_floats_do_no_harm(in_full, monkeypatch):
    "A third of a grey level in holes is less than a file of 8 bits keeps."
    scene, net = random_scene(5, size=(160, 240)), load_model('pretrained')[0]
    opened = open_views(scene.image, scene.depth, 5)
    exact = fill_views(opened, net)
    monkeypatch.setattr('inpaint_nb.stereo.cpu_has_matrix_units', lambda: True)
    short = fill_views(opened, net)
    pairs = (exact.left, short.left, exact.left_mask), (exact.right, short.right, exact.right_mask)
    for one, other, mask in pairs:
        assert one.dtype == other.dtype == torch.float32
        inside = ((one - other).abs() * 255)[mask.expand_as(one) > 0]
        assert 0 < inside.max() < 3 and inside.mean() < 0.3


@needs_checkpoint
def test_tiles_equal_whole_picture_with_reference_weights():
    model, _ = load_model(CHECKPOINT)
    model.eval()
    image, mask = torch.rand(1, 3, 64, 400), spots(64, 400, 0.1)
    with torch.no_grad(): whole = model.infer(image, mask)
    assert (inpaint_view(image, mask, model, cell=64, largest=0)[0] - whole).abs().max() < 1e-4


@pytest.mark.parametrize('step, early', [(64, 1), (16, 0)])
@pytest.mark.parametrize('largest', [0, 300 ** 2, 2 ** 21])
def test_tiles_cover_each_hole(largest, step, early):
    for seed in range(20):
        torch.manual_seed(seed)
        height, width = torch.randint(1, 700, (2,)).tolist()
        mask = spots(height, width, 0.02)
        covered = torch.zeros_like(mask)
        for keep, around in (tiles := tiles_to_fill(mask, 128, 64, largest, step, early)):
            covered[(..., *keep)] += 1
            for inner, outer, end in zip(keep, around, (height, width)):
                assert 0 <= outer.start <= inner.start < inner.stop <= outer.stop <= end
                assert inner.start % step == 0 and outer.start % step == 0
                assert outer.stop == end or (outer.stop + early) % step == 0
        assert (covered[mask > 0] > 0).all() and (largest or covered.max() <= 1)
        looked_at = [math.prod(side.stop - side.start for side in around) for _, around in tiles]
        alone = [math.prod(side.stop - side.start for side in around) for _, around in tiles_to_fill(mask, 128, 64, 0, step, early)]
        assert sum(looked_at) <= sum(alone) and max(looked_at, default=0) <= max(largest, max(alone, default=0)) and len(tiles) <= len(alone)


def test_a_large_photo_is_not_shown_whole():
    image, mask = torch.rand(1, 3, 1500, 2000), torch.zeros(1, 1, 1500, 2000)
    mask[..., 700:760, 900:930] = 1
    net = Counting()
    filled, weight = inpaint_view(image, mask, net)
    assert len(net.sizes) == 1 and max(net.sizes[0]) < 512
    assert torch.equal(filled[:, :1][mask > 0], torch.ones(60 * 30)) and torch.equal(weight, mask)
    inpaint_view(image, torch.zeros_like(mask), net)
    assert len(net.sizes) == 1


def test_training_mode_is_kept(model):
    model.train()
    inpaint_view(torch.rand(1, 3, 64, 64), spots(64, 64, 0.2), model)
    assert model.training
    model.eval()


def test_repeated_background_has_no_black_border():
    image, mask = torch.rand(2, 3, 20, 30) / 2 + 0.5, (torch.rand(2, 1, 20, 30) < 0.5).float()
    mask[..., -4:] = 1
    mask[..., :1] = 0
    filled = repeat_background(image * (1 - mask), mask)
    assert filled.min() >= 0.5
    assert torch.equal(filled[(mask == 0).expand_as(filled)], image[(mask == 0).expand_as(filled)])


# --- both eyes -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('view', ['both', 'left', 'right'])
@pytest.mark.parametrize('dilation', [(0, 0), (3, 9)])
def test_untouched_outside_the_mask(model, view, dilation):
    scene = random_scene(8, size=(100, 150))
    for net in (None, model):
        views = make_stereo(scene.image, scene.depth, net, 5, 0.3, view, *dilation)
        warped = forward_warp(scene.image, scene.depth, 5, 0.3, view, fill=False)
        for eye, mask, source, opening in ((views.left, views.left_mask, warped.left, warped.left_mask),
                                           (views.right, views.right_mask, warped.right, warped.right_mask)):
            if mask is None:
                assert opening is None and torch.equal(eye, scene.image)
                continue
            same = (mask == 0).expand_as(eye)
            assert torch.equal(eye[same], source[same])
            assert (mask[opening > 0] == 1).all() and 0 <= mask.min() and mask.max() == 1


def test_steps_of_the_reference(model):
    "Warp without fill, hole, closing, outer and inner dilation, infer; the left eye mirrored."
    scene = random_scene(3, size=(90, 140))
    warped = forward_warp(scene.image, scene.depth, 4, 0.5, fill=False)
    def by_hand(eye, mask):
        mask = dilate_inner(dilate_outer(mask_closing((mask > 0).float()), 5), 2)
        with torch.no_grad(): return model.infer(eye, mask)
    views = make_stereo(scene.image, scene.depth, model, 4, 0.5, inner_dilation=2, outer_dilation=5)
    assert (views.right - by_hand(warped.right, warped.right_mask)).abs().max() < 1e-6
    assert (views.left - by_hand(warped.left.flip(-1), warped.left_mask.flip(-1)).flip(-1)).abs().max() < 1e-6


@pytest.mark.parametrize('size, columns, given, grown', [
    ((64, 800), 588, (3, 5), (4, 7)), ((64, 800), 800, (3, 5), (3, 5)), ((64, 800), 400, (3, 5), (6, 10)), ((64, 400), 800, (3, 5), (2, 2)),  # round(2.5) is 2
    ((64, 96), 1536, (1, 1), (1, 1)), ((96, 64), 48, (0, 4), (0, 5)), ((64, 800), 588, (0, 0), (0, 0))])
def test_dilation_is_meant_at_the_depth_maps_width(size, columns, given, grown):
    "As in iw3: max(round(picture / map * n), 1) columns, none if none are asked for."
    scene = random_scene(8, size=size)
    depth = torch.nn.functional.interpolate(scene.depth, (size[0], columns), mode='nearest')
    opened = open_views(scene.image, depth, 8, 0.5, inner_dilation=given[0], outer_dilation=given[1])
    warped = forward_warp(scene.image, depth, 8, 0.5, fill=False)
    for mask, found in ((warped.right_mask, opened.right_mask), (warped.left_mask.flip(-1), opened.left_mask.flip(-1))):
        hole = mask_closing((mask > 0).float())
        assert hole.any() and torch.equal(found, dilate_inner(dilate_outer(hole, grown[1]), grown[0]))
    options = StereoOptions(divergence=8, inner_dilation=given[0], outer_dilation=given[1])
    assert torch.equal(open_with(options, scene.image, depth).right_mask, opened.right_mask)


def test_several_pictures_at_once(model):
    scenes = [random_scene(seed, size=(80, 120)) for seed in (1, 2)]
    image, depth = torch.cat([scene.image for scene in scenes]), torch.cat([scene.depth for scene in scenes])
    together = make_stereo(image, depth, model, 4)
    for number, scene in enumerate(scenes):
        alone = make_stereo(scene.image, scene.depth, model, 4)
        for one, all_ in zip(alone, together): assert (one - all_[number:number + 1]).abs().max() < 1e-5


def test_no_divergence_changes_nothing(model):
    scene = random_scene(4, size=(64, 96))
    views = make_stereo(scene.image, scene.depth, model, divergence=0)
    assert (views.left - scene.image).abs().max() < 2e-5 and views.right_mask.max() == 0


# --- files -----------------------------------------------------------------------------------------------------------------

@pytest.fixture
def photo(tmp_path):
    save_picture(random_scene(6, size=(96, 150)).image, tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_tag(tmp_path, orientation):
    upright = Image.fromarray((np.arange(40 * 60 * 3) % 251).reshape(40, 60, 3).astype(np.uint8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores it this way
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / 'a.png', exif=exif)
    assert np.array_equal(read_picture(tmp_path / 'a.png')[0].permute(1, 2, 0).mul(255).round().numpy(), np.asarray(upright))


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', '1', 'CMYK'])
def test_any_kind_of_photo(tmp_path, photo, mode):
    name = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
    Image.open(photo).convert(mode).save(name)
    result, = stereo_photo(name, tmp_path / 'out', progress=False)
    assert Image.open(result).size == (300, 96) and Image.open(result).mode == 'RGB'


def test_all_formats(tmp_path, photo):
    files = stereo_photo(photo, tmp_path / 'out', format=','.join(PACKINGS), progress=False)
    sizes = {file.name: Image.open(file).size for file in files}
    glasses = {f'photo_redcyan{name}.png': (150, 96) for name in ('', '_colour', '_half_colour', '_gray', '_wimmer', '_dubois_2009')}
    assert sizes == {'photo_LRF_Full_SBS.png': (300, 96), 'photo_LR.png': (150, 96), 'photo_TBF_fulltb.png': (150, 192), 'photo_TB.png': (150, 96), 'photo_RLF_cross.png': (300, 96),
                     'photo_180x180_LR.png': (472, 236), 'photo_RGBD.png': (300, 96), 'photo_HRGBD.png': (150, 96), **glasses,
                     'photo_left.png': (150, 96), 'photo_right.png': (150, 96), 'photo_mask.png': (300, 96)}
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(sizes)


def test_one_eye_is_the_photo(tmp_path, photo):
    left, mask = stereo_photo(photo, tmp_path / 'out', format='left,mask', view='right', progress=False)
    assert np.array_equal(np.asarray(Image.open(left)), np.asarray(Image.open(photo)))
    assert Image.open(mask).size == (150, 96)


def test_jpeg_keeps_the_eyes_apart(tmp_path):
    "No chroma subsampling, and the quality counts."
    scene = random_scene(6, size=(96, 150))
    for quality in (30, 95): save_picture(scene.image, tmp_path / f'{quality}.jpg', quality)
    assert (tmp_path / '30.jpg').stat().st_size < (tmp_path / '95.jpg').stat().st_size
    layers = Image.open(tmp_path / '95.jpg').layer
    assert {layer[1:3] for layer in layers} == {(1, 1)}


def test_odd_width():
    views = StereoViews(torch.rand(1, 3, 7, 11), torch.rand(1, 3, 7, 11), None, None)
    assert side_by_side(views).shape[-1] == 22 and half_side_by_side(views).shape[-1] == 10


def test_failed_run_leaves_the_old_file(tmp_path, photo):
    out = tmp_path / 'pair.png'
    stereo_photo(photo, out, progress=False)
    before = out.read_bytes()
    with pytest.raises(ValueError): stereo_photo(photo, out, divergence=200, progress=False)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['pair.png', 'photo.png']


def test_hostile_input(tmp_path, photo):
    (tmp_path / 'text.png').write_text('hello')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    (tmp_path / 'cut.png').write_bytes(photo.read_bytes()[:2000])
    for name in ('text.png', 'empty.jpg', 'cut.png'):
        with pytest.raises(ValueError, match=f'{name}: not a readable picture'): stereo_photo(tmp_path / name, tmp_path / 'out')
    with pytest.raises(FileNotFoundError, match='nowhere.png'): stereo_photo(tmp_path / 'nowhere.png', tmp_path / 'out')
    with pytest.raises(OSError, match='cannot read the picture'): stereo_photo(tmp_path, tmp_path / 'out')
    with pytest.raises(OSError, match='cannot write to'): stereo_photo(photo, tmp_path / 'text.png' / 'out')
    with pytest.raises(ValueError, match='is the photo itself'): stereo_photo(photo, photo)
    with pytest.raises(ValueError, match='unknown format sbs'): stereo_photo(photo, tmp_path / 'out', format='sbs')
    with pytest.raises(ValueError, match='.webp'): stereo_photo(photo, tmp_path / 'out.webp')
    assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())


@needs_checkpoint
@pytest.mark.parametrize('name', ['light_inpaint_v1', 'light_video_inpaint_v1'])
def test_reference_checkpoint_fills_a_photo(tmp_path, photo, name):
    "A video model takes a photo for a clip of one frame."
    checkpoint = CHECKPOINT.with_name(f'inpaint.{name}.pth')
    with_network, mask = stereo_photo(photo, tmp_path / 'network', checkpoint, divergence=8, format='full_sbs,mask', progress=False)
    repeated, = stereo_photo(photo, tmp_path / 'repeated', 'repeat', divergence=8, progress=False)
    with_network, repeated, mask = (np.asarray(Image.open(file)) for file in (with_network, repeated, mask))
    assert (with_network[mask > 0] != repeated[mask > 0]).any()
    assert np.array_equal(with_network[mask == 0], repeated[mask == 0])


def test_whoever_says_nothing_gets_our_weights(tmp_path, photo):
    "Those that come with the package fill; `repeat` asks for the rule, as `None` does in Python."
    shown = dict(divergence=8, view='right', format='right', progress=False)
    asked = (), ('pretrained',), ('pretrained:background_v1',), ('repeat',), (None,)
    files = [stereo_photo(photo, tmp_path / str(number), *one, **shown)[0] for number, one in enumerate(asked)]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert (pictures[0] == pictures[1]).all() and (pictures[0] == pictures[2]).all()
    assert (pictures[3] == pictures[4]).all() and (pictures[0] != pictures[3]).any()
    image = read_picture(photo)
    opened = open_with(StereoOptions(divergence=8, view='right'), image, find_depth(photo, image))
    for net, picture in ((load_model('pretrained')[0], pictures[0]), (None, pictures[3])):
        assert (eight_bits(fill_views(opened, net).right) == picture).all()


def test_photos_and_clips_have_their_weights(monkeypatch):
    "A clip gets the model for clips, or the one for photos as long as there is no other."
    there = {MODELS[row.model].frames > 1 for row in PRETRAINED.values()}
    for video in (False, True):
        net = StereoModels(StereoOptions(gpu=-1)).inpainter(video)
        assert not net.training and (net.frames > 1) == (video and video in there)
    monkeypatch.setattr('inpaint_nb.models.PRETRAINED', {})
    assert StereoModels(StereoOptions('repeat', gpu=-1)).inpainter() is None
    with pytest.raises(FileNotFoundError, match='brings no weights'): StereoModels(StereoOptions(gpu=-1)).inpainter()


# --- clips -----------------------------------------------------------------------------------------------------------------

PLAIN = dict(checkpoint_file='repeat', progress=False)  # where it is no matter who fills: the rule is quick


def write_film(path, frames, rate=24, sound='aac', times=None):
    "A small video file, with a tone; `times` in milliseconds for a variable rate."
    with av.open(str(path), 'w', options=dict(movflags='faststart')) as container:
        video = container.add_stream('libx264', rate=rate, options=dict(crf='12'))
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], 'yuv444p' if frames[0].shape[0] % 2 else 'yuv420p'
        if times is not None: video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(sound, rate=44100, layout='mono') if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            if times is not None: frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if not sound: return
        seconds = len(frames) / rate
        tone = np.sin(2 * np.pi * 440 * np.arange(int(seconds * audio.rate)) / audio.rate).astype(np.float32)[None] / 4
        for start in range(0, tone.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(tone[:, start:start + 1024], format='flt', layout='mono')
            piece.sample_rate, piece.pts, piece.time_base = audio.rate, start, Fraction(1, audio.rate)
            container.mux(audio.encode(piece))
        container.mux(audio.encode())


@functools.cache
def rgb(*seeds, frames=14, size=(64, 96)):
    "Frames of moving scenes, one scene after the other."
    return [eight_bits(scene.image) for seed in seeds for scene in random_clip(seed, frames, size)]


def sound_of(path) -> tuple[str, list[bytes]]:
    with av.open(str(path)) as container:
        return container.streams.audio[0].codec_context.name, [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp('films')
    write_film(folder / 'clip.mp4', rgb(5))
    return folder


@pytest.mark.parametrize('suffix, filler', [('.mp4', 'pretrained'), ('.mkv', 'repeat'), ('.mov', 'repeat')])
def test_clip_keeps_frames_rate_and_sound(tmp_path, films, suffix, filler):
    out, = stereo_clip(films / 'clip.mp4', tmp_path / f'a{suffix}', filler, progress=False)
    before, after = open_clip(films / 'clip.mp4'), open_clip(out)
    assert len(after) == 14 and after.size == (192, 64)
    assert np.abs(after.times - before.times).max() < 0.001
    assert sound_of(out) == sound_of(films / 'clip.mp4')
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264' and stream.format.name == 'yuv420p' and stream.codec_context.colorspace == 1
        assert abs(float(stream.average_rate) - 24) < 0.01
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def write_with_sound(path, codec, layout):
    "Fourteen frames and a tone in each channel."
    with av.open(str(path), 'w') as container:
        video = container.add_stream('libx264', rate=24)
        video.width, video.height, video.pix_fmt = 96, 64, 'yuv420p'
        audio = container.add_stream(codec, rate=48000, layout=layout)
        for pixels in rgb(5): container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(video.encode())
        tone = np.sin(2 * np.pi * 440 * np.arange(28000) / 48000).astype(np.float32) / 4
        for start in range(0, len(tone), 960):
            samples = np.repeat(tone[None, start:start + 960], audio.codec_context.layout.nb_channels, 0)
            piece = av.AudioFrame.from_ndarray(samples, format='fltp', layout=layout)
            piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
            container.mux(audio.encode(piece))
        container.mux(audio.encode())


@pytest.mark.parametrize('name, codec, layout, suffix, expected', [
    ('a.avi', 'pcm_s16le', 'stereo', '.mp4', ('aac', 'stereo')), ('a.mkv', 'pcm_s16le', 'stereo', '.mp4', ('aac', 'stereo')), ('a.mkv', 'pcm_s16le', '5.1', '.mp4', ('aac', None)),
    ('a.mov', 'pcm_s16le', 'mono', '.mp4', ('aac', 'mono')), ('a.mov', 'pcm_s16le', 'stereo', '.mov', None), ('a.avi', 'pcm_s16le', 'stereo', '.mkv', None),
    ('a.mkv', 'libopus', 'stereo', '.mov', ('aac', 'stereo')), ('a.mkv', 'libopus', 'stereo', '.mp4', None), ('a.mkv', 'flac', '5.1', '.mov', ('aac', '5.1')),
    ('a.mkv', 'flac', '5.1', '.mp4', None), ('a.mkv', 'libmp3lame', 'stereo', '.mp4', None), ('a.mkv', 'ac3', '5.1(side)', '.mov', None), ('a.mkv', 'eac3', '5.1(side)', '.mov', ('aac', '5.1'))])
def test_sound_is_copied_or_encoded_anew(tmp_path, name, codec, layout, suffix, expected):
    write_with_sound(tmp_path / name, codec, layout)
    out, = stereo_clip(tmp_path / name, tmp_path / f'out{suffix}', **PLAIN)
    assert len(open_clip(out)) == 14
    if expected is None:
        (kind, packets), (kind_before, packets_before) = sound_of(out), sound_of(tmp_path / name)
        assert kind == kind_before and b''.join(packets) == b''.join(packets_before)  # packets of PCM are cut anew by each reader
        return
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == expected[0] and expected[1] in (None, stream.codec_context.layout.name)
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert abs(len(wave) / stream.rate - 14 / 24) < 0.1
        assert abs(np.abs(np.fft.rfft(wave[1024:25024])).argmax() * stream.rate / 24000 - 440) < 3 and np.abs(wave).max() > 0.05


def test_sound_that_cannot_be_written(tmp_path, films, monkeypatch, capsys):
    "The pictures are worth more than the sound."
    write_with_sound(tmp_path / 'a.avi', 'pcm_s16le', 'stereo')
    def refuse(context): raise av.error.ArgumentError(22, 'Invalid argument')
    monkeypatch.setattr('inpaint_nb.writing._aac', refuse)
    out, = stereo_clip(tmp_path / 'a.avi', tmp_path / 'a.mp4', **PLAIN)
    with av.open(str(out)) as container: assert not container.streams.audio
    assert len(open_clip(out)) == 14 and 'its sound (pcm_s16le) cannot be written to mp4 and is left out' in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
def test_pixel_shape(tmp_path, suffix):
    with av.open(str(tmp_path / 'a.mp4'), 'w') as container:
        video = container.add_stream('libx264', rate=24)
        video.width, video.height, video.pix_fmt = 96, 64, 'yuv420p'
        video.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for pixels in rgb(5): container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(video.encode())
    out, = stereo_clip(tmp_path / 'a.mp4', tmp_path / f'b{suffix}', **PLAIN)
    with av.open(str(out)) as container: assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)


def test_colons_in_names(tmp_path, films, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('a:b.mp4').write_bytes((films / 'clip.mp4').read_bytes())
    out, = stereo_clip('a:b.mp4', 'c:d.mp4', **PLAIN)
    assert out.exists() and sound_of(out.absolute()) == sound_of(films / 'clip.mp4')


def test_names_of_folders(tmp_path, monkeypatch):
    (tmp_path / 'my.frames.v2').mkdir()
    monkeypatch.chdir(tmp_path / 'my.frames.v2')
    for folder in ('.', tmp_path / 'my.frames.v2', '../my.frames.v2/'): assert output_files(folder, 'out', ['mask'], 'clip')['mask'] == Path('out/my.frames.v2_mask.mp4')
    assert output_files('../a.b.mp4', 'out', ['mask'], 'clip')['mask'] == Path('out/a.b_mask.mp4')


def test_sound_stays_with_the_picture(tmp_path):
    "A file whose pictures begin half a second after the sound."
    write_film(tmp_path / 'a.mkv', rgb(5), times=[500 + 40 * number for number in range(14)])
    out, = stereo_clip(tmp_path / 'a.mkv', tmp_path / 'b.mkv', **PLAIN)
    def lead(path):
        with av.open(str(path)) as container: first = {stream.type: float(next(container.decode(stream)).time) for stream in container.streams if not container.seek(0)}
        return first['video'] - first['audio']
    assert abs(lead(out) - lead(tmp_path / 'a.mkv')) < 0.01


def test_variable_rate(tmp_path):
    times = [0, 33, 66, 200, 210, 400, 433, 466, 900, 933, 966, 1000, 1500, 1533]
    write_film(tmp_path / 'a.mkv', rgb(5), sound=None, times=times)
    out, = stereo_clip(tmp_path / 'a.mkv', tmp_path / 'b.mp4', **PLAIN)
    assert np.abs(open_clip(out).times * 1000 - times).max() < 1


def test_all_formats_of_a_clip(tmp_path, films):
    files = stereo_clip(films / 'clip.mp4', tmp_path / 'out', format=','.join(PACKINGS), **PLAIN)
    assert [file.name for file in files] == [f'clip{packing.ending}.mp4' for packing in PACKINGS.values()]
    widths = dict(full_sbs=192, cross_eyed=192, rgbd=192, mask=192, vr180=300)
    assert {name: open_clip(file).size[0] for name, file in zip(PACKINGS, files)} == {name: widths.get(name, 96) for name in PACKINGS}
    assert all(len(open_clip(file)) == 14 for file in files)


def test_frames_are_those_of_the_photo(tmp_path, films, model):
    "A clip of one frame is a photo; with depth of its own each frame is one."
    clip = open_clip(films / 'clip.mp4')
    clip = dataclasses.replace(clip, times=clip.times[:5])
    options = StereoOptions(divergence=5, borrow_frames=0)
    maps = [tmp_path / f'{number:02}.png' for number in range(5)]
    for number, path in enumerate(maps): write_depth(random_scene(number, size=(64, 96)).depth, path)
    for number, views in enumerate(stereo_frames(clip, options, model=model, maps=maps)):
        image = torch.from_numpy(clip[number]).permute(2, 0, 1)[None] / 255
        alone = make_stereo(image, read_depth(maps[number]), model, 5)
        assert torch.equal(views.left, alone.left) and torch.equal(views.right_mask, alone.right_mask)


@pytest.mark.parametrize('frames', [1, 7, 12, 13, 22, 30])
def test_windows_equal_the_whole_clip(frames):
    torch.manual_seed(2)
    network = create_model('light_video_inpaint_v1', base_dim=16).eval()
    for name, weights in network.named_parameters():
        if 'proj_spatial' in name: torch.nn.init.normal_(weights, std=0.1)
    scenes = random_clip(3, frames, (64, 64))
    opened = [open_views(scene.image, scene.depth, 6, view='right') for scene in scenes]
    streamed = torch.cat([views.right for views in fill_stream(iter(opened), network)])
    whole = fill_views(StereoViews(*[None if part[0] is None else torch.cat(part) for part in zip(*opened)]), network).right
    assert len(streamed) == frames and (streamed - whole).abs().max() < 1e-5


@pytest.mark.parametrize('frames', [0, 1, 2, 3, 4, 13])
@pytest.mark.parametrize('view', ['both', 'left', 'right'])
def test_our_stream_equals_the_whole_clip(in_full, frames, view):
    "To the bit; and each frame goes down the network once."
    net, looked = lively('background_video_v1'), []
    scenes = random_clip(3, max(frames, 1), (64, 96))[:frames]
    opened = [open_views(scene.image, scene.depth, 6, view=view) for scene in scenes]
    encode = net.unet.encode
    net.unet.encode = lambda values: looked.append(1) or encode(values)
    streamed = list(fill_stream(iter(opened), net))
    assert len(streamed) == frames and len(looked) == frames * (2 if view == 'both' else 1)
    for eye, turn in (('left', lambda x: x.flip(-1)), ('right', lambda x: x)) if frames else ():
        pictures, masks = ([getattr(views, name) for views in opened] for name in (eye, f'{eye}_mask'))
        found = [getattr(views, eye) for views in streamed]
        if masks[0] is None:
            assert torch.equal(torch.cat(found), torch.cat(pictures))
            continue
        whole = turn(net.infer(turn(torch.cat(pictures)), turn(torch.cat(masks))))
        assert torch.equal(torch.cat(found), whole)
        weight = turn(net.preprocess(turn(torch.cat(pictures)), turn(torch.cat(masks)))[1])
        assert torch.equal(torch.cat([getattr(views, f'{eye}_mask') for views in streamed]), weight)


def test_our_stream_is_constant(in_full):
    "Frames go out at most three after they came in, and none is worked out in short floats."
    net, read = lively('background_video_v1'), [0]
    scene = random_scene(3, size=(32, 48))
    def items():
        for _ in range(12):
            read[0] += 1
            assert not torch.is_autocast_enabled('cpu')
            yield open_views(scene.image, scene.depth, 6)
    for count, _ in enumerate(fill_stream(items(), net)):
        assert read[0] - count <= 4 and not torch.is_autocast_enabled('cpu')
    assert read[0] == 12


@pytest.mark.parametrize('length, overlap', [(1, 0), (5, 2), (12, 3), (24, 8)])
def test_stream_is_constant(length, overlap):
    "Frames go out in order, and no later than a window after they came in."
    for number in (0, 1, length, length + 1, 200):
        read = [0]
        def items():
            for item in range(number): read[0] += 1; yield item
        for count, (item, (value,)) in enumerate(fade_windows(items(), lambda window: [(torch.tensor(float(item)),) for item in window], length, overlap)):
            assert item == count == value and read[0] - count <= length + 1
        assert read[0] == number


def test_a_cut_begins_anew(tmp_path):
    write_film(tmp_path / 'two.mp4', rgb(5, 33, size=(96, 128)), sound=None)
    clip = open_clip(tmp_path / 'two.mp4')
    assert [len(list(shot)) for shot in shots(read_frames(clip))] == [14, 14]
    model = create_depth_model('Pseudo')
    second = list(enumerate(clip.frames()))[14:]
    alone = [depth for _, depth in shot_depths(second, clip, model)]
    opened = [open_with(StereoOptions(depth=DepthOptions(seed=0, edge_dilation=2)), torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, depth) for (_, pixels), depth in zip(second, alone)]
    together = list(stereo_frames(clip, StereoOptions(depth=DepthOptions(seed=0, edge_dilation=2))))[14:]
    for views, expected in zip(together, opened): assert torch.equal(views.right, fill_views(expected).right)


class Stretching(DepthModel):
    "Depth that is right up to a scale of its own for each picture."
    def estimate(self, images, paths=None): return images.mean(1, keepdim=True) * 5 + 3


def test_network_depth_does_not_flicker(films):
    clip = open_clip(films / 'clip.mp4')
    frames = list(enumerate(clip.frames()))
    frames[7] = 7, frames[7][1].copy()
    frames[7][1][:8, :8] = 255 - frames[7][1][:8, :8] // 8
    slow = torch.cat([depth for _, depth in shot_depths(frames, clip, Stretching())])
    assert slow.min() >= 0 and slow.max() <= 1
    fast = torch.cat([Stretching().infer(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255) for _, pixels in frames])
    jump = lambda depth: (depth[7, :, 16:] - depth[6, :, 16:]).mean().abs()
    assert jump(slow) <= jump(fast)


def test_depth_by_name_and_by_order(tmp_path, films):
    clip = open_clip(films / 'clip.mp4')
    (tmp_path / 'maps').mkdir()
    for number in range(14): write_depth(random_scene(number, size=(32, 48)).depth, tmp_path / f'maps/{number:08}.png')
    by_order, = stereo_clip(clip.path, tmp_path / 'order.mp4', depth_file=tmp_path / 'maps', **PLAIN)
    by_name, = stereo_clip(clip.path, tmp_path / 'name.mp4', model_type=f"Files:{tmp_path / 'maps'}", **PLAIN)
    views = stereo_frames(clip, StereoOptions(), maps=depth_frames(tmp_path / 'maps', clip)), stereo_frames(clip, StereoOptions(model_type=f"Files:{tmp_path / 'maps'}"))
    for one, other in zip(*views, strict=True): assert torch.equal(one.left, other.left) and torch.equal(one.right, other.right)
    assert len(open_clip(by_order)) == len(open_clip(by_name)) == 14  # their bytes may differ: x264 depends a little on what its memory held before
    (tmp_path / 'maps/00000013.png').unlink()
    with pytest.raises(ValueError, match='13 depth maps, but .* 14 frames'): stereo_clip(clip.path, tmp_path / 'never.mp4', depth_file=tmp_path / 'maps')
    with pytest.raises(FileNotFoundError, match='00000013'): stereo_clip(clip.path, tmp_path / 'never.mp4', model_type=f"Files:{tmp_path / 'maps'}", **PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['maps', 'name.mp4', 'order.mp4']


@pytest.mark.parametrize('frames, size', [(1, (64, 96)), (3, (5, 5)), (2, (33, 47))])
def test_small_clips(tmp_path, frames, size):
    pixels = [np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8) for number in range(frames)]
    (tmp_path / 'frames').mkdir()
    for number, picture in enumerate(pixels): Image.fromarray(picture).save(tmp_path / f'frames/{number}.png')
    out, = stereo_file(tmp_path / 'frames', tmp_path / 'Übung mit Leerzeichen 映画.mp4', format='anaglyph', progress=False)
    after = open_clip(out)
    assert len(after) == frames and after.size == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    again, = stereo_file(out, tmp_path / 'twice', **PLAIN)
    assert len(open_clip(again)) == frames


@pytest.mark.parametrize('suffix', ['.png', '.npy'])
def test_depth_in_natural_order(tmp_path, suffix):
    "Twelve names without leading zeros, and what a file manager leaves behind."
    frames, maps = tmp_path / 'frames', tmp_path / 'maps'
    frames.mkdir(), maps.mkdir()
    for number in range(12):
        save_picture(torch.full((1, 3, 32, 32), 0.5), frames / f'{number}.png')
        depth = torch.full((1, 1, 32, 32), number / 20)
        if suffix == '.png': write_depth(depth, maps / f'map {number}.png')
        else: np.save(maps / f'map {number}.npy', depth.numpy())
    for hidden in (frames / '._1.png', maps / f'._map 1{suffix}'): hidden.write_bytes(b'resources')
    clip = open_clip(frames)
    found = depth_frames(maps, clip)
    assert [path.name for path in found] == [f'map {number}{suffix}' for number in range(12)]
    depths = [depth.mean().item() for _, depth in shot_depths(enumerate(clip.frames()), clip, create_depth_model('Pseudo'), found)]
    assert np.allclose(depths, np.arange(12) / 20, atol=1e-4)


def write_maps(path, maps, codec='ffv1', pixels='gray16le', **options):
    "A grey clip of depth maps."
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt = *maps[0].shape[-2:], pixels
        for depth in maps:
            levels = (depth.squeeze().numpy() * 65535).round().astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(levels, format='gray16le') if pixels == 'gray16le' else av.VideoFrame.from_ndarray(np.dstack([levels >> 8] * 3).astype(np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize('name, codec, pixels, step', [('maps.mkv', 'ffv1', 'gray16le', 1e-4), ('maps.mp4', 'libx264', 'yuv420p', .03), ('maps.webm', 'libvpx-vp9', 'yuv420p', .03), ('maps.avi', 'mjpeg', 'yuvj420p', .04), ('maps', 'libx264', 'yuv420p10le', .03)])
def test_depth_of_a_clip_as_a_clip(tmp_path, films, name, codec, pixels, step):
    "A folder with a map for each frame, or a grey clip, whatever its name ends with: one list comes of both."
    clip, out = open_clip(films / 'clip.mp4'), tmp_path / 'a.mp4'
    maps = [scene.depth for scene in random_clip(5, 14, (32, 48))]
    (tmp_path / 'folder').mkdir()
    for number, depth in enumerate(maps): write_depth(depth, tmp_path / f'folder/{number}.png')
    write_maps(tmp_path / ('x.mkv' if name == 'maps' else name), maps, codec, pixels)
    if name == 'maps': (tmp_path / 'x.mkv').rename(tmp_path / name)
    found, folder = depth_frames(tmp_path / name, clip), depth_frames(tmp_path / 'folder', clip)
    for one, other, truth in zip(found, folder, maps, strict=True): assert (read_depth(one) - read_depth(other)).abs().mean() <= step and (read_depth(one) - truth).abs().mean() <= step
    assert len(open_clip(stereo_clip(clip.path, out, depth_file=tmp_path / name, **PLAIN)[0])) == 14
    for number in (13, 15):
        write_maps(tmp_path / 'wrong.mkv', [*maps, maps[0]][:number])
        with pytest.raises(ValueError, match=f'wrong.mkv holds {number} depth maps, but .* has 14 frames'): stereo_clip(clip.path, out, depth_file=tmp_path / 'wrong.mkv', **PLAIN)
    with pytest.raises(ValueError, match='clip.npy is no depth video'): np.save(tmp_path / 'clip.npy', maps[0]); stereo_clip(clip.path, out, depth_file=tmp_path / 'clip.npy')


def test_depth_video_by_name_has_one_map_for_each_frame(tmp_path, films):
    "`Files` finds it; records and stereo clips refuse one of another clip, before any work."
    maps = [scene.depth for scene in random_clip(5, 14, (32, 48))]
    write_maps(tmp_path / 'clip_depth.mkv', maps)
    chosen = dict(model_type=f'Files:{tmp_path}', progress=False)
    views = [[*stereo_frames(open_clip(films / 'clip.mp4'), StereoOptions(model_type=f'Files:{tmp_path}'))], [*stereo_frames(clip := open_clip(films / 'clip.mp4'), StereoOptions(), maps=depth_frames(tmp_path / 'clip_depth.mkv', clip))]]
    for one, other in zip(*views, strict=True): assert torch.equal(one.left, other.left) and torch.equal(one.right, other.right)
    write_maps(tmp_path / 'clip_depth.mkv', maps[:13])
    with pytest.raises(ValueError, match='clip_depth.mkv holds 13 depth maps, but .*clip.mp4 has 14 frames'): stereo_clip(films / 'clip.mp4', tmp_path / 'out.mp4', checkpoint_file='repeat', **chosen)
    from making import make_video_records
    with pytest.raises(ValueError, match='clip_depth.mkv holds 13 depth maps, but .*clip.mp4 has 14 frames'): make_video_records(films / 'clip.mp4', tmp_path / 'records', 'p', seq=4, size=64, **chosen)
    assert not (tmp_path / 'out.mp4').exists() and not list((tmp_path / 'records').iterdir())


@pytest.mark.parametrize('kind', ['npz', 'pfm'])
def test_maps_of_other_kinds_are_on_one_scale(tmp_path, films, kind):
    "Of records too."
    from making import make_video_records
    (tmp_path / 'maps').mkdir()
    for number in range(14):
        depth = random_scene(number, size=(64, 96)).depth[0, 0].numpy() * (4 if number == 5 else 1)
        if kind == 'npz': np.savez(tmp_path / f'maps/{number:08}.npz', depth=depth)
        else: (tmp_path / f'maps/{number:08}.pfm').write_bytes(b'Pf\n96 64\n-1.0\n' + depth[::-1].astype('<f4').tobytes())
    for chosen in (dict(depth_file=tmp_path / 'maps'), dict(model_type=f"Files:{tmp_path / 'maps'}")):
        with pytest.raises(ValueError, match=f'00000005.{kind} spans .*: scale all depth maps of the clip together to 0..1'):
            stereo_clip(films / 'clip.mp4', tmp_path / 'a.mp4', **PLAIN, **chosen)
    summary = make_video_records(films / 'clip.mp4', tmp_path / 'records', 'p', f"Files:{tmp_path / 'maps'}", seq=12, size=64, progress=False)
    assert f'00000005.{kind} spans' in summary.failed['clip.mp4'] and not summary.made


def test_what_is_odd_about_a_photo_is_said_with_its_name(tmp_path, photo, capsys):
    "A profile that is of no use, in a photo and in a frame of a folder."
    (tmp_path / 'frames').mkdir()
    for number, name in enumerate(('odd.png', 'frames/0.png')): Image.open(photo).save(tmp_path / name, icc_profile=b'no profile' * (number + 1) + bytes(number))
    from inpaint_nb import photos
    for name in ('odd.png', 'frames'):
        photos._complaints.clear(), photos._say_once.cache_clear()
        stereo_file(tmp_path / name, tmp_path / 'out', checkpoint_file='repeat', progress=False)
        assert f"{tmp_path / name}{'/0.png' if name == 'frames' else ''}: its colour profile is of no use" in capsys.readouterr().err


@pytest.mark.parametrize('low, high', [(0, 4), (-0.5, 0.5), (0, np.nan)])
def test_maps_of_a_clip_are_on_one_scale(tmp_path, films, low, high):
    (tmp_path / 'maps').mkdir()
    for number in range(14):
        depth = random_scene(number, size=(64, 96)).depth.numpy() * 0.9
        if number == 5: depth[..., :2], depth[..., 2:4] = low, high
        np.save(tmp_path / f'maps/{number:08}.npy', depth)
    for chosen in (dict(depth_file=tmp_path / 'maps'), dict(model_type=f"Files:{tmp_path / 'maps'}")):
        with pytest.raises(ValueError, match='00000005.npy spans .*: scale all depth maps of the clip together to 0..1'):
            stereo_clip(films / 'clip.mp4', tmp_path / 'a.mp4', **PLAIN, **chosen)
    assert [path.name for path in tmp_path.iterdir()] == ['maps']


def test_scale_begins_with_the_first_depth():
    good = torch.linspace(2, 4, 64).view(1, 1, 8, 8)
    for nothing in (torch.full_like(good, torch.nan), torch.full_like(good, 7.0), torch.full_like(good, torch.inf)):
        scale = RunningScale()
        for _ in range(5): assert torch.equal(scale(nothing), torch.zeros_like(good))
        assert torch.equal(scale(good), RunningScale()(good))
        scale(nothing)
        assert torch.equal(scale(good), RunningScale()(good))


@pytest.mark.parametrize('damage', ['size', 'text'])
def test_folder_with_a_bad_picture(tmp_path, damage):
    "It can be repaired, so nothing is written, and an earlier result stays."
    (tmp_path / 'frames').mkdir()
    for number in range(6): save_picture(random_scene(number, size=(32, 48)).image, tmp_path / f'frames/{number}.png')
    out, = stereo_clip(tmp_path / 'frames', tmp_path / 'a.mp4', **PLAIN)
    before = out.read_bytes()
    if damage == 'size': save_picture(torch.rand(1, 3, 40, 48), tmp_path / 'frames/3.png')
    else: (tmp_path / 'frames/3.png').write_text('hello')
    for name in ('a.mp4', 'b.mp4'):
        with pytest.raises(ValueError, match='3.png is'): stereo_clip(tmp_path / 'frames', tmp_path / name, **PLAIN)
    assert out.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ['a.mp4', 'frames']


def test_errors_of_the_writer_name_the_file(tmp_path, films, monkeypatch):
    clip = open_clip(films / 'clip.mp4')
    (tmp_path / 'out.mp4').write_bytes(b'old')
    def fail(*_): raise OSError(28, 'No space left on device')
    for where in ('os.fsync', 'os.replace'):
        with monkeypatch.context() as patched:
            patched.setattr(where, fail)
            with pytest.raises(OSError, match='could not write .*/out.mp4: No space left on device; the old file is as it was'): stereo_clip(clip.path, tmp_path / 'out.mp4', **PLAIN)
    with pytest.raises(OSError, match='could not write .*/nowhere/out.mp4: .*; nothing was written'):
        with ClipWriter(tmp_path / 'nowhere/out.mp4', clip) as writer: writer.write(torch.rand(1, 3, 32, 32))
    assert (tmp_path / 'out.mp4').read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


def test_full_disk(tmp_path):
    "A limit on the size of files stands for a full disk."
    write_film(tmp_path / 'long.mp4', rgb(5) * 3, sound=None)
    (tmp_path / 'out.mp4').write_bytes(b'old')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match='could not write .*/out.mp4: .*; the old file is as it was'): stereo_clip(tmp_path / 'long.mp4', tmp_path / 'out.mp4', crf=1, **PLAIN)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / 'out.mp4').read_bytes() == b'old' and not (tmp_path / '.out.mp4.tmp').exists()


@pytest.fixture(scope='module')
def bad_clips(films):
    write_film(films / 'cut.mp4', rgb(5, 5), sound='aac')
    data = (films / 'cut.mp4').read_bytes()
    (films / 'cut.mp4').write_bytes(data[:len(data) * 2 // 3])
    (films / 'empty.mp4').touch()
    (films / 'text.mp4').write_text('hello')
    (films / 'header cut.mp4').write_bytes((films / 'clip.mp4').read_bytes()[:4000])
    (films / 'nothing').mkdir()
    with av.open(str(films / 'sound.mp4'), 'w') as container:
        for _, packets in add_tracks(films / 'clip.mp4', container): container.mux(packets)
    return films


@pytest.mark.parametrize('name, status, says', [
    ('empty.mp4', 1, 'it is empty'), ('text.mp4', 1, 'text.mp4'), ('header cut.mp4', 1, 'header cut.mp4'), ('sound.mp4', 1, 'only sound'), ('nothing', 1, 'without pictures'),
    ('nowhere.mp4', 1, 'nowhere.mp4'), ('clip.mp4 --crf 52', 2, 'crf'), ('clip.mp4 --format sbs', 2, 'sbs'), ('clip.mp4 --divergence -1', 2, 'divergence'),
    ('clip.mp4 --depth-file nothing', 1, '0 depth maps'), ('clip.mp4 --checkpoint-file text.mp4', 1, 'text.mp4'), ('clip.mp4 -o clip.mp4', 2, 'the clip itself'), ('clip.mp4 -o a.avi', 2, '.mp4, .mkv, .mov')])
def test_bad_clip(tmp_path, bad_clips, name, status, says):
    "One line, the right status, nothing written, an old file as it was."
    (tmp_path / 'out.mp4').write_bytes(b'old')
    before = sorted(path.name for path in bad_clips.iterdir())
    file, *options = [name] if name == 'header cut.mp4' else name.split()
    done = run('inpaint_stereo', file, '-o', tmp_path / 'out.mp4', *options, cwd=bad_clips)
    errors = [line for line in done.stderr.splitlines() if 'no tag says how its colours' not in line]
    assert done.returncode == status and len(errors) == 1 and errors[0].startswith('error: ') and says in errors[0], done.stderr
    assert (tmp_path / 'out.mp4').read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1
    assert sorted(path.name for path in bad_clips.iterdir()) == before


def test_clip_that_was_broken_off(tmp_path, bad_clips):
    done = run('inpaint_stereo', bad_clips / 'cut.mp4', '-o', tmp_path / 'out.mp4')
    number = len(open_clip(tmp_path / 'out.mp4'))
    assert done.returncode == 0 and 5 < number < 28
    line = next(line for line in done.stderr.splitlines() if 'cut.mp4: ' in line and 'no tag says' not in line)
    assert 'error' not in line and str(number) in line
    (tmp_path / 'out.mp4').write_bytes(b'whole')
    again = run('inpaint_stereo', bad_clips / 'cut.mp4', '-o', tmp_path / 'out.mp4')
    assert again.returncode == 1 and 'give another name' in again.stderr and (tmp_path / 'out.mp4').read_bytes() == b'whole'


def test_damage_on_the_way_replaces_nothing(tmp_path, films, monkeypatch):
    "Only found when the frames are read: the earlier result stays, and none of several is written."
    clip = open_clip(films / 'clip.mp4')
    monkeypatch.setattr('inpaint_nb.clip.read_frames', lambda clip: list(clip.frames())[:9])
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/clip_mask.mp4').write_bytes(b'whole')
    with pytest.raises(FileExistsError, match='only 9 of 14 frames'): stereo_clip(clip.path, tmp_path / 'out', format='mask,left', **PLAIN)
    assert (tmp_path / 'out/clip_mask.mp4').read_bytes() == b'whole' and len(list((tmp_path / 'out').iterdir())) == 1
    out, = stereo_clip(clip.path, tmp_path / 'new.mp4', **PLAIN)
    assert len(open_clip(out)) == 9


def test_interrupted(tmp_path, films):
    "Ctrl-C in the middle: 130, one line, the old file as it was, nothing half."
    folder = tmp_path / 'out'
    folder.mkdir()
    (folder / 'out.mp4').write_bytes(b'old')
    line = [films / 'clip.mp4', '-o', folder / 'out.mp4', '--checkpoint-file', 'repeat']
    status, _, said = line_stopped('inpaint_stereo', line, folder, tmp_path / 'report', signal.SIGINT, 8)  # some frames are written
    assert status == 130 and said.splitlines()[-1].startswith('interrupted: ')
    assert (folder / 'out.mp4').read_bytes() == b'old' and len(list(folder.iterdir())) == 1


def test_no_encoder(tmp_path, films, monkeypatch):
    monkeypatch.setattr(av, 'codecs_available', {'mpeg4', 'aac'})
    with pytest.raises(RuntimeError, match='no encoder for libx264'): stereo_clip(films / 'clip.mp4', tmp_path / 'a.mp4', **PLAIN)
    assert not list(tmp_path.iterdir())


VIDEOS = sorted((SHARED / 'data/videos').glob('*.mp4'))

@pytest.mark.skipif(not VIDEOS, reason='the clips are not beside the checkout')
@pytest.mark.parametrize('path', [
    pytest.param(path, marks=[pytest.mark.long] * (number > 0)) for number, path in enumerate(VIDEOS)], ids=lambda path: path.stem)
def test_real_clips(tmp_path, path, monkeypatch):
    "The first eight frames, one eye made: the other one is the clip."
    clip = open_clip(path)
    monkeypatch.setattr('inpaint_nb.clip.open_clip', lambda *_: dataclasses.replace(clip, times=clip.times[:8]))
    out, = stereo_clip(path, tmp_path / 'a.mp4', 'repeat', view='right', crf=12, progress=False)
    after = open_clip(out)
    assert len(after) == 8 and np.abs(after.times - clip.times[:8]).max() < 0.002
    for number in (0, 7): assert np.abs(after[number][:, :clip.size[0]].astype(int) - clip[number]).mean() < 2.5


def test_metric_depth_is_bent_and_networks_follow(tmp_path, films):
    "Distances go through div_6, in photos and in clips; a network that answers late gets its pictures back in order."
    from inpaint_nb.clip import followed
    from inpaint_nb.stereo import find_depth
    from inpaint_nb.warp import get_mapper
    class Distances(Stretching): is_metric = True
    clip = open_clip(films / 'clip.mp4')
    frames = list(enumerate(clip.frames()))
    plain, bent = ([depth for _, depth in shot_depths(iter(frames), clip, model)] for model in (Stretching(), Distances()))
    for one, other in zip(plain, bent, strict=True): assert torch.equal(get_mapper('div_6')(one), other)
    image = random_scene(1, size=(48, 64)).image
    assert torch.equal(find_depth('a.png', image, model=Distances()), get_mapper('div_6')(find_depth('a.png', image, model=Stretching())))
    class Late(Stretching):
        batch_size = 5
    pictures = [torch.rand(1, 3, 8, 8) for _ in range(12)]
    for (picture, depth), given in zip(followed(iter(pictures), Late()), pictures, strict=True): assert picture is given and depth.shape == (1, 1, 8, 8)
