"Numbers of the reference, weights that are there, missing or wrong, and measures against other implementations."
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inpaint_nb import cli, losses
from inpaint_nb.losses import (
    DINO_URL, L1, LOSSES, LPIPS, VGG_URL, ClampLoss, DCTLoss, DINOv2, LossRow, MaskedL1,
    TemporalGradient, TemporalSmoothing, Turned, Weighted, WithLPIPS, answers, create_loss,
    diff_augment, is_temporal, load_dinov2, load_lpips, plain_losses, rotate, translate
)
from inpaint_nb.scores import hole_flicker, hole_psnr, hole_ssim, ssim_map
from inpaint_nb.run import criterion_of
from inpaint_nb.settings import TrainConfig
import reference

VGG_FILE, DINO_FILE = [Path(url).name for url in (VGG_URL, DINO_URL)]



@pytest.fixture(scope='module')
def golden():
    numbers = {}
    for name in ('losses', 'extras_training'):
        with np.load(reference.golden(f'{name}.npz')) as file: numbers |= {k: file[k] for k in file.files}
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


@pytest.mark.parametrize('side', [56, 64])
@pytest.mark.parametrize('clamp', [False, True])
@pytest.mark.parametrize('overlap', [False, True])
@pytest.mark.parametrize('window', [None, 4, 8, 24, 32])
def test_dct(golden, side, window, overlap, clamp):
    key = f'dct{side}|w{window}{"|overlap" if overlap else ""}|clamp{int(clamp)}'
    if key not in golden: assert window is None and overlap; return
    pair = [tensor(golden, name if side == 56 else f'{name}64') for name in 'xy']
    same(DCTLoss(window, overlap, clamp), pair, golden[key], golden[f'{key}|grad_l2'])


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


def test_one_channel_dct_and_clamped_l1(golden):
    x, y = tensor(golden, 'x64'), tensor(golden, 'y64')
    same(DCTLoss(8), (x[:, :1], y[:, :1]), golden['dct64|1ch|w8|clamp1'], golden['dct64|1ch|w8|clamp1|grad_l2'])
    pair = tensor(golden, 'x'), tensor(golden, 'y')
    same(create_loss('l1'), pair, golden['clamp_l1'], golden['clamp_l1_grad_l2'])


def test_temporal_terms(golden):
    "The reference smooths over colours, dimension 1: ours does it on a clip whose dimensions are swapped."
    pred, target = tensor(golden, 'xs'), tensor(golden, 'ys')
    smoothing = TemporalSmoothing()
    assert abs(TemporalGradient()(pred, target).item() - golden['temporal_gradient']) < 3e-6
    assert abs(smoothing(pred).item() - golden['temporal_smoothing_over_frames']) < 3e-6
    assert abs(smoothing(pred.transpose(0, 1)).item() - golden['temporal_smoothing_as_written']) < 3e-6


@pytest.mark.parametrize('key, pair', [('temporal_l1lpips', 'xs ys'), ('temporal_l1dctlpips', 'xq yq')])
def test_temporal_compositions(golden, monkeypatch, key, pair):
    "With the smoothing over time taken out and that over colours put in."
    monkeypatch.setattr(losses, 'load_lpips', lambda weights: LPIPS())
    base, smoothing = create_loss(key).base, TemporalSmoothing()
    def as_written(pred, target): return base(pred, target) + 0.01 * (smoothing(pred.transpose(0, 1)) - smoothing(pred))
    same(as_written, [tensor(golden, name) for name in pair.split()], golden[f'criterion_{key}_without_lpips'],
         golden[f'criterion_{key}_without_lpips|grad_l2'])


@pytest.mark.parametrize('frames', [1, 2])
def test_clips_too_short_for_a_term_are_no_nan(frames):
    target = torch.rand(frames, 3, 32, 32)
    pred = (target + 0.1).requires_grad_()
    loss = create_loss('temporal_l1dct')(pred, target)
    loss.backward()
    assert loss.isfinite() and pred.grad.isfinite().all() and pred.grad.abs().max() > 0
    assert TemporalSmoothing()(pred) == 0
    if frames == 1: assert TemporalGradient()(pred, target) == 0


