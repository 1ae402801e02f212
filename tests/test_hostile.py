"""Files and command lines that mean harm, or were damaged: one line, the right status, and nothing written.

Each is given to the function that the installed program calls, in this process. What `test_cli.py`, `test_models.py` and
`test_records.py` try already is not tried again.
"""
import io, shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import RunsCode, typed
from test_train import NAME, make_data, run

CHECKPOINT = f'{NAME}.checkpoint.pth'
TRAIN = f'inpaint -i data --model-dir MODELS --arch {NAME} --loss l1 --gpu -1 --num-workers 0 --size 52 --batch-size 2 --backward-step 2 --num-samples 10 --max-epoch 2 '


@pytest.fixture(scope='module')
def yard(tmp_path_factory) -> Path:
    "Records, a run, a photo; hostile things are laid beside them."
    folder = tmp_path_factory.mktemp('yard')/'yard'
    make_data(folder/'data')
    run(folder/'data', folder/'run', max_epoch=1)
    Image.new('RGB', (64, 64), 'grey').save(folder/'photo.png')
    return folder


def refuses(monkeypatch, capsys, yard, program, line, status, says):
    "One line on standard error that says `says`; nothing in the yard is made, changed or left."
    def stamps(): return {path: (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ino) for path in yard.parent.rglob('*')}
    before = stamps()
    given, error = typed(monkeypatch, capsys, yard, program, line.split())
    assert given == status, error
    assert error.startswith(('error: ', 'incomplete: ')) and error.count('\n') == 1 and error.rstrip('\n').isprintable(), error
    assert says in error and 'not foreseen' not in error and len(error) < 2000, error
    assert stamps() == before


# --- resume points

def with_run(**changes): return lambda file: file | dict(run=file['run'] | changes)
def entry(**changes): return lambda file: file | changes
def row(**changes): return lambda file: file | dict(run=file['run'] | dict(history=[file['run']['history'][0] | changes]))
def memory(change):
    def make(file):
        state, = file['optimizer_state_dict']
        return file | dict(optimizer_state_dict=[state | dict(state={0: state['state'][0] | change})])
    return make

RUNS = {
    'last epoch a word': entry(last_epoch='two'), 'last epoch none': entry(last_epoch=None), 'last epoch below 0': entry(last_epoch=-3), 'last epoch a half': entry(last_epoch=1.5),
    'best loss a word': entry(best_loss='low'), 'best loss a list': entry(best_loss=[1]), 'settings a list': entry(train_kwargs=[1]), 'settings a word': entry(train_kwargs='l1'),
    'optimizer a number': entry(train_kwargs=dict(optimizer=7)), 'discriminator unknown': entry(train_kwargs=dict(optimizer='adamw', discriminator='l9')),
    'decay step a number': entry(train_kwargs=dict(learning_rate_decay_step=5)), 'run a list': entry(run=[1]), 'run a word': entry(run='far'), 'seed a word': with_run(seed='x'),
    'seed too large': with_run(seed=2**70), 'seed below 0': with_run(seed=-5), 'epoch zero': with_run(epoch=0), 'epoch a word': with_run(epoch='2'), 'drawn below 0': with_run(drawn=-1),
    'drawn a list': with_run(drawn=[]), 'seconds not a number': with_run(seconds=float('nan')), 'step below 0': with_run(step=-2), 'started elsewhere': with_run(started='../../elsewhere'),
    'started at the root': with_run(started='/etc/x'), 'started nothing': with_run(started=''), 'history of numbers': with_run(history=[1]), 'history of nothing': with_run(history=[{}]),
    'history a word': with_run(history='long'), 'row with a word': row(seconds='x'), 'row without seconds': row(seconds=None), 'row with a list': row(eval_loss=[1]), 'start a word': with_run(start='x'),
    'start with words': with_run(start=dict(eval_loss='low')), 'unknown entry': with_run(more=1), 'finished a word': with_run(finished='x'), 'sampler a list': entry(sampler=[1]),
    'sampler empty': entry(sampler={}), 'sampler of other data': entry(sampler=dict(losses=torch.zeros(2, 4), seen=torch.zeros(2), weights=torch.ones(2), epoch=1)),
    'optimizers a dictionary': entry(optimizer_state_dict={}), 'optimizers numbers': entry(optimizer_state_dict=[1]), 'optimizers empty': entry(optimizer_state_dict=[{}]),
    'optimizer without groups': entry(optimizer_state_dict=[dict(state={}, param_groups=[])]), 'memory of another shape': memory(dict(exp_avg=torch.zeros(5, 5))),
    'memory a word': memory(dict(exp_avg='x')), 'raw weights a list': entry(raw_state_dict=[1]), 'raw weights of another': entry(raw_state_dict=dict(x=torch.zeros(1))),
    'raw weights not numbers': lambda file: file | dict(raw_state_dict={key: value * torch.nan for key, value in file['state_dict'].items()}), 'code': entry(best_loss=RunsCode()),
    'a set': entry(run={1, 2}), 'weights sparse': lambda file: file | dict(state_dict={key: value.to_sparse() for key, value in file['state_dict'].items()}),
    'weights whole numbers': lambda file: file | dict(state_dict={key: value.long() for key, value in file['state_dict'].items()}),
    'weights repeated': lambda file: file | dict(state_dict={key: torch.zeros(1).expand(value.shape) for key, value in file['state_dict'].items()}),
}

