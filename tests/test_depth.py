"Depth from files of every kind, and the invented depth on real photos."
import hashlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import inpaint_nb.depth_models as depth_models
from inpaint_nb.depth import (
    DepthModel, DepthOptions, FileDepth, choose_device, depth_levels, depth_video_frames,
    normalise_depth, read_depth, write_depth
)
from inpaint_nb.depth_models import (
    DEPTH_MODELS, check_model_type, check_weights, create_depth_model, reachable
)
from inpaint_nb.depth_networks import AnyNetwork, ProNetwork, VideoNetwork, ZoeNetwork
from inpaint_nb.pseudo import Pseudo
from inpaint_nb.masks import disocclusion_mask, mask_closing
from inpaint_nb.scenes import random_clip, random_scene
from commands import ENV, run
from standins import NETWORKS, SOURCES, network_of, write_all, write_torch_hub, write_weights

PHOTOS = Path(__file__).parents[2] / 'shared' / 'data' / 'photos'
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason='no photos beside the checkout')


def load(path, short_side):
    "A photo as 1, 3, H, W."
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    scale = short_side / min(pixels.shape[:2])
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize('values, levels', [(np.uint16, 65535), (np.uint8, 255)])
def test_png_of_another_writer(tmp_path, values, levels):
    depth = np.random.default_rng(0).integers(0, levels + 1, (40, 60)).astype(values)
    cv2.imwrite(str(tmp_path / 'a.png'), depth)
    assert np.abs(read_depth(tmp_path / 'a.png')[0, 0].numpy() - depth / levels).max() < 1e-7


def test_png_for_another_reader(tmp_path):
    depth = torch.rand(1, 1, 40, 60)
    write_depth(depth, tmp_path / 'a.png')
    pixels = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16 and pixels.shape == (40, 60)
    assert np.abs(pixels / 65535 - depth[0, 0].numpy()).max() <= .5 / 65535 + 1e-7


@pytest.mark.parametrize('shape', [(6, 8), (1, 6, 8), (1, 1, 6, 8), (6, 8, 1)])
@pytest.mark.parametrize('kind', [np.float16, np.float32, np.float64])
def test_npy_shapes_and_types(tmp_path, shape, kind):
    depth = np.random.default_rng(0).random(48).astype(kind).reshape(shape)
    np.save(tmp_path / 'a.npy', depth)
    read = read_depth(tmp_path / 'a.npy')
    assert read.dtype == torch.float32 and torch.equal(read, torch.from_numpy(depth.astype(np.float32)).reshape(1, 1, 6, 8))


def test_npy_of_any_scale_is_normalised(tmp_path):
    for depth in (np.arange(48).reshape(6, 8), np.linspace(-3, 250, 48).reshape(6, 8), 1e30 * np.eye(7)):
        np.save(tmp_path / 'a.npy', depth)
        read = read_depth(tmp_path / 'a.npy')
        assert read.min() == 0 and read.max() == 1
        assert (read[0, 0].flatten().argsort(stable=True) == torch.from_numpy(depth.ravel().argsort(kind='stable'))).all()


@pytest.mark.parametrize('values, levels', [(np.uint16, 65535), (np.uint8, 255)])
@pytest.mark.parametrize('channels', [3, 4])
def test_png_of_equal_channels(tmp_path, values, levels, channels):
    depth = np.random.default_rng(0).integers(0, levels + 1, (40, 60)).astype(values)
    picture = np.repeat(depth[..., None], channels, 2)
    picture[..., 3:] = levels
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    assert np.abs(read_depth(tmp_path / 'a.png')[0, 0].numpy() - depth / levels).max() < 1e-7
    Image.fromarray((depth >> (8 if levels > 255 else 0)).astype(np.uint8)).convert('P').save(tmp_path / 'p.png')
    assert np.abs(read_depth(tmp_path / 'p.png')[0, 0].numpy() - depth / levels).max() < 1 / 255
    picture[..., 1] ^= 1
    cv2.imwrite(str(tmp_path / 'b.png'), picture)
    with pytest.raises(ValueError, match=r'b\.png: it is a picture in colours that differ'): read_depth(tmp_path / 'b.png')


@pytest.mark.parametrize('order', ['<', '>'])
def test_floats_of_midas(tmp_path, order):
    depth = np.random.default_rng(0).random((6, 8), dtype=np.float32) * 40 - 3
    (tmp_path / 'a.pfm').write_bytes(b'Pf\n8 6\n%s\n' % (b'-1' if order == '<' else b'1') + depth[::-1].astype(f'{order}f4').tobytes())
    np.testing.assert_array_equal(depth_levels(tmp_path / 'a.pfm'), depth)
    np.testing.assert_array_equal(read_depth(tmp_path / 'a.pfm')[0, 0], normalise_depth(depth))


def test_archives(tmp_path):
    depth = np.random.default_rng(0).random((1, 6, 8))
    for number, arrays in enumerate((dict(depth=depth, focal=np.float32(3)), dict(anything=depth[0]), dict(depth=1 / (depth + .1), disparity=depth))):
        (np.savez if number else np.savez_compressed)(tmp_path / f'{number}.npz', **arrays)
        np.testing.assert_allclose(read_depth(tmp_path / f'{number}.npz')[0, 0], depth[0], atol=1e-6)


