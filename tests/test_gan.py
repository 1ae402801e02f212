"Learning against a discriminator: golden numbers, exact resume, bad losses, clips, clear errors."
import csv, os, re, signal, subprocess, sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from inpaint_nb import gan, train
from inpaint_nb.records import write_record
from inpaint_nb.discriminators import FFC, L3C
from inpaint_nb.gan import (
    DISCRIMINATORS, DiscriminatorRow, GanStep, adaptive_weight, best_row, create_discriminator,
    discriminator_loss, generator_loss, generator_warmup, late_warmup, load_discriminator,
    moving_average, straight_clamp
)
from inpaint_nb.scores import checkerboard_energy, sharpness
from inpaint_nb.losses import LPIPS, L1, ClampLoss, WithLPIPS, create_loss
from inpaint_nb.light import Inpainter
from inpaint_nb.models import MODELS, create_model, load_model, save_model
from inpaint_nb.gan import same_discriminator
from inpaint_nb.run import check_settings, train_from_folder
from inpaint_nb.settings import TrainConfig, decay_groups
from inpaint_nb.train import Callback, Compute, Interrupted, PlainStep, RunState
from inpaint_nb.watch import summary
from inpaint_nb.video import write_clip_record
from reference import SHARED, SMALL, golden, needs

needs_description = needs('state_dicts.md', of=SHARED)
NAME, OURS = 'inpaint.tiny', 'inpaint_nb.background_v1'

class Tiny(Inpainter):
    "One convolution, so that many runs take little time."
    name = NAME
    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 7, padding=3)
    def forward(self, x, mask, skip_i2i_offset=False):
        out = x * (1 - mask) + self.blur(x) * mask
        return out if skip_i2i_offset else out[..., 16:-16, 16:-16]

class TinyClip(Tiny):
    "The same for clips."
    name, frames = 'inpaint.tiny_clip', 12

QUICK = TrainConfig(arch=NAME, loss='l1', size=72, batch_size=2, backward_step=2, num_samples=8, max_epoch=2, learning_rate=1e-3, eval_step=1, save_eval_step=1, num_workers=0,
                    seed=7, gpu=-1, disable_amp=True, discriminator='l3c', generator_warmup_iteration=0)

@pytest.fixture(autouse=True, scope='module')
def quick():
    "The tiny networks, one thread."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with mock.patch.dict(MODELS, {NAME: Tiny, TinyClip.name: TinyClip}): yield
    torch.set_num_threads(before)

@pytest.fixture(autouse=True)
def pale_but_where_it_is_looked_at(request):
    if request.node.name != 'test_files_and_columns': request.getfixturevalue('pale')

def noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    "A coarse picture, and an upright hole."
    rng, mask = np.random.RandomState(seed), np.zeros((80, 80), bool)
    mask[4:76, 30 + seed % 7:50 + seed % 7] = True
    return np.kron(rng.randint(0, 255, (10, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8), mask

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for part, number in (('train', 6), ('eval', 2)):
        (root/part).mkdir()
        for i in range(number): write_record(root/part, f'noise_{i}', *noise(10 * number + i))
    return root

def run(data, folder, *callbacks, **options): return train_from_folder(data, folder, replace(QUICK, **options), callbacks, progress=False)

def weights(path: Path, load=load_model) -> torch.Tensor:
    return torch.cat([value.flatten() for value in load(path)[0].state_dict().values()])

def lasting(history): return [{name: value for name, value in row.items() if name not in ('seconds', 'samples_per_second')} for row in history]

class StopAfter(Callback):
    def __init__(self, step): self.step = step
    def after_step(self, run):
        if run.state.step == self.step: signal.raise_signal(signal.SIGINT)

def make_step(kind=GanStep, **options):
    config = replace(QUICK, **options)
    torch.manual_seed(0)
    return kind(create_model(config.arch), create_loss(config.loss), config, Compute(config))

def batch(seed=0, size=72, number=2):
    torch.manual_seed(seed)
    x, mask = torch.rand(number, 3, size, size), torch.zeros(number, 1, size, size, dtype=torch.bool)
    mask[..., 8:-8, 28:44] = True
    return x, mask, x[..., 16:-16, 16:-16]

# ---- golden

def seeded(name: str):
    "A discriminator with the weights of the recipe, and what the reference's answers."
    sys.path.insert(0, str(SMALL))
    try: import recipe
    finally: sys.path.pop(0)
    stored, network = np.load(golden(f'discriminator_{name}.npz')), create_discriminator(name)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    return stored, network, {key: torch.tensor(value) for key, value in recipe.build(shapes, set(stored['norm_weight_names'].tolist())).items()}

@pytest.mark.parametrize('name', ['l3c', 'l3ce', 'ffc', 'ffce', 'l3cffce'])
def test_answers_equal_the_reference(name):
    stored, network, state = seeded(name)
    inputs = np.load(golden('discriminator_inputs.npz'))
    x, condition, mask = [torch.tensor(inputs[key]).float() for key in ('x', 'c', 'mask')]
    def near(value, key): np.testing.assert_allclose(value.detach().numpy(), stored[key], atol=1e-5, rtol=1e-4)
    for key in [key for key in stored.files if key.endswith('|out_call1_nomask')]:
        index, mode, _ = key.split('|')
        network.load_state_dict(state)
        network.train(mode == 'train')
        network.index = int(index.removeprefix('idx'))
        first, (second, cells) = network(image := x.clone().requires_grad_(), condition), network(x, condition, mask)
        near(first, key)
        near(second, f'{index}|{mode}|out_call2_mask')
        assert np.array_equal(cells.numpy() > 0, stored[f'{index}|{mode}|mask_out'] > 0)
        for buffer in [key for key in stored.files if key.startswith(f'{index}|{mode}|after2calls')]:
            near(dict(network.member().named_buffers())[buffer.split('|')[-1]], buffer)
        if mode == 'train': continue
        gradient, = torch.autograd.grad(-first.mean(), image)
        assert gradient.norm().item() == pytest.approx(float(stored[f'{index}|eval|grad_x_l2']), rel=1e-4)
        near(gradient[:1, :, :16, :16], f'{index}|eval|grad_x_crop')
        near(network(x, condition.flip(-1)), f'{index}|eval|out_c_flipped')

@needs_description
@pytest.mark.parametrize('name', ['l3c', 'l3ce', 'ffc', 'ffce', 'l3cffce'])
def test_weights_have_the_names_of_the_reference(name):
    network = create_discriminator(name)
    section = (SHARED/'state_dicts.md').read_text().split(f'## `{network.name}`')[1].split('\n## ')[0]
    listed = re.findall(r'^\| `(\S+)` \| \(([\d, ]+)\) \| \w+ \| \w+ \| (\w*)', section, re.M)
    assert [(key, tuple(value.shape)) for key, value in network.state_dict().items()] == [(key, tuple(map(int, shape.rstrip(',').split(',')))) for key, shape, _ in listed]
    names = {id(value): key for key, value in network.named_parameters()}
    assert {names[id(value)] for value in decay_groups(network, 0.001)[0]['params']} == {key for key, _, decays in listed if decays == 'yes'}
    assert f'kwargs saved in files: `{network.kwargs}`' in section

def test_losses_equal_the_reference():
    stored = {key: torch.tensor(value) for key, value in np.load(golden('losses.npz')).items() if value.dtype.kind in 'fb'}
    real, fake, mask, real2, fake2, mask2 = [stored[key] for key in ('real', 'fake', 'mask', 'real2', 'fake2', 'mask2')]
    found = dict(generator_nomask=generator_loss(real), generator_mask=generator_loss(real, mask), disc_mask=discriminator_loss(real, fake, mask),
                 disc_nomask_via_method=discriminator_loss(real, fake, torch.ones_like(mask)), disc_mask_all_false=discriminator_loss(real, fake, mask & False))
    found |= {'generator_list_w1_0.5': generator_loss([real, real2], weights=[1, 0.5]), 'disc_mask_list_w1_0.5': discriminator_loss([real, real2], [fake, fake2], [mask, mask2], [1, 0.5])}
    for key, value in found.items(): assert value.item() == pytest.approx(stored[key].item(), abs=1e-5), key
    clamped = straight_clamp(x := stored['ste_in'].clone().requires_grad_())
    torch.testing.assert_close(clamped, stored['ste_out'])
    torch.testing.assert_close(torch.autograd.grad(clamped.sum(), x)[0], stored['ste_grad'])

def test_adaptive_weight_equals_the_reference():
    stored = np.load(golden('extras_training.npz'))
    p, u, target = [torch.tensor(stored[f'aw|{key}']) for key in ('p', 'u', 'tgt')]
    for ours, theirs, _, result in stored['aw|cases']:
        out = (p.requires_grad_() @ u)
        gradients = [torch.autograd.grad(loss, p, retain_graph=True)[0] for loss in ((out - target).abs().mean() * ours, -out.sin().mean() * theirs)]
        assert adaptive_weight(*gradients).item() == pytest.approx(result, rel=1e-5, nan_ok=True)
    average = torch.tensor(torch.nan)
    for new, expected in zip(stored['aw|ema_in'], stored['aw|ema_out_weight']):
        average = moving_average(average, torch.tensor(new))
        assert average.item() == pytest.approx(expected, rel=1e-6)

def test_warm_up():
    shares = [generator_warmup(step, 500) for step in range(502)]
    assert shares[:232] == [0] * 232 and 0.1 <= shares[232] < 0.11  # as in the reference
    assert shares == sorted(shares) and shares[-2:] == [1, 1]
    assert generator_warmup(0, 0) == 1

# ---- a step

def test_the_combined_gradient_is_that_of_the_sum():
    "One pass back through the model does what a loss of two parts would."
    step, (x, mask, y) = make_step(loss='l1', discriminator='ffc'), batch()
    torch.manual_seed(3)
    step.accumulate(x, mask, y, 1)
    found, pull = step.model.blur.weight.grad.clone(), (step.balance * step.config.discriminator_weight).item()
    torch.manual_seed(3)
    pred, target, soft = step.fill(x, mask, y)
    seen, target = gan.dequantise(pred, target)
    ours, theirs = [torch.autograd.grad(loss, step.model.blur.weight, retain_graph=True)[0] for loss in (
        step.criterion(seen, target, soft), generator_loss(step.discriminator(straight_clamp(seen), target)))]
    assert pull == pytest.approx((ours.norm() / theirs.norm()).clamp(1e-3, 10).item() * step.config.discriminator_weight, rel=1e-4)
    torch.testing.assert_close(found, ours + pull * theirs, rtol=1e-4, atol=1e-7)
    assert not any(value.grad is None for value in step.discriminator.parameters())

def test_two_halves_are_a_whole(monkeypatch):
    "The gradients of both networks, without noise and with equal holes."
    monkeypatch.setattr(gan, 'dequantise', lambda pred, target: (pred, target))
    step, (x, mask, y) = make_step(discriminator='ffc', discriminator_weight=0), batch(number=4)
    def gradient(size):
        step.model.zero_grad(); step.discriminator.zero_grad()
        for part in zip(*[value.split(size) for value in (x, mask, y)]): step.accumulate(*part, len(part[0]) / 4)
        return step.model.blur.weight.grad, step.discriminator.classifier.weight.grad
    for whole, halves in zip(gradient(4), gradient(2)): torch.testing.assert_close(halves, whole, rtol=1e-3, atol=1e-6)

def test_members_that_were_not_drawn_do_not_move():
    step = make_step(discriminator='ffce', discriminator_weight=0.2)
    before = [gan.model_state(member) for member in step.discriminator.ffc]
    torch.manual_seed(1)
    step.update(step.accumulate(*batch(), 1), 0)
    moved = [any(not torch.equal(value, old[key]) for key, value in member.state_dict().items()) for member, old in zip(step.discriminator.ffc, before)]
    assert moved == [number == step.discriminator.index for number in range(3)]

@pytest.mark.parametrize('optimizer', ['adamw', 'adamw_schedulefree'])
@pytest.mark.parametrize('where', ['target', 'generator', 'discriminator', 'gradient'])
def test_a_bad_loss_moves_neither_network(optimizer, where, monkeypatch):
    step = make_step(optimizer=optimizer, discriminator='ffc')
    state = lambda: [value.clone() for network in (step.model, step.discriminator) for value in network.state_dict().values()]
    step.update(step.accumulate(*batch(), 1), 0)
    before, (x, mask, y) = state(), batch(1)
    if where == 'target': y = y.clone(); y[0, 0, 0, 0] = torch.nan
    if where == 'generator': monkeypatch.setattr(gan, 'generator_loss', lambda fake: fake.mean() * torch.nan)
    if where == 'discriminator': monkeypatch.setattr(gan, 'discriminator_loss', lambda real, fake, cells: fake.mean() * torch.nan)
    loss = step.accumulate(x, mask, y, 1)
    if where == 'gradient': step.discriminator.classifier.bias.grad += torch.inf
    assert step.update(loss, 1)
    assert all(torch.equal(value, old) for value, old in zip(state(), before))
    assert step.balance.isfinite() and step.sums.isfinite().all()

class BreakFrom(Callback):
    "From a step on, the discriminator's loss is no number."
    def __init__(self, step, monkeypatch): self.step, self.monkeypatch = step, monkeypatch
    def after_step(self, run):
        if run.state.step == self.step: self.monkeypatch.setattr(gan, 'discriminator_loss', lambda real, fake, cells: fake.mean() * torch.nan)

def test_dropped_steps_are_counted_and_too_many_end_the_run(data, tmp_path, monkeypatch):
    history = run(data, tmp_path/'few', BreakFrom(1, monkeypatch), max_epoch=1, num_samples=12)
    assert history[0]['dropped'] == 2 and history[0]['train_loss'] > 0
    monkeypatch.undo()
    monkeypatch.setattr(train, 'MOST_DROPPED', 3)
    with pytest.raises(FloatingPointError, match='not a finite number in .* steps'): run(data, tmp_path/'many', BreakFrom(1, monkeypatch), num_samples=100)
    assert weights(tmp_path/f'many/{NAME}.checkpoint.pth').isfinite().all()
    assert weights(tmp_path/'many/inpaint.l3_conditional_discriminator.pth', load_discriminator).isfinite().all()

@pytest.mark.parametrize('kind, name', [(PlainStep, None), (GanStep, 'ffc')])
@pytest.mark.parametrize('optimizer', ['adamw', 'adamw_schedulefree'])
def test_scaled_gradients_move_the_same(kind, name, optimizer):
    "As with fp16 on a GPU: losses are scaled up, gradients down again; one that is not finite leaves both networks alone and lowers the scale."
    steps = [make_step(kind, optimizer=optimizer, discriminator=name) for _ in range(2)]
    steps[1].compute.scaler = torch.amp.GradScaler('cpu', init_scale=256.)
    state = lambda step: torch.cat([value.flatten() for network in (step.model, *step.companions) for value in network.state_dict().values()])
    for step in steps:
        torch.manual_seed(0)
        assert not step.update(step.accumulate(*batch(), 1), 0)
    torch.testing.assert_close(*map(state, steps), rtol=1e-3, atol=2e-5)
    before, loss = state(steps[1]), steps[1].accumulate(*batch(), 1)
    steps[1].shared()[-1].grad += torch.inf
    assert not steps[1].update(loss, 1)
    assert torch.equal(state(steps[1]), before)
    assert steps[1].compute.scaler.get_scale() == 128

def test_bfloat16(data, tmp_path):
    for name in ('l3c', 'ffc'):
        step = make_step(discriminator=name, amp_float='bfloat16', disable_amp=False)
        if step.compute.dtype != torch.bfloat16: pytest.skip('this CPU has no bfloat16')
        exact = make_step(discriminator=name)
        losses = []
        for one in (step, exact):
            torch.manual_seed(0)
            one.update(one.accumulate(*batch(), 1), 0)
            losses.append(one.sums)
        torch.testing.assert_close(losses[0], losses[1], rtol=0.1, atol=0.05)

# ---- resume

@pytest.mark.parametrize('stops, options', [
    ((1, 3), dict(discriminator='l3c', max_epoch=2, num_samples=8)), pytest.param((3,), dict(discriminator='ffc', optimizer='adamw_schedulefree'), marks=pytest.mark.long), ((2, 3), dict(discriminator='l3ce', generator_warmup_iteration=3)),
    pytest.param((1,), dict(discriminator='ffce', disable_hard_example=True), marks=pytest.mark.long), ((2, 3), dict(discriminator='l3cffce', optimizer='adamw_schedulefree', ema_model=True, loss='dct')),
    ((2,), dict(discriminator='l3c', arch=OURS, ema_model=True))])
def test_resume_is_exact(data, tmp_path, stops, options):
    options = dict(max_epoch=1, num_samples=16) | options
    name = options.get('arch', NAME)
    expected = lasting(run(data, tmp_path/'through', **options))
    for number, stop in enumerate(stops):
        with pytest.raises(Interrupted, match='`resume`'): run(data, tmp_path/'parts', StopAfter(stop), resume=number > 0, **options)
    assert lasting(run(data, tmp_path/'parts', resume=True, **options)) == expected
    for file, load in ((f'{name}.checkpoint.pth', load_model), (f'{create_discriminator(options["discriminator"]).name}.pth', load_discriminator)):
        assert torch.equal(weights(tmp_path/'parts'/file, load), weights(tmp_path/'through'/file, load))
    one, two = [torch.load(tmp_path/f'{part}/{name}.checkpoint.pth', weights_only=True)['game'] for part in ('parts', 'through')]
    assert torch.equal(one['balance'], two['balance']) and one['steps'] == two['steps'] == 4

def test_a_checkpoint_without_a_discriminator(data, tmp_path, capsys):
    "As iw3 writes it: two optimizers, the time as best loss, no discriminator."
    run(data, tmp_path, max_epoch=1, optimizer='adamw_schedulefree')
    path = tmp_path/f'{NAME}.checkpoint.pth'
    file = torch.load(path, weights_only=True)
    for name in ('run', 'sampler', 'game', 'discriminator_state_dict', 'raw_state_dict'): del file[name]
    file['best_loss'] = -1.795
    for optimizer in file['optimizer_state_dict']:
        for group in optimizer['param_groups']: group['train_mode'] = False
    torch.save(file, path)
    history = run(data, tmp_path, resume=True, optimizer='adamw_schedulefree')
    said = capsys.readouterr().out
    assert 'holds no discriminator, as those of iw3: l3c begins anew' in said
    assert [row['epoch'] for row in history] == [2] and 'before the first step' in said.split('begins anew')[1]

@pytest.mark.parametrize('before, after', [('l3c', None), (None, 'l3c'), ('l3c', 'ffc')])
def test_another_discriminator_needs_a_fresh_start(data, tmp_path, capsys, before, after):
    run(data, tmp_path, max_epoch=1, num_samples=4, discriminator=before)
    capsys.readouterr()
    with pytest.raises(ValueError, match='the run was started with.*add `reset_state`'): run(data, tmp_path, resume=True, discriminator=after)
    assert len(run(data, tmp_path, max_epoch=1, num_samples=4, resume=True, reset_state=True, discriminator=after)) == 1
    said = capsys.readouterr().out
    assert (f'discriminator ({after}), warm-up.' in said) == (after is not None) and 'random weights' not in said

# ---- files, scores, errors

def test_files_and_columns(data, tmp_path, capsys):
    history = run(data, tmp_path, save_epoch=True)
    assert all((tmp_path/f'{epoch}/{NAME}.pth').is_file() for epoch in (1, 2))
    assert load_discriminator(tmp_path/'inpaint.l3_conditional_discriminator.pth')[1]['train_kwargs']['discriminator'] == 'l3c'
    rows = [*csv.DictReader((tmp_path/'loss.csv').open())]
    assert [row['epoch'] for row in rows] == ['0', '1', '2'] and [row['best'] for row in rows] == ['1', *[str(int(row['best'])) for row in history]]
    wanted = {'checkerboard', 'true_checkerboard', 'sharpness', 'generator_loss', 'discriminator_loss', 'adaptive_weight', 'psnr', 'ssim'}
    assert wanted <= set(rows[0]) and all(rows[-1][name] for name in wanted)
    assert (tmp_path/f'{NAME}.pth').is_file() and all((tmp_path/f'{epoch}/eval/1.png').is_file() for epoch in range(3))
    said = capsys.readouterr().out
    assert re.search('before the first step .*checkerboard .*truth', said) and 'begins with random weights' in said and 'earlier run' not in said

def test_lpips_is_a_score_where_its_weights_are(tmp_path):
    own = GanStep(Tiny(), WithLPIPS(ClampLoss(L1()), 0.4, LPIPS()), QUICK, Compute(QUICK))
    x, mask, y = batch()
    assert own.scores['lpips'](y, y, mask[..., 16:-16, 16:-16]) == 0 and 'lpips' not in make_step().scores
    torch.save({name.replace('net.', 'features.'): value for name, value in LPIPS().state_dict().items() if name.startswith('net.')}, tmp_path/'vgg.pth')
    config = replace(QUICK, lpips_weights=tmp_path/'vgg.pth')
    check_settings(config)
    named = GanStep(Tiny(), create_loss('l1'), config, Compute(config))
    with torch.no_grad(): assert named.scores['lpips'](y, 1 - y, mask[..., 16:-16, 16:-16]) > 0
    assert 'lpips' not in PlainStep.scores

def test_discriminators_can_be_added(monkeypatch):
    class Own(L3C): name = 'inpaint.own'
    monkeypatch.setitem(DISCRIMINATORS, 'sharp', DiscriminatorRow(Own, 'my own'))
    for name in ('sharp', 'inpaint.own'): assert type(create_discriminator(name)) is Own
    assert same_discriminator('sharp', 'inpaint.own') and not same_discriminator('sharp', 'l3c')

def test_discriminator_file_is_kept_whole(tmp_path):
    network = create_discriminator('l3ce', imbalanced_prob=False)
    save_model(network, tmp_path/'d.pth')
    again, meta = load_discriminator(tmp_path/'d.pth')
    assert meta['kwargs'] == dict(in_channels=3, out_channels=1, imbalanced_prob=False) and again.odds == (1, 1, 1)
    with pytest.raises(ValueError, match='unknown discriminator'):
        save_model(Tiny(), tmp_path/'m.pth'); load_discriminator(tmp_path/'m.pth')
    with pytest.raises(ValueError, match='known are'): load_model(tmp_path/'d.pth')

def test_odds():
    network, counts = create_discriminator('l3cffce'), [0] * 4
    torch.manual_seed(0)
    for _ in range(3000):
        network.round()
        counts[network.index] += 1
    np.testing.assert_allclose(np.array(counts) / 3000, [1/3, 1/6, 1/3, 1/6], atol=0.03)

def test_checkerboard_energy():
    torch.manual_seed(0)
    picture, mask = torch.rand(1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    mask[..., 10:80, 30:55] = 1
    tile = torch.rand(1, 3, 4, 4).repeat(1, 1, 24, 24)
    energy = lambda share: checkerboard_energy((1 - share) * picture + share * tile, picture, mask).item()
    assert energy(0) == pytest.approx(1, abs=0.5) and energy(0) < energy(0.2) < energy(0.4)
    assert checkerboard_energy(picture, picture, mask * 0).isnan()
    outside = torch.where(mask > 0, picture, tile)
    assert checkerboard_energy(outside, picture, mask).item() == pytest.approx(energy(0))

def test_best_row():
    row = lambda psnr, checkerboard, **more: dict(psnr=psnr, ssim=0.6, checkerboard=checkerboard, eval_loss=0.1, **more)
    start, rows = row(22, 3), [row(21.5, 2), row(20.8, 1), row(21.2, 1.5), row(21.3, 1.8)]
    assert best_row([start, *rows]) is rows[2] and best_row(rows) is rows[1] and best_row(rows, [start]) is rows[2]
    assert best_row([start, row(19, 1), row(20, 2)]) is start
    assert best_row([row(19, 1), row(20, 2)], [start])['psnr'] == 20
    assert best_row([row(22, 2, lpips=0.1), row(22, 1, lpips=0.3)])['checkerboard'] == 2
    assert best_row([row(22, 1.1, true_checkerboard=1.2), row(22, 0.7, true_checkerboard=1.2)])['checkerboard'] == 1.1  # below the truth is no merit
    assert best_row([dict(eval_loss=2.0, psnr=None, ssim=None), dict(eval_loss=1.0, psnr=None, ssim=None)])['eval_loss'] == 1
    assert best_row([]) is None

@pytest.mark.parametrize('row, says', [
    (dict(psnr=20.5), 'PSNR is more than 1 below 22.00'), (dict(ssim=0.5), 'SSIM is more than 0.05 below 0.60'), (dict(checkerboard=1.4), 'checkerboard (no less than the truth) 1.400, there 1.300'),
    (dict(checkerboard=0.7, true_checkerboard=1.35), 'checkerboard (no less than the truth) 1.350, there 1.300'), (dict(lpips=0.9), 'checkerboard (no less than the truth) times LPIPS 1.350, there 1.300'), (dict(checkerboard=1.3), '1.300 in both, evaluation loss 0.1100, there 0.1000'),
    (dict(best=True), ''), (dict(eval_loss=None), '')])
def test_what_decided_against_an_epoch_is_said(row, says):
    start = dict(psnr=22, ssim=0.6, checkerboard=1.3, true_checkerboard=1.2, eval_loss=0.1)
    row = dict(epoch=1, train_loss=0.2, psnr=21.5, ssim=0.6, checkerboard=1.5, true_checkerboard=1.2, eval_loss=0.11, best=False, learning_rate=1e-4, samples_per_second=1, seconds=1, dropped=0) | row
    why = GanStep.why_not(None, row, RunState(1, start=start, history=[row]))
    assert why.endswith(says) and bool(why) == bool(says)
    if says: assert summary(row, QUICK, start_better=True, why=why).endswith(f'  the model it began with is better: {why}')

def test_sharpness():
    torch.manual_seed(0)
    picture, mask = torch.rand(1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    mask[..., 10:80, 30:55] = 1
    tile = 0.2 * torch.rand(1, 3, 4, 4).repeat(1, 1, 24, 24)
    assert sharpness(picture, picture, mask) == pytest.approx(1) and sharpness(0.5 * picture, picture, mask) == pytest.approx(0.5, abs=1e-3)
    assert sharpness(0.5 * picture + tile, picture, mask) == pytest.approx(0.5, abs=0.02)  # a grid is no detail
    for target, hole in ((picture * 0 + 0.5, mask), (picture, mask * 0)): assert sharpness(picture, target, hole).isnan()

STILL = dict(learning_rate=1e-30, learning_rate_cosine_min=0, weight_decay=0)  # nothing moves, so nothing becomes better

def test_the_model_from_before_is_a_candidate(data, tmp_path, capsys):
    "If no epoch beats it, it is what the folder holds, and that is said at each epoch and at the end."
    save_model(start := Tiny(), tmp_path/'start.pth')
    file = tmp_path/f'run/{NAME}.pth'
    class Look(Callback):
        def before_epoch(self, run): assert torch.equal(weights(file), weights(tmp_path/'start.pth'))
    history = train_from_folder(data, tmp_path/'run', replace(QUICK, checkpoint_file=tmp_path/'start.pth', save_epoch=True, **STILL), [Look()], progress=True)
    assert [row['best'] for row in history] == [False, False] and torch.equal(weights(file), weights(tmp_path/'start.pth'))
    assert torch.equal(weights(tmp_path/f'run/0/{NAME}.pth'), weights(tmp_path/'start.pth'))
    said = capsys.readouterr().out
    assert said.count('the model it began with is better') == 2 and 'best so far' not in said and 'No epoch was better than the model that the run began with' in said
    run(data, tmp_path/'run', max_epoch=1, resume=True, reset_state=True, **STILL)
    said = capsys.readouterr().out
    assert 'Epoch 2 was the last; the best was the model that the run began with' in said and 'was inf' not in said

def test_start_that_is_gone(tmp_path, data, capsys):
    "Nobody is told that a file holds the model when the file was deleted meanwhile."
    class Delete(Callback):
        def before_epoch(self, run): (tmp_path/f'run/{NAME}.pth').unlink(missing_ok=True)
    save_model(Tiny(), tmp_path/'start.pth')
    train_from_folder(data, tmp_path/'run', replace(QUICK, checkpoint_file=tmp_path/'start.pth', **STILL), [Delete()], progress=True)
    assert f"{tmp_path/f'run/{NAME}.pth'} held that model and is gone" in capsys.readouterr().out

@pytest.mark.parametrize('options, said', [
    (dict(num_samples=20000, batch_size=8, backward_step=4, max_epoch=1), ''), (dict(num_samples=8, generator_warmup_iteration=0), ''), (dict(num_samples=8, generator_warmup_iteration=3), ''),
    (dict(num_samples=8, generator_warmup_iteration=4), 'has 4 steps; the discriminator is not heard before step 3, and in full from step 5'),
    (dict(num_samples=3200, batch_size=8, backward_step=4, max_epoch=1), 'has 100 steps; the discriminator is not heard before step 233, and in full from step 501')])
def test_a_warm_up_that_is_too_long_is_said(options, said):
    found = late_warmup(replace(QUICK, **dict(generator_warmup_iteration=500) | options))
    assert said in found if said else found == ''

def test_a_long_warm_up_is_said_by_the_run(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1, generator_warmup_iteration=500)
    assert 'lower `generator_warmup_iteration`' in capsys.readouterr().out

@pytest.mark.parametrize('options, said', [
    (dict(discriminator='l3'), '`discriminator` is .l3.; it must be one of: l3c, l3ce, ffc, ffce, l3cffce'), (dict(discriminator_weight=-1), '`discriminator_weight` is -1; it must be 0 or more'),
    (dict(generator_warmup_iteration=-5), '`generator_warmup_iteration` is -5'), (dict(size=64), '`size` is 64; it must be 72 or more with `discriminator`')])
def test_bad_settings(data, tmp_path, options, said):
    with pytest.raises(ValueError, match=said): run(data, tmp_path, **options)

def test_bad_calls():
    with pytest.raises(ValueError, match='which cells'): discriminator_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), None)
    with pytest.raises(ValueError, match='there are: l3c'): create_discriminator('patch')
    with pytest.raises(ValueError, match='at least 40'): create_discriminator('ffc')(torch.rand(1, 3, 39, 60), torch.rand(1, 3, 39, 60))

# ---- several processes

@pytest.mark.long
def test_two_processes_learn_nearly_like_one(data, tmp_path):
    "Three samples in a batch, so that processes have unequal parts, and the last batch of an epoch leaves one without any. Noise and weight are each process's own, hence nearly."
    script = Path(sys.executable).with_name('inpaint_train')
    options = ['inpaint', '-i', data, '--loss', 'l1', '--size', 72, '--gpu', -1, '--disable-amp', '--num-workers', 0, '--seed', 7, '--batch-size', 3, '--backward-step', 1, '--num-samples', 7,
               '--max-epoch', 2, '--eval-step', 2, '--discriminator', 'ffce', '--optimizer', 'adamw_schedulefree', '--generator-warmup-iteration', 0, '--model-dir']
    rows = []
    for processes in (1, 2):
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', processes, script, *options, tmp_path/str(processes)]
        done = subprocess.run([str(part) for part in command], env=os.environ | {'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        rows.append([*csv.DictReader((tmp_path/f'{processes}/loss.csv').open())][-1])
    for name, near in (('train_loss', 0.01), ('psnr', 0.3), ('discriminator_loss', 0.1)): assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), abs=near)

# ---- the network that starts as the background

def test_the_weight_is_taken_from_the_last_layer_of_ours():
    "A fresh one answers with the rule; both gradients reach its last layer all the same."
    step = make_step(arch=OURS)
    assert step.last is step.model.correction.conv2.weight
    step.accumulate(*batch(), 1)
    assert step.balance.isfinite() and step.last.grad.any()

# ---- clips

def test_clips(tmp_path):
    for part in ('train', 'eval'):
        (tmp_path/part).mkdir()
        for number in range(2):
            picture, mask = noise(number)
            write_clip_record(tmp_path/part, f'clip_{number}', *[np.stack([np.roll(frame, shift, 1) for shift in range(12)]) for frame in (picture, mask)])
    history = run(tmp_path, tmp_path/'model', video=True, arch=TinyClip.name, loss='temporal_masked_l1', discriminator='l3cffce', batch_size=1, num_samples=48, max_epoch=1)
    assert history[0]['dropped'] == 0 and all(np.isfinite(history[0][name]) for name in ('checkerboard', 'generator_loss', 'discriminator_loss', 'flicker'))

def test_clips_are_looked_at_one_by_one(monkeypatch):
    "Two clips in a batch, or one after the other: the same gradient, and the discriminator sees no more than one at a time."
    monkeypatch.setattr(gan, 'dequantise', lambda pred, target: (pred, target))
    step, (x, mask, y) = make_step(discriminator='ffc', loss='temporal_masked_l1', video=True, arch=TinyClip.name, discriminator_weight=0), batch(number=24)
    x, mask, y = [value.unflatten(0, (2, 12)) for value in (x, mask, y)]
    seen, look = [], FFC.look
    def gradient(size):
        step.model.zero_grad()
        for part in zip(*[value.split(size) for value in (x, mask, y)]): step.accumulate(*part, len(part[0]) / 2)
        return step.model.blur.weight.grad
    step.discriminator.look = lambda image, condition: (seen.append(len(image)), look(step.discriminator, image, condition))[1]
    torch.testing.assert_close(gradient(2), gradient(1), rtol=1e-3, atol=1e-6)
    assert set(seen) == {12}

def test_the_best_so_far_is_a_model_that_exists():
    "If the newest raises the mark beyond the best so far, it takes its place; else the earlier file would stay although it is 1 dB worse."
    row = lambda psnr, board: dict(psnr=psnr, ssim=0.6, checkerboard=board, eval_loss=0.1)
    for rows, best in (([row(20.5, 1), row(21, 1.2), row(21.8, 1.5)], [True, False, True]), ([row(21, 2), row(21.5, 1), row(21.6, 1.5)], [True, True, False])):
        state = RunState(1)
        for new in rows: state.history.append(new | dict(best=GanStep.is_best(None, new, state)))
        assert [old['best'] for old in state.history] == best
    assert not GanStep.is_best(None, row(21, 1.2), RunState(1, start=row(21, 1.1)))
    assert GanStep.is_best(None, row(30, 9.0), RunState(1, start=row(12, 1.1)))  # random weights leave no grid either

def test_reset_keeps_the_discriminator(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    before = load_discriminator(next(tmp_path.glob('*discriminator.pth')))[0].state_dict()
    run(data, tmp_path, max_epoch=1, resume=True, reset_state=True, learning_rate=1e-8, learning_rate_cosine_min=1e-9)
    assert re.search('those of the discriminator too. Started afresh: .*, warm-up', capsys.readouterr().out)
    after = load_discriminator(next(tmp_path.glob('*discriminator.pth')))[0].state_dict()
    for name, value in before.items():
        if value.is_floating_point() and 'parametrizations' not in name: torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5)

def test_one_schedule_for_each_network(data, tmp_path):
    run(data, tmp_path, max_epoch=1, optimizer='adamw')
    file = torch.load(next(tmp_path.glob('*.checkpoint.pth')), weights_only=True)
    assert len(file['scheduler_state_dict']) == len(file['optimizer_state_dict']) == 2

def test_two_names_of_one_discriminator(data, tmp_path):
    run(data, tmp_path, max_epoch=1, discriminator='ffc')
    assert len(run(data, tmp_path, max_epoch=2, discriminator='inpaint.ffc_discriminator', resume=True)) == 2
