"Numbers of the reference, LPIPS without its weights, and measures against other implementations."
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inpaint_nb import losses
from inpaint_nb.losses import (L1, LOSSES, LPIPS, VGG_FILE, ClampLoss, DCTLoss, MaskedL1, Turned, WithLPIPS, create_loss,
                               diff_augment, hole_psnr, hole_ssim, rotate, ssim_map, translate)

GOLDEN = Path(__file__).parents[2] / 'shared' / 'reference' / 'golden'
needs_golden = pytest.mark.skipif(not (GOLDEN / 'losses.npz').exists(), reason=f'no golden numbers at {GOLDEN}')


@pytest.fixture(scope='module')
def golden():
    numbers = {}
    for name in ('losses', 'extras_training'):
        with np.load(GOLDEN / f'{name}.npz') as file: numbers |= {k: file[k] for k in file.files}
    return numbers


def tensor(golden, key): return torch.from_numpy(golden[key]).float()


def same(loss, pair, value, norm):
    "The loss and the length of its gradient."
    pred, target = pair
    pred = pred.clone().requires_grad_()
    result = loss(pred, target)
    result.backward()
    assert abs(result.item() - float(value)) < 3e-6
    assert abs(pred.grad.norm().item() / float(norm) - 1) < 3e-5


@needs_golden
@pytest.mark.parametrize('side', [56, 64])
@pytest.mark.parametrize('clamp', [False, True])
@pytest.mark.parametrize('overlap', [False, True])
@pytest.mark.parametrize('window', [None, 4, 8, 24, 32])
def test_dct(golden, side, window, overlap, clamp):
    key = f'dct{side}|w{window}{"|overlap" if overlap else ""}|clamp{int(clamp)}'
    if key not in golden: assert window is None and overlap; return
    pair = [tensor(golden, name if side == 56 else f'{name}64') for name in 'xy']
    same(DCTLoss(window, overlap, clamp), pair, golden[key], golden[f'{key}|grad_l2'])


@needs_golden
@pytest.mark.parametrize('side', [56, 64])
def test_dct_compositions(golden, side):
    pair = [tensor(golden, name if side == 56 else f'{name}64') for name in 'xy']
    cases = {
        f'dct{side}|w24|clamp1|rotate_eval45': Turned(DCTLoss(24)),
        f'dct{side}|wNone|clamp1|rotate_eval45': Turned(DCTLoss()),
        f'dct{side}|w32|overlap|clamp1|mse': DCTLoss(32, overlap=True, distance=F.mse_loss),
        f'dct{side}|w32|overlap|clamp1|charbonnier':
            DCTLoss(32, overlap=True, distance=lambda a, b: ((a - b) ** 2 + 1e-6).sqrt().mean()),
        f'criterion_dct_eval|{side}': create_loss('dct'),
        f'criterion_l1dctlpips_without_lpips|{side}': create_loss('l1dct'),
    }
    for key, loss in cases.items(): same(loss.eval(), pair, golden[key], golden[f'{key}|grad_l2'])


@needs_golden
def test_one_channel_dct_and_clamped_l1(golden):
    x, y = tensor(golden, 'x64'), tensor(golden, 'y64')
    same(DCTLoss(8), (x[:, :1], y[:, :1]), golden['dct64|1ch|w8|clamp1'], golden['dct64|1ch|w8|clamp1|grad_l2'])
    pair = tensor(golden, 'x'), tensor(golden, 'y')
    same(create_loss('l1'), pair, golden['clamp_l1'], golden['clamp_l1_grad_l2'])


@needs_golden
@pytest.mark.parametrize('angle', ['0', '7.5', '-15', '45'])
def test_rotate(golden, angle):
    image, angles = tensor(golden, 'aug|x'), torch.tensor([float(angle)])
    turned = rotate(image, angles, 'reflect', expand=False, align_corners=False)
    assert (turned - tensor(golden, f'aug|rotate_reflect|{angle}')).abs().max() < 1e-5
    if angle == '45':
        assert (rotate(image, angles, align_corners=False) - tensor(golden, 'aug|rotate_zeros_expand|45')).abs().max() < 1e-5


@needs_golden
@pytest.mark.parametrize('right, down', [(8, -5), (-8, 8), (0, 3), (0, 0)])
def test_translate(golden, right, down):
    moved = translate(tensor(golden, 'aug|x'), right, down)
    assert torch.equal(moved, tensor(golden, f'aug|translate_reflect|x{right}|y{down}'))


def seeded(key, shape):
    weight = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(math.prod(shape)).reshape(shape)
    return torch.from_numpy((0.02 * weight).astype(np.float32))


@pytest.fixture(scope='module')
def lpips(golden):
    loss = LPIPS()
    own = loss.net.state_dict()
    names = {key.split('.', 2)[2]: key for key in golden['lpips|keys'] if key.startswith('net.')}
    loss.net.load_state_dict({name: seeded(names[name], tuple(value.shape)) for name, value in own.items()})
    for i, head in enumerate(loss.heads): head.copy_(seeded(f'lin{i}.model.1.weight', (1, len(head), 1, 1)).abs().flatten())
    return loss


@needs_golden
@pytest.mark.parametrize('side', [56, 64])
def test_lpips(golden, lpips, side):
    pair = [tensor(golden, f'lpips|{side}|{name}') for name in 'xy']
    same(WithLPIPS(L1(), 0.4, lpips), pair, golden[f'lpips|{side}|l1_plus_0.4lpips'], golden[f'lpips|{side}|grad_l2'])
    if side == 64: assert (lpips.per_stage(*pair) - tensor(golden, 'lpips|64|per_layer')).abs().max() < 1e-6