def depth_video(path, codec, pixels, frames=6, **options):
    "A grey clip in which frame n has the value (n + 1) / 8, brighter to the right; gives the maps."
    maps = [np.tile(np.linspace(0, (number + 1) / 8, 64, dtype=np.float32), (48, 1)) for number in range(frames)]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for one in maps:
            grey = (one * 65535).round().astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(grey, format='gray16le') if pixels == 'gray16le' else av.VideoFrame.from_ndarray(np.dstack([grey >> 8] * 3).astype(np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return maps


@pytest.mark.parametrize('file, codec, pixels, options', [('walk.mp4', 'libx264', 'yuv420p', {'crf': '4'}), ('walk_depth.mkv', 'ffv1', 'gray16le', {}),
                                                          ('walk_depth.webm', 'libvpx-vp9', 'yuv420p', {'crf': '4'}), ('walk.avi', 'mjpeg', 'yuvj420p', {})])
def test_depth_videos(tmp_path, file, codec, pixels, options):
    (tmp_path / 'films').mkdir(); (tmp_path / 'maps').mkdir()
    maps = depth_video(tmp_path / 'maps' / file, codec, pixels, **options)
    model = FileDepth(tmp_path / 'maps')
    names = [tmp_path / f'films/walk/{number:08}.png' for number in range(7)]
    for number in (0, 1, 2, 5, 5, 1, 4):  # there and back
        depth = model.infer(torch.zeros(1, 3, 96, 128), [names[number]])[0, 0].numpy()
        assert np.abs(depth - maps[number]).max() < (1e-4 if codec == 'ffv1' else .03)
    with pytest.raises(ValueError, match='it ends after 6 frames'): model.infer(torch.zeros(1, 3, 96, 128), [names[6]])
    assert len(depth_video_frames(tmp_path / 'maps' / file)) == 6
    assert model.origin(names[:1]) == model.origin(names[1:2]) != ''
    depth_video(tmp_path / 'films/walk_depth.mp4', 'libx264', 'yuv420p', frames=3)
    assert FileDepth().find(names[2]) == tmp_path / 'films/walk_depth.mp4/00000002'
    depth_video(tmp_path / 'maps/walk.mov', 'libx264', 'yuv420p', frames=3)
    with pytest.raises(ValueError, match='two depth videos'): model.find(names[0])


def test_depth_video_in_threads(tmp_path):
    maps = depth_video(tmp_path / 'walk_depth.mkv', 'ffv1', 'gray16le', frames=8)
    frames = depth_video_frames(tmp_path / 'walk_depth.mkv')
    with ThreadPoolExecutor(4) as pool: found = list(pool.map(read_depth, frames * 4))
    for number, depth in enumerate(found): assert np.abs(depth[0, 0].numpy() - maps[number % 8]).max() < 1e-4


def test_no_depth_video(tmp_path):
    (tmp_path / 'text.mp4').write_text('hello')
    with av.open(str(tmp_path / 'colour.mkv'), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv444p'
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), (250, 30, 90), np.uint8), format='rgb24')) + stream.encode())
    with pytest.raises(ValueError, match='no depth video'): depth_video_frames(tmp_path / 'text.mp4')
    with pytest.raises(ValueError, match='colours that differ'): read_depth(tmp_path / 'colour.mkv/00000000')
    with pytest.raises(ValueError, match='cannot read the depth map'): read_depth(tmp_path / 'text.mp4/00000000')


def test_normalise_gaps():
    assert normalise_depth(np.full((3, 3), np.nan)).tolist() == [[0] * 3] * 3
    assert normalise_depth(np.array([np.nan, -np.inf, 4, 2, np.inf])).tolist() == [0, 0, 1, 0, 1]


