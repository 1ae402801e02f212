"Records on disk: golden numbers, hostile pictures, several workers, kill and rerun."
import json, os, random, shutil, signal, zlib
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from inpaint_nb import crops, datasets, records as records_page
from inpaint_nb.crops import RecordOptions, keyed_random
from inpaint_nb.datasets import (
    HardExampleSampler, InpaintDataset, grid_crop, list_records, read_record, thicken_mask
)
from inpaint_nb.photos import open_picture, read_photo, upright_size
from inpaint_nb.records import RecordWork, content_key, own_share, record_note, write_record
from inpaint_nb.depth import DepthModel
from inpaint_nb.masks import mask_closing
from inpaint_nb.scenes import random_scene
from inpaint_nb.warp import forward_warp
from stopping import stopped
from making import contents, make_image_records, make_small, to_pixels, worked_small
from reference import golden

STEREO = Path(__file__).parents[2]/'shared/data/stereo'


def scene_photo(seed, size=(270, 360)):
    return Image.fromarray(to_pixels(random_scene(seed, size=size).image))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for part, seeds in (('eval', (10,)), ('train', (11, 12, 13))):
        (folder/part).mkdir()
        for seed in seeds: scene_photo(seed).save(folder/part/f'{seed}.png')
    return folder


@pytest.fixture(scope='module')
def records(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    make(photos, folder)
    return folder


SIZE = 288  # of records, a little more than crops


def make(photos, folder, **options):
    with worked_small(): return make_image_records(photos, folder, 'test', 'Pseudo', **dict(dict(size=SIZE, divergence_level=3, progress=False), **options))


# Golden numbers

@pytest.mark.parametrize('case', ['linear', 'linear_partial_cover', 'linear_too_few', 'linear_nan'])
def test_sampler_weights(case):
    data = np.load(golden('hard_example_sampler.npz'))
    config = json.loads(str(data[f'{case}|config']))
    sampler = HardExampleSampler(config['N'], 100, history=config['history'], scale=config['scale'])
    steps = list(zip(data[f'{case}|indices'], data[f'{case}|losses']))
    per_epoch = len(steps) // config['epochs']
    for epoch in range(config['epochs']):
        for indices, loss in steps[epoch * per_epoch:(epoch + 1) * per_epoch]: sampler.record_loss(torch.tensor(indices), loss)
        sampler.update_weights()
        expected, means = data[f'{case}|weights_after_epoch'][epoch], data[f'{case}|loss_sma_after_epoch'][epoch]
        if np.isnan(expected).any() or np.isnan(means).any():  # a loss of NaN has entered there; here it must not
            assert case == 'linear_nan' and sampler.weights.isfinite().all()
            assert sampler.weights.min() > 0 and len(list(sampler)) == 100
            continue
        ours = torch.where(sampler.seen > 0, sampler.losses.nanmean(1), torch.inf)
        np.testing.assert_allclose(ours, means, rtol=1e-6)
        np.testing.assert_allclose(sampler.weights, expected, atol=1e-5)


@pytest.mark.parametrize('case, losses', [('linear_constant', [0.1] * 5)])
def test_sampler_constant_losses(case, losses):
    sampler = HardExampleSampler(6, 10)
    for index, loss in enumerate(losses): sampler.record_loss([index], loss)
    sampler.update_weights()
    np.testing.assert_allclose(sampler.weights, np.load(golden('hard_example_sampler.npz'))[f'{case}|weights'], atol=1e-6)


def test_eval_crops():
    data = np.load(golden('extras_dataset.npz'))
    for number in range(3):
        mask, (top, left) = data[f'eval_crop|{number}|mask'], data[f'eval_crop|{number}|offset_yx']
        assert grid_crop(mask, 256) == (top, left)
        total = mask[top:top + 256, left:left + 256].sum() / 255
        assert total == pytest.approx(float(data[f'eval_crop|{number}|mask_sum']), rel=1e-5)
    assert grid_crop(np.zeros((512, 512), np.uint8), 256) == tuple(data['eval_crop|empty_mask|offset_yx'])


def test_dilation_steps():
    data = np.load(golden('extras_dataset.npz'))
    dot = torch.zeros(1, 1, 1, 64, dtype=torch.bool)
    dot[..., 32] = True
    grown = [thicken_mask(dot, keyed_random('steps', draw)).nonzero()[:, -1] for draw in range(8000)]
    for steps, name in (([c.max().item() - 32 for c in grown], 'right'), ([32 - c.min().item() for c in grown], 'left')):
        expected = data[f'{name}_dilate_steps_hist']
        share = np.bincount(steps, minlength=len(expected)) / len(steps)
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)


