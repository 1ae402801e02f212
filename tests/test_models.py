"Numbers and files of the reference, and checkpoints under adverse conditions."
import errno
import io
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from inpaint_nb import models
from inpaint_nb.fills import repeat_background
from inpaint_nb.light import gaussian_kernel
from inpaint_nb.light_video import GATES, LightVideoInpaintV1, frame_windows, narrowed
from inpaint_nb.common import write_whole
from inpaint_nb.models import (
    MODELS, PRETRAINED, count_macs, create_model, load_model, matching_weights, pretrained_cards,
    pretrained_file, read_checkpoint, save_model
)
import reference

REFERENCE, GOLDEN = reference.SHARED, reference.golden('model_light_inpaint_v1.npz')
CHECKPOINT = REFERENCE / 'checkpoints' / 'inpaint.light_inpaint_v1.pth'
VIDEO_GOLDEN = reference.golden('model_light_video_inpaint_v1.npz')
VIDEO_CHECKPOINT = CHECKPOINT.with_name('inpaint.light_video_inpaint_v1.pth')
needs_video_golden = pytest.mark.skipif(not VIDEO_GOLDEN.exists(), reason=f'no golden numbers at {VIDEO_GOLDEN}')
needs_video_checkpoint = pytest.mark.skipif(not VIDEO_CHECKPOINT.exists(), reason=f'no reference checkpoint at {VIDEO_CHECKPOINT}')
needs_checkpoint = pytest.mark.skipif(not CHECKPOINT.exists(), reason=f'no reference checkpoint at {CHECKPOINT}')


def read_golden(path):
    with np.load(path) as file: return {k: file[k] for k in file.files}


def recipe_model(name, golden):
    "With the recipe's weights."
    sys.path.insert(0, str(GOLDEN.parent))
    try: from recipe import build
    finally: sys.path.pop(0)
    model = create_model(name)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in build(shapes, set(golden['norm_weight_names'].tolist())).items()})
    return model


@pytest.fixture(scope='module')
def golden(): return read_golden(GOLDEN)


@pytest.fixture(scope='module')
def video_golden(): return read_golden(VIDEO_GOLDEN)


@pytest.fixture(scope='module')
def model(golden): return recipe_model('light_inpaint_v1', golden)


@pytest.fixture(scope='module')
def video_model(video_golden): return recipe_model('light_video_inpaint_v1', video_golden)


def tensor(golden, key): return torch.from_numpy(golden[key]).float()


def test_blur_kernel(golden, model):
    assert (gaussian_kernel(15) - tensor(golden, 'mask_blur_kernel1d')).abs().max() < 1e-7


@pytest.mark.parametrize('case', ['A', 'B'])
def test_outputs(golden, model, case):
    image, mask = tensor(golden, f'{case}|x'), tensor(golden, f'{case}|mask')
    x, soft = model.preprocess(image, mask)
    assert (soft - tensor(golden, f'{case}|pre_mask')).abs().max() < 1e-6
    model.eval()
    with torch.no_grad():
        full, cut = model(x, soft, skip_i2i_offset=True), model(x, soft)
        assert (full - tensor(golden, f'{case}|eval_out_skip_i2i_offset')).abs().max() < 1e-5
        assert (cut - tensor(golden, f'{case}|eval_out')).abs().max() < 1e-5
        assert (model.infer(image, mask) - tensor(golden, f'{case}|eval_out_skip_i2i_offset')).abs().max() < 1e-5
        assert (model.infer(image, mask) - full).abs().max() < 1e-5
        assert (model.train()(x, soft) - tensor(golden, f'{case}|train_out')).abs().max() < 1e-5


def check_gradients(golden, model, whole):
    x, soft = model.preprocess(tensor(golden, 'A|x'), tensor(golden, 'A|mask'))
    model.train().zero_grad()
    out = model(x.requires_grad_(), soft)
    weight = np.random.RandomState(777).standard_normal(tuple(out.shape)).astype(np.float32)
    (out * torch.from_numpy(weight)).sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert sorted(grads) == sorted(golden['A|grad|names'].tolist())
    for name, norm, total in zip(golden['A|grad|names'], golden['A|grad|l2'], golden['A|grad|sum']):
        assert abs(grads[name].norm().item() - norm) < 5e-5 * norm, name
        assert abs(grads[name].sum().item() - total) < 1e-4 * norm * grads[name].numel() ** 0.5, name
    assert abs(x.grad.double().norm().item() / golden['A|grad|input_l2'] - 1) < 1e-5
    crop = tensor(golden, 'A|grad|input_crop_bottom_right')
    assert (x.grad[:len(crop), ..., -24:, -24:] - crop).abs().max() < 1e-4
    for name in whole:
        expected = tensor(golden, f'A|grad|full|{name}')
        assert (grads[name] - expected).abs().max() < 1e-5 * expected.abs().max(), name


def test_gradients(golden, model): check_gradients(golden, model, ('mask_bias', 'to_image.1.bias', 'patch.0.bias'))


@needs_video_golden
def test_video_gradients(video_golden, video_model):
    check_gradients(video_golden, video_model, ('mask_bias', 'to_image.bias', 'patch.bias'))


@needs_video_golden
@pytest.mark.parametrize('few', [12, 5, pytest.param(2, marks=pytest.mark.long), 1])
def test_video_outputs(video_golden, video_model, few):
    image, mask = tensor(video_golden, 'A|x'), tensor(video_golden, 'A|mask')
    x, soft = video_model.eval().preprocess(image, mask)
    assert (soft - tensor(video_golden, 'A|pre_mask')).abs().max() < 1e-6
    whole = tensor(video_golden, 'A|eval_out_skip_i2i_offset')
    with torch.no_grad():
        assert (video_model(x, soft, skip_i2i_offset=True, micro_batch_size=few) - whole).abs().max() < 1e-5
        assert (video_model(x, soft, micro_batch_size=few) - whole[..., 16:-16, 16:-16]).abs().max() < 1e-5
        assert (video_model.infer(image, mask, micro_batch_size=few) - whole).abs().max() < 1e-5
        out = video_model.train()(x, soft, micro_batch_size=few)
    assert (out - tensor(video_golden, 'A|train_out')).abs().max() < 1e-5


