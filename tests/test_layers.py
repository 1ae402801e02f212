"Layered photos: exact second views by hand, chance that depends on its key alone, any picture as a photo."
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb import layers
from inpaint_nb.fills import hole_to_fill
from inpaint_nb.layers import (
    LayeredPhoto, PhotoLayer, Plane, Shape, Window, coarse, draw_layers, draw_path, draw_shape,
    draw_window, hole_detail, layered_clip, layered_pair, layered_record, move_layer, paint_layers,
    second_view
)
from inpaint_nb.layers import CUTOUTS
from inpaint_nb.masks import disocclusion_mask
from inpaint_nb.scenes import random_scene
from inpaint_nb.warp import forward_warp
from making import to_pixels

PHOTOS = Path(__file__).parents[2]/'shared/data/photos/train'


def as_image(array):
    array = np.ascontiguousarray(array, dtype=np.float32)
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)[None]


@pytest.fixture(scope='module')
def photos():
    return [to_pixels(random_scene(seed, (150, 200)).image) for seed in (7, 15, 26)]


def flat_layer(rng, size, depth, alpha=None, shadow=None):
    alpha = np.ones((size, size), np.float32) if alpha is None else alpha
    return PhotoLayer(rng.random((size, size, 3), np.float32), alpha, Plane(depth), alpha, shadow)


def test_second_view_by_hand():
    "Flat layers slide by whole pixels: the right eye sees the ground where it is, and the card 8 columns further left."
    rng, size = np.random.default_rng(1), 64
    alpha = np.zeros((size, size), np.float32)
    alpha[20:50, 30:45] = 1
    ground, card = flat_layer(rng, size, 0), flat_layer(rng, size, 1, alpha)
    expected = ground.texture.copy()
    expected[20:50, 22:37] = card.texture[20:50, 30:45]
    assert np.abs(second_view([ground, card], 100 * 8 / size) - expected).max() < 1e-5
    assert np.abs(second_view([ground, card], 100 * 8 / size, convergence=1)[:, 8:] - np.roll(expected, 8, 1)[:, 8:]).max() < 1e-5


def test_leaning_planes_by_their_disparity():
    "What a ramp of a texture shows at its new place is where it came from: source minus disparity."
    size, plane = 96, Plane(0.5, 0.2, -0.3)
    columns = np.arange(size, dtype=np.float32) / size
    ramp = np.broadcast_to(columns[None, :, None], (size, size, 3)).copy()
    everywhere = np.ones((size, size), np.float32)
    layer = PhotoLayer(ramp, everywhere, plane, everywhere)
    view = second_view([layer], 100 * 12 / size, 0.25)[..., 0]
    shift = (plane.depth(size) - 0.25) * 12
    for row in (5, 48, 90):
        lands = np.arange(size) - shift[row]
        inside = (lands > 4) & (lands < size - 5)
        found = np.interp(lands[inside], np.arange(size), view[row])
        assert np.abs(found - columns[inside]).max() < 0.2 / size


@pytest.mark.parametrize('dilated', [False, True])
def test_record_by_hand(dilated):
    "The ground in the hole and right of it; left of it the card, with the ground it dragged along."
    rng, size = np.random.default_rng(4), 64
    alpha = np.zeros((size, size), np.float32)
    alpha[:, 20:40] = 1
    ground, card = flat_layer(rng, size, 0), flat_layer(rng, size, 1, alpha)
    if dilated: card = replace(card, cover=cv2.dilate(alpha, np.ones((3, 3))))
    scene = LayeredPhoto((ground, card), Window(0, 0, size, False))
    picture, hole = layered_record(scene, 100 * 8 / size, 0)
    first, last = 32 + dilated, 39 + dilated
    assert (hole == ((np.arange(size) >= first) & (np.arange(size) <= last))[None]).all()
    assert np.abs(picture[:, first:] - ground.texture[:, first:]).max() < 1e-4
    assert np.abs(picture[:, 13:32] - card.texture[:, 21:40]).max() < 1e-3
    if dilated: assert np.abs(picture[:, 32] - ground.texture[:, 40]).max() < 1e-3


def test_records_are_what_a_warp_leaves(photos):
    "Away from holes the warped picture, in them the second view."
    for seed in range(6):
        scene = draw_layers(np.random.default_rng(seed), photos[0], photos, 96)
        picture, hole = layered_record(scene, 9, 0.5)
        left, depth = as_image(scene.picture()), as_image(scene.seen_depth())
        warped = forward_warp(left, depth, 9, 0.5, view='right', fill=False)
        np.testing.assert_array_equal(hole, hole_to_fill(warped.right_mask)[0, 0] > 0)
        np.testing.assert_array_equal(picture[hole], second_view(scene.layers, 9, 0.5)[hole])
        right_of_hole = np.pad(hole, ((0, 0), (1, 0)))[:, :-1]
        away = ~(hole | right_of_hole)
        np.testing.assert_array_equal(picture[away], warped.right[0].permute(1, 2, 0).numpy()[away])


