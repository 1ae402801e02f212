"The whole job: what it makes, that it goes on where it stopped, and that it says what is wrong."
import json, os, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from inpaint_nb.demo import (
    DemoPlan, checkpoint, choose_photos, draw_photos, judged_views, learn, learning_seconds, run_demo, settings)
from inpaint_nb.benchmark import judge_fills
from inpaint_nb.fills import FILLERS
from inpaint_nb.models import load_model
from inpaint_nb.scenes import random_scene
from inpaint_nb.stereo import save_picture
from inpaint_nb import train
from inpaint_nb.train import PlainStep

PLAN = DemoPlan(pictures=2, held_out=2, size=(180, 240), record=128, crop=60, seconds=1, least_learning=1, epoch=4, judged=2, judged_size=(120, 160))
MODEL = 'model/inpaint_nb.background_v1.pth'

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
    for name in ('story.png', 'anaglyph.png', 'side_by_side.png', 'scores.json', 'data/train', 'data/eval', 'photos/train', MODEL): assert (out/name).exists(), name
    assert Image.open(out/'story.png').size[0] == 1600
    width, height = Image.open(out/'anaglyph.png').size
    assert Image.open(out/'side_by_side.png').size == (2 * width, height) == (2 * 960, 540)
    report = result.report
    assert set(report.averages) == {'this model', 'before learning', *FILLERS}
    scores, = json.loads((out/'scores.json').read_text()).values()
    assert scores['telea']['psnr'] == pytest.approx(report.averages['telea'].mean_psnr)
    assert load_model(out/MODEL)[0].name == 'inpaint_nb.background_v1'

def test_learns_from_no_scene_that_is_judged(done):
    out, result = done
    used = {path.stem.removeprefix('scene_') for path in (out/'photos').rglob('*.png')}
    report = result.report
    assert used == {'0', '1', '5000', '5001'} and len(report.seen) == 2

def test_judges_by_held_out_pictures_alone(done, tmp_path):
    shutil.copytree(done[0]/'photos/eval', tmp_path/'photos/eval')
    alone, whole = (judged_views(out, PLAN, 0) for out in (tmp_path, done[0]))
    assert len(whole) == 2 and all(torch.equal(*pair) for pair in zip(alone[0][1:6], whole[0][1:6]))

def test_again_makes_nothing_new(done, capsys):
    out, first = done
    before = {path: path.stat().st_mtime_ns for part in ('photos', 'data', 'model') for path in (out/part).rglob('*') if path.is_file()}
    again = run_demo(out, plan=PLAN, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert 'Nothing to learn' in capsys.readouterr().out
    assert [score.psnr for score in again.report.scores] == [score.psnr for score in first.report.scores]

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
    assert saved['run']['finished'] and saved['last_epoch'] == last['epoch']
    assert last['psnr'] > 0 and min(clock.rates) > 0
    assert load_model(out/MODEL)[0].name == 'inpaint_nb.background_v1'
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
    def slow(run, evaluate=train.evaluate):
        clock.time += 1000
        return evaluate(run)
    monkeypatch.setattr(train, 'evaluate', slow)
    shutil.copytree(done[0]/'data', tmp_path/'data')
    assert learnt(tmp_path, clock, seconds=500)['step'] == 9  # judged after 8

def test_ten_steps_reach_the_learning_rate(done, tmp_path, clock):
    shutil.copytree(done[0]/'data', tmp_path/'data')
    learnt(tmp_path, clock, seconds=100)
    assert len(clock.rates) == 10
    full = settings(PLAN, 0, 100, False).learning_rate
    assert clock.rates[0] == pytest.approx(full / 10) and clock.rates[1] > 0.97 * full

def test_says_what_it_began_with(tmp_path, capsys):
    run_demo(tmp_path/'shipped', plan=replace(PLAN, least_learning=0.5, seconds=0.5), progress=False)
    assert 'Learning, from the weights that come with the package' in capsys.readouterr().out
    run_demo(tmp_path/'fresh', plan=replace(PLAN, least_learning=0.5, seconds=0.5, start=''), progress=False)
    assert 'Learning, from nothing' in capsys.readouterr().out

def test_a_few_steps_end_ahead_of_every_classical_fill(done, tmp_path, clock):
    shutil.copytree(done[0]/'data', tmp_path/'data')
    learnt(tmp_path, clock, seconds=100)
    draw_photos(tmp_path/'photos', DemoPlan(pictures=0, held_out=4), 0, progress=False)
    cases = judged_views(tmp_path, DemoPlan(judged=8, judged_size=(240, 320)), 0)
    own, *others = judge_fills(cases, {'own': load_model(tmp_path/MODEL)[0], **FILLERS}).averages.values()
    assert own.mean_psnr > max(other.mean_psnr for other in others) + 0.3
    assert own.mean_ssim > max(other.mean_ssim for other in others)

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
    wanted = out/'model/inpaint_nb.background_v1.checkpoint.pth'
    until = time.monotonic() + 240
    while not wanted.exists() and process.poll() is None and time.monotonic() < until: time.sleep(0.05)
    process.send_signal(number)
    return process.communicate(timeout=240)[0]

@pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_goes_on_where_it_was_stopped(tmp_path, capsys, number):
    out = tmp_path/'out'
    text = stopped(out, number)
    assert number == signal.SIGKILL or 'the same command goes on' in text
    before = checkpoint(out)
    assert not before['run']['finished']
    records = sorted((out/'data').rglob('*.png'))
    note = json.loads((out/'demo.json').read_text())
    (out/'demo.json').write_text(json.dumps(note | {'plan': [str(value) for value in vars(PLAN).values()]}))  # so that the rest is short
    run_demo(out, plan=PLAN, progress=False)
    assert 'Going on with learning' in capsys.readouterr().out
    after = checkpoint(out)
    assert after['run']['finished'] and after['last_epoch'] > before['last_epoch']
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
    assert 'broken.jpg' in text and 'views of parts of photos that it never saw' in text
    assert len(result.report.seen) == 2 and result.files[0].exists()
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
    with pytest.raises(ValueError, match='seed. is -1'): run_demo(tmp_path/'out', seed=-1)
    assert not (tmp_path/'out').exists()

def test_slow_machines_learn_for_a_shorter_time():
    times = [learning_seconds(DemoPlan(), spent) for spent in np.arange(0, 400, 20)]
    assert times == sorted(times, reverse=True) and times[-1] == DemoPlan().least_learning
    assert all(2 * spent + time <= 480 for spent, time in zip(np.arange(0, 180, 20), times))

of_readme = Path(__file__).parents[1]/'demo/scores.json'

@pytest.mark.skipif(not of_readme.exists(), reason='inpaint_demo demo has not been run in this checkout')
def test_beats_the_classical_fillers():
    scores = next(iter(json.loads(of_readme.read_text()).values()))
    own = scores['this model']
    assert all(own['psnr'] > scores[name]['psnr'] + 0.3 and own['ssim'] > scores[name]['ssim'] for name in FILLERS)
    assert of_readme.with_name('story.png').exists()