@needs_video_golden
def test_short_clip_like_the_reference(video_golden, video_model):
    out = video_model.eval().infer(tensor(video_golden, 'A|x')[:5], tensor(video_golden, 'A|mask')[:5])
    assert (out[..., ::4, ::4] - tensor(video_golden, 'A|infer_first5_out')).abs().max() < 1e-5


@needs_video_golden
def test_video_activations(video_golden, video_model):
    seen = {}
    def listen(name): return lambda module, args, out: seen.__setitem__(name, out.permute(0, 3, 1, 2))
    names = ['enc1', 'enc2.0', 'enc2.1', 'enc2.2']
    hooks = [video_model.get_submodule(name).register_forward_hook(listen(name)) for name in names]
    x, soft = video_model.preprocess(tensor(video_golden, 'A|x'), tensor(video_golden, 'A|mask'))
    with torch.no_grad(): video_model(x, soft)
    for hook in hooks: hook.remove()
    for name in names:
        expected = tensor(video_golden, f'A|act|{name}|crop')
        assert (seen[name][:2, :3, :6, :6] - expected).abs().max() < 1e-5 * max(1, expected.abs().max()), name


def table(name):
    "Shapes of a model's weights, from the reference's description."
    lines = (REFERENCE / 'state_dicts.md').read_text().split(f'## `{name}`\n')[1].split('\n## ')[0].splitlines()
    rows = [re.match(r'\| `(\S+)` \| \(([\d, ]*)\) \|', line) for line in lines]
    return {row[1]: tuple(int(n) for n in row[2].split(',') if n.strip()) for row in rows if row}


@pytest.mark.skipif(not (REFERENCE / 'state_dicts.md').exists(), reason='no description of the reference')
@pytest.mark.parametrize('name, count', [('inpaint.light_inpaint_v1', 2_259_888), ('inpaint.light_video_inpaint_v1', 2_311_528),
                                         ('inpaint.light_video_inpaint_v1_medium', 4_580_392),
                                         ('inpaint.light_video_inpaint_v1_large', 10_103_848)])
def test_state_dict_key_by_key(name, count):
    model = create_model(name)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == table(name)
    assert list(model.state_dict()) == list(table(name))
    assert sum(p.numel() for p in model.parameters()) == count
    sizes = {'': (96, 1), '_medium': (128, 2), '_large': (192, 2)}
    if 'video' in name: assert model.kwargs == dict(zip(('base_dim', 'lv2_mlp_ratio'), sizes[name.removeprefix('inpaint.light_video_inpaint_v1')]))


@needs_video_golden
@needs_video_checkpoint
def test_reference_video_checkpoint_loads_and_fills(video_golden):
    model, meta = load_model(VIDEO_CHECKPOINT, name='light_video_inpaint_v1_small')
    assert meta['kwargs'] == model.kwargs == {'base_dim': 96, 'lv2_mlp_ratio': 1} and model.frames == 12
    out = model.infer(tensor(video_golden, 'A|x'), tensor(video_golden, 'A|mask'))
    assert (out - tensor(video_golden, 'A|eval_out_skip_i2i_offset')).abs().max() < 1e-5


def test_preprocess_options(golden, model):
    image, mask = tensor(golden, 'A|x'), tensor(golden, 'pre_opts|mask_in')
    for key in golden['pre_opts|keys']:
        closing, inner, outer, base = key.split('|')
        x, soft = model.preprocess(image, mask, closing=closing == 'closing1', inner_dilation=int(inner[2:]),
                                   outer_dilation=int(outer[3:]), base_width=None if base == 'bwNone' else int(base[2:]))
        assert (soft - tensor(golden, f'pre_opts|{key}|mask')).abs().max() < 1e-6, key
        assert abs(x.sum().item() / golden[f'pre_opts|{key}|x_sum'] - 1) < 1e-6, key


@needs_checkpoint
def test_reference_checkpoint_loads_and_fills(golden):
    model, meta = load_model(CHECKPOINT, name='light_inpaint_v1')
    assert meta['nunif_model'] == 1 and meta['kwargs'] == {}
    out = model.infer(tensor(golden, 'A|x'), tensor(golden, 'A|mask'))
    assert (out - tensor(golden, 'A|eval_out_skip_i2i_offset')).abs().max() < 1e-5


@needs_checkpoint
@needs_video_checkpoint
@pytest.mark.parametrize('checkpoint', [CHECKPOINT, VIDEO_CHECKPOINT], ids=['photo', 'video'])
def test_saved_file_is_like_the_reference(tmp_path, checkpoint):
    model, _ = load_model(checkpoint)
    save_model(model.to(memory_format=torch.channels_last), tmp_path / 'ours.pth')
    ours, theirs = [torch.load(p, weights_only=True) for p in (tmp_path / 'ours.pth', checkpoint)]
    assert list(ours) == list(theirs)
    assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in theirs.items()}
    assert all(ours[k] == theirs[k] for k in ('nunif_model', 'name', 'kwargs', 'train_kwargs'))
    assert list(ours['state_dict']) == list(theirs['state_dict'])
    for key, value in theirs['state_dict'].items():
        mine = ours['state_dict'][key]
        assert (mine.dtype, mine.shape, mine.stride()) == (value.dtype, value.shape, value.stride()), key
        assert torch.equal(mine, value), key