SETTINGS = {'optimizer a number': '--optimizer is 7', 'discriminator unknown': "--discriminator is 'l9'", 'sampler of other data': 'about 2 records, but there are 6',
            'optimizer without groups': '--reset-state', 'memory of another shape': '--reset-state', 'memory a word': '--reset-state', 'raw weights of another': 'checkpoint', 'raw weights not numbers': 'checkpoint'}

@pytest.mark.parametrize('what', RUNS)
def test_a_run_that_cannot_go_on(monkeypatch, capsys, yard, what):
    (folder := yard/'runs').mkdir()
    try:
        torch.save(RUNS[what](torch.load(yard/'run'/CHECKPOINT, weights_only=True)), folder/CHECKPOINT)
        refuses(monkeypatch, capsys, yard, 'inpaint_train', TRAIN.replace('MODELS', 'runs') + '--resume', 1, SETTINGS.get(what, CHECKPOINT))
    finally: shutil.rmtree(folder)


# --- weights to fill with

LOOP = {}
LOOP['again'] = LOOP
WEIGHTS = {'a list': [1, 2], 'a number': 3, 'a word': 'weights', 'nothing': None, 'a tensor': torch.zeros(3), 'empty': {}, 'empty below': {'state_dict': {}}, 'a word below': {'state_dict': 'x'},
           'a loop': LOOP, 'another network': {'fc.weight': torch.zeros(2, 2)}, 'numbers as names': {1: torch.zeros(1)}, 'a part': {'patch.weight': torch.zeros(96, 3, 4, 4)},
           'options a list': dict(name='inpaint.light_inpaint_v1', kwargs=[1], state_dict={}), 'options too large': dict(name='inpaint.light_video_inpaint_v1', kwargs=dict(base_dim=10**9), state_dict={}),
           'blocks without end': dict(name='inpaint_nb.background_v1', kwargs=dict(blocks=[10**9] * 4), state_dict={}), 'name a path': dict(name='../x', kwargs={}, state_dict={}),
           'name with signs': dict(name='\x1b[31mred\n', kwargs={}, state_dict={})}

@pytest.mark.parametrize('what', WEIGHTS)
@pytest.mark.parametrize('program, line', [('inpaint_stereo', 'photo.png -o out.png --checkpoint-file bad.pth'), ('inpaint_benchmark', 'scenes --number 1 --gpu -1 --checkpoint-file bad.pth'),
                                           ('inpaint_train', TRAIN + '--checkpoint-file bad.pth')])
def test_weights_that_are_none(monkeypatch, capsys, yard, program, line, what):
    torch.save(WEIGHTS[what], yard/'bad.pth')
    try: refuses(monkeypatch, capsys, yard, program, line, 1, 'bad.pth')
    finally: (yard/'bad.pth').unlink()


# --- records to learn from

