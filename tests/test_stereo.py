"""Stereo pictures: what must hold for any size, network and eye, and for the reference's weights."""
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb.masks import dilate_inner, dilate_outer, mask_closing
from inpaint_nb.models import create_model, load_model
from inpaint_nb.scenes import random_scene
from inpaint_nb.stereo import (PACKINGS, StereoViews, choose_device, half_side_by_side, hole_to_fill, inpaint_view, make_stereo,
                               read_picture, repeat_background, save_picture, side_by_side, stereo_photo, tiles_to_fill)
from inpaint_nb.warp import forward_warp

SHARED = Path(__file__).parents[2] / 'shared'
CHECKPOINT = SHARED / 'reference/checkpoints/inpaint.light_inpaint_v1.pth'
needs_checkpoint = pytest.mark.skipif(not CHECKPOINT.exists(), reason='the reference checkpoint is not beside the checkout')


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


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
        filled, reported = inpaint_view(image, mask, model, cell, margin)
        assert torch.equal(reported, weight)
        assert torch.equal(filled[(weight == 0).expand_as(filled)], image[(weight == 0).expand_as(filled)])
        assert (filled - whole).abs().max() < tolerance


@needs_checkpoint
def test_tiles_equal_whole_picture_with_reference_weights():
    model, _ = load_model(CHECKPOINT)
    model.eval()
    image, mask = torch.rand(1, 3, 64, 400), spots(64, 400, 0.1)
    with torch.no_grad(): whole = model.infer(image, mask)
    assert (inpaint_view(image, mask, model, cell=64)[0] - whole).abs().max() < 1e-4


def test_tiles_cover_each_hole_once():
    for seed in range(20):
        torch.manual_seed(seed)
        height, width = torch.randint(1, 700, (2,)).tolist()
        mask = spots(height, width, 0.02)
        covered = torch.zeros_like(mask)
        for keep, around in tiles_to_fill(mask, cell=128, margin=64):
            covered[(..., *keep)] += 1
            for inner, outer, end in zip(keep, around, (height, width)):
                assert 0 <= outer.start <= inner.start < inner.stop <= outer.stop <= end
                assert inner.start % 64 == 0 and outer.start % 64 == 0
        assert (covered[mask > 0] == 1).all() and covered.max() <= 1


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


def test_hole_to_fill_keeps_the_hole():
    mask = torch.tensor([0, 0.5, 1])[torch.randint(3, (1, 1, 40, 60))]
    assert (hole_to_fill(mask)[mask > 0] == 1).all()
    assert set(hole_to_fill(mask, 1, 1).unique().tolist()) <= {0, 1}


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
    assert sizes == {'photo_LRF_Full_SBS.png': (300, 96), 'photo_LR.png': (150, 96), 'photo_redcyan.png': (150, 96),
                     'photo_redcyan_colour.png': (150, 96), 'photo_left.png': (150, 96), 'photo_right.png': (150, 96), 'photo_mask.png': (300, 96)}
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
    repeated, = stereo_photo(photo, tmp_path / 'repeated', divergence=8, progress=False)
    with_network, repeated, mask = (np.asarray(Image.open(file)) for file in (with_network, repeated, mask))
    assert (with_network[mask > 0] != repeated[mask > 0]).any()
    assert np.array_equal(with_network[mask == 0], repeated[mask == 0])


# --- a GPU that is not there ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('gpu, found, device', [(-1, 0, 'cpu'), (-1, 2, 'cpu'), (0, 0, 'cpu'), (5, 0, 'cpu'), (0, 1, 'cuda:0'), (1, 2, 'cuda:1'), (1, 1, None), (5, 2, None)])
def test_choose_device(monkeypatch, gpu, found, device):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: found)
    if device: assert choose_device(gpu) == torch.device(device)
    else:
        with pytest.raises(ValueError, match=f'from 0 to {found - 1}, or -1'): choose_device(gpu)