@pytest.mark.parametrize('name', ['l1lpips', 'l1dctlpips'])
def test_lpips_without_weights_says_what_to_do(tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(losses, 'VGG_URL', f'http://127.0.0.1:9/{VGG_FILE}')
    with pytest.raises(FileNotFoundError) as error: create_loss(name)
    text = str(error.value)
    assert str(tmp_path / 'checkpoints' / VGG_FILE) in text and 'missing' in text and '\n' not in text
    assert text.endswith('choose a --loss that needs no weights: l1, masked_l1, dct, l1dct')


def test_lpips_with_damaged_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / VGG_FILE).write_bytes(b'cut off')
    with pytest.raises(FileNotFoundError, match='is damaged'): create_loss('l1lpips')


def test_lpips_from_the_cache(tmp_path, monkeypatch):
    pytest.importorskip('lpips')
    source = LPIPS()
    for weight in source.net.parameters(): weight.normal_(std=0.02)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    torch.save({f'features.{k}': v for k, v in source.net.state_dict().items()} | {'classifier.0.bias': torch.zeros(3)},
               tmp_path / 'checkpoints' / VGG_FILE)
    loss = create_loss('l1dctlpips')
    assert loss.diff_aug and all(not p.requires_grad for p in loss.parameters())
    assert all((head >= 0).all() and head.std() > 0 for head in loss.lpips.heads)
    a, b = torch.rand(2, 1, 3, 48, 40)
    assert abs(loss(a, b).item() - create_loss('l1dct')(F.pad(a, (4, 4, 0, 0), 'reflect'), F.pad(b, (4, 4, 0, 0), 'reflect')).item()
               - 0.2 * loss.lpips(F.pad(a, (4, 4, 0, 0), 'reflect'), F.pad(b, (4, 4, 0, 0), 'reflect')).item()) < 1e-6


@pytest.mark.parametrize('name', [name for name in LOSSES if 'lpips' not in name])
def test_every_loss_is_zero_for_the_truth_and_pulls_towards_it(name):
    torch.manual_seed(0)
    loss, target, mask = create_loss(name), torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64)
    assert loss(target, target, mask) == 0
    wrong = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    before = loss.eval()(wrong, target, mask)
    before.backward()
    with torch.no_grad(): after = loss(wrong - 0.05 * wrong.grad / wrong.grad.abs().max(), target, mask)
    assert after < before


def test_masked_l1_is_blind_outside_the_hole():
    pred = torch.rand(2, 3, 8, 8).requires_grad_()
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:4, 3:5] = 1
    MaskedL1()(pred, torch.rand(2, 3, 8, 8), mask).backward()
    assert (pred.grad.abs() > 0).equal(mask.expand_as(pred) > 0)
    assert abs(pred.grad.abs().sum().item() - 1) < 1e-5


def test_autocast_does_not_coarsen_the_dct():
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 64, 64)
    exact = create_loss('dct').eval()(a, b)
    with torch.autocast('cpu', torch.bfloat16): assert abs(create_loss('dct').eval()(a, b) - exact) < 1e-5


def test_diff_augment_moves_all_alike_and_only_so_far():
    x, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    mask[..., 20:40, 20:40] = 1
    mask[..., 28:32, 28:32] = 0
    shifts = set()
    for seed in range(40):
        a, b, m = diff_augment(x, mask.expand(-1, 3, -1, -1), mask, torch.Generator().manual_seed(seed))
        assert (b[:, :1] - m).abs().max() == 0 and a.shape == x.shape
        again = diff_augment(x, x, None, torch.Generator().manual_seed(seed))
        assert torch.equal(again[0], a) and torch.equal(again[1], a) and again[2] is None
        if set(m.unique().tolist()) == {0.0, 1.0}: shifts.add(tuple((m[0, 0].nonzero()[0] - 20).tolist()))
    assert len(shifts) > 5 and all(abs(v) <= 8 for shift in shifts for v in shift)


def test_rotation_by_nothing_is_the_identity():
    x = torch.rand(1, 3, 40, 40)
    assert (rotate(x, torch.zeros(1), 'reflect', expand=False) - x).abs().max() < 1e-4


def test_psnr_counts_channels_right():
    target, mask = torch.rand(1, 3, 30, 30) * 0.8, torch.zeros(1, 1, 30, 30)
    mask[..., 5:9, 7:20] = 0.5
    pred = target + 0.1 * (mask > 0) + 0.05 * (mask == 0)
    assert abs(hole_psnr(pred, target, mask).item() - 20) < 1e-3
    assert hole_psnr(target, target, mask) == math.inf
    assert hole_psnr(pred, target, mask * 0).isnan() and hole_ssim(pred, target, mask * 0).isnan()


def test_ssim_against_torchmetrics():
    image = pytest.importorskip('torchmetrics.functional.image')
    torch.manual_seed(0)
    target = F.interpolate(torch.rand(2, 3, 12, 12), (64, 64), mode='bicubic').clamp(0, 1)
    pred = (target + 0.1 * torch.randn_like(target)).clamp(0, 1)
    _, theirs = image.structural_similarity_index_measure(pred, target, data_range=1.0, return_full_image=True)
    ours = ssim_map(pred, target)
    assert (ours - theirs)[..., 5:-5, 5:-5].abs().max() < 1e-3
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 20:40, 10:30] = 1
    assert abs(hole_ssim(pred, target, mask).item() - theirs[..., 20:40, 10:30].mean().item()) < 1e-4