def test_shadow_stays_on_the_ground():
    rng, size = np.random.default_rng(2), 48
    alpha, shadow = np.zeros((2, size, size), np.float32)
    alpha[10:30, 30:40], shadow[10:34, 24:40] = 1, 0.5
    ground, card = flat_layer(rng, size, 0), flat_layer(rng, size, 1, alpha, shadow)
    picture, view = paint_layers([ground, card]), second_view([ground, card], 100 * 6 / size)
    assert np.abs(second_view([ground, card], 0) - picture).max() < 1e-5
    assert np.abs(picture[32, 24:40] - ground.texture[32, 24:40] / 2).max() < 1e-6
    assert np.abs(view[32] - picture[32]).max() < 1e-5


def test_pairs_agree_with_the_warp(photos):
    "What both eyes see is the same; in holes the truth is what stands behind, not what the warp repeats."
    seen, hidden = [], []
    for seed in range(8):
        pair = layered_pair(photos, seed, 96, widest=12)
        left, right, depth = map(as_image, (pair.left, pair.right, pair.depth))
        warped = forward_warp(left, depth, pair.divergence, pair.convergence, view='right')
        error, hole = (warped.right - right).abs().mean(1, keepdim=True), warped.right_mask > 0
        seen.append(error[~hole].median().item())
        hidden += error[hole].tolist()
    assert max(seen) < 4 / 255 and np.mean(hidden) > 2 * np.mean(seen)


def test_a_pair_is_what_its_seed_says(photos):
    one, same, other = (layered_pair(photos, seed, 64) for seed in (3, 3, 4))
    for ours, theirs in zip(one, same): np.testing.assert_array_equal(ours, theirs)
    assert np.abs(one.left - other.left).max() > 0.1 and one.left.dtype == np.float32 and one.left.flags.c_contiguous