# Making records

def test_workers_and_rerun(photos, records, tmp_path):
    whole = contents(records)
    assert any(name.startswith('train/') for name in whole)
    make(photos, tmp_path/'one', max_workers=1)
    make(photos, tmp_path/'three', max_workers=3)
    assert contents(tmp_path/'one') == contents(tmp_path/'three') == whole
    again = make(photos, tmp_path/'one', max_workers=3)
    assert again.made == 0 and again.reused == sum(name.endswith('_M.png') for name in whole)
    assert contents(tmp_path/'one') == whole


def test_finished_photos_are_not_decoded(photos, records, monkeypatch):
    def fail(*args): raise AssertionError('decoded a finished photo')
    monkeypatch.setattr('inpaint_nb.records.open_photo', fail)
    assert make(photos, records).made == 0


def test_record_contents(records):
    for part in ('train', 'eval'):
        for name in list_records(records/part):
            picture, mask = read_record(records/part, name)
            assert picture.shape == (SIZE, SIZE, 3) and mask.shape == (SIZE, SIZE)
            assert set(np.unique(mask)) == {0, 255} and (mask > 0).sum() > 300
            note = record_note(records/part/f'{name}_M.png')
            assert note['options']['seed'] == 71 and note['source'].startswith(name.split('_')[2])
            assert [int(number) for number in name.split('_')[3:]] in note['kept']


def test_seed_level_and_samples(photos, records, tmp_path):
    make(photos, tmp_path/'seed', seed=5, eval_only=True)
    assert not (tmp_path/'seed/train').exists()
    seed, whole = contents(tmp_path/'seed'), contents(records)
    assert seed and all(whole.get(name) != data for name, data in seed.items())
    more = make(photos, tmp_path/'more', num_samples=1)
    grown = make(photos, tmp_path/'more', num_samples=2)
    assert grown.made + grown.reused > more.made
    pixels = lambda folder, name: np.asarray(Image.open(folder/name))
    for name in whole:
        if name.endswith('.png'): np.testing.assert_array_equal(pixels(tmp_path/'more', name), pixels(records, name))
    with pytest.raises(ValueError, match='was made with divergence_level 3, not 2'): make(photos, tmp_path/'more', divergence_level=2)


def test_large_records(photos, tmp_path):
    make_image_records(photos, tmp_path, 'test', 'Pseudo', size=1200, divergence_level=3, eval_only=True, num_samples=1, progress=False)
    names = list_records(tmp_path/'eval')
    assert {read_record(tmp_path/'eval', name)[1].shape for name in names} == {(1200, 1200)}


