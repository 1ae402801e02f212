"The training loop: golden schedules, exact resume, interruption, bad losses, full disks, clear errors."
import csv, os, re, signal, subprocess, sys, time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inpaint_nb import train
from inpaint_nb.datasets import InpaintDataset, write_record
from inpaint_nb.models import MODELS, Inpainter, create_model, load_model, save_model
from inpaint_nb.train import SCHEDULES, Callback, Interrupted, TrainConfig, decay_groups, fit, scheduler_state, train_from_folder

shared = Path(__file__).parents[2]/'shared'
golden = shared/'reference/golden/extras_training.npz'
needs_reference = pytest.mark.skipif(not golden.exists(), reason='needs the reference results beside the checkout')
LIGHT, NAME = 'inpaint.light_inpaint_v1', 'inpaint.tiny'

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
        if run.state.step == self.step: os.kill(os.getpid(), signal.SIGINT)

# ---- rates

@needs_reference
@pytest.mark.parametrize('case, options', [
    ('default', {}), ('cosine', dict(scheduler='cosine')), ('epochs203', dict(max_epoch=203)), ('epochs30', dict(max_epoch=30)),
    ('epochs7', dict(max_epoch=7)), ('epochs5', dict(max_epoch=5)), ('cycles1_ep3', dict(max_epoch=3, learning_rate_cycles=1))])
def test_schedule_equals_the_reference(case, options):
    config, stored = TrainConfig(**options), np.load(golden)
    rates, decays = zip(*[SCHEDULES[config.scheduler](epoch, config) for epoch in range(1, config.max_epoch + 1)])
    expected = stored[f'sched|{case}|lr']
    assert config.max_epoch - len(expected) in range(1, 5)  # the reference drops the last epochs; here they are all there
    np.testing.assert_allclose(rates[:len(expected)], expected, rtol=1e-9)
    np.testing.assert_allclose(decays[:len(expected)], stored[f'sched|{case}|wd_decay_group'], rtol=1e-9)
    assert min(rates) == rates[-1]

@pytest.mark.parametrize('epochs', [1, 2, 4])
def test_fewer_epochs_than_cycles(epochs):
    config = TrainConfig(max_epoch=epochs)
    assert [SCHEDULES['cosine_wd'](epoch, config)[0] for epoch in range(1, epochs + 1)] == [1e-4] * epochs

@needs_reference
def test_decay_groups_equal_the_reference():
    text = (shared/'reference/state_dicts.md').read_text().split(f'## `{LIGHT}`')[1].split('\n## ')[0]
    decayed = set(re.findall(r'^\| `(\S+)` .*\| yes \|$', text, re.M))
    model = create_model(LIGHT)
    names = {id(value): name for name, value in model.named_parameters()}
    ours = [[names[id(value)] for value in group['params']] for group in decay_groups(model, 0.001)]
    assert set(ours[0]) == decayed and len(ours[0]) == 34 and len(ours[1]) == 47
    assert ours[0][0] == 'dec1.glu_conv.w1.weight'  # the reference's file has a tensor of this shape as its first

def test_scheduler_entry_is_that_of_the_reference():
    state = scheduler_state(TrainConfig(max_epoch=3, learning_rate_cycles=1), 2)
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
    ((1, 8), {}), ((3,), {}), ((5, 6), dict(backward_step=1, disable_hard_example=True)), ((2,), dict(backward_step=4)), ((4,), dict(warmup_step=6, loss='dct')),
    ((1,), dict(arch=LIGHT, max_epoch=1)), ((2,), dict(arch=LIGHT, max_epoch=1, amp_float='bfloat16'))])
def test_resume_is_exact(data, tmp_path, through, stops, options):
    (history, expected), name = through(**options), options.get('arch', NAME)
    for number, stop in enumerate(stops):
        with pytest.raises(Interrupted, match='--resume'): run(data, tmp_path, StopAfter(stop), resume=number > 0, **options)
    assert lasting(run(data, tmp_path, resume=True, **options)) == history
    assert torch.equal(weights(tmp_path/f'{name}.checkpoint.pth'), expected)
    assert len(list(csv.DictReader(open(tmp_path/'loss.csv')))) == len(history)

def test_worker_processes_change_nothing(data, tmp_path, through):
    history, expected = through()
    with pytest.raises(Interrupted): run(data, tmp_path, StopAfter(4), num_workers=2)
    assert lasting(run(data, tmp_path, resume=True, num_workers=2)) == history
    assert torch.equal(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected)

SCRIPT = '''
import sys, time, torch
torch.set_num_threads(1)
from test_train import Callback, TrainConfig, train_from_folder
class Slowly(Callback):
    def after_step(self, run):
        print('step', run.state.step, flush=True)
        time.sleep(0.3)
config = eval(sys.argv[3])
try: train_from_folder(sys.argv[1], sys.argv[2], config, [Slowly()], progress=False)
except KeyboardInterrupt as error: print(error, flush=True); sys.exit(130)
'''