def test_flicker_costs_in_time_only():
    grey = torch.tensor([0.2, 0.6, 0.2, 0.6, 0.2]).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    assert TemporalSmoothing()(grey.transpose(0, 1)) == 0 and abs(TemporalSmoothing()(grey).item() - 0.64) < 1e-6
    ramp = torch.linspace(0, 1, 5).view(-1, 1, 1, 1) * torch.rand(1, 3, 4, 4)
    assert TemporalSmoothing()(ramp) < 1e-12


def test_temporal_by_name_and_by_itself(monkeypatch):
    monkeypatch.setattr(losses, 'load_lpips', lambda weights: LPIPS())
    monkeypatch.setattr(losses, 'load_dinov2', L1)
    for name in LOSSES:
        loss = create_loss(name)
        assert loss.temporal == is_temporal(name), name
        assert loss.train() is loss and loss.eval() is loss
    assert Weighted((1, torch.nn.L1Loss()), (1, ClampLoss(TemporalGradient()))).temporal
    assert not Weighted((1, torch.nn.L1Loss())).temporal


@pytest.mark.parametrize('angle', ['0', '7.5', '-15', '45'])
def test_rotate(golden, angle):
    image, angles = tensor(golden, 'aug|x'), torch.tensor([float(angle)])
    turned = rotate(image, angles, 'reflect', expand=False, align_corners=False)
    assert (turned - tensor(golden, f'aug|rotate_reflect|{angle}')).abs().max() < 1e-5
    if angle == '45':
        assert (rotate(image, angles, align_corners=False) - tensor(golden, 'aug|rotate_zeros_expand|45')).abs().max() < 1e-5


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


@pytest.mark.parametrize('side', [56, 64])
def test_lpips(golden, lpips, side):
    pair = [tensor(golden, f'lpips|{side}|{name}') for name in 'xy']
    same(WithLPIPS(L1(), 0.4, lpips), pair, golden[f'lpips|{side}|l1_plus_0.4lpips'], golden[f'lpips|{side}|grad_l2'])
    if side == 64: assert (lpips.per_stage(*pair) - tensor(golden, 'lpips|64|per_layer')).abs().max() < 1e-6


@pytest.fixture
def empty(tmp_path, monkeypatch):
    "An empty cache of torch.hub (in `tmp_path`), no network."
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(losses, 'VGG_URL', f'http://127.0.0.1:9/{VGG_FILE}')
    monkeypatch.setattr(losses, 'DINO_URL', f'http://127.0.0.1:9/{DINO_FILE}')
    (tmp_path / 'checkpoints').mkdir()
    yield tmp_path / 'checkpoints'
    shutil.rmtree(tmp_path)  # pytest would keep hundreds of MB


@pytest.mark.parametrize('name', [name for name in LOSSES if name not in plain_losses()])
def test_without_weights_it_says_what_to_do(empty, name):
    with pytest.raises(FileNotFoundError) as error: create_loss(name)
    text = str(error.value)
    assert str(empty / (VGG_FILE if LOSSES[name].weights == 'lpips' else DINO_FILE)) in text and 'missing' in text and '\n' not in text
    assert ('`lpips_weights` FILE' in text) == (LOSSES[name].weights == 'lpips')
    assert text.endswith('choose a `loss` that needs no weights: l1, masked_l1, masked_l1rmse, dct, l1dct, temporal_masked_l1, temporal_masked_l1rmse, temporal_l1dct')
    assert not list(empty.iterdir())


@pytest.mark.parametrize('name, file', [('l1lpips', VGG_FILE), ('l1dinov2', DINO_FILE)])
def test_with_damaged_weights(empty, name, file):
    (empty / file).write_bytes(b'cut off')
    with pytest.raises(FileNotFoundError, match='is damaged'): create_loss(name)
    torch.save([1, 2], empty / file)
    with pytest.raises(FileNotFoundError, match='is damaged'): create_loss(name)
    torch.save({'other': torch.ones(1)}, empty / file)
    with pytest.raises(ValueError, match=f'{file} does not hold'): create_loss(name)


def test_a_silent_server_is_left_soon(monkeypatch):
    monkeypatch.setattr(losses, 'PATIENCE', 0.3)
    with socket.create_server(('127.0.0.1', 0)) as server:
        start = time.perf_counter()
        assert not answers(f'http://127.0.0.1:{server.getsockname()[1]}/file.pth')
        assert time.perf_counter() - start < 60
    assert answers(Path(__file__).as_uri())