def hostile_folder(folder):
    picture = scene_photo(20)
    big = scene_photo(21, (540, 720))
    train = folder/'train'
    train.mkdir(parents=True); (folder/'eval').mkdir()
    save = lambda image, name, **options: image.save(train/name, **options)
    big.save(folder/'whole.jpg', quality=90)
    whole = (folder/'whole.jpg').read_bytes()
    (train/'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (train/'short.JPG').write_bytes(whole[:-200])
    big.save(folder/'whole.png')
    (train/'cut.png').write_bytes((folder/'whole.png').read_bytes()[:20000])
    (train/'text.png').write_text('this is no picture\n')
    (train/'zero.png').touch()
    (train/'folder.png').mkdir()
    (train/'gone.jpg').symlink_to(folder/'nowhere.jpg')
    (train/'.hidden.jpg').write_bytes(b'no')
    save(Image.new('RGB', (900, 200)), 'strip.png')
    exif = Image.Exif(); exif[0x0112] = 8
    save(picture, 'phone.jpg', exif=exif)
    save(picture.convert('CMYK'), 'cmyk.tif')
    save(picture.quantize(16), 'palette.bmp')
    save(Image.fromarray(np.asarray(picture.convert('L')).astype(np.uint16) * 257), 'wide.png')
    save(picture.convert('LA'), 'alpha.webp')
    save(picture.convert('F'), 'float.tiff')
    save(picture, 'moving.png', save_all=True, append_images=[big.resize(picture.size)])
    save(picture, 'ünï côde.ppm')
    save(Image.new('RGB', (1, 1), 'red'), 'one.png')
    return folder


def test_hostile_pictures(tmp_path):
    folder = hostile_folder(tmp_path/'photos')
    summary = make(folder, tmp_path/'out', num_samples=1)
    bad = {'cut.jpg', 'short.JPG', 'cut.png', 'text.png', 'zero.png'}
    assert {name.split('/')[1] for name in summary.failed} == bad and {name.split('/')[1] for name in summary.skipped} == {'strip.png'}
    for name, reason in summary.failed.items():
        assert '\n' not in reason and '0x' not in reason
        assert f'failed {name}: {reason}' in str(summary)
    assert summary.photos == 15 and summary.made > 0
    made = {record_note(path)['source'] for path in (tmp_path/'out/train').glob('*_M.png')}
    assert len(made) >= 6
    files = contents(tmp_path/'out')
    assert {name for name in files if not name.startswith('train/.')} == {f'train/{name}_{part}.png' for name in list_records(tmp_path/'out/train') for part in 'CM'}
    assert {json.loads(files[name])['source'] for name in files if name.startswith('train/.')} >= made


def test_orientation_tag():
    base = Image.fromarray(np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3))
    for tag in range(1, 9):
        exif = Image.Exif(); exif[0x0112] = tag
        base.save(file := BytesIO(), 'PNG', exif=exif)
        assert upright_size(open_picture(file.getvalue())) == read_photo(file.getvalue()).size == ((12, 8) if tag < 5 else (8, 12))


def test_nothing_made(tmp_path):
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    Image.new('RGB', (300, 300), 'blue').save(tmp_path/'photos/train/flat.png')
    (tmp_path/'photos/train/text.png').write_text('no')
    summary = make(tmp_path/'photos', tmp_path/'out', divergence_level=1)
    assert (summary.made, summary.reused, summary.photos) == (0, 0, 2)
    assert list(summary.failed) == ['train/text.png'] and summary.rejected == 4


# Killed and run again

def go(photos, folder, number=0, at=0):
    "As `make`, in a process that gets a signal just before its change number `at`."
    options, work = RecordOptions('test', 'Pseudo', size=SIZE, divergence_level=3), RecordWork(max_workers=2, progress=False)
    return stopped(partial(make_small, records_page.make_image_records, photos, folder, options, work), folder, folder.with_suffix('.report'), number, at)


def count_changes(photos, folder):
    done = go(photos, folder)
    assert done.status == 0, done.said
    return done.steps


@pytest.mark.skipif(os.name == 'nt', reason='signals of Unix')
def test_killed_and_run_again(photos, records, tmp_path):
    "Each time just before a change that chance chose, of all that a whole run makes."
    whole, out, chance = contents(records), tmp_path/'out', random.Random()
    changes = count_changes(photos, tmp_path/'count')
    assert changes > 2 * len(whole)  # each file is written, and gets its name
    for turn in range(3):
        at = chance.randint(1, changes)
        killed = go(photos, out, signal.SIGKILL, at)
        assert killed.status == -signal.SIGKILL or turn and killed.status == 0, (at, changes, killed)
    make(photos, out)
    assert contents(out) == whole