@pytest.mark.parametrize('number, group', [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, False)])
def test_signals_to_a_process(data, tmp_path, through, number, group):
    history, expected = through()
    process = subprocess.Popen([sys.executable, '-c', SCRIPT, data, tmp_path, repr(replace(QUICK, num_workers=2))], stdout=subprocess.PIPE, text=True,
                               start_new_session=True, env=os.environ | {'PYTHONPATH': f'{Path(train.__file__).parents[1]}{os.pathsep}{Path(__file__).parent}'})
    while 'step 5' not in process.stdout.readline(): assert process.poll() is None
    (os.killpg if group else os.kill)(process.pid, number)
    output = process.communicate(timeout=60)[0]
    if number != signal.SIGKILL: assert process.returncode == 130 and 'epoch 2 of 3' in output and '--resume' in output
    assert lasting(run(data, tmp_path, resume=True)) == history
    assert torch.equal(weights(tmp_path/f'{NAME}.checkpoint.pth'), expected)

def test_reset_state_keeps_the_weights_only(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    learnt = weights(tmp_path/f'{NAME}.checkpoint.pth')
    history = run(data, tmp_path, max_epoch=1, resume=True, reset_state=True, learning_rate=1e-30, weight_decay=0, learning_rate_cosine_min=0)
    assert 'optimizer, schedule, sampler, history, best loss' in capsys.readouterr().out
    assert len(history) == 1 and history[0]['best']
    torch.testing.assert_close(weights(tmp_path/f'{NAME}.checkpoint.pth'), learnt)

def test_a_finished_run_goes_on_only_when_asked_for_more(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1)
    assert len(run(data, tmp_path, max_epoch=1, resume=True)) == 1
    assert 'Nothing left to do' in capsys.readouterr().out
    assert [row['epoch'] for row in run(data, tmp_path, max_epoch=2, resume=True)] == [1, 2]

def test_the_seed_of_a_run_stays(data, tmp_path, capsys):
    run(data, tmp_path, max_epoch=1, seed=-1)
    drawn = load_model(tmp_path/f'{NAME}.pth')[1]['train_kwargs']['seed']
    assert drawn >= 0
    run(data, tmp_path, max_epoch=2, resume=True, seed=5)
    assert f'seed {drawn}' in capsys.readouterr().out
    assert load_model(tmp_path/f'{NAME}.checkpoint.pth')[1]['run']['seed'] == drawn

def test_watching_changes_nothing(data, tmp_path, through):
    picture, mask = torch.rand(1, 3, 52, 52), torch.zeros(1, 1, 52, 52)
    watch = train.Watch(picture, mask, (0, 3))
    assert lasting(run(data, tmp_path, watch)) == through()[0]
    assert sorted(watch.pictures) == [0, 3] and torch.equal(watch.pictures[3], picture)  # there is no hole

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

@needs_reference
def test_weights_of_the_reference_to_begin_with(data, tmp_path):
    path = shared/f'reference/checkpoints/{LIGHT}.pth'
    run(data, tmp_path, max_epoch=1, arch=LIGHT, learning_rate=1e-30, weight_decay=0, learning_rate_cosine_min=0, checkpoint_file=str(path))
    torch.testing.assert_close(weights(tmp_path/f'{LIGHT}.pth'), weights(path))

def test_a_full_disk_leaves_the_old_files(data, tmp_path, monkeypatch, capsys):
    "The disk is full in the second epoch only: the third writes again."
    class Full(Callback):
        def before_epoch(self, run):
            full = run.state.epoch == 2
            monkeypatch.setattr(train, 'save_model', no_space if full else save_model)
            self.kept = kept.append(path.read_bytes()) if path.exists() else None
    def no_space(*args, **options): raise OSError('could not write: No space left on device; the old file is untouched')
    path, kept = tmp_path/f'{NAME}.checkpoint.pth', []
    run(data, tmp_path, Full())
    assert kept[0] == kept[1] != path.read_bytes()
    assert 'No space left' in capsys.readouterr().out
    class Fuller(Full):
        def before_epoch(self, run): monkeypatch.setattr(train, 'save_model', no_space)
    with pytest.raises(OSError, match='No space left'): run(data, tmp_path, Fuller(), max_epoch=4, resume=True)

def test_eval_pictures_and_loss_picture(data, tmp_path):
    run(data, tmp_path, max_epoch=1)
    assert sorted(path.name for path in (tmp_path/'eval').iterdir()) == ['1.png', '2.png']
    assert (tmp_path/'loss.png').stat().st_size > 1000
    assert not [path for path in tmp_path.rglob('.*')]

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
            inner = run.step.accumulate, run.step.update
            run.step.accumulate, run.step.update = [self.counted(method) for method in inner]
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
    (dict(batch_size=0), '--batch-size is 0'), (dict(loss='none'), "--loss is 'none'; it must be one of: "), (dict(optimizer='sgdd'), '--optimizer'),
    (dict(scheduler='x'), '--scheduler'), (dict(amp_float='fp8'), '--amp-float'), (dict(arch='inpaint.big'), '--arch'), (dict(learning_rate=-1), '--learning-rate'),
    (dict(max_epoch=0), '--max-epoch'), (dict(reset_state=True), '--resume'), (dict(num_workers=-1), '--num-workers')])
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
    with pytest.raises(ValueError, match='--checkpoint-file'): run(data, tmp_path, resume=True)

@pytest.mark.parametrize('workers', [0, 2])
def test_records_smaller_than_the_crops(data, tmp_path, workers):
    with pytest.raises(ValueError) as error: run(data, tmp_path, size=256, num_workers=workers)
    assert 'smaller than the crops of 256 pixels' in str(error.value) and '\n' not in str(error.value)
