"""Layouts of a pair in files: where each pixel goes, by our names and by iw3's."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb import cli
from inpaint_nb.clip import stereo_clip
from inpaint_nb.clips import open_clip
from inpaint_nb.depth import DepthOptions, read_depth, write_depth
from inpaint_nb.depth_networks import ProNetwork
from inpaint_nb.layouts import ANAGLYPHS, PACKINGS, LayoutOptions, arrange, half_sphere
from inpaint_nb.pseudo import Pseudo
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.stereo import StereoModels, StereoOptions, photo_views, read_picture, save_picture, stereo_photo
from inpaint_nb.warp import StereoViews
from test_stereo import write_film
from making import to_pixels

FAST = dict(checkpoint_file='repeat', gpu=-1, progress=False)


@pytest.fixture(scope='module')
def photo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('layouts')
    scene = random_scene(3, size=(60, 100))
    save_picture(scene.image, folder/'photo.png')
    write_depth(scene.depth, folder/'depth.png')
    return folder/'photo.png'


@pytest.mark.parametrize('size', [(300, 400), (400, 300), (300, 300)])
@pytest.mark.parametrize('field', [60, 90, 120])
def test_half_sphere(size, field):
    "Rows and columns of a grid of known coordinates come out where a pinhole camera has them."
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    grid = torch.stack([rows + 0.5, columns + 0.5])[None] / max(size)
    sphere = half_sphere(grid.double(), field)[0]
    side = sphere.shape[-1]
    focal = 0.5 / math.tan(math.radians(field / 2))  # in longer sides
    seen = 0
    for i in range(5, side, 37):
        for j in range(5, side, 37):
            latitude, longitude = (((place + 0.5) / side - 0.5) * math.pi for place in (i, j))
            ray = math.sin(longitude) * math.cos(latitude), math.sin(latitude), math.cos(longitude) * math.cos(latitude)
            x, y = (focal * part / ray[2] + 0.5 * extent / max(size) for part, extent in zip(ray, (width, height)))
            inside = 0.02 < x < width / max(size) - 0.02 and 0.02 < y < height / max(size) - 0.02
            outside = not (-0.001 < x < width / max(size) + 0.001 and -0.001 < y < height / max(size) + 0.001)
            if inside: torch.testing.assert_close(sphere[:, i, j], torch.tensor([y, x]), atol=2e-3, rtol=0, check_dtype=False); seen += 1
            if outside: assert (sphere[:, i, j] == 0).all()
    assert seen > 5
    assert abs(side / math.pi / (max(size) * focal) - 1) < 0.02  # as many pixels in a radian as in the middle of the photo


def test_anaglyphs_keep_grey_and_their_eyes():
    red, cyan = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 1])
    for method in ANAGLYPHS.values():
        left, right = torch.tensor(method.left), torch.tensor(method.right)
        torch.testing.assert_close((left + right).sum(1), torch.ones(3), atol=0.02, rtol=0)
        assert left.sum(1) @ red > 0.9 and right.sum(1) @ cyan > 1.9  # most of each eye's light on its own side
    wimmer = torch.tensor(ANAGLYPHS['wimmer'].left)[0]
    assert wimmer.tolist() == pytest.approx([0, 0.7, 0.3])


def test_ipd_offset_moves_both_eyes():
    views = StereoViews(torch.ones(1, 3, 4, 100), torch.full((1, 3, 4, 100), 0.5), None, None)
    for offset, left, right in ((10, 20, 10), (-10, 10, 20)):
        pair = arrange('full_sbs', views, layout=LayoutOptions(ipd_offset=offset))[0, 0, 0]
        assert len(pair) == 2 * 130
        assert (pair == 1).nonzero()[0] == left and (pair == 0.5).nonzero()[0] == 130 + right


def test_size_is_limited_and_proportions_kept():
    views = StereoViews(torch.rand(1, 3, 90, 160), torch.rand(1, 3, 90, 160), None, None)
    sizes = [tuple(arrange(name, views, layout=LayoutOptions(**limits)).shape[-2:]) for name, limits in (
        ('full_sbs', dict(max_output_width=160)), ('full_sbs', dict(max_output_height=45)), ('full_tb', dict(max_output_width=100, max_output_height=60)), ('half_sbs', dict(max_output_width=400)))]
    assert sizes == [(44, 160), (44, 160), (60, 52), (90, 160)]


def test_depth_beside_the_picture(photo, tmp_path):
    out, = stereo_photo(photo, tmp_path, 'repeat', photo.with_name('depth.png'), format='rgbd', gpu=-1, progress=False)
    pixels, depth = np.asarray(Image.open(out)).astype(int), read_depth(photo.with_name('depth.png'))
    assert (pixels[:, :100] == np.asarray(Image.open(photo))).all()
    assert np.abs(pixels[:, 100:, 0] - depth[0, 0].numpy() * 255).max() <= 1 and (pixels[:, 100:, 0] == pixels[:, 100:, 2]).all()


def test_depth_alone_needs_no_fill(photo, monkeypatch):
    monkeypatch.setattr('inpaint_nb.stereo.fill_views', None)
    views, rgbd = photo_views(photo, read_picture(photo), StereoModels(StereoOptions(format='rgbd,half_rgbd', gpu=-1)))
    assert views is None and rgbd.left.shape == (1, 3, 60, 100)


@pytest.mark.parametrize('formats', ['rgbd', 'rgbd,full_sbs'])
def test_depth_of_a_clip_goes_with_its_frame(tmp_path, formats):
    frames = [to_pixels(scene.image) for scene in random_clip(5, 30, (48, 64))]
    write_film(tmp_path/'film.mkv', frames)
    (tmp_path/'maps').mkdir()
    for number in range(30): write_depth(torch.full((1, 1, 48, 64), number / 30), tmp_path/f'maps/{number:02}.png')
    out = stereo_clip(tmp_path/'film.mkv', tmp_path/'out', depth_file=tmp_path/'maps', format=formats, crf=5, **FAST)
    shown = [frame[:, 64:].mean() for frame in open_clip(out[0]).frames()]
    assert np.abs(np.array(shown) - np.arange(30) * 255 / 30).max() < 3


def test_turned(photo, tmp_path):
    lying = Image.open(photo).rotate(-90, expand=True)
    lying.save(tmp_path/'lying.png')
    for name, source, layout in (('a', photo, {}), ('b', tmp_path/'lying.png', dict(rotate_left=True))):
        stereo_photo(source, tmp_path/f'{name}.png', layout=LayoutOptions(**layout), **FAST)
    assert (tmp_path/'a.png').read_bytes() == (tmp_path/'b.png').read_bytes()
    write_film(tmp_path/'film.mp4', 3 * [np.asarray(lying)[:, :60]])
    out, = stereo_clip(tmp_path/'film.mp4', tmp_path/'film_3d.mp4', layout=LayoutOptions(rotate_left=True), **FAST)
    assert open_clip(out).size == (200, 60)


def test_depth_is_not_looked_for_closer_than_the_picture(photo, tmp_path, monkeypatch):
    "Photo after photo of other sizes, with one model; Depth Pro's square stays as it is."
    seen = []
    monkeypatch.setattr(Pseudo, 'infer', lambda model, images, paths: seen.append(model.resolution) or images[:, :1])
    models = StereoModels(StereoOptions('repeat', depth=DepthOptions(resolution=80), limit_resolution=True, gpu=-1))
    for size in ((60, 100), (90, 120), (40, 30)): photo_views(photo, torch.rand(1, 3, *size), models)
    assert seen == [60, 80, 30]
    photo_views(photo, torch.rand(1, 3, 50, 50), StereoModels(StereoOptions('repeat', gpu=-1)))
    assert seen[3] == Pseudo.resolution and ProNetwork.fixed_resolution


@pytest.mark.parametrize('flags, names', [
    ('--half-sbs', ['photo_LR.png']), ('--tb --half-tb', ['photo_TB.png', 'photo_TBF_fulltb.png']), ('--cross-eyed', ['photo_RLF_cross.png']),
    ('--rgbd --half-rgbd', ['photo_HRGBD.png', 'photo_RGBD.png']), ('--vr180', ['photo_180x180_LR.png']), ('--anaglyph', ['photo_redcyan.png']),
    ('--anaglyph half-color --format mask', ['photo_mask.png', 'photo_redcyan_half_colour.png']), ('', ['photo_LRF_Full_SBS.png'])])
def test_names_of_iw3(photo, tmp_path, flags, names):
    assert cli.inpaint_stereo([str(photo), '-o', str(tmp_path/'out'), '--checkpoint-file', 'repeat', '--gpu', '-1', *flags.split()]) == 0
    assert sorted(path.name for path in (tmp_path/'out').iterdir()) == names


@pytest.mark.parametrize('line, says', [('--pad -1', 'pad'), ('--ipd-offset 50', 'ipd offset'), ('--rotate-left --rotate-right', 'choose one'), ('--anaglyph wimmer2', 'wimmer2'),
                                        ('--max-output-width 2', 'max output width'), ('--field-of-view 180', 'field of view')])
def test_bad_layouts(photo, tmp_path, capsys, line, says):
    with pytest.raises(SystemExit) as end: cli.inpaint_stereo([str(photo), '-o', str(tmp_path/'out'), *line.split()])
    assert end.value.code == 2 and says in capsys.readouterr().err and not (tmp_path/'out').exists()
