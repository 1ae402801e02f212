"The training loop: golden schedules, exact resume, interruption, bad losses, full disks, clear errors."
import csv, os, re, shutil, signal, subprocess, sys, time, warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from inpaint_nb import loading, run as long_run, settings, train, watch
from inpaint_nb.datasets import InpaintDataset
from inpaint_nb.records import write_record
from inpaint_nb.fills import repeat_background
from inpaint_nb.losses import create_loss
from inpaint_nb.scores import hole_psnr
from inpaint_nb.light import Inpainter
from inpaint_nb.models import MODELS, create_model, load_model, save_model
from inpaint_nb.run import begin_with, fit, scheduler_state, train_from_folder
from inpaint_nb.settings import SCHEDULES, TrainConfig, decay_groups
from inpaint_nb.train import Callback, Interrupted
from inpaint_nb.sequences import VideoDataset
from inpaint_nb.video import write_clip_record

shared = Path(__file__).parents[2]/'shared'
golden = shared/'reference/golden/extras_training.npz'
needs_reference = pytest.mark.skipif(not golden.exists(), reason='needs the reference results beside the checkout')
LIGHT, NAME = 'inpaint.light_inpaint_v1', 'inpaint.tiny'
OURS, FOR_CLIPS = 'inpaint_nb.background_v1', 'inpaint_nb.background_video_v1'

class Tiny(Inpainter):
    "One convolution, so that many runs take little time."
    name = NAME
    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 7, padding=3)
    def forward(self, x, mask, skip_i2i_offset=False):
        out = x * (1 - mask) + self.blur(x) * mask
        return out if skip_i2i_offset else out[..., 16:-16, 16:-16]

MODELS[NAME] = Tiny
QUICK = TrainConfig(arch=NAME, loss='l1', size=52, batch_size=2, backward_step=2, num_samples=10, max_epoch=3, learning_rate=1e-3, eval_step=2, save_eval_step=1,
                    num_workers=0, seed=7, gpu=-1)

