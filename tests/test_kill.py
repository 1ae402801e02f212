"""SIGKILL at random moments of a training, then the same command with --resume: the end is that of a run that nobody killed.

Moments are counted in files opened, renamed, made and removed (`stopping.py`), so that a busy computer changes nothing. A few of
them by default; `pytest --long` tries fifty of each kind. Steps between two files are the matter of `test_signals_to_a_process`.
"""
import csv, os, random, shutil, signal, sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import PROCESSES
from stopping import COUNT
from test_train import NAME, QUICK, lasting

from inpaint_nb.records import write_record
from inpaint_nb.models import load_model
from inpaint_nb.train import train_from_folder

MOMENTS = 50 if os.environ.get('INPAINT_LONG') == '1' else 2
KINDS = dict(training=dict(eval_step=1, ema_model=True, save_epoch=True),
             gan=dict(eval_step=1, size=72, num_samples=8, max_epoch=2, discriminator='ffc', generator_warmup_iteration=0, disable_amp=True))

pytestmark = pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL here')


def live(data: str, folder: str, options: dict, at: int, count: str):
    "In a process of its own: a run that is killed just before it changes its file number `at`, or counts them."
    torch.set_num_threads(1)
    sys.argv[1:], space = [folder, str(int(signal.SIGKILL)), str(at)], {}
    exec(COUNT, space)
    train_from_folder(data, folder, replace(QUICK, **options), progress=False)
    Path(count).write_text(str(next(space['steps']) - 1))


def begin(data, folder, options, at=0) -> int:
    "Exit status of such a process."
    process = PROCESSES.Process(target=live, args=(str(data), str(folder), options, at, f'{folder}.count'))
    process.start()
    process.join(240)
    return process.exitcode


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('kill')/'records'
    for part, number in (('train', 5), ('eval', 2)):
        (root/part).mkdir(parents=True)
        for i in range(number):
            rng, mask = np.random.RandomState(100 * len(part) + i), np.zeros((80, 80), bool)
            mask[8:70, 30 + i:42 + i] = True
            write_record(root/part, f'noise_{i}', np.kron(rng.randint(0, 255, (10, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8), mask)
    return root


@pytest.fixture(scope='module', params=KINDS)
def whole(request, data, tmp_path_factory) -> tuple[Path, dict, int]:
    "A run that nobody killed: its folder, its settings, and how often it changed a file."
    folder = tmp_path_factory.mktemp('whole')/request.param
    assert begin(data, folder, KINDS[request.param]) == 0
    return folder, KINDS[request.param], int(Path(f'{folder}.count').read_text())


def end_state(folder: Path) -> dict:
    "All that does not depend on the time of day: weights, memory of the optimizers, history, table, pictures, names of files."
    model, file = load_model(folder/f'{NAME}.checkpoint.pth')
    tensors = {f'{path.relative_to(folder)} {key}': value for path in sorted(folder.rglob(f'{NAME}*.pth')) for key, value in load_model(path)[0].state_dict().items()}
    for number, state in enumerate(file['optimizer_state_dict']):
        tensors |= {f'optimizer {number} {place} {key}': value for place, memory in state['state'].items() for key, value in memory.items()}
    for part in ('raw_state_dict', 'discriminator_state_dict', 'sampler'): tensors |= {f'{part} {key}': torch.as_tensor(value) for key, value in file.get(part, {}).items()}
    times = ('seconds', 'samples_per_second')
    table = [{key: value for key, value in row.items() if key not in times} for row in csv.DictReader((folder/'loss.csv').open())]
    names = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file() and path.suffix != '.bk' and 'tensorboard' not in path.parts}
    pictures = {name: (folder/name).read_bytes() for name in names if name.endswith(('.png', '.webp')) and name != 'loss.png'}
    return dict(tensors=tensors, history=lasting(file['run']['history']), table=table, names=names, pictures=pictures)


@pytest.mark.parametrize('turn', range(MOMENTS))
def test_killed_and_gone_on(whole, data, tmp_path, turn):
    "Before its first checkpoint a run begins anew, and says so; later it goes on."
    there, options, changes = whole
    at = random.Random(f'{there.name} {turn}').randint(1, changes)
    status = begin(data, tmp_path/'run', options, at)
    assert status == -signal.SIGKILL, (at, changes, status)
    resume = (tmp_path/f'run/{NAME}.checkpoint.pth').exists()
    assert begin(data, tmp_path/'run', options | dict(resume=resume)) == 0, (at, changes)
    if not resume: [shutil.rmtree(aside) for aside in (tmp_path/'run').glob('before_*')]  # the epochs of the killed run
    expected, found = end_state(there), end_state(tmp_path/'run')
    for name in ('names', 'history', 'table', 'pictures'): assert found[name] == expected[name], (name, at, changes)
    assert found['tensors'].keys() == expected['tensors'].keys()
    unlike = [key for key, value in expected['tensors'].items() if not torch.allclose(value, found['tensors'][key], rtol=0, atol=0, equal_nan=True)]
    assert not unlike, (unlike, at, changes)
