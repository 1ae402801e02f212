"Depth from files of every kind, and the invented depth on real photos."
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from inpaint_nb.depth import DEPTH_MODELS, DepthModel, FileDepth, Pseudo, create_depth_model, normalise_depth, read_depth, write_depth
from inpaint_nb.masks import disocclusion_mask, mask_closing
from inpaint_nb.scenes import random_clip, random_scene

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
    Image.new('RGB', (9, 9)).save(folder / 'colour.png')
    np.save(folder / 'cube.npy', np.zeros((3, 4, 5)))
    np.save(folder / 'objects.npy', np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / 'words.npy', np.array([['a', 'b']]))
    np.save(folder / 'none.npy', np.zeros((0, 4)))
    (folder / 'text.npy').write_text('hello')
    (folder / 'map.exr').write_text('hello')
    return 'cut.png empty.png text.png colour.png cube.npy objects.npy words.npy none.npy text.npy map.exr'.split()


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
        model = create_depth_model(f'Files:{tmp_path}' if name == 'Files' else name)
        assert (model.name, model.is_metric, model.needs_paths) == (name, info.is_metric, info.needs_paths)


def test_pseudo_is_a_function_of_picture_and_seed():
    images = torch.cat([random_scene(seed, (200, 300)).image for seed in range(4)])
    together = Pseudo(5).infer(images)
    torch.manual_seed(1), np.random.seed(1), cv2.setRNGSeed(1)
    for order in ([3, 1, 0, 2], [2], [1, 1]):
        assert torch.equal(Pseudo(5).infer(images[order]), together[order])
    assert all(not torch.equal(Pseudo(seed).infer(images[:1]), together[:1]) for seed in range(5))


def test_pseudo_in_another_process_with_other_threads():
    scenes = [random_scene(seed, (500, 800)).image for seed in range(3)]
    here = hashlib.sha256(b''.join(Pseudo(2).infer(image).numpy().tobytes() for image in scenes)).hexdigest()
    code = ("import torch, cv2, hashlib; torch.set_num_threads(3); cv2.setNumThreads(3)\n"
            "from inpaint_nb.depth import Pseudo; from inpaint_nb.scenes import random_scene\n"
            "depth = [Pseudo(2).infer(random_scene(seed, (500, 800)).image) for seed in range(3)]\n"
            "print(hashlib.sha256(b''.join(d.numpy().tobytes() for d in depth)).hexdigest())")
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here


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
    image, times = random_scene(3, (1080, 1920)).image, []
    for seed in range(5):
        start = time.process_time()
        Pseudo(seed).infer(image)
        times.append(time.process_time() - start)
    assert sorted(times)[2] < 1 / 4


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
    depth = model.infer_clip(iter(frames), [f'{t}.png' for t in range(5)], batch_size=2)
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
