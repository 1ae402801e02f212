"""A run is watched from outside, by what it writes: while it goes on, after it was killed, after it went on."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest
from commands import ENV, Running, run
from PIL import Image

from inpaint_nb.records import write_record
from inpaint_nb.scenes import random_scene
from inpaint_nb.watching import look, main, words

LINE = ('inpaint -i data --model-dir model --loss l1 --size 60 --batch-size 2 --backward-step 1 --num-samples 8 --eval-step 1 --save-eval-step 1 '
        '--learning-rate-cycles 1 --num-workers 0 --gpu -1 --seed 1').split()


@pytest.fixture
def folder(tmp_path):
    "Records to learn from and to be judged by."
    for part, seeds in (('train', range(4)), ('eval', range(100, 102))):
        (tmp_path/'data'/part).mkdir(parents=True)
        for seed in seeds:
            image, hole = random_scene(seed, size=(96, 128)).view(3.0, 0.5)
            pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
            write_record(tmp_path/'data'/part, f'scene_{seed:03}', pixels, hole[0, 0].numpy() > 0)
    return tmp_path


def begun(folder: Path) -> Running:
    "A long run that has written its first checkpoint."
    process, late = Running('inpaint_train', *LINE, '--max-epoch', 1000, cwd=folder), time.monotonic() + 240
    while not list((folder/'model').glob('*.checkpoint.pth')):
        assert process.poll() is None and time.monotonic() < late
        time.sleep(0.05)
    return process


def test_killed_and_gone_on(folder):
    process = begun(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    seen = look(folder/'model')
    assert not seen.over and seen.progress['epochs'] == 1000 and seen.history and seen.pictures
    note = json.loads((folder/'model/progress.json').read_text())
    (folder/'model/progress.json').write_text(json.dumps(note | dict(time=note['time'] - 3600)))
    assert 'Nothing was heard for 60 minutes' in words(look(folder/'model'))[-1]
    epochs = len(seen.history) + 1
    assert run('inpaint_train', *LINE, '--max-epoch', epochs, '--resume', cwd=folder).returncode == 0
    seen = look(folder/'model')
    assert (seen.progress['doing'], seen.progress['step'], len(seen.history)) == ('finished', 4 * epochs, epochs)
    steps = [step for step, _ in seen.progress['losses']]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == 4 * epochs  # the curve before the kill is still there
    assert seen.silent < 600 and Image.open(seen.pictures[0]).size[0] > 60


def test_a_stopped_run_says_so(folder):
    process = begun(folder)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait().returncode == 130
    assert look(folder/'model').progress['doing'] == 'stopped'
    watched = subprocess.run([sys.executable, '-m', 'inpaint_nb.watching', folder/'model'], env=ENV, capture_output=True, text=True, timeout=240)
    assert watched.returncode == 0 and 'stopped after' in watched.stdout


def test_no_run(tmp_path, capsys):
    status, said = main([str(tmp_path)]), capsys.readouterr().err
    assert status == 1 and len(said.splitlines()) == 1 and 'progress.json' in said