@pytest.mark.skipif(os.name == 'nt', reason='signals of Unix')
@pytest.mark.parametrize('kind', [signal.SIGTERM, signal.SIGINT])
def test_interrupted(photos, records, tmp_path, kind):
    out, chance = tmp_path/'out', random.Random()
    changes = count_changes(photos, tmp_path/'count')
    at = chance.randint(changes // 4, changes // 2)  # not before it listens for signals
    done = go(photos, out, kind, at)
    assert done.status and 'KeyboardInterrupt' in done.said, (at, done)
    assert done.seconds < 10
    assert not any(name.endswith('.part') for name in contents(out))
    assert contents(out).items() <= contents(records).items() and contents(out) != contents(records)


# Composed records

LAYERS = dict(model_type='Layers', size=64, num_samples=1, divergence_level=2, progress=False)


@pytest.fixture(scope='module')
def composed(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp('composed')
    assert make_image_records(photos, folder, 'cut', **LAYERS).made
    return folder


def test_composed_records_do_not_depend_on_the_run(photos, composed, tmp_path):
    for number in (2, 1): make_image_records(photos, tmp_path/'shards', 'cut', **LAYERS, shard=f'{number}/2', max_workers=3)
    assert contents(tmp_path/'shards') == contents(composed)
    some = sorted((tmp_path/'shards/train').glob('*_M.png'))[0]
    for file in some.parent.glob(some.name[:-9] + '*'): file.unlink()
    again = make_image_records(photos, tmp_path/'shards', 'cut', **LAYERS)
    assert again.made and again.reused and contents(tmp_path/'shards') == contents(composed)


def test_composed_records_hold_others(photos, composed):
    "Each note names the photos whose parts stand before, never its own; no two records are one picture."
    keys = {file: content_key(file)[:8] for file in (photos/'train').iterdir()}
    pictures = []
    for name in list_records(composed/'train'):
        note = record_note(composed/'train'/f'{name}_M.png')
        picture, mask = read_record(composed/'train', name)
        assert len(note['helpers']) == 2 and set(note['helpers']) < set(keys.values())
        assert mask.any() and set(np.unique(mask)) <= {0, 255} and note['parameters']['angle'] is None
        assert note['parameters']['view'] == 'right' and note['parameters']['mapper'] == 'none'
        pictures.append(picture.tobytes())
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize('level, narrow, wide', [(1, 5, 65), (2, 8, 104), (4, 16, 128)])
def test_widest_disparity(level, narrow, wide):
    "As many pixels as the level says, at most half of the record; there is room for them."
    options = crops.RecordOptions('', 'Layers', size=256, divergence_level=level)
    keys = [keyed_random('widest', level, draw) for draw in range(500)]
    drawn = [crops.draw_widest(key, options) for key in keys]
    assert narrow <= min(drawn) < 1.05 * narrow and 0.95 * wide < max(drawn) <= wide
    for widest in (narrow, wide):
        side, margin = crops.composed_side(256, widest)
        assert side - 2 * margin >= 256 and margin > widest


def test_composed_records_say_how_wide_they_are(photos):
    "The divergence in the note is that of a whole photo at the size at which the record shows it."
    grounds = [crops.read_material(file) for file in sorted((photos/'train').iterdir())]
    options = crops.RecordOptions('', 'Layers', size=96, divergence_level=1)
    drawn = crops.draw_parameters(keyed_random('note'), grounds[0].shape[1::-1])
    found = crops.composed_crops(grounds[0], grounds[1:], drawn, options, ('note',))
    assert found
    for crop in found.values():
        height, width = grounds[0].shape[:2]
        scale = crop[2].short_side / min(height, width)
        assert 5 - 0.1 <= crop[2].divergence / 100 * width * scale <= 48 + 0.1
        assert crop[2].convergence == drawn.convergence


def test_a_photo_alone_lends_its_own_parts(tmp_path):
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    scene_photo(3).save(tmp_path/'photos/train/3.png')
    (tmp_path/'photos/train/broken.png').write_bytes(b'broken')
    summary = make_image_records(tmp_path/'photos', tmp_path/'out', 'cut', **LAYERS)
    assert summary.made and list(summary.failed) == ['train/broken.png']
    assert record_note(next((tmp_path/'out/train').glob('*_M.png')))['helpers'] == []


def test_helpers_stay_when_photos_come():
    "One more photo among fifty changes the choice of few."
    files = {Path(f'{number}.png'): f'{keyed_random("ring", number).getrandbits(256):064x}' for number in range(51)}
    few, all_files = (crops.Helpers(dict(list(files.items())[:number]), lambda path: np.zeros(1)) for number in (50, 51))
    chosen = [[set(helpers.choose(key, 71, key)) for key in list(files.values())[:50]] for helpers in (few, all_files)]
    assert all(len(names) == 3 for names in chosen[0]) and sum(a == b for a, b in zip(*chosen)) >= 42


def test_refuses_what_layers_does_not_know(photos, tmp_path):
    for wrong, reason in ((dict(resolution=98), 'leave the resolution out'), (dict(tta=True), 'leave `tta` out'), (dict(model_type='Layers:x'), 'takes nothing after its name')):
        with pytest.raises(ValueError, match=reason): make_image_records(photos, tmp_path/'out', 'cut', **LAYERS | wrong)


def test_least_detail(photos, records, tmp_path):
    "Without it notes are what they were; with it plain records are left out, and the two are not mixed."
    mask = next((records/'train').glob('*_M.png'))
    assert 'least_detail' not in record_note(mask)['options']
    some, none = (make(photos, tmp_path/name, least_detail=least) for name, least in (('some', 9), ('none', 255)))
    kept = {name for name in contents(tmp_path/'some') if name.endswith('.png')}
    assert none.made == 0 < some.made < len(list(records.rglob('*_M.png'))) and kept < set(contents(records))
    for name in kept:
        if name.endswith('_C.png'): assert (tmp_path/'some'/name).read_bytes() == (records/name).read_bytes()
    with pytest.raises(ValueError, match='was made with least_detail 0.0, not 9.0'): make(photos, records, least_detail=9)


def test_widest_holes(photos, records, tmp_path):
    assert make(photos, tmp_path, divergence_level=4, num_samples=1).made
    drawn = [record_note(file)['parameters'] for file in tmp_path.rglob('*_M.png')]
    assert min(each['divergence'] for each in drawn) >= 8
    width = lambda folder: np.mean([read_record(file.parent, file.name[:-6])[1].mean() / 255 for file in folder.rglob('*_M.png')])
    assert width(tmp_path) > width(records)


# Loading

def test_same_batches_with_workers(records):
    dataset = InpaintDataset(records/'train', seed=3)
    def batches(**options):
        sampler = HardExampleSampler(len(dataset), 8, seed=3)
        loader, found = DataLoader(dataset, batch_size=4, sampler=sampler, **options), []
        for epoch in (1, 2):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found
    plain, workers = batches(), batches(num_workers=2, persistent_workers=True)
    for here, there in zip(plain, workers, strict=True):
        for one, two in zip(here, there, strict=True): assert torch.equal(one, two)
    assert not torch.equal(plain[0][0], plain[2][0])


def test_holes_inside_every_crop(records):
    dataset = InpaintDataset(records/'train', size=128)
    for index in range(len(dataset)):
        for draw in range(20): assert dataset[index, 0, draw][1][:, 16:-16, 16:-16].any()


def test_colour_change_reaches_input_and_truth(records, monkeypatch):
    dataset = InpaintDataset(records/'train')
    items = [dataset[0, 0, draw] for draw in range(80)]
    monkeypatch.setattr(datasets, 'jitter_colour', lambda image, rng: image)
    plain = [dataset[0, 0, draw] for draw in range(80)]
    for (x, mask, y, _), (_, same, _, _) in zip(items, plain):
        assert torch.equal(x[:, 16:-16, 16:-16], y) and torch.equal(mask, same)
    changed = sum(not torch.equal(x, before) for (x, *_), (before, *_) in zip(items, plain))
    assert 12 <= changed <= 36  # 23 expected


@pytest.mark.skipif(not STEREO.is_dir(), reason='needs ../shared/data/stereo')
@pytest.mark.parametrize('scene, least, most', [('mb2003_Cones', 0.15, 0.5), ('mb2003_Teddy', 0.15, 0.5), ('mb2001_Venus', -0.1, 0.15)])
def test_fringe_of_real_pairs(scene, least, most):
    "As it was measured, with the most in the first pixel and hardly any in the third."
    left, right = (torch.from_numpy(np.array(Image.open(STEREO/scene/f'{eye}.png').convert('RGB'))).permute(2, 0, 1)[None] / 255 for eye in ('left', 'right'))
    disparity = torch.from_numpy(np.array(Image.open(STEREO/scene/'disp_left.png')).astype(np.float32) / 256)[None, None]
    depth, widest = disparity / disparity.max(), disparity.max().item()
    warped = forward_warp(left, depth, 100 * widest / left.shape[-1], 0, view='right')
    fringe = datasets.measure_fringe(warped.right, mask_closing(warped.right_mask), right)
    assert least < fringe[0] < most and fringe[2] < max(fringe[0] / 2, 0.1), fringe


def test_colours_as_in_torchvision():
    from torchvision.transforms.v2 import functional
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 40, 50, generator=generator)
    image[..., :4, :], image[..., 4:8, :], image[:, :2, 8:12] = 0.5, 0, 0.3
    for name, amounts in (('brightness', (0.6, 1.4)), ('contrast', (0.6, 1.4)), ('saturation', (0.8, 1.2)), ('hue', (-0.5, -0.1, 0, 0.1))):
        for amount in amounts:
            for one in image:
                torch.testing.assert_close(getattr(datasets, f'adjust_{name}')(one, amount), getattr(functional, f'adjust_{name}')(one, amount), atol=1e-5, rtol=0)


def test_records_of_the_reference(tmp_path):
    rng = np.random.default_rng(1)
    picture, mask = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8), np.zeros((512, 512), np.uint8)
    mask[100:140, 200:220], mask[300:310, 30:90] = 127, 255
    Image.fromarray(picture).save(tmp_path/'image1_Any_B_abaee5b1_2_0_C.png'); Image.fromarray(mask).save(tmp_path/'image1_Any_B_abaee5b1_2_0_M.png')
    x, hole, y, _ = InpaintDataset(tmp_path, training=False)[0]
    top, left = grid_crop(mask, 256)
    np.testing.assert_array_equal((x.permute(1, 2, 0) * 255).round().byte(), picture[top:top + 256, left:left + 256])
    np.testing.assert_array_equal(hole[0], mask[top:top + 256, left:left + 256] > 0)
    assert record_note(tmp_path/'image1_Any_B_abaee5b1_2_0_M.png') == {}


