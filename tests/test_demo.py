"The whole job: what it makes, that it goes on where it stopped, and that it says what is wrong."
import json, os, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb.demo import DemoPlan, checkpoint, choose_photos, learn, learning_seconds, run_demo
from inpaint_nb.models import load_model
from inpaint_nb.scenes import random_scene
from inpaint_nb.stereo import save_picture
from inpaint_nb.train import PlainStep, Training

PLAN = DemoPlan(pictures=2, held_out=2, size=(180, 240), record=128, crop=60, seconds=2, least_learning=2, epoch=4, judged=2, judged_size=(120, 160))
MODEL = 'model/inpaint.light_inpaint_v1.pth'

@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo')/'out'
    return out, run_demo(out, plan=PLAN, progress=False)

def test_leaves_what_it_promises(done):
    out, result = done
    for name in ('story.png', 'anaglyph.png', 'side_by_side.png', 'scores.json', 'data/train', 'data/eval', 'photos/depth/train', MODEL): assert (out/name).exists(), name
    assert Image.open(out/'story.png').size[0] == 1600
    width, height = Image.open(out/'anaglyph.png').size
    assert Image.open(out/'side_by_side.png').size == (2 * width, height) == (2 * 160, 120)
    (report,) = result.reports.values()
    assert set(report.averages) == {'this model', 'repeat background', 'telea', 'navier-stokes'}
    scores, = json.loads((out/'scores.json').read_text()).values()
    assert scores['telea']['psnr'] == pytest.approx(report.averages['telea'].mean_psnr)
    assert load_model(out/MODEL)[0].name == 'inpaint.light_inpaint_v1'

def test_learns_from_no_scene_that_is_judged(done):
    out, result = done
    used = {path.stem.removeprefix('scene_') for path in (out/'photos').rglob('*.png')}
    (report,) = result.reports.values()
    assert not used & {case.removeprefix('scene ') for case in report.seen} and len(report.seen) == 2