def broken_files(folder):
    "Files that are no depth map, and a word of the message."
    write_depth(torch.rand(1, 1, 64, 64), folder / 'good.png')
    data = (folder / 'good.png').read_bytes()
    (folder / 'cut.png').write_bytes(data[:len(data) // 2])
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.png').write_text('hello')
    Image.new('RGB', (9, 9), 'red').save(folder / 'colour.png')
    np.savez(folder / 'two.npz', left=np.zeros((3, 4)), right=np.zeros((3, 4)))
    np.savez(folder / 'nothing.npz')
    (folder / 'text.npz').write_text('hello')
    (folder / 'zip.npz').write_bytes(b'PK\x03\x04 but not for long')
    (folder / 'cut.pfm').write_bytes(b'Pf\n9 9\n-1.0\n1234')
    (folder / 'colour.pfm').write_bytes(b'PF\n1 1\n-1.0\n' + bytes(12))
    np.save(folder / 'cube.npy', np.zeros((3, 4, 5)))
    np.save(folder / 'objects.npy', np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / 'words.npy', np.array([['a', 'b']]))
    np.save(folder / 'none.npy', np.zeros((0, 4)))
    (folder / 'text.npy').write_text('hello')
    (folder / 'map.exr').write_text('hello')
    return 'cut.png empty.png text.png colour.png cube.npy objects.npy words.npy none.npy text.npy map.exr two.npz nothing.npz text.npz zip.npz cut.pfm colour.pfm'.split()


def test_broken_files_are_named(tmp_path):
    for name in broken_files(tmp_path):
        with pytest.raises(ValueError, match=name.replace('.', r'\.')) as caught: read_depth(tmp_path / name)
        assert '\n' not in str(caught.value)


def test_files_in_both_layouts(tmp_path):
    for split, value in (('train', .25), ('eval', .75)):
        (tmp_path / 'photos/depth' / split).mkdir(parents=True)
        write_depth(torch.full((4, 6), value), tmp_path / 'photos/depth' / split / 'a.b.png')
    (tmp_path / 'export/depth').mkdir(parents=True)
    np.save(tmp_path / 'export/depth/x.npy', np.full((4, 6), .5))
    model, image = create_depth_model('Files'), torch.zeros(1, 3, 8, 12)
    for path, value in (('photos/train/a.b.jpg', .25), ('photos/eval/a.b.jpg', .75), ('export/rgb/x.png', .5)):
        assert torch.allclose(model.infer(image, [tmp_path / path]), torch.tensor(value), atol=1e-4)
    both = model.infer(image.repeat(2, 1, 1, 1), [str(tmp_path / f'photos/{split}/a.b.jpg') for split in ('eval', 'train')])
    assert torch.allclose(both[:, 0, 0, 0], torch.tensor([.75, .25]), atol=1e-4)


def test_registry_agrees_with_the_models(tmp_path):
    for name, info in DEPTH_MODELS.items():
        if info.weights: continue
        model = create_depth_model(f'Files:{tmp_path}' if name == 'Files' else name)
        assert (model.name, model.is_metric, model.needs_paths, model.composes) == (name, info.is_metric, info.model.needs_paths, info.model.composes)


def test_layers_has_no_depth_of_a_given_picture():
    model, images = create_depth_model('Layers'), torch.zeros(2, 3, 8, 8)
    for ask in (model.infer, model.infer_clip, lambda images: next(model.follow(iter(images)))):
        with pytest.raises(ValueError, match='choose another depth model'): ask(images)
    for wrong, reason in ((dict(resolution=8), 'leave the resolution out'), (dict(tta=True), 'leave `tta` out')):
        with pytest.raises(ValueError, match=reason): create_depth_model('Layers', **wrong)
    with pytest.raises(ValueError, match='takes nothing after its name'): create_depth_model('Layers:x')
    check_model_type('Layers'), check_weights('Layers')


def test_pseudo_is_a_function_of_picture_and_seed():
    images = torch.cat([random_scene(seed, (200, 300)).image for seed in range(4)])
    together = Pseudo(5).infer(images)
    torch.manual_seed(1), np.random.seed(1), cv2.setRNGSeed(1)
    for order in ([3, 1, 0, 2], [2], [1, 1]):
        assert torch.equal(Pseudo(5).infer(images[order]), together[order])
    assert all(not torch.equal(Pseudo(seed).infer(images[:1]), together[:1]) for seed in range(5))


def digest_of_pseudo():
    return hashlib.sha256(b''.join(Pseudo(2).infer(random_scene(seed, (500, 800)).image).numpy().tobytes() for seed in range(3))).hexdigest()


def say_pseudo(words: list[str]):
    torch.set_num_threads(int(words[0])); cv2.setNumThreads(int(words[0]))
    print(digest_of_pseudo())


def test_pseudo_in_another_process_with_other_threads():
    there = run(say_pseudo, '3')
    assert there.returncode == 0 and there.stdout == f'{digest_of_pseudo()}\n', there


@pytest.mark.parametrize('height, width', [(1, 1), (1, 40), (3, 3), (5, 5), (7, 1), (8, 8), (16, 17), (30, 900), (900, 30), (400, 401)])
def test_pseudo_at_any_size(height, width):
    for image in (torch.rand(1, 3, height, width), torch.zeros(1, 3, height, width), torch.rand(1, 1, height, width).expand(1, 3, height, width)):
        depth = Pseudo().infer(image)
        assert depth.shape[:2] == (1, 1) and depth.dtype == torch.float32 and depth.isfinite().all()
        assert 0 <= depth.min() and depth.max() <= 1


def test_pseudo_resolution():
    image = random_scene(0, (600, 900)).image
    assert Pseudo().infer(image).shape == (1, 1, 392, 588)
    assert Pseudo(resolution=100).infer(image).shape == (1, 1, 100, 150)
    assert Pseudo(resolution=1000).infer(image).shape == (1, 1, 600, 900)
    assert Pseudo().infer(image.half()).dtype == torch.float32


def test_pseudo_is_fast_enough():
    "Four pictures in a second where a sort of as many numbers takes 0.21 s: processor time, the least of several."
    image, noise, times = random_scene(3, (1080, 1920)).image, torch.rand(1080 * 1920), {'Pseudo': [], 'sort': []}
    for seed in range(5):
        for name, work in {'Pseudo': lambda: Pseudo(seed).infer(image), 'sort': lambda: torch.argsort(noise)}.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    assert min(times['Pseudo']) < 1.2 * min(times['sort'])


@needs_photos
def test_pseudo_opens_holes_at_edges_of_photos():
    "On photos at training size the mask has a useful share, and depth steps sit on strong edges."
    shares, ratios = {2: [], 4: []}, []
    for path in sorted(PHOTOS.glob('*/*'))[::4]:
        image = load(path, 720)
        depth = F.interpolate(Pseudo().infer(image), image.shape[-2:], mode='bilinear', align_corners=True)
        for divergence in shares: shares[divergence].append((mask_closing((disocclusion_mask(depth, divergence, .5) > 0).float())).mean().item())
        across = lambda values: F.max_pool2d((values[..., 1:] - values[..., :-1]).abs().amax(1, keepdim=True), 5, 1, 2)
        steep, edges = across(depth) > .05, across(image)
        ratios.append((edges[steep].median() / edges.median()).item())
    assert .003 < min(shares[2]) and max(shares[4]) < .06
    assert .005 < np.median(shares[2]) and .012 < np.median(shares[4])
    assert np.median(ratios) > 2


# Clips

class Bright(DepthModel):
    "Brightness, with a log of the batches."
    def __init__(self): self.batches = []

    def estimate(self, images, paths=None):
        self.batches.append((len(images), paths))
        return images.mean(1, keepdim=True)


def test_one_scale_for_a_clip():
    frames, model = torch.rand(5, 3, 20, 30) * torch.linspace(.2, 1, 5).view(5, 1, 1, 1), Bright()
    model.batch_size = 2
    depth = model.infer_clip(iter(frames), [f'{t}.png' for t in range(5)])
    assert model.batches == [(2, ['0.png', '1.png']), (2, ['2.png', '3.png']), (1, ['4.png'])]
    bright = frames.mean(1, keepdim=True)
    assert torch.allclose(depth, (bright - bright.min()) / (bright.max() - bright.min()), atol=1e-6)
    alone = model.infer(frames)
    assert (alone.amin((1, 2, 3)) == 0).all() and (alone.amax((1, 2, 3)) == 1).all()


def clip_of(seed, frames=9, size=(200, 300)): return torch.cat([scene.image for scene in random_clip(seed, frames, size)])


@pytest.mark.parametrize('seed', range(3))
def test_invented_depth_keeps_still_in_a_still_clip(seed):
    frames = random_scene(seed, (200, 300)).image.repeat(7, 1, 1, 1)
    depth = Pseudo().infer_clip(frames)
    assert (depth.diff(dim=0).abs() > .02).float().mean() < .002


@pytest.mark.parametrize('seed', range(4))
def test_invented_depth_moves_with_a_pan(seed):
    "The window slides four pixels a frame; depth slides along."
    wide = random_scene(seed, (200, 420)).image
    frames = torch.cat([wide[..., 4 * t:4 * t + 300] for t in range(9)])
    depth = Pseudo().infer_clip(frames)
    gone, stayed = (depth[1:, ..., :-4] - depth[:-1, ..., 4:]).abs().mean(), depth.diff(dim=0).abs().mean()
    assert gone < .3 * stayed


def test_invented_clip_is_repeatable():
    frames = clip_of(3)
    once = Pseudo(2).infer_clip(frames)
    assert once.shape == (9, 1, 200, 300) and (once.min(), once.max()) == (0, 1)
    assert torch.equal(Pseudo(2).infer_clip(list(frames)), once)
    assert not torch.equal(Pseudo(3).infer_clip(frames), once)
    assert Pseudo(2, resolution=100).infer_clip(frames).shape == (9, 1, 100, 150)
    assert torch.equal(Pseudo(2).infer_clip(frames[:1]), Pseudo(2).infer(frames[:1]))


def test_a_film_is_followed_as_it_comes():
    "No more frames are taken than five ahead; the depth keeps to the things."
    taken = 0
    def film():
        nonlocal taken
        for frame in clip_of(4, 24):
            taken += 1
            yield frame
    depths = []
    for number, depth in enumerate(Pseudo().follow(film())):
        assert taken <= number + 5 and depth.shape == (1, 1, 200, 300) and 0 <= depth.min() and depth.max() <= 1
        depths.append(depth)
    assert len(depths) == 24 and torch.cat(depths).diff(dim=0).abs().mean() < .04
    assert list(Pseudo().follow([])) == []
    with pytest.raises(ValueError, match='B, 3, H, W'): next(Pseudo().follow([torch.zeros(8, 8)]))


def test_scale_of_a_followed_film_adapts_slowly():
    frames = [torch.rand(3, 20, 30) * (.5 if t < 5 else 1) for t in range(60)]
    tops = [depth.max().item() for depth in Bright().follow(frames)]
    jump = [depth.mean().item() for depth in Bright().follow(frames)]
    assert max(tops) <= 1 and jump[5] > 1.3 * jump[4] and abs(jump[59] - jump[4]) < .1


def test_followed_scale_begins_with_the_first_frame_that_has_one():
    "A black frame, and one of gaps, before the picture comes: the scale is not taken from them."
    frames = [torch.zeros(3, 20, 30), torch.full((3, 20, 30), torch.nan), torch.rand(3, 20, 30)]
    first, second, third = Bright().follow(frames)
    assert not first.any() and not second.any() and (third.min(), third.max()) == (0, 1)
    assert torch.equal(third, next(Bright().follow(frames[2:])))


def test_running_scale_in_batches_is_the_same():
    frames, model = torch.rand(7, 3, 20, 30), Bright()
    one_by_one = torch.cat(list(model.follow(frames)))
    model.batch_size = 3
    assert torch.equal(torch.cat(list(model.follow(frames))), one_by_one)


# Networks

@pytest.fixture(scope='module')
def standins(tmp_path_factory):
    "Stand-in weights of every name, in all places where they can lie."
    folder = tmp_path_factory.mktemp('standins')
    return folder, write_all(folder)


PLACES = {480: random_scene(5, (480, 640)).image, 360: random_scene(6, (360, 640)).image}
SMALL = dict(ZoeD_N=160, ZoeD_K=160, ZoeD_NK=160, DepthPro=256, DepthPro_S=192)


@pytest.mark.parametrize('name', NETWORKS)
def test_every_network(name, standins):
    "Builds, loads, and gives finite near-is-one depth for one picture and for three; the numbers do not depend on the batch."
    model = create_depth_model(name, SMALL.get(name, 98), weights=standins[0]/'weights', trust_remote_code=True, batch_size=3)
    info = DEPTH_MODELS[name]
    assert (model.name, model.is_metric, model.licence, model.needs_paths) == (name, info.is_metric, info.licence, False)
    for image in PLACES.values():
        alone = model.infer(image)
        assert alone.shape[:2] == (1, 1) and alone.dtype == torch.float32 and alone.isfinite().all() and (alone.min(), alone.max()) == (0, 1) and alone.std() > .05
        assert abs(alone.shape[-1] / alone.shape[-2] / (image.shape[-1] / image.shape[-2]) - 1) < .11
        three = model.infer(torch.cat([image, image.flip(-1), image]))
        assert three.shape == (3, *alone.shape[1:]) and torch.allclose(three[::2], alone, atol=1e-2) and not torch.allclose(three[1], alone[0], atol=.05)


@pytest.mark.parametrize('name, multiple, resolution', [('Any_S', 14, 392), ('Any_V2_K_L', 14, 392), ('ZoeD_N', 32, 384), ('ZoeD_Any_N', 14, 392), ('VDA_S', 14, 392), ('Any_V3_Mono', 14, 392), ('DepthPro', 64, 1536), ('DepthPro_S', 64, 1024)])
def test_resolutions(name, multiple, resolution, standins):
    make = lambda **options: create_depth_model(name, weights=standins[0]/'weights', trust_remote_code=True, **options)
    assert DEPTH_MODELS[name].resolution == make().resolution == resolution
    assert make(resolution=500).resolution == -(-500 // multiple) * multiple


def test_depth_pro_small_is_depth_pro_at_another_size(standins):
    large, small = (create_depth_model(name, weights=standins[0]/'weights') for name in ('DepthPro', 'DepthPro_S'))
    assert large.network.config.patch_size == 384 and small.network.config.patch_size == 256
    for one, other in zip(large.network.parameters(), small.network.parameters()): assert torch.equal(one, other)
    assert small.infer(PLACES[480]).shape == (1, 1, 480, 640)


def test_distances_of_the_third_depth_anything(standins):
    "iw3's rule: medians become 1, what is beyond 98 of 100 and the sky share one distance, 1 / (0.1 + distance) is near."
    distance = torch.rand(2, 1, 28, 42, generator=torch.Generator().manual_seed(0)) * torch.tensor([3., 300.]).view(2, 1, 1, 1)
    sky = (torch.rand(2, 1, 28, 42, generator=torch.Generator().manual_seed(1)) > .8).float()
    model = create_depth_model('Any_V3_Mono', weights=standins[0]/'weights', trust_remote_code=True)
    near = model.read(dict(depth=distance, sky=sky), 28, 42)
    for one, far, found in zip(distance, sky, near):
        scaled = one.double() / one.double().median()
        farthest = np.quantile(scaled.numpy(), .98)
        expected = 1 / (.1 + np.where((far > .3).numpy(), farthest, np.minimum(scaled.numpy(), farthest)))
        assert np.abs(found.numpy() - expected).max() < 1e-3
    depth = model.infer(PLACES[480])
    assert (depth[..., :14, :] == 0).all() and depth.std() > .05
    twice = create_depth_model('Any_V3_Mono', weights=standins[0]/'weights', trust_remote_code=True, tta=True)
    assert not torch.allclose(twice.infer(PLACES[480]), depth, atol=.01)


@pytest.mark.parametrize('name, instead', [('Any_V3_Giant', 'Any_V3_Mono'), ('Any_V3_Mono_01', 'Any_V3_Mono'), ('any_v3_large', 'Any_V3_Mono'), ('VDA_Stream_S', 'VDA_S'), ('VDA_Metric_L', 'VDA_S')])
def test_names_of_newer_versions(name, instead):
    with pytest.raises(ValueError, match=f'^{name} of newer versions of iw3 is not here: .* give Files:FOLDER, or choose .*{instead}'): create_depth_model(name)
    with pytest.raises(ValueError, match='is not here'): check_model_type(name)


def test_no_depth_to_time_the_rest():
    "iw3's NULL: brightness, squeezed into a square, near things grown as a network's are."
    image = random_scene(5, (120, 180)).image
    model = create_depth_model('NULL')
    assert torch.equal(model.infer(image), torch.stack([torch.from_numpy(normalise_depth(torch.nn.functional.interpolate(image, (392, 392), mode='bilinear').mean(1).numpy()))]))
    assert create_depth_model('NULL', 100).infer(image).shape == (1, 1, 100, 100)
    assert create_depth_model('NULL', edge_dilation=2).infer(image).mean() > model.infer(image).mean()
    assert not create_depth_model('NULL').infer(torch.zeros(1, 3, 20, 30)).any()
    with pytest.raises(ValueError, match='leave `tta` out'): create_depth_model('NULL', tta=True)
    with pytest.raises(ValueError, match="nothing after its name, but got '3'"): create_depth_model('NULL:3')


def say_names(names: list[str]):
    for name in names: print(create_depth_model(name).name)


def test_the_usual_caches(standins):
    "HF_HOME, HF_HUB_OFFLINE and TORCH_HOME are respected; only remote programs ask for more; the licence is said once."
    done = run(say_names, 'Any_V2_B', 'Any_V2_B', 'Distill_Any_B', 'ZoeD_Any_N', env={'INPAINT_TRUST_REMOTE_CODE': '1'} | standins[1])
    assert done.stdout.split() == ['Any_V2_B', 'Any_V2_B', 'Distill_Any_B', 'ZoeD_Any_N'], done.stderr
    assert done.stderr.count('CC-BY-NC-4.0; no commercial use') == 1 and done.stderr.count('\n') == 1
    with pytest.raises(ValueError, match='program of github.com/nagadomi/Depth-Anything_iw3: .* allow it with `trust_remote_code`'):
        create_depth_model('ZoeD_Any_N', weights=standins[0]/'weights')


@pytest.mark.parametrize('name', ['Any_B', 'Any_V2_N_S', 'Distill_Any_B', 'ZoeD_NK', 'DepthPro_S', 'ZoeD_Any_K', 'VDA_S', 'Any_V3_Mono'])
def test_missing_weights(name, tmp_path, monkeypatch):
    "One line, soon: which file, how to get it, what works without."
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'hub'))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path/'torch'))
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'https://nobody.invalid')
    start, file = time.monotonic(), getattr(SOURCES[name], 'files', ('the program of',))[-1]
    with pytest.raises(FileNotFoundError, match=f'{name} needs {file}') as caught: create_depth_model(name, trust_remote_code=True)
    assert time.monotonic() - start < 120 and '\n' not in str(caught.value)
    assert all(word in str(caught.value) for word in (str(SOURCES[name]), str(tmp_path), 'Pseudo and Files:FOLDER work without'))