def make_data(root: Path, train=6, eval=3) -> Path:
    "Records of noise with one upright hole each."
    for part, number in (('train', train), ('eval', eval)):
        (root/part).mkdir(parents=True)
        for i in range(number):
            rng = np.random.RandomState(1000 * len(part) + i)
            mask = np.zeros((64, 64), bool)
            mask[8:56, 20 + i:30 + i] = True
            picture = np.kron(rng.randint(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            write_record(root/part, f'noise_{i}', picture, mask)
    return root

@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_data(tmp_path_factory.mktemp('data')/'records')

@pytest.fixture(autouse=True)
def pale_but_where_it_is_looked_at(request):
    if 'loss_picture' not in request.node.name: request.getfixturevalue('pale')

@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def weights(path: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for value in load_model(path)[0].state_dict().values()])

def run(data, folder, *callbacks, **options): return train_from_folder(data, folder, replace(QUICK, **options), callbacks, progress=False)

def lasting(history): return [{name: value for name, value in row.items() if name not in ('seconds', 'samples_per_second')} for row in history]

class StopAfter(Callback):
    def __init__(self, step): self.step = step
    def after_step(self, run):
        if run.state.step == self.step: signal.raise_signal(signal.SIGINT)

# ---- rates

@needs_reference
@pytest.mark.parametrize('case, options', [
    ('default', {}), ('cosine', dict(scheduler='cosine')), ('cosine_fixed_wd', dict(scheduler='cosine_fixed_wd')), ('step', dict(scheduler='step')),
    ('multistep', dict(scheduler='step', learning_rate_decay=0.1, learning_rate_decay_step=(50, 120))), ('epochs203', dict(max_epoch=203)), ('epochs30', dict(max_epoch=30)),
    ('epochs7', dict(max_epoch=7)), ('epochs5', dict(max_epoch=5)), ('cycles1_ep3', dict(max_epoch=3, learning_rate_cycles=1))])
def test_schedule_equals_the_reference(case, options):
    config, stored = TrainConfig(**options), np.load(golden)
    rates, decays = zip(*[SCHEDULES[config.scheduler].rates(epoch, config) for epoch in range(1, config.max_epoch + 1)])
    expected = stored[f'sched|{case}|lr']
    assert config.max_epoch - len(expected) in (range(1) if config.scheduler == 'step' else range(1, 5))  # the reference drops the last epochs; here they are all there
    np.testing.assert_allclose(rates[:len(expected)], expected, rtol=1e-9)
    np.testing.assert_allclose(decays[:len(expected)], stored[f'sched|{case}|wd_decay_group'], rtol=1e-9)
    assert min(rates) == rates[-1]

@needs_reference
@pytest.mark.parametrize('name', ['adam', 'sgd', 'lion', 'adamw', 'adamw_schedulefree'])
def test_rates_of_every_optimizer_equal_the_reference(data, tmp_path, name):
    "The rates that are in the optimizer in the first step of an epoch."
    stored, case = np.load(golden), {'adamw': 'default', 'adamw_schedulefree': 'schedulefree'}.get(name, name)
    seen = []
    class Look(Callback):
        def before_epoch(self, run): self.epoch = True
        def after_step(self, run):
            if self.epoch: seen.append([(group['lr'], group['weight_decay']) for group in run.learner.optimizers[0].param_groups])
            self.epoch = False
    run(data, tmp_path, Look(), optimizer=name, learning_rate=1e-4, max_epoch=10, learning_rate_cycles=1, num_samples=4, skip_eval=True)
    for number, part in enumerate(('wd_decay_group', 'wd_nodecay_group')):
        expected = stored[f'sched|{case}|{part}']
        if (expected < 0).all(): assert len(seen[0]) == number; continue  # there is no such group
        decays = [groups[number][1] for groups in seen]
        if case == 'schedulefree' or not expected.any(): np.testing.assert_allclose(decays, expected[:10])
        else: np.testing.assert_allclose(decays, expected[0:40:4], rtol=1e-9)  # a cycle of 10 epochs: every fourth of one of 40
    rates = [groups[0][0] for groups in seen]
    if case == 'schedulefree': assert set(rates) == {1e-4}
    else: np.testing.assert_allclose(rates, stored[f'sched|{case}|lr'][0:40:4], rtol=1e-9)

@needs_reference
def test_warm_up_starts_where_the_reference_does(data, tmp_path):
    "There it is one epoch at the lowest rate; here the rate grows from it, step by step, over as many epochs as were asked for."
    rates = []
    class Look(Callback):
        def after_step(self, run): rates.append(run.learner.optimizers[0].param_groups[0]['lr'])
    run(data, tmp_path, Look(), warmup_epoch=2, learning_rate=1e-4, num_samples=8, max_epoch=4, learning_rate_cycles=1, skip_eval=True)
    assert rates[0] == pytest.approx(np.load(golden)['sched|warmup|lr'][0], rel=1e-9)  # 1e-6
    assert rates[:4] == sorted(rates[:4]) and rates[3] < 1e-4
    assert rates[4:6] == pytest.approx([SCHEDULES['cosine_wd'].rates(3, TrainConfig(max_epoch=4, learning_rate_cycles=1))[0]] * 2)

@pytest.mark.parametrize('epochs', [1, 2, 4])
def test_fewer_epochs_than_cycles(epochs):
    config = TrainConfig(max_epoch=epochs)
    assert [SCHEDULES['cosine_wd'].rates(epoch, config)[0] for epoch in range(1, epochs + 1)] == [1e-4] * epochs

@needs_reference
def test_decay_groups_equal_the_reference():
    text = (shared/'reference/state_dicts.md').read_text().split(f'## `{LIGHT}`')[1].split('\n## ')[0]
    decayed = set(re.findall(r'^\| `(\S+)` .*\| yes \|$', text, re.M))
    model = create_model(LIGHT)
    names = {id(value): name for name, value in model.named_parameters()}
    ours = [[names[id(value)] for value in group['params']] for group in decay_groups(model, 0.001)]
    assert set(ours[0]) == decayed and len(ours[0]) == 34 and len(ours[1]) == 47
    assert ours[0][0] == 'dec1.glu_conv.w1.weight'  # the reference's file has a tensor of this shape as its first

def test_a_schedule_free_optimizer_of_any_name_has_no_schedule(data, tmp_path, monkeypatch):
    "Its row says so, not its name; the other way round as well."
    monkeypatch.setitem(settings.OPTIMIZERS, 'free', settings.OPTIMIZERS['adamw_schedulefree'])
    monkeypatch.setitem(settings.OPTIMIZERS, 'mine_schedulefree', settings.OPTIMIZERS['sgd'])
    for name, states in (('free', 0), ('mine_schedulefree', 1)):
        run(data, tmp_path/name, optimizer=name, max_epoch=1, skip_eval=True)
        file = load_model(tmp_path/name/f'{NAME}.checkpoint.pth')[1]
        assert len(file['scheduler_state_dict']) == states and ('raw_state_dict' in file) == (name == 'free')
    with pytest.raises(ValueError, match='above 0 for free'): run(data, tmp_path, optimizer='free', adam_beta1=0)

def test_settings_check_themselves_and_stay():
    with pytest.raises(ValueError, match='`batch_size` is 0; it must be 1 or more'): TrainConfig(batch_size=0)
    with pytest.raises(AttributeError): QUICK.batch_size = 3

def test_scheduler_entry_is_that_of_the_reference():
    state, = scheduler_state(TrainConfig(max_epoch=3, learning_rate_cycles=1), 2)
    assert (state['T_0'], state['T_cur'], state['last_epoch']) == (3, 2, 2)
    np.testing.assert_allclose(state['_last_lr'], [2.50075e-05] * 2, rtol=1e-9)

# ---- resume

@pytest.fixture(scope='module')
def through(data, tmp_path_factory):
    "The same runs without an interruption, made when first asked for."
    made = {}
    def get(**options):
        key = str(sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp('through')
            made[key] = lasting(run(data, folder, **options)), weights(folder/f'{options.get("arch", NAME)}.checkpoint.pth')
        return made[key]
    return get

@pytest.mark.parametrize('stops, options', [
    ((1, 8), {}), ((3,), {}), ((5, 6), dict(backward_step=1, disable_hard_example=True)), ((2,), dict(backward_step=4)), ((4,), dict(warmup_epoch=2, loss='dct')),
    *[pytest.param((2, 5), dict(optimizer=name), marks=[pytest.mark.long] * (name not in ('lion', 'radam_schedulefree'))) for name in settings.OPTIMIZERS], *[((3,), dict(optimizer=name, ema_model=True, ema_step=2, ema_decay=0.9)) for name in ('adamw', 'adamw_schedulefree')],
    ((1,), dict(arch=LIGHT, max_epoch=1)), ((2,), dict(arch=LIGHT, max_epoch=1, amp_float='bfloat16')),
    ((2,), dict(arch=OURS, max_epoch=1, ema_model=True))])
def test_resume_is_exact(data, tmp_path, through, stops, options):
    (history, expected), name = through(**options), options.get('arch', NAME)
    for number, stop in enumerate(stops):
        with pytest.raises(Interrupted, match='`resume`'): run(data, tmp_path, StopAfter(stop), resume=number > 0, **options)
    assert lasting(run(data, tmp_path, resume=True, **options)) == history
    assert torch.equal(weights(tmp_path/f'{name}.checkpoint.pth'), expected)
    assert len(list(csv.DictReader(open(tmp_path/'loss.csv')))) == len(history)

def test_worker_processes_change_nothing(data, tmp_path, through):
    history, expected = through()
    with pytest.raises(Interrupted): run(data, tmp_path, StopAfter(4), num_workers=2)
    assert lasting(run(data, tmp_path, resume=True, num_workers=2)) == history
    assert torch.equal(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected)

SCRIPT = '''
import sys, torch
torch.set_num_threads(1)
from test_train import Callback, TrainConfig, train_from_folder
class Wait(Callback):
    "Until the signal has been sent."
    def after_step(self, run):
        if run.state.step == int(sys.argv[4]): print('step', run.state.step, flush=True), sys.stdin.readline()
config = eval(sys.argv[3])
try: train_from_folder(sys.argv[1], sys.argv[2], config, [Wait()], progress=False)
except KeyboardInterrupt as error: print(error, flush=True); sys.exit(130)
'''

def start(data, folder, config, stop):
    return subprocess.Popen([sys.executable, '-c', SCRIPT, data, folder, repr(config), str(stop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                            env=os.environ | {'PYTHONPATH': f'{Path(train.__file__).parents[1]}{os.pathsep}{Path(__file__).parent}'})

@pytest.mark.parametrize('options', [
    dict(optimizer='adamw_schedulefree', num_workers=2, ema_model=True),
    *[pytest.param(options, marks=pytest.mark.long) for options in (
        dict(num_workers=2), dict(optimizer='adamw_schedulefree'), dict(ema_model=True, backward_step=4, num_samples=36))]])
def test_signals_to_a_process(data, tmp_path, through, options):
    "Killed, interrupted and ended, each at a step that chance chose, and resumed each time."
    history, expected = through(**{name: value for name, value in options.items() if name != 'num_workers'})
    chance, config = np.random.default_rng(), replace(QUICK, **options)
    steps = -(-config.num_samples // (config.batch_size * config.backward_step))
    for turn, number in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)):
        stop = turn * steps + chance.integers(1, steps + 1)
        process = start(data, tmp_path, replace(config, resume=(tmp_path/f'{NAME}.checkpoint.pth').exists()), stop)
        while f'step {stop}' not in (line := process.stdout.readline()): assert line, (stop, process.wait())
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        output = process.communicate('go on\n', timeout=240)[0]
        if number != signal.SIGKILL: assert process.returncode == 130 and f'of {config.max_epoch}' in output and '`resume`' in output
    assert lasting(run(data, tmp_path, resume=True, **options)) == history
    assert torch.equal(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected)

def test_loading_processes_leave_signals_to_the_loop():
    "Else one that dies would be an error in the midst of saving; a second request to end is obeyed."
    code = '''import os, signal
from inpaint_nb.loading import leave_signals
leave_signals(0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.raise_signal(number)
print('alive', flush=True)
signal.raise_signal(signal.SIGTERM)
print('deaf')'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(train.__file__).parents[1])
    assert (done.stdout, done.returncode) == ('alive\n', -signal.SIGTERM)

def test_averages_are_judged_and_raw_weights_go_on(data, tmp_path):
    "The average of the weights after each step, computed here, is what the model file and the checkpoint hold; the checkpoint holds the raw weights as well."
    class Follow(Callback):
        average = None
        def after_step(self, run):
            self.now = torch.cat([value.detach().flatten() for value in run.learner.model.parameters()])
            self.average = self.average + 0.1 * (self.now - self.average)
        def before_fit(self, run): self.average = torch.cat([value.detach().flatten() for value in run.learner.model.parameters()])
    run(data, tmp_path, follow := Follow(), ema_model=True, ema_decay=0.9, max_epoch=1, skip_eval=True)
    model, file = load_model(tmp_path/f'{NAME}.checkpoint.pth')
    torch.testing.assert_close(weights(tmp_path/f'{NAME}.pth'), follow.average)
    torch.testing.assert_close(weights(tmp_path/f'{NAME}.checkpoint.pth'), follow.average)
    assert torch.equal(torch.cat([value.flatten() for value in file['raw_state_dict'].values()]), follow.now)

def test_a_schedule_free_checkpoint_in_eval_mode_is_resumed(data, tmp_path, through):
    "As iw3 writes it: weights to judge, no raw ones, the optimizer in eval mode. Converting there and back rounds, hence not to the bit."
    history, expected = through(optimizer='adamw_schedulefree')
    run(data, tmp_path, optimizer='adamw_schedulefree', max_epoch=2)
    path = tmp_path/f'{NAME}.checkpoint.pth'
    file = torch.load(path, weights_only=True)
    del file['raw_state_dict']
    for group in file['optimizer_state_dict'][0]['param_groups']: group['train_mode'] = False
    torch.save(file, path)
    run(data, tmp_path, optimizer='adamw_schedulefree', resume=True)
    torch.testing.assert_close(weights(path), expected, rtol=1e-3, atol=1e-6)

def test_what_changed_is_said(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    run(data, tmp_path, max_epoch=2, learning_rate=2e-4, resume=True, num_workers=0)
    assert 'max epoch 2 (was 1), learning rate 0.0002 (was 0.001)' in capsys.readouterr().out

def test_reset_state_keeps_the_weights_only(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    learnt = weights(tmp_path/f'{NAME}.checkpoint.pth')
    history = run(data, tmp_path, max_epoch=1, resume=True, reset_state=True, learning_rate=1e-30, weight_decay=0, learning_rate_cosine_min=0)
    assert re.search('the weights after epoch 1. Started afresh: optimizer, schedule, sampler, history, best loss [^,]*$', capsys.readouterr().out)
    assert len(history) == 1 and history[0]['best']
    torch.testing.assert_close(weights(tmp_path/f'{NAME}.checkpoint.pth'), learnt)

def test_a_finished_run_goes_on_only_when_asked_for_more(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    assert len(run(data, tmp_path, max_epoch=1, resume=True)) == 1
    assert 'Nothing left to do: `max_epoch` is 1, and the run has had 1. ' in capsys.readouterr().out
    assert [row['epoch'] for row in run(data, tmp_path, max_epoch=2, resume=True)] == [1, 2]

def test_what_a_resumed_run_does_not_look_at_is_said(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    save_model(create_model(NAME), tmp_path/'other.pth')
    run(data, tmp_path, max_epoch=1, resume=True, checkpoint_file=tmp_path/'other.pth')
    assert '`checkpoint_file` is not looked at' in capsys.readouterr().out

def test_the_best_epoch_is_named_when_the_last_one_is_kept(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=2, eval_step=1)
    path = tmp_path/f'{NAME}.checkpoint.pth'
    file = torch.load(path, weights_only=True)
    for row in file['run']['history']: row['best'] = row['epoch'] == 1
    torch.save(file, path)
    run(data, tmp_path, max_epoch=1, resume=True, reset_state=True)
    assert f'the best was epoch 1. To begin with that one: `checkpoint_file` {tmp_path/NAME}.pth' in capsys.readouterr().out

def test_an_epoch_that_became_shorter(data, tmp_path, capsys):
    with pytest.raises(Interrupted): run(data, tmp_path, StopAfter(1))
    drawn = load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['run']['drawn']
    run(data, tmp_path, resume=True, num_samples=drawn - 1, max_epoch=1)
    assert f'after {drawn} samples, {drawn - 1} of which make one now' in capsys.readouterr().out

def test_the_seed_of_a_run_stays(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1, seed=-1)
    drawn = load_model(tmp_path/f'{NAME}.pth')[1]['train_kwargs']['seed']
    assert drawn >= 0
    run(data, tmp_path, max_epoch=2, resume=True, seed=5)
    assert f'seed {drawn}' in capsys.readouterr().out
    assert load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['run']['seed'] == drawn

@pytest.mark.parametrize('steps', [5, 6])
def test_a_watcher_ends_the_run(data, tmp_path, steps):
    "In the midst of an epoch of three steps, and with one: the run is judged, saved and complete."
    class Enough(Callback):
        def after_step(self, run): run.enough = run.state.step == steps
    history = run(data, tmp_path, Enough(), max_epoch=100, eval_step=100)
    assert [row['psnr'] is not None for row in history] == [False, True]
    file = load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]
    assert file['run']['step'] == steps and file['run']['finished'] and file['last_epoch'] == 2
    assert torch.equal(weights(tmp_path/f'{NAME}.pth'), weights(tmp_path/f'{NAME}.checkpoint.pth'))

def test_watching_changes_nothing(data, tmp_path, through):
    picture, mask = torch.rand(1, 3, 52, 52), torch.zeros(1, 1, 52, 52)
    looking = watch.Watch(picture, mask, (0, 3))
    assert lasting(run(data, tmp_path, looking)) == through()[0]
    assert sorted(looking.pictures) == [0, 3] and torch.equal(looking.pictures[3], picture)  # there is no hole

# ---- files

def test_checkpoint_has_the_entries_of_the_reference(data, tmp_path):
    run(data, tmp_path, max_epoch=1, arch=LIGHT)
    file = torch.load(tmp_path/f'{LIGHT}.checkpoint.pth', weights_only=True)
    assert list(file)[:6] == ['nunif_model', 'name', 'updated_at', 'kwargs', 'train_kwargs', 'state_dict']
    assert {'optimizer_state_dict', 'scheduler_state_dict', 'grad_scaler_state_dict', 'best_loss', 'last_epoch'} < set(file)
    assert file['last_epoch'] == 1 and len(file['optimizer_state_dict'][0]['state']) == 81
    assert file['optimizer_state_dict'][0]['state'][0]['exp_avg'].shape == (96, 96, 1, 1)
    assert list(torch.load(tmp_path/f'{LIGHT}.pth', weights_only=True)) == ['nunif_model', 'name', 'updated_at', 'kwargs', 'train_kwargs', 'state_dict']

def test_a_checkpoint_of_the_reference_is_resumed(data, tmp_path):
    "Such a file has no entries `run` and `sampler`."
    run(data, tmp_path, max_epoch=1)
    path = tmp_path/f'{NAME}.checkpoint.pth'
    file = torch.load(path, weights_only=True)
    for name in ('run', 'sampler'): del file[name]
    for group in file['optimizer_state_dict'][0]['param_groups']: group |= dict(fused=None, foreach=None)
    torch.save(file, path)
    assert [row['epoch'] for row in run(data, tmp_path, max_epoch=3, resume=True)] == [2, 3]

def write_foreign(data, folder, best_loss, **options):
    "A checkpoint as iw3 writes it: its names of settings and what it leaves open, no `run`, no raw weights, optimizers in eval mode."
    run(data, folder, max_epoch=1, **options)
    path = folder/f'{NAME}.checkpoint.pth'
    file = torch.load(path, weights_only=True)
    for name in ('run', 'sampler', 'raw_state_dict'): file.pop(name, None)
    for group in file['optimizer_state_dict'][0]['param_groups']:
        group.pop('decays')
        if 'train_mode' in group: group['train_mode'] = False
    before = file['train_kwargs']
    file['train_kwargs'] = before | dict(gpu=[0], learning_rate_decay_step=[1], num_workers=4, ignore_nan=True, resume=False, lr=1, method='inpaint', amp=True)
    torch.save(file | dict(best_loss=best_loss), path)

@pytest.mark.parametrize('options', [dict(ema_model=True), dict(optimizer='sgd'), dict(optimizer='adam'), dict(optimizer='lion', ema_model=True), dict(optimizer='adamw_schedulefree')])
@pytest.mark.parametrize('best_loss, kept', [(1e-6, True), (1e-6, False), (9.0, True)])
def test_what_is_said_of_a_run_of_the_reference(data, tmp_path, capsys, options, best_loss, kept):
    "Every word is true: what goes on, what changed (nothing), and what it means that no epoch was better."
    write_foreign(data, tmp_path, best_loss, **options)
    model, before = tmp_path/f'{NAME}.pth', (tmp_path/f'{NAME}.pth').read_bytes()
    if not kept: model.unlink()
    capsys.readouterr()
    history = run(data, tmp_path, max_epoch=2, resume=True, **options)
    said = capsys.readouterr().out
    assert ('the averaged weights, the only ones it holds, and optimizer' in said) == options.get('ema_model', False)
    assert 'Other settings from here on: max epoch 2 (was 1).' in said and 'Resumed in epoch 2 of 2, after 0 of its 10 samples.' in said
    assert f'if its evaluation loss is below {best_loss:.4f}, as before.' in said
    assert np.isfinite(history[-1]['eval_loss']) and 'finite loss' not in said
    if best_loss > 1: assert history[-1]['best'] and 'No epoch' not in said; return
    assert f'No epoch was better than the best evaluation loss of the run before, {best_loss:.4f}; ' in said
    assert (f'{model} is as it was' if kept else f'there is no {model}, but {tmp_path/NAME}.checkpoint.pth holds the last model') in said
    assert model.read_bytes() == before if kept else not model.exists()

def test_a_run_of_the_reference_with_another_loss_begins_to_compare_anew(data, tmp_path, capsys):
    write_foreign(data, tmp_path, 1e-6)
    assert run(data, tmp_path, max_epoch=2, resume=True, loss='dct')[-1]['best']
    assert 'the first epoch that is judged counts as the best' in capsys.readouterr().out

def test_settings_that_the_reference_leaves_open_did_not_change():
    assert long_run.changed(TrainConfig(), dict(arch=None, loss=None, learning_rate_decay_step=[1], gpu=[0, 1], seed=3, lr=1)) == []
    assert long_run.changed(TrainConfig(video=True), dict(video=True, arch='inpaint.light_video_inpaint_v1', loss=None)) == []
    assert long_run.changed(TrainConfig(), dict(arch='inpaint.light_video_inpaint_v1', max_epoch=199)) == ['arch inpaint.light_inpaint_v1 (was inpaint.light_video_inpaint_v1)', 'max epoch 200 (was 199)']

def test_a_warm_up_does_not_begin_again(data, tmp_path):
    write_foreign(data, tmp_path, 9.0, warmup_epoch=1)
    rates = []
    class Look(Callback):
        def after_step(self, run): rates.append(run.learner.optimizers[0].param_groups[0]['lr'])
    run(data, tmp_path, Look(), max_epoch=2, resume=True, warmup_epoch=1)
    assert rates == pytest.approx([SCHEDULES['cosine_wd'].rates(2, replace(QUICK, max_epoch=2))[0]] * 3)

@needs_reference
def test_weights_of_the_reference_to_begin_with(data, tmp_path):
    path = shared/f'reference/checkpoints/{LIGHT}.pth'
    run(data, tmp_path, max_epoch=1, arch=LIGHT, learning_rate=1e-30, weight_decay=0, learning_rate_cosine_min=0, checkpoint_file=str(path))
    torch.testing.assert_close(weights(tmp_path/f'{LIGHT}.pth'), weights(path))

# ---- the network that starts as the background

STILL = dict(max_epoch=1, num_samples=2, learning_rate=1e-30, weight_decay=0, learning_rate_cosine_min=0)

@pytest.fixture(scope='module')
def dark(tmp_path_factory):
    "Records whose holes hide what is darker than the background: easily learnt."
    root = tmp_path_factory.mktemp('dark')
    for part in ('train', 'eval'):
        (root/part).mkdir()
        for i in range(4):
            rng, mask = np.random.RandomState(i), np.zeros((64, 64), bool)
            mask[8:56, 20 + i:30 + i] = True
            picture = np.kron(rng.randint(130, 150, (8, 8, 3)), np.ones((8, 8, 1))) - 60 * mask[..., None]
            write_record(root/part, f'dark_{i}', picture.astype(np.uint8), mask)
    return root

def test_ours_starts_at_the_rule_and_gets_better(dark, tmp_path):
    "Judged before it has moved, and after 40 steps; every weight has moved then."
    judge = InpaintDataset(dark/'eval', training=False, size=QUICK.size)
    x, mask, y = [torch.stack(parts) for parts in zip(*[judge[i][:3] for i in range(len(judge))])]
    _, hole = create_model(OURS).preprocess(x, mask)
    rule = repeat_background(x, hole, skip=0)
    start = run(dark, tmp_path/'start', arch=OURS, eval_step=1, **STILL)[-1]['psnr']
    inner = ..., slice(16, -16), slice(16, -16)
    expected = [hole_psnr(*one) for one in zip(rule[inner].split(1), y.split(1), mask[inner].split(1))]
    assert start == pytest.approx(torch.stack(expected).mean().item(), abs=1e-3)
    history = run(dark, tmp_path/'learnt', arch=OURS, backward_step=1, num_samples=80, max_epoch=1, eval_step=1)
    assert history[-1]['psnr'] > start + 2
    learnt, fresh = [load_model(tmp_path/part/f'{OURS}.pth')[0].state_dict() for part in ('learnt', 'start')]
    assert [name for name, value in learnt.items() if torch.allclose(value, fresh[name], atol=1e-7)] == []

def test_ours_for_clips_begins_with_photo_weights(clips, tmp_path, capsys):
    options = VIDEO | dict(arch=FOR_CLIPS, batch_size=1, eval_step=1)
    still = run(clips, tmp_path/'still', checkpoint_file='pretrained:background_v1', **options | STILL)
    count = len(create_model(OURS).state_dict())
    assert f'{count} of the {count + 8} weights of {FOR_CLIPS} begin with it' in capsys.readouterr().out
    photo, video = load_model('pretrained')[0], load_model(tmp_path/f'still/{FOR_CLIPS}.pth')[0].state_dict()
    for name, value in photo.state_dict().items(): torch.testing.assert_close(video[name], value)
    again = run(clips, tmp_path/'moved', checkpoint_file=str(tmp_path/f'still/{FOR_CLIPS}.pth'), max_epoch=1, **options)
    assert all(np.isfinite(row[name]) for row in (*still, *again) for name in ('psnr', 'flicker', 'eval_loss'))
    moved = load_model(tmp_path/f'moved/{FOR_CLIPS}.pth')[0].time_mix
    assert all(value.any() for name, value in moved.named_parameters() if 'out' in name)

def test_pretrained_weights_to_begin_with(data, tmp_path):
    run(data, tmp_path, arch='background_v1', checkpoint_file='pretrained', **STILL)
    torch.testing.assert_close(weights(tmp_path/f'{OURS}.pth'), weights('pretrained'))

def test_pretrained_weights_are_those_of_the_same_network():
    "Its own where they ship; else those of the network that it extends, whatever either is called."
    class OfAnotherName(type(create_model('background_v1'))): name = 'mine.another_name'
    for name, model in [(name, create_model(name)) for name in (FOR_CLIPS, OURS, LIGHT, 'inpaint.light_video_inpaint_v1')]:
        begin_with(model, 'pretrained')
        for key, value in load_model(f'pretrained:{name}')[0].state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key
    with pytest.raises(ValueError, match=f'holds the model {OURS}, not mine.another_name'): begin_with(OfAnotherName(), 'pretrained')
    with pytest.raises(ValueError, match='holds inpaint.light_video_inpaint_v1, not inpaint.light_video_inpaint_v1_medium'):
        begin_with(create_model('light_video_inpaint_v1_medium'), 'pretrained')

def test_weights_that_have_nothing_in_common():
    with pytest.raises(ValueError, match='has no weights in common with inpaint.light_video_inpaint_v1'):
        begin_with(create_model('light_video_inpaint_v1'), 'pretrained:background_v1')
    with pytest.raises(ValueError, match='not inpaint.light_inpaint_v1'):
        begin_with(create_model('light_inpaint_v1'), 'pretrained:background_v1')

def test_a_full_disk_leaves_the_old_files(data, tmp_path, monkeypatch, capsys):
    "The disk is full in the second epoch only: the third writes again."
    class Full(Callback):
        def before_epoch(self, run):
            full = run.state.epoch == 2
            monkeypatch.setattr(long_run, 'save_model', no_space if full else save_model)
            self.kept = kept.append(path.read_bytes()) if path.exists() else None
    def no_space(*args, **options): raise OSError('could not write: No space left on device; the old file is untouched')
    path, kept = tmp_path/f'{NAME}.checkpoint.pth', []
    run(data, tmp_path, Full())
    assert kept[0] == kept[1] != path.read_bytes()
    assert 'No space left' in capsys.readouterr().err
    class Fuller(Full):
        def before_epoch(self, run): monkeypatch.setattr(long_run, 'save_model', no_space)
    with pytest.raises(OSError, match='No space left'): run(data, tmp_path, Fuller(), max_epoch=4, resume=True)

def test_files_of_options(data, tmp_path):
    run(data, tmp_path, max_epoch=2, save_epoch=True, eval_step=1)
    copies = [path.name for path in tmp_path.glob('*.pth.bk')]
    assert len(copies) == 1 and re.fullmatch(rf'{NAME}\.\d{{14}}\.pth\.bk', copies[0])
    assert (tmp_path/copies[0]).read_bytes()[:2] == b'PK' and torch.equal(weights(tmp_path/copies[0]), weights(tmp_path/f'{NAME}.pth'))
    assert torch.equal(weights(tmp_path/f'2/{NAME}.pth'), weights(tmp_path/f'{NAME}.checkpoint.pth'))
    assert not torch.equal(weights(tmp_path/f'1/{NAME}.pth'), weights(tmp_path/f'2/{NAME}.pth'))
    run(data, tmp_path/'bare', max_epoch=1, disable_backup=True, skip_eval=True)
    assert sorted(path.name for path in (tmp_path/'bare').iterdir()) == [f'{NAME}.checkpoint.pth', f'{NAME}.pth', 'loss.csv', 'loss.png', 'progress.json', 'tensorboard']

def test_without_judging_no_eval_folder_is_needed(tmp_path):
    data = make_data(tmp_path/'data', eval=0)
    (data/'eval').rmdir()
    history = run(data, tmp_path/'model', max_epoch=2, skip_eval=True)
    assert [(row['eval_loss'], row['best']) for row in history] == [(None, True)] * 2

def test_tensorboard_goes_on_where_the_run_does(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    with pytest.raises(Interrupted): run(data, tmp_path, StopAfter(5))
    run(data, tmp_path, resume=True)
    folder, = (tmp_path/'tensorboard').iterdir()
    board = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in board.Scalars('epoch/train_loss')] == [3, 6, 9]
    assert {'epoch/psnr', 'epoch/learning_rate', 'loss/batches'} <= set(board.Tags()['scalars']) and board.Tags()['images'] == ['eval/1', 'eval/2']

def test_compiled_is_the_same_network(data, tmp_path, through):
    history, expected = through()
    from torch._dynamo.utils import counters  # not at the top: processes of other tests begin with this file as well
    torch._dynamo.reset()
    counters.clear()
    compiled = run(data, tmp_path, compile=True)
    if shutil.which('g++') or shutil.which('clang++'): assert counters['aot_autograd']['ok'] > 0  # else it runs as it is
    assert [row['train_loss'] for row in compiled] == pytest.approx([row['train_loss'] for row in history], rel=1e-4)
    torch.testing.assert_close(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected, rtol=1e-3, atol=1e-5)

# ---- clips

VIDEO = dict(video=True, loss='temporal_l1dct', batch_size=2, num_samples=60, backward_step=1)

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Clips of moving noise, with a hole that moves along."
    root = tmp_path_factory.mktemp('clips')
    for part, number in (('train', 4), ('eval', 3)):
        (root/part).mkdir()
        for i in range(number):
            rng, masks = np.random.RandomState(100 * len(part) + i), np.zeros((12, 64, 64), bool)
            wide = np.kron(rng.randint(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            for t in range(12): masks[t, 8:56, 20 + t:30 + t] = True
            write_clip_record(root/part, f'noise_{i}', np.stack([wide[:, 2 * t:2 * t + 64] for t in range(12)]), masks)
    return root

def test_clips_resume_exactly(clips, tmp_path):
    history = run(clips, tmp_path/'through', **VIDEO)
    with pytest.raises(Interrupted): run(clips, tmp_path/'stopped', StopAfter(4), **VIDEO)
    assert lasting(run(clips, tmp_path/'stopped', resume=True, **VIDEO)) == lasting(history)
    assert torch.equal(*[weights(tmp_path/f'{name}/{NAME}.checkpoint.pth') for name in ('through', 'stopped')])
    assert [row['flicker'] is not None for row in history] == [False, True, True] and history[1]['flicker'] > 0
    assert sorted(path.name for path in (tmp_path/'through/eval').iterdir()) == ['1.png', '1.webp', '2.png', '2.webp']
    assert Image.open(tmp_path/'through/eval/1.webp').n_frames == 12

def test_a_loss_sees_one_clip_at_a_time(clips):
    "Two clips in a batch cost the mean of what they cost alone: no temporal term joins the last frame of one to the first of the next."
    config = replace(QUICK, **VIDEO)
    step = train.PlainStep(Tiny(), create_loss('temporal_l1dct'), config, train.Compute(config))
    x, mask, y = [torch.stack(parts) for parts in zip(*[VideoDataset(clips/'train', False, 52)[i][:3] for i in range(2)])]
    with step.judging(), torch.no_grad():
        _, both = step.compare(x, mask, y)
        alone = [step.compare(x[i:i + 1], mask[i:i + 1], y[i:i + 1])[1] for i in range(2)]
    torch.testing.assert_close(both, sum(alone) / 2)

def test_photo_settings_for_clips_are_refused(data, clips, tmp_path):
    with pytest.raises(ValueError, match='given with `video`'): run(data, tmp_path/'model', arch='light_video_inpaint_v1')
    with pytest.raises(FileNotFoundError): run(data, tmp_path/'model', **VIDEO)
    with pytest.raises(FileNotFoundError): run(clips, tmp_path/'model')
    assert not (tmp_path/'model').exists()

# ---- several processes

def launch(data, folder, processes, *options):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes), Path(sys.executable).with_name('inpaint_train')]
    return [str(part) for part in (*command, 'inpaint', '-i', data, '--model-dir', folder, '--loss', 'l1', '--size', 52, '--gpu', -1, '--num-workers', 0, '--seed', 7, *options)]

@pytest.mark.parametrize('steps, options', [
    pytest.param(50, ('--batch-size', 2, '--backward-step', 2), marks=pytest.mark.long),
    pytest.param(10, ('--batch-size', 1, '--backward-step', 4), marks=pytest.mark.long),
    (10, ('--batch-size', 3, '--backward-step', 1, '--optimizer', 'adamw_schedulefree', '--ema-model'))])
def test_two_processes_learn_like_one(data, tmp_path, steps, options):
    "Steps of the real network, one in each epoch, so that loss.csv is the curve of losses; three samples in a batch, so that processes have unequal parts."
    size = options[1] * options[3]
    rest = ('--num-samples', size, '--max-epoch', steps, '--learning-rate-cycles', 1, '--eval-step', steps // 2, *options)
    results = []
    for processes in (1, 2):
        done = subprocess.run(launch(data, tmp_path/str(processes), processes, *rest), env=os.environ | {'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ('shared by 2 processes' in done.stdout) == (processes == 2) and done.stdout.count(f'epoch  {steps}/{steps}') == 1
        results.append(list(csv.DictReader(open(tmp_path/str(processes)/'loss.csv'))))
    for name in ('train_loss', 'eval_loss', 'psnr'):
        curves = [np.array([float(row[name]) for row in rows if row[name]]) for rows in results]
        assert len(curves[0]) == (steps if name == 'train_loss' else 2)
        np.testing.assert_allclose(*curves, rtol=0, atol=1e-4 if 'loss' in name else 1e-2)
    assert float(results[0][0]['train_loss']) != float(results[0][-1]['train_loss'])

def test_two_processes_stop_and_go_on(data, tmp_path):
    "Ctrl-C reaches launcher and processes alike; one of them saves; one process goes on with what two began."
    options = ('--batch-size', 2, '--backward-step', 1, '--num-samples', 100_000, '--max-epoch', 2)
    process = subprocess.Popen(launch(data, tmp_path, 2, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
    while 'million weights' not in (line := process.stdout.readline()): assert line, process.wait()
    while not list((tmp_path/'tensorboard').glob('*/events*')): assert process.poll() is None; time.sleep(.02)  # from the first step on
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=240)[0]
    assert process.returncode != 0 and output.count('the same command with --resume goes on') == 1, output
    file = load_model(tmp_path/f'{LIGHT}.checkpoint.pth')[1]
    assert 0 < file['run']['drawn'] < 100_000
    with pytest.raises(Interrupted, match='epoch 1 of 2'):
        run(data, tmp_path, StopAfter(file['run']['step'] + 1), arch=LIGHT, batch_size=2, backward_step=1, num_samples=100_000, max_epoch=2, resume=True, seed=-1)

def test_a_process_without_samples(monkeypatch):
    "In half precision: fewer samples in a step than processes."
    monkeypatch.setattr('torch.cuda.device_count', lambda: 1)
    monkeypatch.setattr(train, 'use_device', lambda gpu: torch.device('cpu'))
    compute = train.Compute(config := replace(QUICK, gpu=0))
    assert compute.scaler.is_enabled()
    step = train.PlainStep(create_model(NAME), create_loss('l1'), config, compute)
    for value in step.model.parameters(): value.grad = torch.zeros_like(value)  # as of other processes
    assert not step.update(torch.zeros(()), 0)

def test_own_randomness_leaves_gpus_alone(monkeypatch):
    "A process that has begun with a GPU cannot be forked any more."
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 4)
    monkeypatch.setattr('torch.cuda._lazy_init', lambda: pytest.fail('begins with a GPU'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with train.own_randomness(): torch.rand(1)

# ---- judging aside

def test_eval_pictures_and_loss_picture(data, tmp_path):
    run(data, tmp_path, max_epoch=1)
    assert sorted(path.name for path in (tmp_path/'eval').iterdir()) == ['1.png', '2.png']
    assert (tmp_path/'loss.png').stat().st_size > 1000
    assert not [path for path in tmp_path.rglob('.*')]

def test_captions_have_room():
    "However small the pictures are."
    for side in (8, 28, 40, 64, 224):
        captions = ['input with hole', 'prediction', 'target']
        sheet = watch.contact_sheet({caption: torch.zeros(2, 3, side, side) for caption in captions})
        need = ImageDraw.Draw(sheet).textlength(captions[0]) + 3
        assert sheet.width % (3 * side) == 0 and sheet.width / 3 >= need and sheet.width <= 3 * max(side, need + 5 + side)

def test_epochs_of_two_runs_do_not_mix(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=2, save_epoch=True)
    old = weights(tmp_path/f'2/{NAME}.pth')
    (tmp_path/'2024').mkdir()  # somebody's own
    (tmp_path/f'.{NAME}.20200101000000.pth.bk.tmp').write_text('of a run that was killed')
    run(data, tmp_path, max_epoch=1, save_epoch=True, seed=8)
    aside, = tmp_path.glob('before_*')
    assert not [*tmp_path.glob('.*')]
    assert f'Epochs 1, 2 of an earlier run are now in {aside}' in capsys.readouterr().out
    assert torch.equal(weights(aside/f'2/{NAME}.pth'), old) and not (tmp_path/'2').exists() and (tmp_path/'2024').is_dir()
    run(data, tmp_path, max_epoch=2, save_epoch=True, seed=8, resume=True)
    assert [*tmp_path.glob('before_*')] == [aside] and (tmp_path/f'1/{NAME}.pth').is_file()

def test_pictures_of_each_epoch(data, tmp_path):
    run(data, tmp_path, max_epoch=2, save_epoch=True, eval_step=1)
    sheets = [(folder/'1.png').read_bytes() for folder in (tmp_path/'1/eval', tmp_path/'2/eval', tmp_path/'eval')]
    assert sheets[0] != sheets[1] == sheets[2]

# ---- judging

def test_all_eval_records_count_once(data, tmp_path):
    "Three records: smaller than one batch, or one and a half batches."
    still = dict(max_epoch=1, learning_rate=1e-30, learning_rate_cosine_min=0, weight_decay=0)
    scores = [run(data, tmp_path/str(size), batch_size=size, **still)[0] for size in (2, 5)]
    for name in ('eval_loss', 'psnr', 'ssim'): assert scores[0][name] == pytest.approx(scores[1][name], rel=1e-4)
    assert np.isfinite(scores[0]['psnr'])

def test_an_empty_eval_folder_is_said_and_survived(tmp_path, capsys):
    data = make_data(tmp_path/'data', eval=0)
    history = run(data, tmp_path/'model', max_epoch=1)
    assert 'without being judged' in capsys.readouterr().out
    assert history[0]['eval_loss'] is None and (tmp_path/f'model/{NAME}.pth').exists()

# ---- numbers that are none

class Sometimes(nn.Module):
    "A loss that is not a number at chosen calls."
    diff_aug = False
    def __init__(self, calls): super().__init__(); self.calls, self.count = calls, 0
    def forward(self, pred, target, mask=None):
        self.count += self.training
        return (pred - target).abs().mean() * (float('nan') if self.training and self.count in self.calls else 1)

def direct(data, folder, criterion, **options):
    torch.manual_seed(0)
    model, config = create_model(NAME), replace(QUICK, **options)
    return model, lambda: fit(model, InpaintDataset(data/'train', size=52), InpaintDataset(data/'eval', False, 52), folder, config, criterion=criterion, progress=False)

def test_the_first_bad_step_ends_a_strict_run(data, tmp_path):
    model, go = direct(data, tmp_path, Sometimes({3}), ignore_nan=False)
    with pytest.raises(FloatingPointError, match='in 1 steps of epoch 1'): go()
    assert weights(tmp_path/f'{NAME}.checkpoint.pth').isfinite().all()

@pytest.mark.parametrize('name', settings.OPTIMIZERS)
def test_a_bad_step_moves_nothing(name, tmp_path):
    "Compared with the same step object that never saw the bad step."
    compute, config = train.Compute(QUICK), replace(QUICK, optimizer=name)
    torch.manual_seed(0)
    first, pictures, mask = Tiny(), torch.rand(2, 3, 52, 52), torch.ones(2, 1, 52, 52, dtype=torch.bool)
    target, steps = pictures[..., 16:-16, 16:-16] * 0.5, []
    for bad in (True, False):
        step = train.PlainStep(Tiny(), nn.L1Loss(), config, compute)
        step.criterion.forward = lambda pred, target, mask: (pred - target).abs().mean()
        step.model.load_state_dict(first.state_dict())
        step.update(step.accumulate(pictures, mask, target, 1), 0)
        if bad: assert step.update(step.accumulate(pictures, mask, target * torch.nan, 1), 1)
        step.update(step.accumulate(pictures, mask, target, 1), 1)
        steps.append(torch.cat([value.detach().flatten() for value in step.model.parameters()]))
    assert torch.equal(*steps)

@pytest.mark.parametrize('name', settings.OPTIMIZERS)
def test_a_bad_first_step_leaves_no_trace(name):
    config = replace(QUICK, optimizer=name)
    pictures, mask, steps = torch.rand(2, 3, 52, 52), torch.ones(2, 1, 52, 52, dtype=torch.bool), []
    for bad in (True, False):
        torch.manual_seed(0)
        step = train.PlainStep(Tiny(), nn.L1Loss(), config, train.Compute(config))
        step.criterion.forward = lambda pred, target, mask: (pred - target).abs().mean()
        if bad: assert step.update(step.accumulate(pictures, mask, pictures[..., 16:-16, 16:-16] * torch.nan, 1), 0)
        for number in range(2): step.update(step.accumulate(pictures, mask, pictures[..., 16:-16, 16:-16] * 0.5, 1), number)
        steps.append(torch.cat([value.detach().flatten() for value in step.model.parameters()]))
    assert torch.equal(*steps)

def test_weight_decay_may_begin_at_nothing(data, tmp_path):
    decays = []
    class Look(Callback):
        def after_step(self, run): decays.append([group['weight_decay'] for group in run.learner.optimizers[0].param_groups])
    run(data, tmp_path, Look(), weight_decay=0, weight_decay_end=0.01, learning_rate_cycles=1)
    assert decays[0] == pytest.approx([0, 0], abs=1e-6) and 0.005 < decays[-1][0] < 0.01 and decays[-1][1] == 0

def test_an_error_loses_nothing(data, tmp_path, through):
    "Whatever goes wrong in the middle of a run: what was learnt is saved, and the error is told."
    class Fail(Callback):
        def after_step(self, run):
            if run.state.step == 5: raise RuntimeError('out of memory')
    with pytest.raises(RuntimeError, match='out of memory'): run(data, tmp_path, Fail())
    history, expected = through()
    assert lasting(run(data, tmp_path, resume=True)) == history and torch.equal(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected)

def test_an_error_before_the_first_step_keeps_the_old_checkpoint(data, tmp_path):
    run(data, tmp_path, max_epoch=1)
    before = (tmp_path/f'{NAME}.checkpoint.pth').read_bytes()
    class Fail(Callback):
        def before_epoch(self, run): raise RuntimeError('nothing works')
    with pytest.raises(RuntimeError): run(data, tmp_path, Fail())
    assert (tmp_path/f'{NAME}.checkpoint.pth').read_bytes() == before

def test_a_model_that_cannot_be_judged_is_not_the_best(data, tmp_path, capsys):
    class Unjudged(Sometimes):
        def forward(self, pred, target, mask=None): return super().forward(pred, target, mask) * (1 if self.training else torch.nan)
    model, go = direct(data, tmp_path, Unjudged(set()), max_epoch=2)
    assert [row['eval_loss'] for row in go()] == [None, None] and not (tmp_path/f'{NAME}.pth').exists()
    assert 'No model was saved as the best' in capsys.readouterr().out

def test_a_full_disk_ends_tensorboard_only(data, tmp_path, monkeypatch, capsys):
    def no_space(*args, **options): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('torch.utils.tensorboard.SummaryWriter.add_scalar', no_space)
    assert len(run(data, tmp_path)) == 3
    assert capsys.readouterr().err.count('goes on without TensorBoard') == 1

def test_a_folder_that_vanishes_ends_tensorboard_in_one_line(data, tmp_path, monkeypatch, capsys):
    "The thread that writes its files prints no traceback."
    said = []
    monkeypatch.setattr('threading.excepthook', said.append)
    class Vanish(Callback):
        def before_epoch(self, run): shutil.rmtree(tmp_path/'run'/'tensorboard', ignore_errors=True)
    assert len(run(data, tmp_path/'run', Vanish(), num_samples=48)) == 3
    assert capsys.readouterr().err.count('goes on without TensorBoard') == 1 and not said

def test_clipping_looks_at_the_whole_gradient():
    compute, config = train.Compute(QUICK), replace(QUICK, optimizer='sgd', learning_rate=1, momentum=0, weight_decay=0, clip_grad_norm=1e-3)
    step = train.PlainStep(Tiny(), nn.L1Loss(), config, compute)
    before = torch.cat([value.detach().flatten() for value in step.model.parameters()]).clone()
    for value in step.model.parameters(): value.grad = torch.full_like(value, 7)
    step.update(torch.zeros(()), 0)
    moved = torch.cat([value.detach().flatten() for value in step.model.parameters()]) - before
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)

def test_a_bad_step_is_left_out(data, tmp_path):
    model, go = direct(data, tmp_path, Sometimes({3}), max_epoch=1)
    history = go()
    assert history[0]['dropped'] == 1 and np.isfinite(history[0]['train_loss'])
    file = load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]
    assert all(value.isfinite().all() for value in model.parameters())
    assert file['sampler']['seen'].sum() == 8  # of ten, one batch of two had no loss
    assert file['optimizer_state_dict'][0]['state'][0]['step'] == 2  # of three

def test_too_many_bad_steps_end_the_run(data, tmp_path, monkeypatch):
    assert train.MOST_DROPPED == 100
    monkeypatch.setattr(train, 'MOST_DROPPED', 10)
    model, go = direct(data, tmp_path, Sometimes(set(range(3, 1000))), num_samples=60, batch_size=1)
    with pytest.raises(FloatingPointError, match='steps of epoch 1'): go()
    saved = weights(tmp_path/f'{NAME}.checkpoint.pth')
    assert saved.isfinite().all()
    assert load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['optimizer_state_dict'][0]['state'][0]['step'] == 1

# ---- speed

def test_a_step_does_not_wait_for_the_device(data, tmp_path, monkeypatch):
    "No tensor with a gradient or of a loss becomes a Python number inside a step; only the reading of the losses does that."
    asked, learning = [], []
    def watched(name):
        original = getattr(torch.Tensor, name)
        def call(self, *args, **options):
            if learning: asked.append(name)
            return original(self, *args, **options)
        monkeypatch.setattr(torch.Tensor, name, call)
    for name in ('item', 'tolist', '__bool__', '__float__', 'numpy', 'cpu'): watched(name)
    class Count(Callback):
        def before_fit(self, run):
            inner = run.learner.accumulate, run.learner.update
            run.learner.accumulate, run.learner.update = [self.counted(method) for method in inner]
        def counted(self, method):
            def call(*args):
                learning.append(True)
                try: return method(*args)
                finally: learning.clear()
            return call
    run(data, tmp_path, Count(), max_epoch=1, arch=LIGHT)
    assert asked == []
    learning.append(True); float(torch.ones(1).sum()); assert asked  # the watch works

# ---- errors

@pytest.mark.parametrize('options, message', [
    (dict(batch_size=0), '`batch_size` is 0'), (dict(loss='none'), "`loss` is 'none'; it must be one of: "), (dict(optimizer='sgdd'), '`optimizer`'),
    (dict(scheduler='x'), '`scheduler`'), (dict(amp_float='fp8'), '`amp_float`'), (dict(arch='inpaint.big'), '`arch`'), (dict(learning_rate=-1), '`learning_rate`'),
    (dict(max_epoch=0), '`max_epoch`'), (dict(reset_state=True), '`resume`'), (dict(num_workers=-1), '`num_workers`'), (dict(loss='temporal_l1dct'), 'single pictures'),
    (dict(ema_decay=1), '`ema_decay`'), (dict(learning_rate_decay_step=()), '`learning_rate_decay_step`'), (dict(learning_rate_decay_step=(0,)), '`learning_rate_decay_step`'),
    (dict(lpips_weights='vgg.pth'), '`lpips_weights`'), (dict(momentum=-1), '`momentum`'), (dict(warmup_epoch=float('nan')), '`warmup_epoch`'),
    (dict(seed=-7), '`seed`'), (dict(gpu=-5), '`gpu`'), (dict(clip_grad_norm=0), '`clip_grad_norm`'), (dict(learning_rate=1e-9), '`learning_rate_cosine_min`'),
    (dict(optimizer='adamw_schedulefree', adam_beta1=0), 'above 0 for adamw_schedulefree'), (dict(optimizer='sgd_schedulefree', momentum=0), '`momentum`')])
def test_wrong_settings(data, tmp_path, options, message):
    with pytest.raises(ValueError) as error: run(data, tmp_path/'model', **options)
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not (tmp_path/'model').exists()

def test_wrong_files(data, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing to resume.*does not exist'): run(data, tmp_path/'model', resume=True)
    with pytest.raises(FileNotFoundError, match='no folder .*make records first'): run(tmp_path, tmp_path/'model')
    with pytest.raises(FileNotFoundError, match='no records'): run(make_data(tmp_path/'empty', train=0), tmp_path/'model')
    with pytest.raises(Exception, match='nowhere.pth'): run(data, tmp_path/'model', checkpoint_file=str(tmp_path/'nowhere.pth'))
    (tmp_path/'text.pth').write_text('no checkpoint')
    with pytest.raises(Exception, match='text.pth'): run(data, tmp_path/'model', checkpoint_file=str(tmp_path/'text.pth'))
    (tmp_path/'file').write_text('')
    with pytest.raises(OSError, match='cannot write to'): run(data, tmp_path/'file'/'model')
    assert not (tmp_path/'model').exists()

def test_a_model_alone_cannot_be_resumed(data, tmp_path):
    save_model(create_model(NAME), tmp_path/f'{NAME}.checkpoint.pth')
    with pytest.raises(ValueError, match='`checkpoint_file`'): run(data, tmp_path, resume=True)

@pytest.mark.parametrize('workers', [0, 2])
def test_records_smaller_than_the_crops(data, tmp_path, workers):
    with pytest.raises(ValueError) as error: run(data, tmp_path, size=256, num_workers=workers)
    assert 'smaller than the crops of 256 pixels' in str(error.value) and '\n' not in str(error.value)

# ---- a limit of time

class Steady(Callback):
    "A time of its own, in which a step takes ten seconds; the learning rates of the steps."
    def __init__(self): self.time, self.rates = 0, []
    def after_step(self, run):
        self.time += 10
        self.rates.append(run.learner.optimizers[0].param_groups[0]['lr'])

def timed(data, folder, watcher, *more, **options):
    "A run by the clock of its watcher."
    config = replace(QUICK, max_minutes=95 / 60, **options)
    train_set, eval_set = (InpaintDataset(data/part, part == 'train', config.size, 7) for part in ('train', 'eval'))
    return fit(create_model(NAME), train_set, eval_set, folder, config, [*more, watcher], progress=False, now=lambda: watcher.time)

def test_a_limit_of_time_ends_the_run(data, tmp_path):
    history = timed(data, tmp_path, steady := Steady())
    file = load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]
    assert file['run']['finished'] and file['run']['step'] == len(steady.rates) == 11  # 10 steps take 100 s, seen after the next
    assert history[-1]['psnr'] is not None and len(history) == 4  # of three steps each
    assert steady.rates[0] == pytest.approx(1e-4) and max(steady.rates) > 0.95e-3 and steady.rates[-1] == pytest.approx(1e-5)

def test_a_limit_of_time_goes_on_after_an_interruption(data, tmp_path):
    with pytest.raises(Interrupted): timed(data, tmp_path, Steady(), StopAfter(4))
    assert not load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['run']['finished']
    timed(data, tmp_path, rest := Steady(), resume=True)
    assert load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['run']['step'] == 4 + len(rest.rates) < 14
    assert max(rest.rates) < 0.9e-3  # no second rise

def test_a_finished_run_has_nothing_left_to_do(data, tmp_path, capsys):
    timed(data, tmp_path, Steady())
    before = (tmp_path/f'{NAME}.checkpoint.pth').read_bytes()
    timed(data, tmp_path, again := Steady(), resume=True)
    assert not again.rates and (tmp_path/f'{NAME}.checkpoint.pth').read_bytes() == before
    assert 'Nothing left to do: `max_minutes` is 1.58' in capsys.readouterr().out

# ---- what a person reads while waiting

class Slow(Steady):
    "Ends the run with its second step."
    def after_step(self, run):
        super().after_step(run)
        run.enough = run.state.step == 2

@pytest.mark.parametrize('epochs, says', [(3, 'all that is ahead 55 seconds, without judging.'), (10_000, 'all that is ahead 3 days, without judging. For a computer without a GPU: `recipe` small-machine, ')])
def test_how_long_a_run_will_take(data, tmp_path, capsys, epochs, says):
    "By a clock of its own, in which a step of four samples takes ten seconds: said in the second step."
    train_set, eval_set = (InpaintDataset(data/part, part == 'train', QUICK.size, 7) for part in ('train', 'eval'))
    slow, config = Slow(), replace(QUICK, max_epoch=epochs, learning_rate_cycles=1)
    fit(create_model(NAME), train_set, eval_set, tmp_path, config, [slow, watch.Estimate()], progress=False, now=lambda: slow.time)
    said = [line for line in capsys.readouterr().out.splitlines() if 'samples/s' in line]
    assert len(said) == 1 and said[0].startswith('At 0.4 samples/s an epoch of 10 samples takes 25 seconds, ' + says), said
    for option in ('`max_minutes`', '`num_samples`'): assert (option in said[0]) == (epochs > 3)

def test_a_short_run_is_not_estimated(data, tmp_path, capsys):
    run(data, tmp_path, watch.Estimate())
    assert 'samples/s' not in capsys.readouterr().out

class AtOnce:
    "A timer whose time is up when it starts."
    def __init__(self, seconds, call, arguments): self.call, self.arguments = call, arguments
    def start(self): self.call(*self.arguments)
    def cancel(self): pass

class Never(AtOnce):
    def start(self): pass

def test_what_lasts_is_said(data, tmp_path, monkeypatch, capsys):
    "Each phase once, on standard error; what lasts but a moment says nothing."
    monkeypatch.setattr('threading.Timer', Never)
    run(data, tmp_path, max_epoch=2, eval_step=2)
    assert capsys.readouterr().err == ''
    monkeypatch.setattr('threading.Timer', AtOnce)
    run(data, tmp_path, max_epoch=4, eval_step=2, resume=True)
    said = capsys.readouterr().err.splitlines()
    path = tmp_path/f'{NAME}.checkpoint.pth'
    assert said == ['making the loss l1 ...', f'reading {path} ...', f'looking through the records in {data} ...', f'reading {path} ...', 'the first step, of 4 samples ...',
                    'waiting for the first batch ...', 'waiting for the first batch ...', 'judging by 3 records ...', 'waiting for the first batch ...']

# ---- processes that load data

class Broken(InpaintDataset):
    "Fails in the midst of an epoch, in a way nobody foresaw."
    def __getitem__(self, key):
        if isinstance(key, tuple) and key[2] == 5: raise RuntimeError('unable to write to file </torch_1_2_3>: No space left on device (28)')
        return super().__getitem__(key)

def test_scarce_memory_of_loading_processes_is_one_line(data, tmp_path):
    "And nothing is left running."
    import multiprocessing
    with pytest.raises(RuntimeError, match='^a process that loads data ran out of shared memory or file handles: try `num_workers` 0[^\n]*$'):
        fit(create_model(NAME), Broken(data/'train', True, 52, 7), None, tmp_path, replace(QUICK, num_workers=2), progress=False)
    assert not multiprocessing.active_children()

def test_little_shared_memory_changes_nothing_but_the_way(data, tmp_path, monkeypatch, capsys):
    run(data, tmp_path/'shared', max_epoch=1, num_workers=1)
    monkeypatch.setattr(loading, 'shared_memory', lambda: 64_000)
    run(data, tmp_path/'pipe', max_epoch=1, num_workers=1)
    assert '/dev/shm has only 0 MB' in capsys.readouterr().out
    assert torch.equal(*(weights(tmp_path/name/f'{NAME}.pth') for name in ('shared', 'pipe')))

def test_ends_when_nobody_reads(data, tmp_path):
    "Ctrl-C, and the reader of the pipe goes with it, as with `2>&1 | tee`."
    options = ('--batch-size', 2, '--backward-step', 1, '--num-samples', 100_000, '--max-epoch', 2, '--loss', 'l1', '--size', 52, '--gpu', -1, '--num-workers', 2)
    command = [Path(sys.executable).with_name('inpaint_train'), 'inpaint', '-i', data, '--model-dir', tmp_path, *options]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
    try:
        while not list((tmp_path/'tensorboard').glob('*/events*')): assert process.poll() is None; time.sleep(.02)  # from the first step on
        process.stdout.close()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=240)
        assert load_model(tmp_path/f'{LIGHT}.checkpoint.pth')[1]['run']['drawn'] > 0
        with pytest.raises(ProcessLookupError): os.killpg(process.pid, 0)
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)

def test_a_checkpoint_says_where_its_rates_began(data, tmp_path):
    "As schedules of PyTorch, and with them the reference's trainer, expect it when they go on."
    run(data, tmp_path, max_epoch=1)
    state, = load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['optimizer_state_dict']
    assert {group['initial_lr'] for group in state['param_groups']} == {QUICK.learning_rate}
    assert [group['_initial_weight_decay'] for group in state['param_groups']] == [QUICK.weight_decay, 0]
    model = create_model(NAME)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.001), lr=1e-4)
    optimizer.load_state_dict(state)
    torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, last_epoch=1)