def lay(folder, number, picture, mask):
    for ending, data in (('C', picture), ('M', mask)):
        path = folder/f'a_{number}_{ending}.png'
        if isinstance(data, bytes): path.write_bytes(data)
        elif isinstance(data, str): path.symlink_to(data)
        elif data is not None: data.save(path)

def png(image): image.save(file := io.BytesIO(), 'PNG'); return file.getvalue()

GREY, HOLE = Image.new('RGB', (64, 64), 'grey'), Image.new('L', (64, 64), 255)
WIDE = bytearray(png(HOLE))
WIDE[16:24] = (2**30).to_bytes(4, 'big') * 2  # claims a thousand million pixels each way
RECORDS = {'mask of another size': (GREY, Image.new('L', (60, 64), 255)), 'picture cut off': (png(GREY)[:60], HOLE), 'mask cut off': (GREY, png(HOLE)[:40]), 'picture empty': (b'', HOLE), 'mask empty': (GREY, b''),
           'picture a text': (b'text', HOLE), 'mask a text': (GREY, b'text'), 'one pixel': (Image.new('RGB', (1, 1)), Image.new('L', (1, 1))), 'no picture': (None, HOLE), 'a loop': (GREY, 'a_0_M.png'),
           'a link to nowhere': ('nowhere', HOLE), 'a mask without end': (GREY, bytes(WIDE)), 'zeros': (bytes(5000), HOLE)}

@pytest.mark.parametrize('what', RECORDS)
def test_records_that_are_none(monkeypatch, capsys, yard, what):
    (folder := yard/'bad'/'train').mkdir(parents=True)
    shutil.copytree(yard/'data/eval', yard/'bad/eval')
    try:
        lay(folder, 0, *RECORDS[what])
        refuses(monkeypatch, capsys, yard, 'inpaint_train', TRAIN.replace('-i data', '-i bad'), 1, 'bad/train')
    finally: shutil.rmtree(yard/'bad')


# --- packs

PACKS = {'a list': '[]', 'a number': '7', 'cut off': '{"records": [["a', 'empty': '', 'no bytes': '{"records": []}', 'too many bytes': '{"records": [], "bytes": 1000000000}',
         'places a number': '{"records": 5, "bytes": 12}', 'a place a number': '{"records": [5], "bytes": 12}', 'names a list': '{"records": [[[1], 0, 1, 1, 0]], "bytes": 12}', 'zeros': '\0' * 50}

@pytest.mark.parametrize('what', PACKS)
def test_packs_that_are_none(monkeypatch, capsys, yard, what):
    shutil.copytree(yard/'data', yard/'packed')
    try:
        np.save(yard/'packed/train/.pack.npy', np.zeros(12, np.uint8))
        (yard/'packed/train/.pack.json').write_text(PACKS[what])
        refuses(monkeypatch, capsys, yard, 'inpaint_train', TRAIN.replace('-i data', '-i packed'), 1, 'do not belong together')
    finally: shutil.rmtree(yard/'packed')


# --- jobs

JOB = '{dataset-dir: nowhere, data-dir: out, prefix: p, model-type: Pseudo}'
JOBS = {'empty': '', 'a word': 'jobs', 'a number': '3', 'a dictionary': '{a: 1}', 'jobs a word': 'jobs: all', 'jobs empty': 'jobs: []', 'job a word': '[make]', 'job a list': '[[1]]', 'job empty': '[{}]',
        'tabs': 'jobs:\n\t- {}', 'code': '!!python/object/apply:os.mkdir [hacked]', 'a tag': f'- !job {JOB}', 'twice': f'- {JOB[:-1]}, prefix: q}}', 'defaults a list': f'defaults: [1]\njobs: [{JOB}]',
        'unknown option': f'- {JOB[:-1]}, speed: 3}}', 'option a dictionary': f'- {JOB[:-1]}, size: {{a: 1}}}}', 'size a word': f'- {JOB[:-1]}, size: big}}', 'bytes': '\0\1\2', 'an anchor alone': '- *job',
        'unclosed': '- {dataset-dir: "x', 'control signs': '- {"dataset-dir\x07": x}', 'a date': f'- {JOB[:-1]}, seed: 2024-01-01}}', 'not a number': f'- {JOB[:-1]}, seed: .nan}}', 'another command': f'- {JOB[:-1]}, command: clean}}',
        'model unknown': f'- {JOB.replace("Pseudo", "Oak")}', 'prefix a path': f'- {JOB.replace("prefix: p", "prefix: ../p")}', 'deep': '[' * 3000}