def test_again_makes_nothing_new(done, capsys):
    out, first = done
    before = {path: path.stat().st_mtime_ns for part in ('photos', 'data', 'model') for path in (out/part).rglob('*') if path.is_file()}
    again = run_demo(out, plan=PLAN, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert 'Nothing to learn' in capsys.readouterr().out
    assert [report.scores for report in again.reports.values()] == [report.scores for report in first.reports.values()]

@pytest.fixture
def clock(monkeypatch):
    "A time of its own, in which a step takes ten seconds; the learning rates of the steps."
    clock = SimpleNamespace(time=0, rates=[])
    def slow(self, *arguments, update=PlainStep.update):
        clock.time += 10
        clock.rates.append(self.optimizers[0].param_groups[0]['lr'])
        return update(self, *arguments)
    monkeypatch.setattr(PlainStep, 'update', slow)
    return clock

def learnt(out: Path, clock, seconds: float) -> dict:
    "Learn by a clock; what the checkpoint says of the run, which was judged and saved."
    learn(out, PLAN, 0, seconds, progress=False, now=lambda: clock.time)
    saved, (*_, last) = checkpoint(out), checkpoint(out)['run']['history']
    assert saved['last_epoch'] == saved['train_kwargs']['max_epoch'] == last['epoch']
    assert last['psnr'] > 0 and min(clock.rates) > 0
    assert load_model(out/MODEL)[0].name == 'inpaint.light_inpaint_v1'
    return saved['run']

def test_ends_with_the_step_in_which_its_time_is_up(done, tmp_path, clock):
    shutil.copytree(done[0]/'data', tmp_path/'data')
    run = learnt(tmp_path, clock, seconds=95)
    assert run['step'] == len(clock.rates) == 10 and len(run['history']) == 3  # of 4, 4 and 2 steps
    assert len(list((tmp_path/'model/learning').glob('*.png'))) == 4
    assert clock.rates[-1] < max(clock.rates)

@pytest.mark.parametrize('seconds, steps', [(1, 1), (40, 4)])
def test_ends_in_time_however_slow_a_step_is(done, tmp_path, clock, seconds, steps):
    shutil.copytree(done[0]/'data', tmp_path/'data')
    run = learnt(tmp_path, clock, seconds)
    assert run['step'] == steps and len(run['history']) == 1

def test_time_that_is_up_while_judging_costs_one_more_step(done, tmp_path, clock, monkeypatch):
    def slow(self, evaluate=Training.evaluate):
        clock.time += 1000
        return evaluate(self)
    monkeypatch.setattr(Training, 'evaluate', slow)
    shutil.copytree(done[0]/'data', tmp_path/'data')
    assert learnt(tmp_path, clock, seconds=500)['step'] == 9  # judged after 8

RUN = '''
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from inpaint_nb.demo import *
from test_demo import PLAN, replace
run_demo(Path(sys.argv[1]), plan=replace(PLAN, seconds=600))
'''

def stopped(out: Path, number: int) -> str:
    "Start a long demonstration, and send it a signal when it learns; what it printed."
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')]))
    process = subprocess.Popen([sys.executable, '-c', RUN, str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    wanted = out/'model/inpaint.light_inpaint_v1.checkpoint.pth'
    until = time.monotonic() + 240
    while not wanted.exists() and process.poll() is None and time.monotonic() < until: time.sleep(0.05)
    process.send_signal(number)
    return process.communicate(timeout=240)[0]

@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_goes_on_where_it_was_stopped(tmp_path, capsys, number):
    out = tmp_path/'out'
    text = stopped(out, number)
    assert number == signal.SIGKILL or 'the same command goes on' in text
    before = checkpoint(out)
    assert before['last_epoch'] < before['train_kwargs']['max_epoch']
    records = sorted((out/'data').rglob('*.png'))
    note = json.loads((out/'demo.json').read_text())
    (out/'demo.json').write_text(json.dumps(note | {'plan': [str(value) for value in vars(PLAN).values()]}))  # so that the rest is short
    run_demo(out, plan=PLAN, progress=False)
    assert 'Going on with learning' in capsys.readouterr().out
    after = checkpoint(out)
    assert after['last_epoch'] == after['train_kwargs']['max_epoch'] > before['last_epoch']
    assert after['run']['step'] > before['run']['step']
    assert sorted((out/'data').rglob('*.png')) == records and (out/'story.png').exists()

def test_photos_of_yours(tmp_path, capsys):
    photos = tmp_path/'photos'
    photos.mkdir()
    for n in range(4): save_picture(random_scene(n, (240, 320)).image, photos/f'{n}.jpg')
    (photos/'broken.jpg').write_bytes((photos/'0.jpg').read_bytes()[:2000])
    (photos/'notes.txt').write_text('no photo')
    before = {path: path.read_bytes() for path in photos.iterdir()}
    result = run_demo(tmp_path/'out', photos, plan=replace(PLAN, pictures=4, record=320), progress=False)
    text = capsys.readouterr().out
    assert 'broken.jpg' in text and 'no photo has a true second view' in text
    assert len(result.reports) == 2 and result.files[0].exists()
    assert {path: path.read_bytes() for path in photos.iterdir()} == before

def test_chooses_photos(tmp_path):
    for n in range(20): save_picture(torch.rand(1, 3, 8, 8), tmp_path/f'{n:02}.png')
    chosen = choose_photos(tmp_path, replace(PLAN, pictures=100, held_out=100))
    assert len(chosen['train']) == 16 and len(chosen['eval']) == 4 and not set(chosen['train']) & set(chosen['eval'])
    assert {part: len(photos) for part, photos in choose_photos(tmp_path, PLAN).items()} == {'train': 2, 'eval': 1}

def test_clear_errors(done, tmp_path):
    out, _ = done
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere'): run_demo(tmp_path/'out', tmp_path/'nowhere')
    (tmp_path/'empty').mkdir()
    with pytest.raises(ValueError, match='too few photos'): run_demo(tmp_path/'out', tmp_path/'empty')
    with pytest.raises(ValueError, match='other settings'): run_demo(out, seed=3, plan=PLAN)
    with pytest.raises(ValueError, match='is not empty'): run_demo(out/'model')
    with pytest.raises(ValueError, match='is a file'): run_demo(out/'story.png')
    with pytest.raises(ValueError, match='--seed is -1'): run_demo(tmp_path/'out', seed=-1)
    assert not (tmp_path/'out').exists()

def test_slow_machines_learn_for_a_shorter_time():
    times = [learning_seconds(DemoPlan(), spent) for spent in np.arange(0, 400, 20)]
    assert times == sorted(times, reverse=True) and times[-1] == DemoPlan().least_learning
    assert all(2 * spent + time <= 480 for spent, time in zip(np.arange(0, 180, 20), times))

of_readme = Path(__file__).parents[1]/'demo/scores.json'

@pytest.mark.skipif(not of_readme.exists(), reason='inpaint_demo demo has not been run in this checkout')
def test_beats_the_classical_fillers():
    scores = next(iter(json.loads(of_readme.read_text()).values()))
    for name in ('telea', 'navier-stokes'): assert scores['this model']['psnr'] > scores[name]['psnr'] + 1
    assert of_readme.with_name('story.png').exists()