def test_torch_home_is_where_one_looks(tmp_path):
    code = ('from inpaint_nb import losses; import sys; assert not {"timm", "lpips"} & set(sys.modules)\n'
            'losses.VGG_URL = "http://127.0.0.1:9/vgg.pth"\n'
            'try: losses.create_loss("l1lpips")\n'
            'except FileNotFoundError as error: print(error)')
    environment = os.environ | {'TORCH_HOME': str(tmp_path)}
    done = subprocess.run([sys.executable, '-c', code], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert f'{tmp_path / "hub" / "checkpoints" / "vgg.pth"} is missing' in done.stdout


def in_torchvision(source): return {f'features.{name}': value for name, value in source.net.state_dict().items()}


def test_lpips_from_the_cache(empty):
    source = LPIPS()
    for weight in source.net.parameters(): weight.normal_(std=0.02)
    torch.save(in_torchvision(source) | {'classifier.0.bias': torch.zeros(3)}, empty / VGG_FILE)
    loss = create_loss('l1dctlpips')
    assert loss.diff_aug and all(not p.requires_grad for p in loss.parameters())
    assert all((head >= 0).all() and head.std() > 0 for head in loss.lpips.heads)
    a, b = torch.rand(2, 1, 3, 48, 40)
    assert abs(loss(a, b).item() - create_loss('l1dct')(F.pad(a, (4, 4, 0, 0), 'reflect'), F.pad(b, (4, 4, 0, 0), 'reflect')).item()
               - 0.2 * loss.lpips(F.pad(a, (4, 4, 0, 0), 'reflect'), F.pad(b, (4, 4, 0, 0), 'reflect')).item()) < 1e-6


@pytest.fixture(scope='module')
def package():
    "The package's own LPIPS, with its heads and a network that knows nothing."
    lpips = pytest.importorskip('lpips')
    torch.manual_seed(0)
    return lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)


@pytest.fixture(scope='module')
def theirs(package):
    "A pair, its distance by the package, and the package's state."
    pair = torch.rand(2, 2, 3, 64, 48)
    with torch.no_grad(): return *pair, package(*pair, normalize=True).mean(), package.state_dict()


def split(state):
    "VGG16 as torchvision names it, and the heads."
    vgg = {f'features.{name.split(".", 2)[2]}': value for name, value in state.items() if name.startswith('net.')}
    return vgg, {name: value for name, value in state.items() if name.startswith('lin')}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('form', ['package', 'torchvision', 'float16', 'both forms', 'heads lin', 'heads lins'])
def test_lpips_weights_in_each_form(empty, tmp_path, theirs, form):
    "What the file lacks comes from the package and from the cache; the distance is that of the package with the same weights."
    a, b, distance, state = theirs
    vgg, heads = split(state)
    if form.startswith('heads'): torch.save(vgg, empty / VGG_FILE)
    content = {'package': state, 'torchvision': vgg, 'float16': {name: value.half() for name, value in state.items()}, 'both forms': vgg | heads,
               'heads lin': {name: 3 * value for name, value in heads.items() if not name.startswith('lins')},
               'heads lins': {name: 3 * value for name, value in heads.items() if name.startswith('lins')}}[form]
    torch.save(content, tmp_path / 'mine.pth')
    loss = create_loss('l1lpips', tmp_path / 'mine.pth')
    assert all(value.dtype == torch.float32 for value in loss.state_dict().values())
    ours = loss.lpips(a, b) / (3 if form.startswith('heads') else 1)
    assert abs(ours / distance - 1) < (1e-2 if form == 'float16' else 1e-4)
    assert abs(loss(a, b) - ClampLoss(L1())(a, b) - 0.4 * loss.lpips(a, b)) < 1e-6


class Code:
    def __reduce__(self): return print, ('this ran',)