@pytest.mark.parametrize('what', JOBS)
def test_jobs_that_are_none(monkeypatch, capsys, yard, what):
    (yard/'bad.yml').write_text(JOBS[what])
    try: refuses(monkeypatch, capsys, yard, 'inpaint_create_training_data', 'jobs bad.yml', 2, 'bad.yml')
    finally: (yard/'bad.yml').unlink()


# --- command lines

KEEP = 'inpaint_create_training_data'
LINES = {
    (KEEP, 'jobs nowhere.yml'): (1, 'nowhere.yml'), (KEEP, 'jobs data'): (1, 'data'), (KEEP, 'status -o nowhere'): (1, 'nowhere'), (KEEP, 'status -o photo.png'): (1, 'photo.png'),
    (KEEP, 'verify -o nowhere'): (1, 'nowhere'), (KEEP, 'pack -i nowhere'): (1, 'nowhere'), (KEEP, 'split -i nowhere --num-eval 1'): (1, 'nowhere'), (KEEP, 'split -i data --num-eval 0'): (2, '1 or more, not 0'),
    (KEEP, 'split -i data --num-eval -4'): (2, 'not -4'), (KEEP, 'split -i data --num-eval many'): (2, 'many'), (KEEP, 'clean -o data'): (2, '--prefix'), (KEEP, 'pack -i data --max-workers 0'): (2, 'workers'),
    (KEEP, 'inpaint -i photo.png -o out --prefix p --model-type Pseudo --shard 3/2'): (2, '3/2'), (KEEP, 'inpaint -i photo.png -o out --prefix p --model-type Pseudo --shard x'): (2, 'not x'),
    ('inpaint_train', TRAIN + '--recipe huge'): (2, "'huge'"), ('inpaint_train', TRAIN + '--max-minutes 0'): (2, '--max-minutes'), ('inpaint_train', TRAIN + '--max-minutes nan'): (2, '--max-minutes'),
    ('inpaint_train', TRAIN + '--discriminator l9 --size 256'): (2, "'l9'"), ('inpaint_train', TRAIN + '--discriminator l3c'): (2, '--size'), ('inpaint_train', TRAIN + '--checkpoint-file pretrained:oak'): (1, 'oak'),
    ('inpaint_train', TRAIN.replace('MODELS', 'photo.png')): (1, 'photo.png'), ('inpaint_train', TRAIN.replace('-i data', '-i run')): (1, 'run/train'), ('inpaint_train', TRAIN + '--video'): (1, 'data/train'),
    ('inpaint_train', TRAIN + '--seed 1e9'): (2, '1e9'), ('inpaint_train', TRAIN + '--max-epoch 99999999999999999999x'): (2, '99999999999999999999x'),
    ('inpaint_benchmark', 'records data --number 0'): (2, 'not 0'), ('inpaint_benchmark', 'records photo.png'): (1, 'photo.png'), ('inpaint_benchmark', 'clips data'): (1, 'data'),
    ('inpaint_benchmark', 'scenes --seed x'): (2, "'x'"), ('inpaint_benchmark', 'speed --height 0'): (2, 'height'),
    ('inpaint_demo', 'photo.png/out'): (1, 'photo.png'), ('inpaint_demo', 'out --nonsense 0'): (2, '--nonsense'), ('inpaint_demo', 'photo.png'): (1, 'photo.png'),
}

@pytest.mark.parametrize('program, line', LINES)
def test_lines_that_are_none(monkeypatch, capsys, yard, program, line):
    refuses(monkeypatch, capsys, yard, program, line, *LINES[program, line])


def test_there_are_many(yard):
    "And whatever they tried, nothing was run."
    assert len(RUNS) + 3 * len(WEIGHTS) + len(RECORDS) + len(PACKS) + len(JOBS) + len(LINES) > 180
    assert not [path for path in yard.parent.rglob('*') if path.name == 'hacked' or '.tmp' in path.name]