def test_other_reference_model_is_named():
    if not VIDEO_CHECKPOINT.exists(): pytest.skip(f'no reference checkpoint at {VIDEO_CHECKPOINT}')
    with pytest.raises(ValueError, match='holds the model inpaint.light_video_inpaint_v1') as error:
        load_model(VIDEO_CHECKPOINT, name='light_inpaint_v1')
    assert 'inpaint.light_inpaint_v1' in str(error.value) and '\n' not in str(error.value)


def test_training_checkpoint_round_trip(tmp_path):
    model = create_model('light_video_inpaint_v1', base_dim=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for p in model.parameters(): p.grad = torch.ones_like(p)
    optimizer.step()
    path = tmp_path / 'a.checkpoint.pth'
    save_model(model, path, train_kwargs={'lr': 1e-3, 'loss': None}, last_epoch=3, best_loss=0.5,
               optimizer_state_dict=[optimizer.state_dict()])
    again, meta = load_model(path)
    assert meta['last_epoch'] == 3 and meta['train_kwargs'] == {'lr': 1e-3, 'loss': None}
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    other = torch.optim.AdamW(again.parameters())
    other.load_state_dict(meta['optimizer_state_dict'][0])
    assert other.param_groups[0]['lr'] == 1e-3


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_whole(path, b'old')
    def full(descriptor): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='could not write .*a.pth: No space left on device; the old file is as it was'):
        write_whole(path, b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_really_full_disk(tmp_path):
    (tmp_path / '.a.pth.tmp').symlink_to('/dev/full')
    with pytest.raises(OSError, match='No space left on device; nothing was written'): write_whole(tmp_path / 'a.pth', b'x' * 100)
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_that_would_not_load(tmp_path):
    model = create_model('light_inpaint_v1')
    with pytest.raises(ValueError, match='best_loss'): save_model(model, tmp_path / 'a.pth', best_loss=lambda: 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('size', [(64, 64), (63, 65), (128, 100), (97, 193), (40, 256)])
@pytest.mark.parametrize('name, options', [('light_inpaint_v1', {}), ('light_video_inpaint_v1', {'base_dim': 16})])
def test_part_equals_whole(size, name, options):
    torch.manual_seed(0)
    model = create_model(name, **options).train()
    for weight in model.to_image.parameters(): torch.nn.init.normal_(weight, std=0.02)
    inputs = torch.rand(model.frames, 3, *size), torch.rand(model.frames, 1, *size)
    with torch.no_grad():
        part, whole = model(*inputs), model(*inputs, skip_i2i_offset=True)
    assert part.shape[2:] == (size[0] - 32, size[1] - 32)
    assert (part - whole[..., 16:-16, 16:-16]).abs().max() < 1e-5


@pytest.mark.parametrize('frames', [1, 2, 5, 11, 12, 13, 20, 21, 22, 40, 100])
@pytest.mark.parametrize('overlap', [0, 1, 3, 6])
def test_windows_cover_a_clip(frames, overlap):
    windows, share = frame_windows(frames, overlap=overlap), torch.zeros(frames)
    for number, (start, part) in enumerate(windows):
        at = torch.arange(start, start + 12)
        inside = (at >= 0) & (at < frames)
        assert part[~inside].sum() == 0 and part.min() >= 0 and part.max() <= 1
        share[at[inside]] = share[at[inside]] * (1 - part[inside]) + part[inside]
        assert inside.all() or frames < 12
        if number: assert start > windows[number - 1].start
    assert (share == 1).all()
    assert [w.start for w in windows[:-1]] == [n * (12 - overlap) for n in range(len(windows) - 1)]
    assert len(windows) <= max(1, -(-(frames - overlap) // (12 - overlap)))


@pytest.mark.parametrize('frames, length, overlap', [(0, 12, 3), (-1, 12, 3), (20, 12, 7), (20, 12, -1)])
def test_windows_that_cannot_be(frames, length, overlap):
    with pytest.raises(ValueError, match='no windows'): frame_windows(frames, length, overlap)


@pytest.mark.parametrize('frames', [1, 5, 12, 13, 24, 31])
def test_any_number_of_frames(frames):
    torch.manual_seed(0)
    model = create_model('light_video_inpaint_v1', base_dim=16).eval()
    for weight in model.to_image.parameters(): torch.nn.init.normal_(weight, std=0.5)
    image, mask = torch.rand(frames, 3, 40, 56), torch.zeros(frames, 1, 40, 56)
    mask[..., 20:25] = 1
    out = model.infer(image, mask)
    kept = model.preprocess(image, mask)[1].expand_as(image) == 0
    assert out.shape == image.shape and out.min() >= 0 and out.max() <= 1
    assert kept.any() and torch.equal(out[kept], image[kept])
    assert (out - model.infer(image, mask, micro_batch_size=12)).abs().max() < 1e-5
    at = torch.arange(12) + (0 if frames >= 12 else -((12 - frames) // 2))
    with torch.no_grad(): first = model(*model.preprocess(*[v[at.clamp(0, frames - 1)] for v in (image, mask)]), skip_i2i_offset=True)
    alone = 9 if frames > 12 else frames
    assert (out[:alone] - first[(at >= 0) & (at < alone)]).abs().max() < 1e-5


def test_forward_takes_several_windows():
    torch.manual_seed(0)
    model = create_model('light_video_inpaint_v1', base_dim=16)
    x, soft = torch.rand(24, 3, 40, 40), torch.rand(24, 1, 40, 40)
    with torch.no_grad():
        both = model(x, soft, micro_batch_size=5)
        assert (both - torch.cat([model(x[:12], soft[:12]), model(x[12:], soft[12:])])).abs().max() < 1e-5
    for frames in (1, 11, 13):
        with pytest.raises(ValueError, match=f'windows of 12 frames, not {frames}') as error: model(x[:frames], soft[:frames])
        assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match='do not fit'): model.infer(x, soft[:5])


def test_parts_do_not_change_gradients():
    torch.manual_seed(0)
    model = create_model('light_video_inpaint_v1', base_dim=16)
    x, soft = torch.rand(12, 3, 40, 40), torch.rand(12, 1, 40, 40)
    grads = []
    for few in (12, 5):
        model.zero_grad()
        model(x, soft, micro_batch_size=few).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for whole, parts in zip(*grads): assert (whole - parts).abs().max() < 1e-4 * whole.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize('name', list(MODELS))
def test_round_trip(tmp_path, name):
    model, path = create_model(name), tmp_path / 'a.pth'
    save_model(model, path)
    again, meta = load_model(path, name=name)
    assert (meta['name'], meta['kwargs'], again.name) == (model.name, model.kwargs, model.name)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_other_width_round_trip(tmp_path):
    save_model(LightVideoInpaintV1(base_dim=8, lv2_mlp_ratio=3), tmp_path / 'a.pth')
    assert load_model(tmp_path / 'a.pth')[0].kwargs == {'base_dim': 8, 'lv2_mlp_ratio': 3}


def test_head_start_from_photos():
    "All of a network for clips begins with what a network for photos knows; at first no frame hears another."
    photo, video = create_model('light_inpaint_v1'), create_model('light_video_inpaint_v1').eval()
    source = photo.state_dict()
    assert matching_weights(video, source) == 93
    after = video.state_dict()
    assert torch.equal(after['patch.weight'].flatten(), source['patch.0.weight'].flatten())
    for key in after:
        if re.match(r'(mask_bias|enc1|down|up|dec1)\b', key): assert torch.equal(after[key], source[key]), key
        for ours, theirs in ((0, 1), (2, 2), (4, 3)):
            if key.startswith(f'enc2.{ours}.glu_conv'): assert torch.equal(after[key], source[key.replace(f'2.{ours}', f'2.{theirs}')]), key
    clip, mask = torch.rand(12, 3, 64, 64), torch.zeros(12, 1, 64, 64)
    mask[..., 20:40, 24:40] = 1
    other = torch.cat([clip[:6], torch.rand(6, 3, 64, 64)])
    torch.testing.assert_close(video.infer(clip, mask)[:6], video.infer(other, mask)[:6], rtol=0, atol=1e-6)
    assert matching_weights(create_model('light_video_inpaint_v1_medium'), source) == 0
    assert matching_weights(create_model('light_inpaint_v1'), source) == 81


def test_narrowed_keeps_the_gates_that_weigh_most():
    block = {key[7:]: value.clone() for key, value in create_model('light_inpaint_v1').state_dict().items() if key.startswith('enc2.1.')}
    most = torch.tensor([3, 7, 200, 383])
    block[f'{GATES}out.weight'][:, most] = 50
    some = narrowed(block, 4)
    for half, whole in zip(some[f'{GATES}in.weight'].chunk(2), block[f'{GATES}in.weight'].chunk(2)): assert torch.equal(half, whole[most])
    assert torch.equal(some['norm2.weight'], block['norm2.weight'][most]) and (some[f'{GATES}out.weight'] == 50).all()


# ---- the network that starts as the background

OURS, FOR_CLIPS = 'inpaint_nb.background_v1', 'inpaint_nb.background_video_v1'
NARROW = dict(channels=(8, 12, 16, 20))


def runs_of_holes(frames=2, height=50, width=70):
    "Noise with holes of many widths: beside each other, at both borders, and one as wide as the picture."
    torch.manual_seed(3)
    mask = torch.rand(frames, 1, height, width) > 0.9
    mask = torch.nn.functional.max_pool2d(mask.float(), (1, 9), 1, (0, 4))
    mask[..., 3, :], mask[..., 5, -9:], mask[..., 6, :9] = 1, 1, 1
    return torch.rand(frames, 3, height, width), mask


def awake(name, **options):
    "A model in which no layer is silent any more."
    torch.manual_seed(1)
    model = create_model(name, **options).eval()
    for weight in model.parameters():
        if not weight.any(): torch.nn.init.normal_(weight, std=0.05)
    return model


def rule_of(image, mask):
    grown = (mask > 0).clone()
    grown[..., 1:] |= mask[..., :-1] > 0
    return repeat_background(image, grown, skip=0), grown


@pytest.mark.parametrize('low', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('options', [{}, dict(gated=True, rows=True, blocks=(1, 2, 1, 6))])
@pytest.mark.parametrize('name', [OURS, FOR_CLIPS])
def test_a_fresh_network_is_the_rule(name, options, low):
    model, (image, mask) = create_model(name, **NARROW, **options).eval(), runs_of_holes()
    rule, grown = rule_of(image, mask)
    with torch.autocast('cpu', low, enabled=low is not None): filled = model.infer(image, mask)
    assert filled.dtype == torch.float32 and torch.equal(filled, rule)
    filled = awake(name, **NARROW, **options).infer(image, mask)
    changed = (filled != rule).any(1, keepdim=True)
    assert not changed[~grown].any() and changed[grown].float().mean() > 0.9


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (33, 16), (70, 47)])
def test_any_size(size):
    model = awake(OURS, **NARROW)
    image, mask = runs_of_holes(height=80, width=80)
    image, mask = image[..., :size[0], :size[1]], mask[..., :size[0], :size[1]]
    assert model.infer(image, mask).shape == image.shape
    if min(size) < 33: return
    with torch.no_grad(): whole, cut = [model(*model.preprocess(image, mask), keep) for keep in (True, False)]
    assert torch.equal(cut, whole[..., 16:-16, 16:-16])


def test_what_is_in_the_hole_does_not_count():
    model, (image, mask) = awake(OURS, **NARROW), runs_of_holes()
    _, grown = rule_of(image, mask)
    other = torch.where(grown, torch.rand_like(image), image)
    assert torch.equal(model.infer(image, mask), model.infer(other, mask))


def test_wide_memory_gives_the_same():
    "Channels last, as a GPU likes it."
    image, mask = runs_of_holes()
    for name in (OURS, FOR_CLIPS):
        model = awake(name, **NARROW)
        plain = model.infer(image, mask)
        wide = model.to(memory_format=torch.channels_last).infer(image, mask)
        assert (plain - wide).abs().max() < 1e-5


def test_gradient_reaches_all_weights():
    for name in (OURS, FOR_CLIPS):
        model = awake(name, **NARROW, rows=True).train()
        model(*model.preprocess(*runs_of_holes(4)), skip_i2i_offset=True).square().mean().backward()
        assert [key for key, weight in model.named_parameters() if not weight.grad.any()] == []
        assert [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)][-1] is model.correction.conv2


def test_bad_options_are_refused(tmp_path):
    for wrong in (dict(channels=(8, 8)), dict(blocks=(1, 1, 1, 0))):
        with pytest.raises(ValueError, match='four numbers each'): create_model(OURS, **wrong)
    save_model(create_model(OURS, **NARROW, gated=True), tmp_path / 'a.pth', half=True)
    assert load_model(tmp_path / 'a.pth')[0].kwargs == dict(channels=[8, 12, 16, 20], blocks=[1, 1, 2, 2], gated=True, rows=False)


@pytest.mark.parametrize('frames', [1, 2, 3, 4, 7, pytest.param(13, marks=pytest.mark.long)])
def test_a_stream_computes_every_frame_once(frames, monkeypatch):
    "The same bits as each frame anew among the two before and after it; and what training sees, nearly."
    model, (image, mask) = awake(FOR_CLIPS, **NARROW), runs_of_holes(frames)
    encoded, encode = [], model.unet.encode
    monkeypatch.setattr(model.unet, 'encode', lambda values: (encoded.append(len(values)), encode(values))[1])
    filled = model.infer(image, mask)
    assert encoded == [1] * frames
    for n in range(frames):
        near = slice(max(n - model.reach, 0), n + model.reach + 1)
        assert torch.equal(model.infer(image[near], mask[near])[n - near.start], filled[n])
    model.frames = frames
    with torch.no_grad(): together = model(*model.preprocess(image, mask), skip_i2i_offset=True)
    assert (together - filled).abs().max() < 1e-5


def test_clips_in_a_batch_do_not_hear_each_other():
    model, (image, mask) = awake(FOR_CLIPS, **NARROW), runs_of_holes(24)
    with torch.no_grad(): both, second = [model(*model.preprocess(*part)) for part in ((image, mask), (image[12:], mask[12:]))]
    assert (both[12:] - second).abs().max() < 1e-5
    assert not torch.equal(model.infer(image, mask)[12:], model.infer(image[12:], mask[12:]))


def test_a_stream_holds_few_frames():
    "Frame n is given back before frame n + 3 is asked for."
    model, (image, mask), asked = awake(FOR_CLIPS, **NARROW), runs_of_holes(9), []
    def frames():
        for n in range(9):
            asked.append(n)
            yield model.preprocess(image[n:n + 1], mask[n:n + 1])
    with torch.no_grad(): ahead = [len(asked) - 1 - n for n, _ in enumerate(model.stream(frames()))]
    assert max(ahead) == model.reach


def test_photo_weights_begin_a_network_for_clips():
    photo, clips, (image, mask) = awake(OURS, **NARROW), create_model(FOR_CLIPS, **NARROW).eval(), runs_of_holes(3)
    assert matching_weights(clips, photo.state_dict()) == len(photo.state_dict())
    alone = torch.cat([photo.infer(*frame) for frame in zip(image.split(1), mask.split(1))])
    assert torch.equal(clips.infer(image, mask), alone)
    assert matching_weights(clips, create_model('light_inpaint_v1').state_dict()) == 0


def test_multiplications():
    "At most those of iw3's network; the count by hand of one convolution."
    light, photo, clips = [count_macs(create_model(name)) for name in ('light_inpaint_v1', OURS, FOR_CLIPS)]
    assert photo < 0.6 * light and clips < light
    thin = create_model(OURS)
    assert count_macs(thin, 32, 32) == pytest.approx(photo * 32 * 32 / 1920 / 1088, rel=1e-3)


# ---- weights that come with the package

def test_shipped_weights():
    assert pretrained_cards().keys() == PRETRAINED.keys()
    for name, row in PRETRAINED.items():
        path = pretrained_file(name)
        assert path.stat().st_size < 5_000_000
        assert {value.dtype for value in read_checkpoint(path)['state_dict'].values()} == {torch.float16}
        model, meta = load_model('pretrained', name=name)
        assert (model.name, path.name) == (name, row.file) and not model.training
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        assert set(meta['card']) >= {'data', 'licences', 'recipe', 'hours', 'machine', 'numbers', 'limits'}
        assert load_model(f'pretrained:{name}')[0].name == name


def test_shipped_weights_for_photos_and_for_clips():
    assert load_model('pretrained')[0].frames == 1
    for_clips = [name for name in PRETRAINED if MODELS[name].frames > 1]
    assert load_model('pretrained', video=True)[0].name == (for_clips or [*PRETRAINED])[0]


def test_shipped_weights_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match='no weights of big, but of: inpaint_nb.background_v1'): load_model('pretrained:big')
    with pytest.raises(ValueError, match='holds the model inpaint_nb.background_v1, not inpaint.light_inpaint_v1'):
        load_model('pretrained:background_v1', name='light_inpaint_v1')
    monkeypatch.setattr('inpaint_nb.models.files', lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match='is missing: install inpaint_nb again'): load_model('pretrained')


SMALL = 'light_video_inpaint_v1'


@pytest.fixture
def entries(tmp_path):
    "Of a good file."
    save_model(create_model(SMALL, base_dim=8), tmp_path / 'good.pth', last_epoch=4)
    return torch.load(tmp_path / 'good.pth', weights_only=True)


def refused(path, says, kind=ValueError, **options):
    with pytest.raises(kind) as error: load_model(path, **options)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert re.search(says, str(error.value)), error.value


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in files.items(): archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize('content', [b'', b'text, not weights', b'{"json": 1}', b'PK\x03\x04 broken archive', b'\x80\x02}q\x00.', bytes(10_000),
                                     zipped(), zipped(readme='hello'), zipped(**{'a/data.pkl': b'cos\nsystem\n', 'a/version': b'3'})])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    refused(path, 'not a checkpoint|is not read')


@pytest.mark.parametrize('part', [0.1, 0.5, 0.99, 0.9999])
def test_truncated(tmp_path, entries, part):
    data = (tmp_path / 'good.pth').read_bytes()
    (tmp_path / 'a.pth').write_bytes(data[:int(len(data) * part)])
    refused(tmp_path / 'a.pth', 'is damaged')


def test_flipped_bit(tmp_path, entries):
    data = bytearray((tmp_path / 'good.pth').read_bytes())
    place = data.index(entries['state_dict']['to_image.weight'].numpy().tobytes()) + 30
    data[place] ^= 1
    (tmp_path / 'a.pth').write_bytes(data)
    refused(tmp_path / 'a.pth', 'is damaged')


@pytest.mark.parametrize('old', [True, False])
def test_code_in_a_file_does_not_run(tmp_path, entries, old):
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path / 'boom'),)
    torch.save({**entries, 'state_dict': Bomb()}, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    refused(tmp_path / 'a.pth', 'is not a checkpoint' if old else 'could run code')
    (tmp_path / 'a.pth').write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / 'a.pth', 'is not a checkpoint')
    assert not (tmp_path / 'boom').exists()