def test_missing_checkpoint_of_a_remote_program(tmp_path):
    write_torch_hub(tmp_path, ['ZoeD_Any_N'])
    (tmp_path/'checkpoints'/SOURCES['ZoeD_Any_N'].checkpoint).unlink()
    with pytest.raises(FileNotFoundError, match='ZoeD_Any_N needs huggingface.co/.*depth_anything_metric_depth_indoor.pt, which .* put it there as checkpoints/depth_anything_metric_depth_indoor.pt'):
        create_depth_model('ZoeD_Any_N', weights=tmp_path, trust_remote_code=True)


def test_the_checkpoint_of_a_remote_program_is_fetched(tmp_path, monkeypatch):
    "iw3's program does that for VDA_S only; nothing comes without permission, and nothing half."
    monkeypatch.setattr('inpaint_nb.depth_models.reachable', lambda address: True)
    monkeypatch.delenv('INPAINT_TRUST_REMOTE_CODE', raising=False)
    write_torch_hub(tmp_path, ['VDA_L'])
    source, here = SOURCES['VDA_L'], tmp_path/'checkpoints'/SOURCES['VDA_L'].checkpoint
    here.rename(tmp_path/'server.pth')
    row, far = DEPTH_MODELS['VDA_L'], replace(source, address=(tmp_path/'server.pth').as_uri())
    with pytest.raises(ValueError, match='`trust_remote_code`'): far.open(row, DepthOptions(weights=tmp_path))
    assert not here.exists()
    with pytest.raises(OSError, match='^VDA_L: cannot download .*nothing.pth: ') as caught:
        replace(far, address=(tmp_path/'nothing.pth').as_uri()).open(row, DepthOptions(weights=tmp_path, trust_remote_code=True))
    assert not list(here.parent.iterdir()) and '\n' not in str(caught.value)
    far.open(row, DepthOptions(weights=tmp_path, trust_remote_code=True))
    assert here.read_bytes() == (tmp_path/'server.pth').read_bytes() and len(list(here.parent.iterdir())) == 1
    here.write_text('hello')
    with pytest.raises(ValueError, match='VDA_L: .* it is damaged, or holds something else than named tensors$'): far.open(row, DepthOptions(weights=tmp_path, trust_remote_code=True))