@pytest.mark.parametrize('damage, message', [(b'', 'not a readable picture'), (b'text', 'not a readable picture')])
def test_damaged_record_is_named(tmp_path, damage, message):
    write_record(tmp_path, 'p_Pseudo_1', np.zeros((300, 300, 3), np.uint8), np.zeros((300, 300), bool))
    (tmp_path/'p_Pseudo_1_C.png').write_bytes(damage)
    with pytest.raises(ValueError, match=f'p_Pseudo_1_C.png is {message}'): InpaintDataset(tmp_path)[0]


def test_resumed_sampler_draws_the_same():
    def epoch(sampler, number):
        sampler.set_epoch(number)
        keys = list(sampler)
        for index, _, draw in keys: sampler.record_loss([index], 0.1 + 0.01 * index + 0.001 * (draw % 7))
        sampler.update_weights()
        return keys
    through = HardExampleSampler(20, 30, seed=9)
    expected = [epoch(through, number) for number in range(4)]
    first = HardExampleSampler(20, 30, seed=9)
    for number in range(2): epoch(first, number)
    second = HardExampleSampler(20, 30, seed=9)
    second.load_state_dict(first.state_dict())
    assert [epoch(second, number) for number in (2, 3)] == expected[2:]


# Names, notes and lines of the journal that are not as they should be

