"""The six names at the package's face: what goes in comes out as the same kind, and nothing heavy is loaded before."""
import ast, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inpaint_nb as inb
from inpaint_nb.scenes import random_scene
from inpaint_nb.stereo import make_stereo, stereo_photo

NAMES = {'InpaintDataset', 'estimate_depth', 'fill', 'holes', 'load_model', 'stereo'}


@pytest.fixture(scope='module')
def scene():
    torch.set_num_threads(1)
    scene = random_scene(3, size=(64, 96))
    pixels = (scene.image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return pixels, scene.depth[0, 0].numpy()


WAYS = ('', 'import inpaint_nb.stereo', 'from inpaint_nb.stereo import make_stereo', 'from inpaint_nb import stereo', 'import inpaint_nb.face')
LIGHT = """
import os, sys, inpaint_nb as inb
before = set(sys.modules)
assert set(inb.__all__) <= set(dir(inb)) and not {"torch", "numpy", "PIL"} & before, before
assert callable(inb.load_model) and "torch" in sys.modules and "inpaint_nb.stereo" not in sys.modules
import numpy as np, inpaint_nb.face  # whatever they import is there now
for way in WAYS:
    for name in [name for name in sys.modules if name.startswith("inpaint_nb")]: del sys.modules[name]
    exec(way)
    import inpaint_nb as inb
    views = inb.stereo(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), model=None)
    assert inb.stereo is sys.modules["inpaint_nb.stereo"] and views.left.dtype == np.uint8
    assert callable(inb.stereo.make_stereo) and callable(inb.stereo), way
print("well")
"""


def test_the_face_is_light_and_stereo_a_module_that_can_be_called():
    "In whatever order things are imported."
    done = subprocess.run([sys.executable, '-c', f'{WAYS=}\n{LIGHT}'], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == 'well', done.stderr[-2000:]


def test_six_names():
    assert set(inb.__all__) == NAMES and all(callable(getattr(inb, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="'inpaint_nb' has no attribute 'stero'"): inb.stero
    tree = ast.parse(Path(inb.__file__).read_text())
    assert ast.get_docstring(tree)


def forms(pixels):
    "The same picture in every form."
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    return dict(numpy=pixels, pil=Image.fromarray(pixels), tensor=tensor, batch=tensor[None], floats=tensor[None] / 255, half=(tensor / 255).half(),
                upside=pixels[::-1][::-1], double=pixels / 255.0, deep=pixels.astype('>u2') * np.uint16(257), wide=pixels[None])


@pytest.mark.parametrize('name', ['numpy', 'pil', 'tensor', 'batch', 'floats', 'half', 'upside', 'double', 'deep', 'wide'])
def test_same_kind_out(scene, name):
    pixels, depth = scene
    picture = forms(pixels)[name]
    views = inb.stereo(picture, depth, divergence=5, view='right', model=None)
    assert views.left_mask is None and type(views.right) is type(picture if name != 'pil' else Image.new('L', (1, 1)))
    for made, given in ((views.left, picture), (views.right, picture)):
        assert getattr(made, 'shape', None) == getattr(picture, 'shape', None)
        if name == 'pil': assert (made.mode, made.size) == (given.mode, given.size)
        elif name == 'deep': assert made.dtype == np.uint16
        else: assert made.dtype == given.dtype
    as_floats = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    true = make_stereo(as_floats, torch.from_numpy(depth)[None, None], None, 5, 0.5, 'right')
    planes = inb.face.take_picture(views.right)[0]
    assert (planes - true.right).abs().max() < 2e-3 + 0.5 / 255
    mask = inb.face.take_picture(views.right_mask, channels=1)[0]
    assert torch.equal(mask > 0, true.right_mask > 0)


def test_the_same_as_the_program(scene, tmp_path):
    pixels, depth = scene
    Image.fromarray(pixels).save(tmp_path/'photo.png')
    levels = (depth * 65535).round().astype(np.uint16)
    Image.fromarray(levels).save(tmp_path/'depth.png')
    left, right = stereo_photo(tmp_path/'photo.png', tmp_path/'out', depth_file=tmp_path/'depth.png', format='left,right', divergence=5, progress=False)
    for given in (levels, Image.fromarray(levels), torch.from_numpy(levels), levels / 65535.0):
        views = inb.stereo(pixels, given, divergence=5)
        assert np.array_equal(views.left, np.array(Image.open(left))) and np.array_equal(views.right, np.array(Image.open(right)))


def test_depth_forms(scene):
    pixels, depth = scene
    levels, tensor = (depth * 255).round().astype(np.uint8), torch.from_numpy(depth)
    def holes(depth): return inb.holes(pixels, depth, divergence=5).right_mask
    same = [holes(form) for form in (depth, depth[..., None], depth[None], tensor, tensor[None], tensor[None, None])]
    assert all(np.array_equal(same[0], other) for other in same) and same[0].max() == 255
    coarse = [holes(form) for form in (levels, Image.fromarray(levels), levels / 255.0)]
    assert all(np.array_equal(coarse[0], other) for other in coarse)
    assert holes(depth[::2, ::2]).shape == (64, 96)


def test_estimated_depth(scene):
    pixels, _ = scene
    picture, array, tensor = inb.estimate_depth(Image.fromarray(pixels)), inb.estimate_depth(pixels), inb.estimate_depth(torch.from_numpy(pixels).permute(2, 0, 1))
    assert (picture.mode, array.dtype, array.shape, tensor.shape) == ('I;16', np.float32, (64, 96), (1, 64, 96))
    assert np.abs(np.array(picture) / 65535 - array).max() < 1e-4 and np.array_equal(tensor[0].numpy(), array)
    by_name, given = inb.stereo(pixels, model=None, divergence=5), inb.stereo(pixels, array, model=None, divergence=5)
    assert np.array_equal(by_name.right, given.right)


def test_fill_either_eye(scene):
    pixels, depth = scene
    opened, views = (work(pixels / 255.0, depth, divergence=5, model=model) if model else work(pixels / 255.0, depth, divergence=5)
                     for work, model in ((inb.holes, None), (inb.stereo, 'repeat')))
    for eye in ('left', 'right'):
        filled = inb.fill(getattr(opened, eye), getattr(opened, f'{eye}_mask'), 'repeat', eye)
        assert np.abs(filled - getattr(views, eye)).max() < 1e-6


def test_files_are_read_again_when_they_change(scene, tmp_path):
    from inpaint_nb.models import create_model, save_model
    pixels, depth = scene
    torch.manual_seed(0)
    model, path = create_model('light_inpaint_v1').eval(), tmp_path/'one.pth'
    save_model(model, path)
    first = inb.stereo(pixels, depth, divergence=5, model=path)
    again = inb.stereo(pixels, depth, divergence=5, model=model)
    assert np.array_equal(first.right, again.right)
    with torch.no_grad(): model.to_image[-1].bias.fill_(0.9) if hasattr(model.to_image, '__getitem__') else model.to_image.bias.fill_(0.9)
    save_model(model, path)
    assert not np.array_equal(first.right, inb.stereo(pixels, depth, divergence=5, model=str(path)).right)


@pytest.mark.parametrize('picture, depth, words', [
    ('photo.jpg', None, 'image is one of a PIL image, a NumPy array, a tensor, not str .open a file'),
    (np.zeros((8, 8), np.uint8), None, r'image does not fit, its shape is \(8, 8\), not h w 3'),
    (np.zeros((8, 8, 4), np.uint8), None, r'\(8, 8, 4\), not h w 3'),
    (torch.zeros(8, 8, 3), None, r'\(8, 8, 3\), not 3 h w or b 3 h w'),
    (np.full((8, 8, 3), 200.0), None, 'its values span 200 to 200: scale it to 0..1'),
    (np.full((8, 8, 3), np.nan), None, 'its values span nan to nan'),
    (np.zeros((8, 8, 3), np.int64), None, 'it holds torch.int64: give 8 or 16 bits'),
    (np.zeros((8, 8, 3), object), None, 'it holds object, not numbers'),
    (np.zeros((0, 8, 3), np.uint8), None, r'its shape is \(0, 8, 3\)'),
    (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 9.0), 'depth does not fit, its values span 9 to 9'),
    (np.zeros((8, 8, 3), np.uint8), np.arange(192.0).reshape(8, 8, 3) / 200, 'depth does not fit, its colours differ'),
    (np.zeros((8, 8, 3), np.uint8), Image.new('RGB', (8, 8), 'red'), 'its colours differ, but a map is grey'),
    (np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8), '1 pictures, but 3 depth maps'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 8)), 'the depth is 4 x 8, which does not fit the picture with 8 x 8'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8)), '1 pictures, but 2 depth maps'),
    (np.zeros((8, 8, 3), np.uint8), 'depth.png', 'depth is one of a PIL image'),
])
def test_what_does_not_fit_is_said(picture, depth, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught: inb.stereo(picture, depth, model=None)
    assert '\n' not in f'{caught.value}'


def test_wrong_options_are_said():
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match='divergence is 0 to 99, not -1'): inb.stereo(picture, picture[..., 0], divergence=-1)
    with pytest.raises(ValueError, match='eye is right or left'): inb.fill(picture, picture[..., 0], eye='both')
    with pytest.raises(ValueError, match='must agree in number'): inb.fill(picture, picture[:4, :, 0])
    with pytest.raises(ValueError, match='read the map with inpaint_nb.depth.read_depth'): inb.estimate_depth(picture, 'Files')
    with pytest.raises(ValueError, match='give pretrained, repeat, or a .pth file'): inb.stereo(picture, picture[..., 0], model='nothing')