def test_chance_does_not_depend_on_threads(photos):
    make = lambda seed: draw_layers(np.random.default_rng(seed), photos[0], photos, 96)
    cv2.setRNGSeed(5)
    alone = [make(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool: together = list(pool.map(make, range(12)))
    for ours, theirs in zip(alone, together):
        np.testing.assert_array_equal(ours.picture(), theirs.picture())
        np.testing.assert_array_equal(ours.seen_depth(), theirs.seen_depth())


@pytest.mark.parametrize('name', CUTOUTS)
def test_shapes(name):
    for seed, size in ((1, 48), (2, 97), (3, 160)):
        rng = np.random.default_rng(seed)
        mask = CUTOUTS[name].draw(rng, rng.random((size, size, 3), np.float32))
        assert (mask.shape, mask.dtype) == ((size, size), np.float32) and set(np.unique(mask)) <= {0, 1}


def test_shapes_are_drawn_as_often_as_they_weigh(monkeypatch):
    monkeypatch.setattr(layers, 'CUTOUTS', {'all': Shape(lambda rng, texture: np.ones(texture.shape[:2], np.float32), 3), 'none': Shape(lambda rng, texture: np.zeros(texture.shape[:2], np.float32), 1)})
    texture = np.zeros((4, 4, 3), np.float32)
    assert 0.68 < np.mean([draw_shape(np.random.default_rng(seed), texture).mean() for seed in range(600)]) < 0.82


@pytest.mark.parametrize('height, width', [(8, 8), (1, 40), (40, 90)])
def test_photos_of_any_size(height, width):
    photo = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scene = draw_layers(np.random.default_rng(1), photo, [], 64)
    assert scene.picture().shape == (64, 64, 3) and np.isfinite(scene.picture()).all()
    assert 0 <= scene.seen_depth().min() and scene.seen_depth().max() <= 1


def test_plain_photos(photos):
    for value in (0, 255):
        scene = draw_layers(np.random.default_rng(2), np.full((60, 60, 3), value, np.uint8), [np.full((60, 60, 3), 255 - value, np.uint8)], 64)
        assert 0 <= scene.picture().min() and scene.picture().max() <= 1


def test_depths_of_layers(photos):
    "From far to near, and none leaves 0..1."
    for seed in range(20):
        scene = draw_layers(np.random.default_rng(seed), photos[0], photos, 64)
        levels = [layer.plane.level for layer in scene.layers]
        depths = np.stack([layer.plane.depth(64) for layer in scene.layers])
        assert 2 <= len(levels) <= 5 and levels == sorted(levels)
        assert -1e-6 <= depths.min() and depths.max() <= 1 + 1e-6
        assert disocclusion_mask(as_image(scene.seen_depth()), 4, 0.5).shape == (1, 1, 64, 64)


def test_window_of_another_frame():
    window = draw_window(np.random.default_rng(3), (90, 120), 32)
    photo = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Window(5, 7, 32, False).cut(photo, 32), photo[5:37, 7:39].astype(np.float32) / 255)
    np.testing.assert_array_equal(Window(5, 7, 32, True).cut(photo, 32), photo[5:37, 7:39][:, ::-1].astype(np.float32) / 255)
    assert window.top + window.side <= 90 and window.left + window.side <= 120


def test_coarse_depth():
    depth = np.zeros((40, 40), np.float32); depth[:, 20:] = 1
    assert coarse(depth, 1) is depth
    soft = coarse(depth, 2.5)
    assert soft.shape == depth.shape and 1 < ((soft > 0.01) & (soft < 0.99))[0].sum() < 10


def test_moved_layers():
    rng = np.random.default_rng(1)
    layer = flat_layer(rng, 32, 0.5, rng.random((32, 32), np.float32))
    moved = move_layer(layer, 3, -2)
    assert np.abs(moved.alpha[:-2, 3:] - layer.alpha[2:, :-3]).max() < 1e-5
    assert np.abs(moved.texture[:-2, 3:] - layer.texture[2:, :-3]).max() < 1e-5
    assert moved.plane == layer.plane
    assert draw_path(rng, 10)(0) == (0, 0)


def test_clip(photos):
    film = list(layered_clip(photos, 2, 6, 64))
    assert len(film) == 6 and film[0][0].shape == (64, 64, 3) and film[0][1].shape == (64, 64)
    for (picture, depth), again in zip(film, layered_clip(photos, 2, 6, 64)): np.testing.assert_array_equal(picture, again[0])
    assert np.abs(film[0][0] - film[5][0]).mean() > 1e-3


def test_moving_pairs_agree_with_the_warp(photos):
    "Each frame is a stereo pair of its own, before another frame of the clip."
    clip = [photos[0][:, 3 * t:3 * t + 200] for t in range(5)]
    pairs = list(layers.moving_pairs(clip, photos[1:], 4, 96, 10.0))
    assert len(pairs) == 5 and {pair.divergence for pair in pairs} == {100 * 10 / 96}
    for pair in pairs:
        left, right, depth = (torch.from_numpy(part).reshape(96, 96, -1).permute(2, 0, 1)[None] for part in pair[:3])
        warped = forward_warp(left, depth.float(), pair.divergence, 0.0, view='right', fill=False)
        seen = (warped.right_mask == 0).expand_as(right)
        assert (warped.right - right).abs()[seen].median() < 4 / 255
    assert not np.array_equal(pairs[0].left, pairs[1].left) and not np.array_equal(pairs[0].right, pairs[4].right)


def test_frames_of_the_clip_are_the_ground(photos):
    "Black frames after the first: nothing but layers is to be seen."
    clip = [photos[0], *(0 * photos[0] for _ in range(3))]
    first, *others = layers.moving_pairs(clip, [photos[1]], 0, 96, 10.0)
    ground = lambda view, depth: np.median(view[depth < 0.3])
    assert ground(first.left, first.depth) > 0.1 and all(ground(pair.left, pair.depth) < 0.005 for pair in others)


def test_detail():
    rng = np.random.default_rng(1)
    rough, everywhere = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), np.ones((40, 40), bool)
    assert hole_detail(np.full((40, 40, 3), 90, np.uint8), everywhere) == 0 == hole_detail(rough, ~everywhere)
    assert hole_detail(rough, everywhere) > 20 > 5 > hole_detail(cv2.GaussianBlur(rough, (0, 0), 4), everywhere)
    half = rough.copy(); half[:, 20:] = 7
    assert hole_detail(half, np.arange(40)[None].repeat(40, 0) > 22) == 0


@pytest.mark.skipif(not PHOTOS.is_dir(), reason='needs ../shared/data/photos')
def test_real_photos():
    files = sorted(PHOTOS.iterdir())[:3]
    photos = [np.asarray(Image.open(file).convert('RGB').resize((240, 180))) for file in files]
    scenes = [draw_layers(np.random.default_rng(seed), photos[seed % 3], photos, 128) for seed in range(6)]
    assert isinstance(scenes[0], LayeredPhoto)
    holes = [(disocclusion_mask(as_image(scene.seen_depth()), 8, 0.5) > 0).float().mean().item() for scene in scenes]
    assert 0.002 < np.mean(holes) < 0.3