def test_a_photo_to_judge_is_not_learnt_from(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'photos')
    shutil.copy(photos/'eval/10.png', tmp_path/'photos/train/copy.png')
    summary = make(tmp_path/'photos', tmp_path/'out')
    assert summary.skipped == {'train/copy.png': 'same picture as eval/10.png'}
    for number in (1, 2): make(tmp_path/'photos', tmp_path/'shards', shard=f'{number}/2')
    assert contents(tmp_path/'shards') == contents(tmp_path/'out')


def test_names_of_any_kind(photos, tmp_path):
    "A line break in a name stays in its line; bytes that are no text can be printed."
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    shutil.copy(photos/'train/11.png', tmp_path/'photos/train/two\nlines.png')
    (tmp_path/'photos/train'/os.fsdecode(b'no\xfctext.png')).write_text('no picture')
    summary = make(tmp_path/'photos', tmp_path/'out')
    str(summary).encode()
    assert summary.made and len(str(summary).splitlines()) == len(str(summary).split('\n')) and list(summary.failed) == ['train/no\\udcfctext.png']
    assert make(tmp_path/'photos', tmp_path/'out').reused == summary.made


@pytest.mark.parametrize('text', ['[1]', '{"options": [1]}', '{"options": {"prefix": "test"}}', '{"kept": 5}', 'half a no'])
def test_a_note_that_cannot_be_read(photos, records, tmp_path, text):
    "The record is made again."
    shutil.copytree(records, tmp_path/'out')
    before = contents(tmp_path/'out')
    mask = sorted((tmp_path/'out/train').glob('*_M.png'))[0]
    data = mask.read_bytes()
    begin = data.index(b'tEXt') - 4
    end = begin + 12 + int.from_bytes(data[begin:begin + 4], 'big')
    chunk = b'tEXtinpaint_nb\0' + text.encode()
    mask.write_bytes(data[:begin] + (len(chunk) - 4).to_bytes(4, 'big') + chunk + zlib.crc32(chunk).to_bytes(4, 'big') + data[end:])
    with pytest.raises(ValueError, match='has a note that cannot be read: delete it'): record_note(mask)
    assert make(photos, tmp_path/'out').made
    assert contents(tmp_path/'out') == before


def test_lost_lines_are_written_again(photos, records, tmp_path):
    shutil.copytree(records, tmp_path/'out')
    before = {name: json.loads(data) for name, data in contents(tmp_path/'out').items() if name.endswith('.json')}
    for number, name in enumerate(before): (tmp_path/'out'/name).write_text('{"half') if number % 2 else (tmp_path/'out'/name).unlink()
    assert make(photos, tmp_path/'out').made == 0
    after = {name: json.loads(data) for name, data in contents(tmp_path/'out').items() if name.endswith('.json')}
    assert before and after == {name: line | {'version': 'unknown'} for name, line in before.items()}


class Unsure(DepthModel):
    name = 'Unsure'
    def infer(self, images, paths=None): raise ValueError('Unsure gives no finite depth for this picture')


def test_depth_that_fails_is_tried_again(photos, tmp_path, monkeypatch):
    with monkeypatch.context() as then:
        then.setattr('inpaint_nb.records.create_depth_model', lambda *args, **options: Unsure())
        summary = make(photos, tmp_path)
    assert len(summary.failed) == 4 and not contents(tmp_path)
    assert make(photos, tmp_path).made


def test_a_process_without_others_does_everything(monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert own_share() == (0, 1)