def test_bad_lpips_weights_are_refused_in_one_line(empty, tmp_path, theirs, capsys):
    file = tmp_path / 'mine.pth'
    def refused(kind, words):
        with pytest.raises(kind) as error: load_lpips(file)
        assert words in str(error.value) and str(file) in str(error.value) and '\n' not in str(error.value)
    refused(FileNotFoundError, 'no file of weights')
    file.write_text('no weights')
    refused(ValueError, 'not a file of weights')
    torch.save({'features.0.weight': Code()}, file)
    refused(ValueError, 'could run code')
    assert 'this ran' not in capsys.readouterr().out
    torch.save(torch.ones(3), file)
    refused(ValueError, 'but a Tensor')
    vgg, heads = split(theirs[3])
    for content, words in (({'x': torch.ones(1)}, 'holds neither VGG16'), (vgg | {'features.28.bias': torch.ones(3)}, 'net.28.bias is of shape (3,) instead of (512,)'),
                           ({name: value for name, value in vgg.items() if '.10.' not in name}, 'net.10.weight is missing'),
                           ({'lin0.model.1.weight': heads['lin0.model.1.weight']}, 'heads.1 is missing'),
                           ({name: value[:, :9] for name, value in heads.items()}, 'heads.0 is of shape (9,) instead of (64,)')):
        torch.save(content, file)
        refused(ValueError, words)
    file.unlink()
    file.mkdir()
    refused(FileNotFoundError, 'no file of weights')


def test_lpips_weights_for_nothing():
    with pytest.raises(ValueError, match='vgg.pth is of no use, because loss l1dct has no LPIPS'): create_loss('l1dct', 'vgg.pth')


def test_losses_can_be_added(monkeypatch):
    monkeypatch.setitem(LOSSES, 'l2', LossRow(torch.nn.MSELoss, 'squared error'))
    monkeypatch.setitem(LOSSES, 'with_file', LossRow(lambda file: (L1(), file), 'L1', weights='lpips'))
    assert isinstance(create_loss('l2'), torch.nn.MSELoss)
    assert create_loss('with_file', 'a')[1] == 'a' and create_loss('with_file')[1] is None
    assert 'l2' in plain_losses() and 'with_file' not in plain_losses()


def told(capsys, *line):
    "Exit status of a training command without records, and what it says."
    try: status = cli.inpaint_train(['inpaint', '-i', 'nowhere', '--model-dir', 'out', *map(str, line)])
    except SystemExit as left: status = left.code
    return status, capsys.readouterr().err


def test_a_temporal_loss_of_any_name_is_refused_for_pictures(monkeypatch, capsys):
    steady = LossRow(lambda: Weighted((0.8, L1()), (0.2, TemporalGradient())), 'L1 + temporal gradient', temporal=True)
    monkeypatch.setitem(LOSSES, 'steady_l1', steady)
    assert is_temporal('steady_l1') and create_loss('steady_l1').temporal
    status, error = told(capsys, '--loss', 'steady_l1')
    assert status == 2 and 'steady_l1' in error and 'single pictures' in error
    status, error = told(capsys, '--loss', 'steady_l1', '--video')
    assert status == 1 and 'nowhere' in error  # only the records are missing
    monkeypatch.setitem(LOSSES, 'temporal_in_name', LossRow(L1, 'L1'))
    assert not is_temporal('temporal_in_name') and told(capsys, '--loss', 'temporal_in_name')[0] == 1


def test_a_row_that_hides_its_time_is_refused(monkeypatch):
    monkeypatch.setitem(LOSSES, 'steady_l1', LossRow(TemporalGradient, 'temporal gradient'))
    with pytest.raises(ValueError, match='steady_l1 .*temporal=True'): create_loss('steady_l1')


def test_an_lpips_loss_of_any_name_takes_weights(monkeypatch, capsys):
    monkeypatch.setitem(LOSSES, 'vgg_l1', LossRow(lambda file: (L1(), file), 'L1 + LPIPS', weights='lpips'))
    monkeypatch.setitem(LOSSES, 'no_lpips', LossRow(L1, 'L1'))
    assert 'vgg_l1' not in plain_losses() and 'no_lpips' in plain_losses()
    status, error = told(capsys, '--loss', 'vgg_l1', '--lpips-weights', 'mine.pth')
    assert status == 1 and 'nowhere' in error  # only the records are missing
    assert criterion_of(TrainConfig(loss='vgg_l1', lpips_weights='mine.pth'))[1] == 'mine.pth'
    status, error = told(capsys, '--loss', 'no_lpips', '--lpips-weights', 'mine.pth')
    assert status == 2 and '--lpips-weights' in error


@pytest.fixture
def dino(empty):
    "A network that knows nothing, in the layout of its authors, read as the real one would be."
    torch.manual_seed(1)
    net = DINOv2().net
    for weight in net.parameters(): weight.normal_(std=0.05) if weight.ndim > 1 else weight.uniform_(0.2, 1)
    state = net.state_dict()
    first = torch.randn(1, 1, 384)  # the place of the class token, which timm adds to the token itself
    state['register_tokens'], state['mask_token'] = state.pop('reg_token'), torch.zeros(1, 384)
    state['cls_token'], state['pos_embed'] = state['cls_token'] - first, torch.cat([first, state['pos_embed']], 1)
    torch.save(state, empty / DINO_FILE)
    return net, load_dinov2()


