"""Borders, fills at a lower resolution, depth edges: of any size and network, for photos and clips, by option and by function."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import inpaint_nb as inb
from inpaint_nb.clip import fade_windows, fill_stream
from inpaint_nb.depth import write_depth
from inpaint_nb.fills import repeat_background
from inpaint_nb.light import Inpainter
from inpaint_nb.models import create_model, load_model
from inpaint_nb.refine import enlarge_fill, reduce_holed, refine_depth, steep_edges, still_borders
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.show import photograph
from inpaint_nb.stereo import StereoOptions, fill_views, inpaint_view, open_views, open_with, stereo_photo
from inpaint_nb.warp import StereoViews

pytestmark = pytest.mark.usefixtures('one_thread')


# --- borders ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('view', ['both', 'left', 'right'])
def test_borders_stay(view):
    "The first and last column of both eyes are those of the photo, to a pixel; its middle moves as it did."
    image, depth = (torch.arange(200) / 200).expand(1, 3, 20, 200).contiguous(), torch.full((1, 1, 20, 200), 0.9)
    still = open_with(StereoOptions(divergence=20, view=view, preserve_screen_border=True), image, depth)
    moved = open_with(StereoOptions(divergence=20, view=view), image, depth)
    for eye in ('left', 'right'):
        apart = [(getattr(views, eye)[..., [0, -1]] - image[..., [0, -1]]).abs().max() for views in (still, moved)]
        assert apart[0] < 1 / 200 and (apart[1] > 6 / 200 or view not in ('both', eye))
        assert torch.equal(getattr(still, eye)[..., 90:110], getattr(moved, eye)[..., 90:110])


@pytest.mark.parametrize('width', [1, 2, 7, 64])
@pytest.mark.parametrize('divergence', [0, 0.1, 4, 99])
def test_borders_of_any_width(width, divergence):
    depth = torch.rand(2, 1, 3, width)
    still = still_borders(depth, divergence, 0.3)
    assert still.shape == depth.shape and still.min() >= 0 and still.max() <= 1
    assert ((still - 0.3).abs() <= (depth - 0.3).abs() + 1e-6).all()


# --- lower resolution ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('width', [1, 7, 40, 99, 100])
def test_nothing_of_the_hole_is_mixed_in(width):
    "Left of the hole all is dark, right of it all is light, in it there is green: every pixel that is left is one of both, or both."
    image, hole = torch.zeros(1, 3, 30, 100), torch.zeros(1, 1, 30, 100)
    hole[..., 41:58] = 1
    image[..., 58:] = 0.8
    image[:, 1:2][hole > 0] = 1
    small = reduce_holed(image, hole, hole, width)
    assert small.image.shape == (1, 3, max(1, round(30 * width / 100)), width)
    assert torch.equal(small.image[:, 0], small.image[:, 1]) and small.image.max() <= 0.8 + 1e-6
    assert (small.image[(small.hole > 0).expand_as(small.image)] == 0).all()
    there = F.interpolate(small.hole, (30, 100), mode='nearest-exact')
    assert (F.max_pool2d(there, (1, 3), 1, (0, 1)) >= hole).all()


@pytest.mark.parametrize('name', ['background_v1', 'light_inpaint_v1'])
@pytest.mark.parametrize('size', [(65, 131), (96, 160)])
def test_only_the_hole_comes_back(name, size):
    scene = random_scene(4, size=size)
    net = create_model(name).eval()
    for view in ('left', 'right'):
        opened = open_views(scene.image, scene.depth, 6, view=view)
        filled = fill_views(opened, net, max_width=80)
        eye, mask, hole = getattr(filled, view), getattr(filled, f'{view}_mask'), getattr(opened, f'{view}_mask')
        kept = (mask == 0).expand_as(eye)
        assert torch.equal(eye[kept], getattr(opened, view)[kept]) and (mask[hole > 0] == 1).all()
        assert eye.min() >= 0 and eye.max() <= 1 and eye.isfinite().all()
        whole = fill_views(opened, net, max_width=size[1])
        assert torch.equal(getattr(whole, view), getattr(fill_views(opened, net), view))


def test_nearly_as_good_at_half_width():
    "On a part of a real pair, not sharp to the pixel, with the weights that ship."
    photo, net = photograph(), load_model('pretrained')[0]
    left, depth, right = (F.interpolate(part[..., 60:260, 100:470], scale_factor=2, mode='bilinear') for part in (photo.image, photo.depth, photo.right))
    opened = open_views(left, depth, photo.divergence * 2, 0.0, view='right')
    inside = (opened.right_mask > 0).expand_as(right)
    def quality(**settings): return -10 * (fill_views(opened, net, **settings).right - right)[inside].square().mean().log10()
    assert quality() - quality(max_width=370) < 0.3


def test_a_picture_without_holes_and_one_of_nothing_else():
    net = create_model('background_v1').eval()
    image = torch.rand(1, 3, 64, 160)
    filled, made_up = inpaint_view(image, torch.zeros(1, 1, 64, 160), net, max_width=80)
    assert torch.equal(filled, image) and not made_up.any()
    filled, made_up = inpaint_view(image, torch.ones(1, 1, 64, 160), net, max_width=80)
    assert filled.isfinite().all() and (made_up == 1).all()


@pytest.mark.parametrize('view', ['both', 'right'])
def test_clips_at_a_lower_resolution(view):
    "A stream gives what its frames give together, and as many."
    net = create_model('background_video_v1').eval()
    scenes = random_clip(3, 5, (64, 128))
    opened = [open_views(scene.image, scene.depth, 6, view=view) for scene in scenes]
    streamed = list(fill_stream(iter(opened), net, max_width=64))
    together = StereoViews(*[None if part[0] is None else torch.cat(part) for part in zip(*opened)])
    whole = fill_views(together, net, max_width=64)
    assert len(streamed) == 5
    for eye in ('left', 'right'): assert (torch.cat([getattr(one, eye) for one in streamed]) - getattr(whole, eye)).abs().max() < 0.02


# --- windows ---------------------------------------------------------------------------------------------------------------

class Noted(Inpainter):
    "Fills with the number of the window."
    frames = 12
    def __init__(self):
        super().__init__()
        self.windows = []
    def preprocess(self, image, mask): return image * (1 - mask), mask
    def infer(self, image, mask):
        self.windows.append(len(image))
        return torch.where(mask > 0, 0.1 * len(self.windows), image)


@pytest.mark.parametrize('overlap', [0, 1, 3, 6])
def test_overlapping_windows(overlap):
    "Outside of overlaps a frame is what its window gave, to the bit; within, it lies between two windows."
    image, mask = torch.rand(33, 3, 8, 64), torch.zeros(33, 1, 8, 64)
    mask[..., 20:30] = 1
    net = Noted()
    opened = [StereoViews(one, one, None, hole) for one, hole in zip(image.split(1), mask.split(1))]
    frames = [views.right for views in fill_stream(iter(opened), net, overlap)]
    assert len(frames) == 33 and len(net.windows) == 1 + -(-(33 - 12) // (12 - overlap))
    values = [round(frame[0, 0, 0, 25].item(), 6) for frame in frames]
    assert values == sorted(values)
    assert values[:12 - overlap] == [0.1] * (12 - overlap)
    between = [value for value in values if (10 * value) % 1 > 1e-4 and (10 * value) % 1 < 1 - 1e-4]
    assert bool(between) == bool(overlap)
    for frame, one, hole in zip(frames, image.split(1), mask.split(1)):
        assert torch.equal(frame[(hole == 0).expand_as(frame)], one[(hole == 0).expand_as(one)])


def test_overlap_is_refused():
    one = torch.zeros(1, 3, 8, 8)
    for overlap in (-1, 7, 12):
        with pytest.raises(ValueError, match='windows of 12 frames overlap in 0 to 6 frames'):
            next(fill_stream([StereoViews(one, one, None, one[:, :1])], Noted(), overlap))
    with pytest.raises(ValueError, match='inpaint overlap frames is 0 or more, not -1'): StereoOptions(inpaint_overlap_frames=-1)
    assert [number for number, _ in fade_windows(range(30), lambda window: [()] * len(window), 12, 6)] == list(range(30))


# --- depth edges -----------------------------------------------------------------------------------------------------------

def disc(height=60, width=80):
    "A bright near disc before a dark ground: picture and depth."
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    depth = ((rows - 30) ** 2 + (columns - 40) ** 2 < 15 ** 2).float()[None, None]
    return (0.2 + 0.6 * depth).expand(1, 3, -1, -1).contiguous(), depth


@pytest.mark.parametrize('scale', [4, 8])
def test_ramps_become_steps(scale):
    image, depth = disc(64, 80)
    small = F.interpolate(depth, (64 // scale, 80 // scale), mode='area')
    soft = F.interpolate(small, (64, 80), mode='bilinear')
    steep = steep_edges(soft, image, scale // 2)
    def wrong(one): return ((one - depth).abs() > 0.25).float().mean().item()
    assert wrong(steep) < 0.4 * wrong(soft)
    assert refine_depth(small, image, 1).shape == depth.shape


def test_each_picture_of_a_batch_for_itself():
    image, depth = disc()
    images, depths = torch.cat([image, image.flip(-1), torch.rand_like(image)]), torch.cat([F.avg_pool2d(one, 5, 1, 2) for one in (depth, depth.flip(-1), depth)])
    together = steep_edges(depths, images, 2)
    for one, image, depth in zip(together.split(1), images.split(1), depths.split(1)): assert torch.equal(one, steep_edges(depth, image, 2))
    assert together.min() >= depths.min() and together.max() <= depths.max()


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (3, 200)])
@pytest.mark.parametrize('radius', [1, 5])
def test_edges_of_any_size(size, radius):
    steep = steep_edges(torch.rand(1, 1, *size), torch.rand(1, 3, *size), radius)
    assert steep.shape == (1, 1, *size) and steep.isfinite().all()


def test_dilation_is_of_the_map_still():
    "Growing holes by columns of the map means the same with and without refinement."
    image, depth = disc()
    small = F.interpolate(depth, (30, 40), mode='area')
    def hole(**settings): return open_with(StereoOptions(divergence=8, view='right', **settings), image, small).right_mask.sum()
    grown = [hole(outer_dilation=4, depth_refine=refine) - hole(depth_refine=refine) for refine in (0, 1)]
    assert grown[0] > 0 and 0.5 < grown[1] / grown[0] < 1.5


# --- options ---------------------------------------------------------------------------------------------------------------

def test_options_of_photos_and_python(tmp_path):
    scene = random_scene(3, size=(96, 160))
    pixels = (scene.image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path/'photo.png')
    write_depth(scene.depth[..., ::4, ::4], tmp_path/'depth.png')
    levels = np.array(Image.open(tmp_path/'depth.png'))
    plain = inb.stereo(pixels, levels, divergence=6)
    for settings in (dict(preserve_screen_border=True), dict(inpaint_max_width=80), dict(depth_refine=1)):
        views = inb.stereo(pixels, levels, divergence=6, **settings)
        assert not np.array_equal(views.right, plain.right)
        [written] = stereo_photo(tmp_path/'photo.png', tmp_path/'out', depth_file=tmp_path/'depth.png', format='right', divergence=6, progress=False, **settings)
        assert np.array_equal(views.right, np.array(Image.open(written)))


@pytest.mark.parametrize('settings, words', [(dict(inpaint_max_width=63), 'inpaint max width is 64 or more, not 63'), (dict(depth_refine=-1), 'depth refine is 0 or more')])
def test_options_are_checked(settings, words):
    with pytest.raises(ValueError, match=words): StereoOptions(**settings)


def test_detail_of_the_rule():
    "What the rule knows is not lost on the way down and up."
    image, hole = torch.rand(1, 3, 32, 128), torch.zeros(1, 1, 32, 128)
    hole[..., 50:60] = 1
    sharp = repeat_background(image, hole)
    small = reduce_holed(image, hole, hole, 64)
    coarse = repeat_background(small.image, small.hole)
    errors = [(enlarge_fill(image, hole > 0, coarse, small.hole > 0, detail) - sharp).abs().mean() for detail in (0.0, 0.5, 1.0)]
    assert errors[0] > errors[1] > errors[2]