def test_places_that_are_no_files(tmp_path):
    refused(tmp_path, 'is a folder')
    refused(tmp_path / 'typo.pth', 'there is no checkpoint', FileNotFoundError)
    os.mkfifo(tmp_path / 'pipe.pth')
    refused(tmp_path / 'pipe.pth', 'no ordinary file')


def test_no_permission(tmp_path, entries, monkeypatch):
    path = tmp_path / 'good.pth'
    def refuse(path): raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    if os.geteuid(): path.chmod(0)
    else: monkeypatch.setattr(Path, 'read_bytes', refuse) # root may read everything
    refused(path, 'cannot be read: Permission denied', PermissionError)


def test_no_such_device(tmp_path, entries): refused(tmp_path / 'good.pth', 'no such device', map_location='cuda:99')


@pytest.mark.parametrize('change, says', [
    ({'name': 'waifu2x.upconv_7'}, 'holds the model waifu2x.upconv_7; known are: inpaint.light_inpaint_v1'),
    ({'kwargs': {'depth': 9}}, "wants options that .* does not have: {'depth': 9}"), ({'kwargs': {'base_dim': 'x'}}, 'wants options'),
    ({'kwargs': {'base_dim': -2}}, 'wants options'), ({'kwargs': {3: 1}}, 'wants options'), ({'kwargs': [1]}, 'does not say'),
    ({'state_dict': [1, 2]}, 'holds no weights by name'), ({'state_dict': None}, 'holds no weights by name'),
    ({'state_dict': {}}, '93 of 93 weights missing, first mask_bias'), ({'kwargs': {}}, r'weights of another shape, first mask_bias is \(1, 8, 1, 1\)')])