@pytest.mark.parametrize('name', NETWORKS)
def test_weights_are_found_without_loading_them(name, standins, tmp_path, monkeypatch):
    folder = standins[0]
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(folder/'hf'/'hub'))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(folder/'torch'/'hub'))
    monkeypatch.setattr('inpaint_nb.depth_models.urlopen', lambda *given, **more: pytest.fail('asks the network'))
    with monkeypatch.context() as patch:
        patch.setattr('torch.load', lambda *given, **more: pytest.fail('loads them'))
        patch.setattr('safetensors.torch.load_file', lambda *given, **more: pytest.fail('loads them'))
        seconds = []
        for _ in range(3):
            start = time.process_time()
            check_weights(name), check_weights(name, folder/'weights')
            seconds.append(time.process_time() - start)
    assert min(seconds) < .2
    monkeypatch.setattr('inpaint_nb.depth_models.reachable', lambda address: False)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    errors = []
    for ask in (check_weights, lambda name, weights=None: create_depth_model(name, weights=weights, trust_remote_code=True)):
        for weights in (None, tmp_path/'nowhere'):
            with pytest.raises(FileNotFoundError) as caught: ask(name, weights)
            errors.append(str(caught.value))
    assert errors[:2] == errors[2:] and not any('\n' in error for error in errors)
    monkeypatch.setattr('inpaint_nb.depth_models.reachable', lambda address: True)
    check_weights(name)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def fresh(standins):
    "What a Python says that has loaded nothing before."
    code = ("from inpaint_nb.depth import DEPTH_MODELS, create_depth_model\n"
            "print(create_depth_model('Pseudo').name, len(DEPTH_MODELS) > 30)\n"
            "import sys, time; from inpaint_nb.depth_models import check_weights\n"
            "start = time.process_time()\n"
            "for name in ('Any_S', 'ZoeD_N', 'VDA_S', 'Pseudo', 'Files:x', 'nonsense'): check_weights(name)\n"
            "print(time.process_time() - start < 1, {'transformers', 'safetensors'} & set(sys.modules))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV | standins[1])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_look_for_weights_loads_nothing(fresh): assert fresh[1] == 'True set()'


def test_a_server_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr('inpaint_nb.depth_models.urlopen', lambda request, timeout: asked.append(request.full_url) or SimpleNamespace(close=lambda: None))
    monkeypatch.setattr('inpaint_nb.depth_models.time.monotonic', lambda: 7.)
    for address in ('https://one.invalid/a', 'https://one.invalid/b?c', 'https://two.invalid', 'https://one.invalid'): assert reachable(address)
    assert asked == ['https://one.invalid', 'https://two.invalid']
    monkeypatch.setattr('inpaint_nb.depth_models.time.monotonic', lambda: 67.)
    assert reachable('https://one.invalid/a') and len(asked) == 3


def test_a_server_that_hangs(monkeypatch):
    "Name servers can be slower than any timeout of a socket."
    def hang(request, timeout):
        time.sleep(30)
        raise OSError('no answer')
    monkeypatch.setattr('inpaint_nb.depth_models.urlopen', hang)
    start = time.monotonic()
    assert not reachable('https://huggingface.co', seconds=.3) and time.monotonic() - start < 20


def test_damaged_weights_are_named(standins, tmp_path):
    folder = write_weights('Any_S', tmp_path/'Any_S')
    create = lambda name='Any_S': create_depth_model(name, weights=folder)
    for name, kind in (('ZoeD_N', 'kind depth_anything, but ZoeD_N is of kind zoedepth'), ('Any_V2_N_S', 'network that is relative, but Any_V2_N_S is metric')):
        with pytest.raises(ValueError, match=kind): create(name)
    weights = (folder/'model.safetensors').read_bytes()
    for damage in (weights[:len(weights) // 2], b'', b'hello'):
        (folder/'model.safetensors').write_bytes(damage)
        with pytest.raises(ValueError, match='Any_S') as caught: create()
        assert '\n' not in str(caught.value)
    from safetensors.torch import load, save_file
    state = load(weights)
    lacking = {name: values for name, values in state.items() if not name.startswith('head.conv1')}
    save_file(lacking, folder/'model.safetensors')
    with pytest.raises(ValueError, match='lacks 2 tensors of Any_S, for example head.conv1.bias'): create()
    for damage in ('', '{', '[]', '{"model_type": "bert"}'):
        (folder/'config.json').write_text(damage)
        with pytest.raises(ValueError, match='Any_S') as caught: create()
        assert '\n' not in str(caught.value)
    (folder/'model.pth').write_text('hello')
    with pytest.raises(ValueError, match='model.pth does not hold the weights of Any_S: it is damaged, or holds something else than named tensors$'): create_depth_model('Any_S', weights=folder/'model.pth')
    with pytest.raises(FileNotFoundError, match='no weights of Any_S'): create_depth_model('Any_S', weights=tmp_path/'nowhere')
    with pytest.raises(ValueError, match='single file'): create_depth_model('ZoeD_N', weights=folder/'model.pth')


@pytest.mark.parametrize('holds, name, message', [
    ('Any_V2_S', 'Any_S', 'of Depth Anything 2, but Any_S is of Depth Anything 1'), ('Any_S', 'Any_V2_S', 'of Depth Anything 1, but Any_V2_S is of Depth Anything 2'),
    ('Any_V2_K_S', 'Any_V2_N_S', 'for roads, but Any_V2_N_S is for rooms'), ('Any_V2_N', 'Any_V2_K', 'for rooms, but Any_V2_K is for roads'),
    ('Any_V2_S', 'Any_V2_N', 'relative, but Any_V2_N is metric'), ('Any_V2_K', 'Distill_Any_L', 'metric, but Distill_Any_L is relative'),
    ('ZoeD_NK', 'ZoeD_N', 'of two heads, but ZoeD_N is of one head'), ('ZoeD_K', 'ZoeD_NK', 'of one head, but ZoeD_NK is of two heads')])
def test_weights_of_another_name(standins, holds, name, message):
    with pytest.raises(ValueError, match=f'{holds} holds a network that is {message}$'): create_depth_model(name, weights=standins[0]/'weights'/holds)


@pytest.mark.parametrize('width, layers, size, used', [(384, 12, 'small', [3, 6, 9, 12]), (768, 12, 'base', [3, 6, 9, 12]), (1024, 24, 'large', [5, 12, 18, 24]), (64, 12, None, [3, 6, 9, 12])])
def test_what_the_published_configurations_show(width, layers, size, used):
    from inpaint_nb.depth_models import _shown
    from transformers import DepthAnythingConfig, Dinov2Config
    for version, indices in ((2, used), (1, list(range(layers - 3, layers + 1)))):
        backbone = Dinov2Config(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, out_indices=indices)
        shown = _shown(DepthAnythingConfig(backbone_config=backbone))
        assert shown.get('size') == size and shown['version'] == f'of Depth Anything {version}' and shown['depth'] == 'relative' and 'place' not in shown


def test_another_size_is_refused_in_both_layouts(tmp_path, monkeypatch):
    "As if 64 were the width of the base networks."
    from safetensors.torch import load_file
    from standins import original_names
    monkeypatch.setitem(depth_models._WIDTHS, 64, 'base')
    folder = write_weights('Any_V2_B', tmp_path/'mine')
    torch.save(original_names(load_file(folder/'model.safetensors')), tmp_path/'mine.pth')
    for weights in (folder, folder/'model.safetensors', tmp_path/'mine.pth'):
        create_depth_model('Any_V2_B', weights=weights)
        with pytest.raises(ValueError, match='mine.* holds a network that is base, but Any_V2_S is small'): create_depth_model('Any_V2_S', weights=weights)


@pytest.mark.parametrize('file, good, bad', [
    ('depth_anything_vits14.pth', ['Any_B'], ['Any_V2_B', 'Any_V2_N_B']), ('depth_anything_v2_vitb.pth', ['Any_V2_B', 'Distill_Any_B'], ['Any_B', 'Any_V2_K_B']),
    ('depth_anything_v2_metric_hypersim_vitb.pth', ['Any_V2_N_B'], ['Any_V2_B', 'Any_V2_K_B']), ('depth_anything_v2_metric_vkitti_vitl.pth', ['Any_V2_K'], ['Any_V2_N', 'Any_L']),
    ('metric.pth', ['Any_B', 'Any_V2_N_B'], [])])
def test_names_that_authors_gave_to_files(tmp_path, file, good, bad):
    from standins import original_names
    torch.save(original_names(files_of(network_of('Any_V2_B'))), tmp_path/file)
    for name in good: create_depth_model(name, weights=tmp_path/file)
    for name in bad:
        with pytest.raises(ValueError, match=f'{file} holds a network that is .*, but {name} is '): create_depth_model(name, weights=tmp_path/file)


def test_original_layout_is_the_same_network(tmp_path):
    "As .safetensors and as .pth, for both versions."
    from safetensors.torch import load_file
    from standins import original_names
    for name in ('Any_B', 'Any_V2_B', 'Any_V2_N_B', 'Any_V2_K_B'):
        folder = write_weights(name, tmp_path/name)
        torch.save(original_names(load_file(folder/'model.safetensors')), tmp_path/f'{name}.pth')
        depths = [create_depth_model(name, 98, weights=weights).estimate(PLACES[480]) for weights in (folder, tmp_path/f'{name}.pth')]
        assert torch.allclose(*depths, atol=1e-4) and depths[0].std() > .05


def files_of(network):
    "Tensors of a network as they are saved."
    import tempfile
    from safetensors.torch import load_file
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        return load_file(f'{folder}/model.safetensors')


def test_original_backbone_against_timm():
    "The attention's q, k and v are cut in the right order: DINOv2 of another library gives the same features from the original names."
    from standins import original_names
    from timm.models.vision_transformer import VisionTransformer
    network = network_of('Any_V2_B')
    original = {name.removeprefix('pretrained.'): values for name, values in original_names(files_of(network)).items()}
    vit = VisionTransformer(img_size=518, patch_size=14, embed_dim=64, depth=8, num_heads=1, mlp_ratio=2, init_values=1., num_classes=0, global_pool='').eval()
    vit.load_state_dict({name: values for name, values in original.items() if name in vit.state_dict()}, strict=True)
    images = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = vit.forward_intermediates(images, indices=[1, 3, 5, 7], norm=True, intermediates_only=True, output_fmt='NLC', return_prefix_tokens=False)
        ours = network.backbone(images).feature_maps
    for one, other in zip(ours, theirs): assert torch.allclose(one[:, 1:], other, atol=1e-3)


def test_input_is_what_the_library_would_make():
    "For sizes at which iw3's rounding and the library's agree; the library lets bicubic colours overshoot."
    from transformers import DepthProImageProcessor, DPTImageProcessor
    ours = AnyNetwork(torch.nn.Identity())
    theirs = DPTImageProcessor(size=dict(height=392, width=392), keep_aspect_ratio=True, ensure_multiple_of=14, resample=3, image_mean=ours.mean, image_std=ours.std)
    black, white = (ours.normalise(torch.full((1, 3, 1, 1), level)) for level in (0., 1.))
    for height, width in ((480, 640), (1080, 1920), (640, 480), (500, 500)):
        image = random_scene(0, (height, width)).image
        expected = theirs(image, do_rescale=False, return_tensors='pt')['pixel_values'].clamp(black, white)
        result = ours.prepare(image)
        assert abs(result.shape[-1] - expected.shape[-1]) <= 14 and abs(result.shape[-2] - expected.shape[-2]) <= 14
        if result.shape == expected.shape: assert torch.allclose(result, expected, atol=.03)  # older versions round to 8 bits first
    assert ours.prepare(random_scene(0, (480, 640)).image).shape == (1, 3, 392, 518)
    square = ProNetwork(network_of('DepthPro'), options=DepthOptions(resolution=448))
    image = random_scene(1, (480, 640)).image
    assert torch.allclose(square.prepare(image), DepthProImageProcessor(size=dict(height=448, width=448))(image, do_rescale=False, return_tensors="pt")["pixel_values"], atol=.03)


def test_rim_of_zoe_depth_is_the_librarys():
    from transformers import ZoeDepthImageProcessor
    for height, width in ((384, 512), (480, 640), (720, 540)):
        image = random_scene(2, (height, width)).image
        padded = ZoeDepthImageProcessor(do_resize=False, do_normalize=False)(image, do_rescale=False, return_tensors='pt')['pixel_values']
        rows, columns = ZoeNetwork(torch.nn.Identity()).rim(height, width)
        assert padded.shape[-2:] == (height + 2 * rows, width + 2 * columns)


class Broken(torch.nn.Module):
    "Gives distances of a ramp with holes of all kinds."
    def forward(self, images):
        depth = torch.linspace(1, 9, images.shape[-1]).expand(len(images), *images.shape[-2:]).clone()
        depth[:, 100:120, 100:120], depth[:, 140:160, 100:120], depth[:, 180:200, 100:120] = torch.nan, torch.inf, -torch.inf
        return {'predicted_depth': depth}


@pytest.mark.parametrize('edge_dilation', [0, 2])
def test_gaps_do_not_spread(edge_dilation):
    model = ZoeNetwork(Broken(), is_metric=True, options=DepthOptions(edge_dilation=edge_dilation))
    depth = model.infer(PLACES[480])
    assert depth.isfinite().all() and (depth.min(), depth.max()) == (0, 1)
    whole = ZoeNetwork(Broken(), is_metric=True).infer(PLACES[480])
    assert ((depth - whole).abs() > .1).float().mean() < .05
    assert depth[0, 0, 20, 5] > .9 > .1 > depth[0, 0, 20, -5]  # near is 1


class Hopeless(torch.nn.Module):
    "Gives no finite depth for dark pictures, in one of three ways; as a picture network and as a stream."
    def __init__(self, value): super().__init__(); self.value = value
    def forward(self, images):
        depth = images.mean(1)
        dark = depth.mean((1, 2)) < 0
        depth[dark] = self.value
        return SimpleNamespace(predicted_depth=depth)
    def reset_state(self): pass
    def infer(self, image, use_amp): return list(self(image[None]).predicted_depth)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('kind', [AnyNetwork, VideoNetwork])
def test_a_picture_without_any_depth_is_an_error(kind, value):
    "And not a flat map, which would pass for a picture without holes."
    bright, dark = .6 + .4 * torch.rand(1, 3, 60, 80), torch.zeros(1, 3, 60, 80)
    for options in (DepthOptions(), DepthOptions(edge_dilation=2), DepthOptions(tta=kind is AnyNetwork)):
        model = kind(Hopeless(value), 'Any_S', options=options)
        assert model.infer(bright).max() == 1
        for ask in (model.infer, model.infer_clip, lambda images: list(model.follow(images))):
            with pytest.raises(ValueError, match='^Any_S gives no finite depth for this picture: its weights are damaged, or the picture is more than half precision'): ask(torch.cat([bright, dark]))


def test_flip_makes_mirrors_agree(standins):
    make = lambda **options: create_depth_model('Any_S', 98, weights=standins[0]/'weights', **options)
    image = PLACES[480]
    plain, both = make(), make(tta=True)
    difference = lambda model: (model.infer(image) - model.infer(image.flip(-1)).flip(-1)).abs().max().item()
    assert difference(plain) > .1 and difference(both) < 1e-3


def test_networks_follow_a_film(standins):
    "Pictures, batches and clips of one model agree; a video network gives as many maps as it got frames."
    frames = clip_of(1, 6)
    for name in ('Any_S', 'VDA_S'):
        model = create_depth_model(name, 98, weights=standins[0]/'weights', trust_remote_code=True)
        clip, followed = model.infer_clip(frames), torch.cat(list(model.follow(frames)))
        assert clip.shape == followed.shape == (6, 1, 98, 140) and clip.isfinite().all() and (clip.min(), clip.max()) == (0, 1)
        assert torch.equal(model.infer_clip(frames), clip)
        model.batch_size = 3
        assert torch.allclose(model.infer_clip(frames), clip, atol=1e-2)
        raw = model.estimate(frames)
        assert torch.allclose(normalised(raw), clip, atol=1e-2)


def normalised(depth): return torch.from_numpy(normalise_depth(depth.numpy()))


# --- a GPU that is not there ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('gpu, found, device', [(-1, 0, 'cpu'), (-1, 2, 'cpu'), (0, 0, 'cpu'), (5, 0, 'cpu'), (0, 1, 'cuda:0'), (1, 2, 'cuda:1'), (1, 1, None), (5, 2, None)])
def test_choose_device(monkeypatch, gpu, found, device):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: found)
    if device: assert choose_device(gpu) == torch.device(device)
    else:
        with pytest.raises(ValueError, match=f'from 0 to {found - 1}, or -1'): choose_device(gpu)


class OnGpu(AnyNetwork):
    "Believes that it is on a GPU, and looks at pictures without one: the mean colour is the depth, a black picture is an error, a white one has no depth."
    def __init__(self, device='cuda', patience=.05):
        super().__init__(torch.nn.Identity(), 'Any_S', options=DepthOptions(batch_size=3))
        self.device, self.sizes, self.inside, self.most = torch.device(device), [], 0, 0
        self.crowded, self.patience = threading.Event(), patience  # seconds to wait for another thread to come in

    def look_well(self, images):
        self.inside += 1
        self.most, _ = max(self.most, self.inside), self.sizes.append(len(images))
        if self.inside > 1: self.crowded.set()
        self.crowded.wait(self.patience)
        self.inside -= 1
        if not images.flatten(1).any(1).all(): raise RuntimeError('black')
        depth = images.mean(1, keepdim=True)
        return depth.where(depth < 1, depth.new_tensor(torch.nan))


def at_once(function, values):
    "What a function makes of each value in a thread of its own, or its error."
    def tried(value):
        meet.wait(240)
        try: return function(value)
        except Exception as error: return error
    meet = threading.Barrier(len(values))
    with ThreadPoolExecutor(len(values)) as pool: return list(pool.map(tried, values))


def test_threads_share_a_gpu():
    "One batch at a time, small ones together; each thread gets what its own pictures make alone."
    model = OnGpu()
    pictures = [torch.rand(number % 4 + 1, 3, 10, 12 + number % 2) * .9 for number in range(16)]
    for depth, images in zip(at_once(model.estimate, pictures), pictures): assert torch.equal(depth, images.mean(1, keepdim=True))
    assert model.most == 1 and max(model.sizes) == 3 and len(model.sizes) < sum(-(-len(images) // 3) for images in pictures)
    plain = OnGpu('cpu', patience=240)
    at_once(plain.estimate, pictures[:4])
    assert plain.most > 1 and sorted(plain.sizes) == [1, 1, 2, 3, 3]


def test_errors_on_a_gpu_reach_those_who_asked():
    model = OnGpu()
    errors = at_once(model.estimate, [torch.zeros(1, 3, 10, 12)] * 5)
    assert [str(error) for error in errors] == ['black'] * 5
    white, *others = at_once(model.estimate, [torch.ones(1, 3, 10, 12), *torch.full((4, 1, 3, 10, 12), .5)])
    assert 'Any_S gives no finite depth' in str(white) and all(torch.equal(depth, torch.full((1, 1, 10, 12), .5)) for depth in others)


def test_a_folder_with_a_program_is_neither_asked_about_nor_run(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr('builtins.input', lambda *given: asked.append(given) or 'y')
    (tmp_path/'config.json').write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForDepthEstimation": "own.Network"}}')
    (tmp_path/'own.py').write_text(f'open({str(tmp_path/"ran")!r}, "w")')
    with pytest.raises(ValueError, match='does not hold the weights of Any_S: it wants a program of its own to be run'): create_depth_model('Any_S', weights=tmp_path)
    assert not asked and not (tmp_path/'ran').exists()


@pytest.mark.parametrize('content', [[1, 2], torch.zeros(3), {'model': {}, 'epoch': 3}, {'epoch': 3}, SimpleNamespace(wants='to be run')])
def test_a_file_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path/'a.pth')
    with pytest.raises(ValueError, match='a.pth does not hold the weights of Any_S: it is damaged, or holds something else than named tensors$'): create_depth_model('Any_S', weights=tmp_path/'a.pth')


def test_early_refusal(tmp_path, monkeypatch):
    "Without weights, and without a network."
    monkeypatch.delenv('INPAINT_TRUST_REMOTE_CODE', raising=False)
    for name in ('Pseudo', 'Files', f'Files:{tmp_path}', 'Any_S', 'DepthPro'): check_model_type(name)
    for name in ('VDA_L', 'ZoeD_Any_K'):
        check_model_type(name, trust_remote_code=True)
        with pytest.raises(ValueError, match=f'{name} downloads and runs .* `trust_remote_code`'): check_model_type(name)
    with pytest.raises(FileNotFoundError, match='no folder with depth maps'): check_model_type(f'Files:{tmp_path}/nowhere')
    for name, message in (('Any', "unknown depth model 'Any'"), ('any_v2_s', r"'any_v2_s' \(did you mean Any_V2_S\?\): choose one of Pseudo, "), ('Oak', "'Oak': choose one of Pseudo, "),
                          ('VDA_S:3', 'VDA_S takes nothing after its name')):
        with pytest.raises(ValueError, match=message): check_model_type(name, trust_remote_code=True)


def test_two_names_that_scripts_import_from_the_first_room(fresh): assert fresh[0] == 'Pseudo True'


def test_a_depth_video_is_read_once_for_its_digest(tmp_path, monkeypatch):
    "The digest is the one of the whole video for each frame, as it always was."
    film = tmp_path / 'walk.mp4'
    film.write_bytes(b'frames')
    reads, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: reads.append(path) or read_bytes(path))
    frames = [tmp_path / f'films/walk/{number:08}.png' for number in (0, 8, 15)]
    assert FileDepth(tmp_path).origin(frames) == hashlib.sha256(3 * b'frames').hexdigest()[:16]
    assert reads == [film]
