"Scenes against a slow renderer that walks pixel by pixel, over many seeds, sizes and views."
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from inpaint_nb.scenes import SHAPES, TEXTURES, Scene, random_clip, random_scene
from inpaint_nb.warp import disparity


def covering_layer(scene, number, row, places):
    "Nearest layer from `number` on that covers the point which sits at `places[layer]`; its value is read by np.interp."
    for index in range(len(scene.layers) - 1, number - 1, -1):
        layer = scene.layers[index]
        own = row - layer.y
        if not 0 <= own < len(layer.depth): continue
        column = float(places[index]) - layer.x
        width = layer.field.shape[1]
        if np.interp(column, np.arange(width), layer.field[own].double().numpy()) > 0: return index
    return None


def slow_view(scene, divergence, convergence, sign):
    "Colour and hole of every pixel, straight from the definition."
    height, width = scene.size
    image, hole = np.zeros((3, height, width)), np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            places = {}
            for index, layer in enumerate(scene.layers):
                own = min(max(row - layer.y, 0), len(layer.depth) - 1)
                places[index] = column + sign * float(disparity(layer.depth[own], 2 * divergence, convergence, width))
            seen = covering_layer(scene, 0, row, places)
            layer, place = scene.layers[seen], places[seen]
            for channel in range(3):
                line = layer.texture[channel, row - layer.y].double().numpy()
                image[channel, row, column] = np.interp(place - layer.x, np.arange(len(line)), line)
            nearer = covering_layer(scene, seen + 1, row, {index: place for index in places})
            hole[row, column] = 0 <= place <= width - 1 and nearer is not None
    return torch.from_numpy(image), torch.from_numpy(hole)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('view, sign', [('right', 1), ('left', -1)])
def test_view_equals_the_definition(seed, view, sign):
    scene = random_scene(seed, (24, 40))
    image, hole = scene.view(7.3, .37, view)
    slow_image, slow_hole = slow_view(scene, 7.3, .37, sign)
    agree = hole[0, 0] == slow_hole
    assert agree.float().mean() > .995  # a point exactly on an outline may fall either way in float32
    close = (image[0] - slow_image).abs().amax(0) < 1e-3
    assert close.float().mean() > .995
    assert slow_hole.sum() > 0


def test_no_divergence_is_the_first_view():
    scene = random_scene(4, (60, 90))
    for view in ('left', 'right'):
        image, hole = scene.view(0, .5, view)
        assert torch.equal(image, scene.image) and hole.sum() == 0


@pytest.mark.parametrize('divergence', [11, 60])
def test_any_divergence_leaves_nothing_empty(divergence):
    for seed in range(10):
        scene = random_scene(seed, (64, 96))
        image, hole = scene.view(divergence, .5)
        assert image.isfinite().all() and set(hole.unique().tolist()) <= {0., 1.}
        assert (image.sum(1) > 0).float().mean() > .97


def test_convergence_moves_the_whole_picture():
    "Convergence adds one slide for all layers: what stays inside the frame is the same picture, moved."
    scene = random_scene(6, (64, 200))
    a, b = scene.view(5, 0)[0], scene.view(5, .5)[0]  # 0.5 x 10 pixels
    differs = (a[..., 20:-20] - b[..., 25:-15]).abs().amax(1) > 1e-3
    assert differs.float().mean() < 2e-3


@pytest.mark.parametrize('size', [(16, 16), (16, 300), (300, 16), (64, 96), (540, 960)])
def test_sizes(size):
    for seed in range(8):
        scene = random_scene(seed, size)
        assert scene.image.shape == (1, 3, *size) and scene.depth.shape == (1, 1, *size)
        assert 0 <= scene.depth.min() and scene.depth.max() <= 1
        assert 0 <= scene.image.min() and scene.image.max() <= 1


def test_every_texture_and_shape_at_any_size():
    for make in TEXTURES.values():
        for height, width, period in ((1, 1, 1.), (3, 50, 2.2), (50, 3, 30.), (40, 60, 7.)):
            picture = make(np.random.default_rng(0), height, width, period)
            assert picture.shape == (height, width, 3) and np.isfinite(picture).all() and 0 <= picture.min() and picture.max() <= 1.0001
    for make in SHAPES.values():
        for height, width in ((8, 8), (8, 60), (60, 8)):
            level = make(np.random.default_rng(0), height, width)
            assert level.shape == (height, width) and np.isfinite(level).all()


def test_same_in_another_process_with_other_threads():
    "Bytes of a scene do not depend on the process, the number of threads or the global random state."
    code = ("def digest():\n"
            "    import hashlib\n"
            "    from inpaint_nb.scenes import random_clip, random_scene\n"
            "    scenes = [random_scene(s, (120, 200)) for s in range(6)] + random_clip(3, 3, (64, 96))\n"
            "    parts = [t for s in scenes for t in (s.image, s.depth, *s.view(3, .4))]\n"
            "    return hashlib.sha256(b''.join(t.numpy().tobytes() for t in parts)).hexdigest()\n")
    names = {}
    exec(code, names)
    other = 'import torch, cv2, numpy; torch.set_num_threads(3); cv2.setNumThreads(3); torch.manual_seed(3); numpy.random.seed(3)\n'
    there = subprocess.run([sys.executable, '-c', other + code + 'print(digest())'], capture_output=True, text=True, check=True).stdout.strip()
    assert there == names['digest']()


def test_scenes_differ():
    images = [random_scene(seed, (32, 48)).image for seed in range(30)]
    assert all(not torch.equal(a, b) for n, a in enumerate(images) for b in images[:n])


def test_clip_is_smooth_and_its_frames_are_scenes():
    for seed in range(4):
        clip = random_clip(seed, 12, (64, 96))
        assert len(clip) == 12 and all(isinstance(frame, Scene) for frame in clip)
        for layer in range(len(clip[0].layers)):
            path = [(frame.layers[layer].x, frame.layers[layer].y) for frame in clip]
            steps = [math.hypot(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:])]
            assert max(steps) <= 3
        image, hole = clip[-1].view(4, 0)
        assert image.shape == (1, 3, 64, 96) and 0 < hole.mean() < .3


def test_long_clip_keeps_its_canvas():
    "The background covers the frame however long the clip is."
    scene = random_clip(2, 1, (32, 48))[0]
    far = random_clip(2, 200, (32, 48))
    for frame in far[::20]:
        wall = frame.layers[0]
        assert wall.x <= 0 and wall.y <= 0
        assert wall.x + wall.field.shape[1] >= 48 and wall.y + wall.field.shape[0] >= 32
        assert wall.field.shape == scene.layers[0].field.shape