def test_wrong_entries(tmp_path, entries, change, says):
    torch.save({**entries, **change}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', says)


@pytest.mark.parametrize('change, says', [
    ({'up.bias': None}, '1 of 93 weights missing, first up.bias'), ({'up.bias': None, 'down.bias': None}, '2 of 93 weights missing, first down.bias'),
    ({'more': torch.zeros(1)}, '1 of 93 weights unexpected, first more'),
    ({'up.bias': torch.zeros(3), 'patch.bias': torch.zeros(2)}, r'2 of 93 weights of another shape, first patch.bias is \(2,\), not \(8,\)'),
    ({'up.bias': [1.0] * 32}, 'first up.bias is list, not'), ({'up.bias': torch.full((32,), torch.nan)}, 'up.bias holds NaN or infinity, and so do 0 more'),
    ({'up.bias': torch.full((32,), -torch.inf), 'down.bias': torch.full((16,), torch.nan)}, 'down.bias holds NaN or infinity, and so do 1 more')])
def test_wrong_weights(tmp_path, entries, change, says):
    state = {k: v for k, v in {**entries['state_dict'], **change}.items() if v is not None}
    torch.save({**entries, 'state_dict': state}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', says)


@pytest.mark.parametrize('wrap', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_names_of_wrappers_are_dropped(tmp_path, entries, wrap):
    torch.save({**entries, 'state_dict': {wrap + k: v for k, v in entries['state_dict'].items()}}, tmp_path / 'a.pth')
    model, _ = load_model(tmp_path / 'a.pth')
    assert all(torch.equal(v, entries['state_dict'][k]) for k, v in model.state_dict().items())


def test_compiled_model_is_saved_plainly(tmp_path):
    model = create_model(SMALL, base_dim=8)
    model.enc1 = torch.compile(model.enc1)
    save_model(torch.compile(model), tmp_path / 'a.pth')
    state = torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict']
    assert list(state) == list(create_model(SMALL, base_dim=8).state_dict())


# --- files of weights only

WIDE = dict(channels=(8, 16, 8, 16), blocks=(1, 2, 1, 3), gated=True, rows=True)

@pytest.mark.parametrize('name, options', [*[(name, {}) for name in dict.fromkeys(kind.name for kind in MODELS.values())], (SMALL, dict(base_dim=8, lv2_mlp_ratio=2)),
                                           (OURS, WIDE), (FOR_CLIPS, WIDE), (OURS, dict(gated=True)), (FOR_CLIPS, dict(rows=True)), (OURS, dict(channels=(8, 8, 8, 8)))])
def test_a_network_is_known_by_its_weights(tmp_path, request, name, options):
    "Ours and iw3's, for photos and for clips, with all options that change a shape; random numbers elsewhere stay as they were."
    if options: request.getfixturevalue('known_shapes')
    model = create_model(name, **options)
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    before = torch.random.get_rng_state()
    found = read_checkpoint(tmp_path / 'a.pth')
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (found['name'], create_model(found['name'], **found['kwargs']).kwargs) == (model.name, model.kwargs)
    assert all(torch.equal(value, found['state_dict'][key]) for key, value in model.state_dict().items())


SHAPES = cache(models.shapes_of)


@pytest.fixture
def known_shapes(monkeypatch):
    "The shapes of the usual networks are looked up once for many files."
    monkeypatch.setattr(models, 'shapes_of', lambda name, _of=models.shapes_of, **options: _of(name, **options) if options else SHAPES(name))


def prefixed(start, state): return {start + key: value for key, value in state.items()}

@pytest.mark.parametrize('wrap', [
    lambda s: prefixed('module.', s), lambda s: prefixed('_orig_mod.', s), lambda s: {'state_dict': prefixed('module._orig_mod.', s), 'epoch': 3}, lambda s: {'model': s},
    lambda s: {'net': {'generator': s}}, lambda s: {'params': {k: v + 1 for k, v in s.items()}, 'params_ema': s}, lambda s: {'weights': s, 'optimizer': {'state': {0: {'exp_avg': torch.zeros(3)}}}},
    lambda s: {'n_averaged': torch.tensor(3), **prefixed('module.', s)}, lambda s: {'state_dict': {'loss.net.conv.weight': torch.zeros(2), **prefixed('inpainter.', s)}, 'hyper': {'lr': 1}},
    lambda s: OrderedDict((k.replace('enc1.', 'enc1._orig_mod.'), v.half()) for k, v in s.items())])
def test_weights_wherever_they_lie(known_shapes, tmp_path, entries, wrap):
    "As DataParallel, compile, Lightning, BasicSR, an average of weights and others save them."
    state = entries['state_dict']
    torch.save(wrap(state), tmp_path / 'a.pth')
    model, meta = load_model(tmp_path / 'a.pth')
    assert (model.name, model.kwargs) == (f'inpaint.{SMALL}', {'base_dim': 8, 'lv2_mlp_ratio': 1})
    for key, value in model.state_dict().items(): torch.testing.assert_close(value, state[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('change, says', [
    (dict(patch=None), 'fits none; nearest is inpaint.light_video_inpaint_v1.*, with 1 of 93 weights missing, first patch.bias'), (dict(more=1), '1 of 93 weights unexpected, first more'),
    (dict(patch=torch.zeros(9)), r'1 of 93 weights of another shape, first patch.bias is \(9,\), not \(8,\)'), (dict(patch=torch.zeros(1).expand(8)), '1 of 93 weights no plain numbers, first patch.bias'),
    (dict(patch=torch.zeros(8, dtype=torch.long)), 'no plain numbers'), (dict(patch=torch.zeros(8).to_sparse()), 'no plain numbers'), (dict(patch=torch.full((8,), torch.nan)), 'patch.bias holds NaN')])
def test_what_fits_no_network_says_what_is_missing(known_shapes, tmp_path, entries, change, says):
    state = dict(entries['state_dict'])
    if 'more' in change: state['more'] = torch.zeros(1)
    elif change['patch'] is None: del state['patch.bias']
    else: state['patch.bias'] = change['patch']
    torch.save(state, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', says)


@pytest.mark.parametrize('content', [{'fc.weight': torch.zeros(3)}, {'a': {'b': {'c': torch.zeros(3)}}}, {'.' * 100_000 + 'bias': torch.zeros(1)}])
def test_weights_of_something_else(known_shapes, tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'no network here has weights of these names')


def test_a_dictionary_in_itself(known_shapes, tmp_path, entries):
    loop = {'more': entries['state_dict']}
    loop['again'] = loop
    torch.save(loop, tmp_path / 'a.pth')
    assert load_model(tmp_path / 'a.pth')[0].kwargs['base_dim'] == 8


@pytest.mark.parametrize('name, options', [(SMALL, dict(base_dim=10**6)), (OURS, dict(blocks=[10**9] * 4)), (OURS, dict(channels=[10**9] * 4)), (SMALL, dict(lv2_mlp_ratio=10**6))])
def test_sizes_that_a_file_only_claims(tmp_path, entries, name, options):
    "Take no memory."
    torch.save({**entries, 'name': name, 'kwargs': options}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'wants options')


def test_older_formats(known_shapes, tmp_path, entries):
    path = tmp_path / 'a.pth'
    whole = torch.load(save_and_name(tmp_path, SMALL), weights_only=True)
    for old in ({k: v for k, v in whole.items() if k not in ('kwargs', 'updated_at', 'train_kwargs', 'nunif_model')}, {**whole, 'kwargs': None}):
        torch.save(old, path)
        assert load_model(path)[0].kwargs == {'base_dim': 96, 'lv2_mlp_ratio': 1}
    for old in (whole['state_dict'], {'state_dict': whole['state_dict']}, {**whole, 'name': None}, {**whole, 'name': 7}):
        torch.save(old, path)
        model, meta = load_model(path, name=SMALL)
        assert all(torch.equal(v, whole['state_dict'][k]) for k, v in model.state_dict().items()) and 'state_dict' not in meta
        refused(path, f'holds the model inpaint.{SMALL}, not inpaint.light_inpaint_v1', name='light_inpaint_v1')
    torch.save({**whole, 'state_dict': {k: v.half() for k, v in whole['state_dict'].items()}}, path, _use_new_zipfile_serialization=False)
    assert next(load_model(path)[0].parameters()).dtype == torch.float32


def save_and_name(folder, name):
    save_model(create_model(name), folder / 'whole.pth')
    return folder / 'whole.pth'


@pytest.mark.parametrize('step', ['os.fsync', 'os.replace'])
@pytest.mark.parametrize('stop', [KeyboardInterrupt, MemoryError])
def test_interrupted_while_writing(tmp_path, monkeypatch, step, stop):
    "Nothing is left beside the old file."
    write_whole(tmp_path/'a.pth', b'old')
    def stopped(*args): raise stop
    monkeypatch.setattr(step, stopped)
    with pytest.raises(stop): write_whole(tmp_path/'a.pth', b'new')
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('a.pth', b'old')]


def test_from_safetensors(tmp_path):
    "As it was exported, and weights of others without a word about them."
    from safetensors.torch import save_file
    torch.manual_seed(0)
    model = create_model('light_video_inpaint_v1', base_dim=16)
    told = {'name': model.name, 'kwargs': '{"base_dim": 16, "lv2_mlp_ratio": 1}', 'card': '{"title": "mine"}', 'licence': 'CC0-1.0'}
    save_file(dict(model.state_dict()), tmp_path/'told.safetensors', told)
    save_file({f'model.{key}': value for key, value in model.state_dict().items()}, tmp_path/'bare.SAFETENSORS')
    for name, entries in (('told.safetensors', {'card': {'title': 'mine'}, 'licence': 'CC0-1.0'}), ('bare.SAFETENSORS', {})):
        again, rest = load_model(tmp_path/name)
        assert again.kwargs['base_dim'] == 16 and not again.training and entries.items() <= rest.items()
        for key, value in model.state_dict().items(): assert torch.equal(again.state_dict()[key], value)
    with pytest.raises(ValueError, match='holds the model inpaint.light_video_inpaint_v1, not inpaint.light_inpaint_v1'):
        load_model(tmp_path/'told.safetensors', name='light_inpaint_v1')


def test_bad_safetensors(known_shapes, tmp_path):
    from safetensors.torch import save
    good = save({'a': torch.zeros(3)}, {'name': 'inpaint.light_inpaint_v1', 'kwargs': '{}'})
    cases = {'short': (good[:-3], 'is no file of safetensors, or is damaged'), 'empty': (b'', 'is no file of safetensors'),
             'text': (b'no weights at all', 'is no file of safetensors'), 'other': (good, 'does not fit inpaint.light_inpaint_v1'),
             'words': (save({'a': torch.zeros(3)}, {'name': 'x', 'kwargs': 'no json'}), 'is no file of safetensors'),
             'list': (save({'a': torch.zeros(3)}, {'name': 'x', 'kwargs': '[1]'}), 'does not say the options'),
             'unknown': (save({'a': torch.zeros(3)}), 'no network here has weights of these names')}
    for name, (data, words) in cases.items():
        (tmp_path/f'{name}.safetensors').write_bytes(data)
        with pytest.raises(ValueError, match=words) as caught: load_model(tmp_path/f'{name}.safetensors')
        assert '\n' not in f'{caught.value}' and f'{name}.safetensors' in f'{caught.value}'
    with pytest.raises(FileNotFoundError, match='check the path'): load_model(tmp_path/'missing.safetensors')


# --- only what holes depend on ---------------------------------------------------------------------------------------------

def attentive(name):
    "A light network in which everything hears everything in its window, and says it loudly."
    torch.manual_seed(0)
    model = create_model(name, **{'light_video_inpaint_v1': dict(base_dim=32)}.get(name, {})).eval()
    for key, weights in model.named_parameters():
        if 'proj_spatial.weight' in key: torch.nn.init.normal_(weights, std=0.05)
    for weights in model.to_image.parameters(): torch.nn.init.normal_(weights, std=0.03)
    return model


@pytest.mark.parametrize('name', ['light_inpaint_v1', 'light_video_inpaint_v1'])
@pytest.mark.parametrize('size, share', [((64, 64), 1), ((97, 200), 0.02), ((33, 40), 0.05)])
def test_what_holes_depend_on_equals_the_whole_picture(name, size, share):
    model = attentive(name)
    image = torch.rand(model.frames, 3, *size)
    mask = (torch.nn.functional.interpolate(torch.rand(model.frames, 1, *(side // 8 + 1 for side in size)), size) < share).float()
    x, soft = model.preprocess(image, mask)
    with torch.no_grad():
        whole, found = model(x, soft, skip_i2i_offset=True), model.infer(image, mask)
        assert found.isfinite().all() and (found - whole).abs().max() < 1e-5
        part = model.infer(image, mask, inner=(slice(16, 32), slice(8, 40)))[..., 16:32, 8:40]
        assert (part - whole[..., 16:32, 8:40]).abs().max() < 1e-5
        if share == 1: assert (whole - image).abs().max() > 0.3


def test_what_no_hole_depends_on_is_not_computed():
    "A value that is not a number, as far as the network can look and one window further, does no harm nearer by."
    model = attentive('light_inpaint_v1')
    image, mask = torch.rand(1, 3, 512, 512), torch.zeros(1, 1, 512, 512)
    mask[..., 30:40, 20:24] = 1
    expected = model.infer(image, mask)
    image[..., 256:, :] = image[..., 256:] = torch.nan
    found = model.infer(image, mask)
    assert torch.equal(found[..., :256, :256], expected[..., :256, :256])