def test_dinov2(dino):
    net, loss = dino
    for name, value in net.state_dict().items(): assert torch.allclose(loss.net.state_dict()[name], value, atol=1e-6), name
    assert loss.diff_aug and not any(weight.requires_grad for weight in loss.parameters())
    target, noise = torch.rand(2, 3, 50, 56), torch.randn(2, 3, 50, 56)
    small, large = [(target + size * noise).requires_grad_() for size in (0.02, 0.2)]
    assert loss(target, target).abs() < 1e-5 and 1e-5 < loss(small, target) < loss(large, target)
    assert loss.per_patch(small, target).shape == (4, 2, 4 * 4)
    truth = target.clone().requires_grad_()
    loss(large, truth).backward()
    assert large.grad.isfinite().all() and (large.grad != 0).any((0, 1)).all() and truth.grad is None


def test_dinov2_by_hand(dino):
    "Its own loop over the blocks, without the help of timm's forward_intermediates."
    net, loss = dino
    def features(x):
        mean, std = [torch.tensor(v).view(3, 1, 1) for v in (net.pretrained_cfg['mean'], net.pretrained_cfg['std'])]
        x, found = net._pos_embed(net.patch_embed((x - mean) / std)), []
        for block in net.blocks:
            x = block(x)
            found.append(net.norm(x)[:, 5:])
        return [found[i] for i in (2, 5, 8, 11)]
    a, b = torch.rand(2, 1, 3, 56, 70)
    slow = sum(1 - F.cosine_similarity(p, t, dim=-1).mean() for p, t in zip(features(a), features(b))) / 4
    assert abs(loss(a, b) - slow) < 1e-5
    both = create_loss('l1dinov2')
    assert both.diff_aug and abs(both(a, b) - create_loss('l1')(a, b) - 0.1 * slow) < 1e-5


@pytest.mark.parametrize('name', [name for name in plain_losses() if not is_temporal(name)])
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


def test_flicker_by_hand():
    torch.manual_seed(0)
    pred, target, mask = torch.rand(4, 3, 6, 7), torch.rand(4, 3, 6, 7), (torch.rand(4, 1, 6, 7) > 0.4).float()
    found = []
    for t in range(3):
        for y in range(6):
            for x in range(7):
                if mask[t, 0, y, x] and mask[t + 1, 0, y, x]:
                    found.append(((pred[t + 1] - pred[t]) - (target[t + 1] - target[t]))[:, y, x].abs().mean())
    assert abs(hole_flicker(pred, target, mask) - sum(found) / len(found)) < 1e-6


def test_flicker_of_nothing_is_nan_and_of_the_truth_nothing():
    clip, mask = torch.rand(3, 3, 8, 8), torch.zeros(3, 1, 8, 8)
    mask[1, :, 2:5, 2:5] = 0.5
    assert hole_flicker(1 - clip, clip, mask).isnan() and hole_flicker(clip[:1], clip[:1], mask[1:2]).isnan()
    mask[2] = mask[1]
    assert hole_flicker(clip, clip, mask) == 0 and hole_flicker(1 - clip, clip, mask > 0) == hole_flicker(1 - clip, clip, mask) > 0
    elsewhere = torch.where(mask > 0, clip, torch.rand_like(clip))
    assert hole_flicker(elsewhere, clip, mask) == 0
    over = clip + torch.where(clip > 0.5, 5.0, 0.0)  # shown as white
    assert torch.equal(hole_flicker(over, clip, mask), hole_flicker(over.clamp(0, 1), clip, mask))


def test_flicker_needs_no_answer_from_the_device():
    "A meta tensor has no values to wait for."
    clip, mask = torch.empty(3, 3, 8, 8, device='meta'), torch.empty(3, 1, 8, 8, device='meta')
    assert hole_flicker(clip, clip, mask).shape == ()
    assert hole_flicker(torch.rand(3, 3, 8, 8).half(), torch.rand(3, 3, 8, 8), torch.ones(3, 1, 8, 8).bool()).dtype == torch.float32
