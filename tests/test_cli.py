"""Whole command lines, as a user types them: exit status, one line on standard error, files."""
import errno, io, json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch
from commands import ENV, Running, run, script
from PIL import Image

from inpaint_nb import cli, program
from inpaint_nb.models import create_model, load_model, save_model
from inpaint_nb.program import Incomplete, finish
from inpaint_nb.scenes import random_scene

PROGRAMS = ['inpaint_create_training_data', 'inpaint_train', 'inpaint_stereo', 'inpaint_benchmark', 'inpaint_export', 'inpaint_demo']
COMMANDS = [['inpaint_create_training_data', 'inpaint'], ['inpaint_train', 'inpaint'], ['inpaint_stereo'], ['inpaint_benchmark', 'stereo'], ['inpaint_export'], ['inpaint_demo']]
TINY = '--size 64 --batch-size 2 --backward-step 1 --num-samples 4 --max-epoch 2 --learning-rate-cycles 1 --num-workers 0 --eval-step 1 --save-eval-step 1 --gpu -1'.split()


def refused(status: int, *line, says: list[str]):
    "A command must end with `status` and one line that says all of `says`."
    done = run(*line)
    assert done.returncode == status, (done.returncode, done.stderr)
    errors = [text for text in done.stderr.splitlines() if text.startswith('error: ')]
    assert len(errors) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    if status == 2: assert len(done.stderr.splitlines()) == 1
    assert 'Traceback' not in done.stderr
    for text in says: assert text in errors[0], errors[0]


@pytest.fixture(scope='session')
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('cli')


@pytest.fixture(scope='session')
def photos(root) -> Path:
    "Four scenes as photos, one of them to judge."
    for number, name in enumerate(('train/0', 'train/1', 'train/2', 'eval/3')):
        path = root/'photos'/f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random_scene(number, size=(240, 320)).image[0].permute(1, 2, 0).mul(255).byte().numpy()
        Image.fromarray(pixels).save(path)
    return root/'photos'


@pytest.fixture(scope='session')
def records(root, photos) -> Path:
    "Records made by the command line."
    done = run('inpaint_create_training_data', 'inpaint', '--dataset-dir', photos, '-o', root/'records', '--prefix', 'scene',
            '--model-type', 'Pseudo', '--size', 128, '--max-workers', 2)
    assert done.returncode == 0, done.stderr
    return root/'records'


@pytest.fixture(scope='session')
def models(root, records) -> Path:
    "A model trained by the command line."
    done = script('inpaint_train', 'inpaint', '-i', records, '--model-dir', root/'models', '--loss', 'l1', '--seed', 1, *TINY)
    assert done.returncode == 0, done.stderr
    return root/'models'


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


# --- help and wrong command lines: fast, and before any work

@pytest.mark.parametrize('line', [[program] for program in PROGRAMS[:2]] + COMMANDS, ids=' '.join)
def test_help(line):
    done = script(*line, '-h')
    assert done.returncode == 0 and done.stdout.startswith('usage: ') and not done.stderr


@pytest.mark.parametrize('line', COMMANDS, ids=' '.join)
def test_help_is_fast(line):
    "Less than half a second of processor time, Python's own start included; more only where others wear out the computer."
    def seconds():
        before = os.times()
        script(*line, '-h')
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system
    assert any(seconds() < 0.5 for _ in range(5))


@pytest.mark.parametrize('arguments', [['-h'], ['--nonsense']])
@pytest.mark.parametrize('name', PROGRAMS)
def test_no_torch_before_work(name, arguments):
    code = (f'import sys\nfrom inpaint_nb.cli import {name}\ntry: {name}({arguments})\nexcept SystemExit: pass\n'
            'print("heavy:", *sorted({"torch", "numpy", "cv2", "matplotlib"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', code], env=ENV, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == 'heavy:'


@pytest.mark.parametrize('program', PROGRAMS)
def test_nothing_given(program):
    refused(2, program, says=['required'])


@pytest.mark.parametrize('line', COMMANDS, ids=' '.join)
def test_unknown_option(line):
    required = {'inpaint_create_training_data': '--dataset-dir a -o b --prefix c --model-type Pseudo', 'inpaint_train': '-i a --model-dir b',
                'inpaint_stereo': 'a -o b', 'inpaint_benchmark': 'a', 'inpaint_export': 'a -o b', 'inpaint_demo': 'a'}[line[0]].split()
    refused(2, *line, *required, '--nonsense', says=['--nonsense'])


@pytest.mark.parametrize('line', ['inpaint_create_training_data other -i a', 'inpaint_train other -i a', 'inpaint_benchmark other a'])
def test_unknown_subcommand(line):
    refused(2, *line.split(), says=[line.split()[1], 'invalid choice'])


def test_wrong_values(root, photos):
    line = ['inpaint_create_training_data', 'inpaint', '--dataset-dir', photos, '-o', root/'never', '--prefix', 'p']
    refused(2, *line, '--model-type', 'Pseudo', '--num-samples', 'two', says=['--num-samples', 'two'])
    refused(2, *line, '--model-type', 'Pseudo', '--divergence-level', 5, says=['divergence', '5'])
    refused(2, *line, '--model-type', 'Pseudo', '--size', 3, says=['size', '3'])
    refused(2, *line, '--model-type', 'Any_X', says=['--model-type', 'Any_X', 'Pseudo'])
    assert not (root/'never').exists()


def test_wrong_settings(root, records):
    line = ['inpaint_train', 'inpaint', '-i', records, '--model-dir', root/'never']
    refused(2, *line, '--loss', 'l3', says=['--loss', 'l3', 'l1lpips'])
    refused(2, *line, '--optimizer', 'sgdx', says=['--optimizer', 'sgdx', 'adamw'])
    refused(2, *line, '--batch-size', 0, says=['--batch-size', '0'])
    assert not (root/'never').exists()


# --- the guides' commands

def test_records(records):
    made = {name for name in files(records) if not name.endswith('.json')}  # the journal
    assert {name.split('/')[0] for name in made} == {'train', 'eval'}
    for name in made:
        assert name.split('/')[1].startswith('scene_Pseudo_') and name.endswith(('_C.png', '_M.png'))
        assert Image.open(records/name).size == (128, 128)


def test_records_again(root, photos, records):
    "The same command again makes nothing and changes nothing."
    before = files(records)
    done = run('inpaint_create_training_data', 'inpaint', '-i', photos, '--data-dir', records, '--prefix', 'scene', '--model-type', 'Pseudo', '--size', 128)
    assert done.returncode == 0 and done.stdout.startswith('records: 0 made, ')
    assert files(records) == before


def test_another_seed_is_refused(photos, records):
    refused(1, 'inpaint_create_training_data', 'inpaint', '--dataset-dir', photos, '-o', records, '--prefix', 'scene', '--model-type', 'Pseudo',
            '--size', 128, '--seed', 5, says=['seed', '5', '71'])


def test_trained(models):
    assert {'inpaint.light_inpaint_v1.pth', 'inpaint.light_inpaint_v1.checkpoint.pth'} <= set(files(models))
    assert [name for name in files(models) if name.startswith('eval/')]


def test_resume(root, records, models):
    "One epoch more."
    done = run('inpaint_train', 'inpaint', '-i', records, '--model-dir', models, '--loss', 'l1', *TINY, '--max-epoch', 3, '--resume')
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(models/'inpaint.light_inpaint_v1.checkpoint.pth', weights_only=True)
    assert checkpoint['last_epoch'] == 3


def test_start_from_a_checkpoint(root, records, models):
    done = run('inpaint_train', 'inpaint', '-i', records, '--model-dir', root/'fine', '--loss', 'l1', *TINY, '--max-epoch', 1,
               '--checkpoint-file', models/'inpaint.light_inpaint_v1.pth')
    assert done.returncode == 0, done.stderr


def test_stereo(root, photos, models):
    done = run('inpaint_stereo', photos/'eval/3.png', '-o', root/'stereo.png', '--checkpoint-file', models/'inpaint.light_inpaint_v1.pth',
            '--model-type', 'Pseudo', '--divergence', 3)
    assert done.returncode == 0, done.stderr
    assert Image.open(root/'stereo.png').size == (640, 240)


@pytest.mark.parametrize('name', ['light_inpaint_v1', 'background_v1'])
def test_a_file_of_weights_only(monkeypatch, capsys, tmp_path, photos, records, name):
    "As another program saves it, without the name of the network: taken wherever a checkpoint is."
    weights = load_model(f'pretrained:{name}')[0].state_dict()
    torch.save({'epoch': 3, 'model': {f'module.{key}': value for key, value in weights.items()}}, tmp_path/'bare.pth')
    lines = dict(inpaint_stereo=[photos/'eval/3.png', '-o', 'out.png'], inpaint_benchmark=['scenes', '--number', 1, '--gpu', -1],
                 inpaint_train=['inpaint', '-i', records, '--model-dir', 'models', '--loss', 'l1', '--arch', name, *TINY, '--max-epoch', 1, '--learning-rate', 1e-30, '--weight-decay', 0, '--learning-rate-cosine-min', 0])
    for program, line in lines.items():
        status, error = typed(monkeypatch, capsys, tmp_path, program, [str(part) for part in (*line, '--checkpoint-file', 'bare.pth')])
        assert status == 0, error
    assert Image.open(tmp_path/'out.png').size == (640, 240)
    learnt, = [path for path in (tmp_path/'models').glob('*_v1.pth')]
    for key, value in load_model(learnt)[0].state_dict().items(): torch.testing.assert_close(value, weights[key])


# --- what can go wrong

RECORDS = ['--prefix', 'p', '--model-type', 'Pseudo', '--size', 128]


def make(dataset_dir, data_dir): return ['inpaint_create_training_data', 'inpaint', '--dataset-dir', dataset_dir, '-o', data_dir, *RECORDS]


def test_missing_folder(tmp_path, records):
    refused(1, *make(tmp_path/'nowhere', tmp_path/'out'), says=['nowhere'])
    refused(1, 'inpaint_train', 'inpaint', '-i', tmp_path/'nowhere', '--model-dir', tmp_path/'models', '--loss', 'l1', says=['nowhere'])
    assert not list(tmp_path.iterdir())


def test_no_train(tmp_path):
    (tmp_path/'photos/eval').mkdir(parents=True)
    refused(1, *make(tmp_path/'photos', tmp_path/'out'), says=['photos/train'])
    refused(1, 'inpaint_train', 'inpaint', '-i', tmp_path/'photos', '--model-dir', tmp_path/'models', '--loss', 'l1', says=['photos/train'])
    assert not (tmp_path/'out').exists() and not (tmp_path/'models').exists()


def test_empty_folder(tmp_path):
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    refused(1, *make(tmp_path/'photos', tmp_path/'out'), says=['photos'])
    refused(1, 'inpaint_train', 'inpaint', '-i', tmp_path/'photos', '--model-dir', tmp_path/'models', '--loss', 'l1', says=['photos/train'])


@pytest.fixture
def damaged(tmp_path, photos) -> Path:
    "A folder with nothing readable in it: a JPEG cut in half, a text that calls itself a picture."
    for part in ('train', 'eval'): (tmp_path/'damaged'/part).mkdir(parents=True)
    Image.open(photos/'train/0.png').save(tmp_path/'whole.jpg')
    data = (tmp_path/'whole.jpg').read_bytes()
    (tmp_path/'damaged/train/cut.jpg').write_bytes(data[:len(data) // 2])
    (tmp_path/'damaged/eval/text.png').write_text('not a picture')
    return tmp_path/'damaged'


def test_unreadable_pictures_only(tmp_path, damaged):
    done = run(*make(damaged, tmp_path/'out'))
    assert done.returncode == 1
    for name in ('train/cut.jpg', 'eval/text.png'): assert name in done.stdout
    assert not files(tmp_path/'out')
    assert done.stderr.splitlines()[-1].startswith('error: no records')


def test_unreadable_pictures_among_others(tmp_path, damaged, photos):
    for part in ('train', 'eval'):
        for photo in (photos/part).iterdir(): (damaged/part/photo.name).write_bytes(photo.read_bytes())
    done = run(*make(damaged, tmp_path/'out'))
    assert done.returncode == 3 and done.stderr.splitlines()[-1].startswith('incomplete: 2 photos or clips failed')
    for name in ('train/cut.jpg', 'eval/text.png'): assert f'failed {name}: ' in done.stdout
    before = files(tmp_path/'out')
    again = run(*make(damaged, tmp_path/'out'))
    assert again.returncode == 3 and files(tmp_path/'out') == before


@pytest.mark.parametrize('name', ['train/cut.jpg', 'eval/text.png'])
def test_stereo_of_an_unreadable_picture(tmp_path, damaged, models, name):
    refused(1, 'inpaint_stereo', damaged/name, '-o', tmp_path/'out.png', '--checkpoint-file', models/'inpaint.light_inpaint_v1.pth',
            '--model-type', 'Pseudo', says=[name])
    assert not (tmp_path/'out.png').exists()


@pytest.fixture
def wrong_checkpoints(tmp_path) -> dict[str, Path]:
    "Files that are no checkpoint of the model."
    (tmp_path/'text.pth').write_text('not a checkpoint')
    torch.save({'weights': torch.zeros(3)}, tmp_path/'other.pth')
    save_model(create_model('light_inpaint_v1'), tmp_path/'video.pth')
    stored = torch.load(tmp_path/'video.pth', weights_only=True)
    torch.save(stored | {'name': 'inpaint.light_video_inpaint_v1'}, tmp_path/'video.pth')
    return {name: tmp_path/f'{name}.pth' for name in ('text', 'other', 'video', 'missing')}


@pytest.mark.parametrize('name', ['text', 'other', 'video', 'missing'])
def test_wrong_checkpoint(tmp_path, photos, records, wrong_checkpoints, name):
    path = wrong_checkpoints[name]
    refused(1, 'inpaint_stereo', photos/'eval/3.png', '-o', tmp_path/'out.png', '--checkpoint-file', path, '--model-type', 'Pseudo', says=[path.name])
    refused(1, 'inpaint_train', 'inpaint', '-i', records, '--model-dir', tmp_path/'models', '--loss', 'l1', '--checkpoint-file', path, *TINY, says=[path.name])
    assert not (tmp_path/'out.png').exists() and not (tmp_path/'models').exists()


def test_resume_without_a_checkpoint(tmp_path, records):
    refused(1, 'inpaint_train', 'inpaint', '-i', records, '--model-dir', tmp_path/'models', '--loss', 'l1', '--resume', *TINY, says=['resume', 'models'])
    assert not (tmp_path/'models').exists()


def test_output_not_writable(tmp_path, photos, records, models):
    "A folder inside a file cannot be made, not even by root."
    (tmp_path/'file').write_text('no folder')
    inside = tmp_path/'file/inside'
    refused(1, *make(photos, inside), says=['file/inside'])
    refused(1, 'inpaint_train', 'inpaint', '-i', records, '--model-dir', inside, '--loss', 'l1', *TINY, says=['file/inside'])
    refused(1, 'inpaint_stereo', photos/'eval/3.png', '-o', inside/'out.png', '--checkpoint-file', models/'inpaint.light_inpaint_v1.pth',
            '--model-type', 'Pseudo', says=['file/inside'])
    refused(1, 'inpaint_demo', inside, says=['file/inside'])


def test_debug_shows_where(tmp_path):
    done = run(*make(tmp_path/'nowhere', tmp_path/'out'), '--debug')
    assert done.returncode == 1 and 'Traceback' in done.stderr and done.stderr.splitlines()[-1].startswith('error: ')


# --- tables of bad command lines, in this process: the same functions that the installed programs call

def typed(monkeypatch, capsys, folder: Path, program: str, line: list[str]) -> tuple[int, str]:
    "Call a program in a folder: exit status and standard error."
    monkeypatch.chdir(folder)
    capsys.readouterr()
    try: status = getattr(cli, program)(line)
    except SystemExit as end: status = end.code
    return status, capsys.readouterr().err


@pytest.fixture(scope='session')
def workshop(root, photos) -> Path:
    "Photos, a text that calls itself many things, a picture that must not be overwritten, and a place for results."
    folder = root/'workshop'
    for name in ('train', 'eval'): shutil.copytree(photos/name, folder/'photos'/name)
    for name in ('text.png', 'text.pth', 'file'): (folder/name).write_text('neither picture nor checkpoint')
    (folder/'old.png').write_bytes((photos/'eval/3.png').read_bytes())
    return folder


RECORDS_LINE = 'inpaint --dataset-dir photos -o out --prefix p --model-type Pseudo --size 128 '
BAD_RECORDS = {
    'inpaint -o out --prefix p --model-type Pseudo': (2, '--dataset-dir'),
    'inpaint --dataset-dir photos --prefix p --model-type Pseudo': (2, '--data-dir'),
    RECORDS_LINE + '--model-type Oak': (2, "'Oak'"),
    RECORDS_LINE + '--size -128': (2, '-128'),
    RECORDS_LINE + '--size 1e3': (2, '1e3'),
    RECORDS_LINE + '--num-samples 0': (2, 'samples'),
    RECORDS_LINE + '--divergence-level 0': (2, 'divergence level'),
    RECORDS_LINE + '--resolution 0': (2, 'resolution'),
    RECORDS_LINE + '--max-workers 0': (2, 'workers'),
    RECORDS_LINE + '--seed -1': (2, 'seed'),
    RECORDS_LINE + '--prefix a/b': (2, "'a/b'"),
    RECORDS_LINE + '--dataset-dir nowhere': (1, 'nowhere'),
    RECORDS_LINE + '--dataset-dir text.png': (1, 'text.png'),
    RECORDS_LINE + '--model-type Files:nowhere': (1, 'nowhere'),
    RECORDS_LINE + '-o file': (1, 'file'),
    RECORDS_LINE + '-o photos': (1, 'photos'),
}
STEREO_LINE = 'photos/eval/3.png -o out/pair.png '
BAD_STEREO = {
    '-o out': (2, 'PHOTO'),
    'photos/eval/3.png': (2, '--out'),
    STEREO_LINE + '--model-type Oak': (2, "'Oak'"),
    STEREO_LINE + '--format cinema': (2, 'cinema'),
    STEREO_LINE + '--format half_sbs,mask': (2, 'folder'),
    STEREO_LINE + '--view middle': (2, 'middle'),
    STEREO_LINE + '--divergence -2': (2, 'divergence'),
    STEREO_LINE + '--divergence nan': (2, 'divergence'),
    STEREO_LINE + '--convergence 2': (2, 'convergence'),
    STEREO_LINE + '--inner-dilation -1': (2, 'inner dilation'),
    STEREO_LINE + '--quality 0': (2, 'quality'),
    STEREO_LINE + '-o old.tiff': (2, 'old.tiff'),
    'old.png -o old.png': (2, 'the photo itself'),
    'nowhere.png -o old.png': (1, 'nowhere.png'),
    'text.png -o old.png': (1, 'text.png'),
    'photos -o old.png': (2, 'old.png is one file'),
    'photos -o out': (1, 'no photos or clips in photos'),
    STEREO_LINE + '-o file/pair.png': (1, 'file'),
    'photos/eval/3.png -o old.png --checkpoint-file nowhere.pth': (1, 'nowhere.pth'),
    'photos/eval/3.png -o old.png --checkpoint-file text.pth': (1, 'text.pth'),
    'photos/eval/3.png -o old.png --checkpoint-file photos': (1, 'photos'),
    'photos/eval/3.png -o old.png --checkpoint-file repaet': (1, 'repaet: give pretrained, repeat, or a .pth file'),
    'photos/eval/3.png -o old.png --checkpoint-file pretrained:thin_air': (1, 'no weights of thin_air'),
    'photos/eval/3.png -o old.png --depth-file text.png': (1, 'text.png'),
}


CHECKPOINT = 'inpaint.light_inpaint_v1.checkpoint.pth'

class RunsCode:
    "What a hostile file may hold: reading it would make a folder."
    def __reduce__(self): return os.mkdir, ('hacked',)


@pytest.fixture(scope='session')
def damaged_runs(workshop, records, models) -> Path:
    "Folders with a checkpoint each that cannot be resumed, and the same files under the names of what is wrong."
    shutil.copytree(records, workshop/'records')
    shutil.copytree(models, workshop/'run')
    (workshop/'empty/train').mkdir(parents=True); (workshop/'empty/eval').mkdir()
    whole = (models/CHECKPOINT).read_bytes()
    entries = torch.load(models/CHECKPOINT, weights_only=True)
    first = next(iter(entries['state_dict']))
    changes = {'model': dict(name='inpaint.light_video_inpaint_v1'), 'code': dict(train_kwargs=RunsCode()),
               'nan': dict(state_dict=entries['state_dict'] | {first: entries['state_dict'][first] * torch.nan}),
               'lacking': dict(state_dict={name: value for name, value in entries['state_dict'].items() if name != first}),
               'shape': dict(state_dict=entries['state_dict'] | {first: entries['state_dict'][first][None]}),
               'optimizer': dict(optimizer_state_dict=[{'state': {}, 'param_groups': [{'params': [0]}]}]), 'networks': dict(optimizer_state_dict=[])}
    for name in (*changes, 'cut', 'zeros', 'empty', 'text', 'bare'):
        (workshop/f'runs/{name}').mkdir(parents=True)
        path = workshop/f'runs/{name}'/CHECKPOINT
        if name in changes: torch.save(entries | changes[name], path)
        elif name == 'bare': torch.save({key: entries[key] for key in ('nunif_model', 'name', 'updated_at', 'kwargs', 'train_kwargs', 'state_dict')}, path)
        else: path.write_bytes({'cut': whole[:len(whole) // 2], 'zeros': bytes(len(whole)), 'empty': b'', 'text': b'no checkpoint'}[name])
    return workshop


TRAIN_LINE = 'inpaint -i records --model-dir out --loss l1 --gpu -1 --num-workers 0 --size 64 --num-samples 4 --max-epoch 1 '
BAD_TRAIN = {
    'inpaint --model-dir out': (2, '--data-dir'),
    'inpaint -i records': (2, '--model-dir'),
    'other -i records': (2, "'other'"),
    '-i records --model-dir out': (2, 'the command comes first: inpaint_train inpaint -i records --model-dir out'),
    TRAIN_LINE + '-i records/train': (1, 'name the folder above it: records'),
    **{TRAIN_LINE + wrong: (2, wrong.split()[0]) for wrong in (
        '--batch-size 0', '--batch-size two', '--backward-step 0', '--num-samples -1', '--max-epoch 0', '--size 0', '--size 32', '--optimizer adamx', '--scheduler linear',
        '--learning-rate 0', '--learning-rate nan', '--learning-rate inf', '--learning-rate-cycles 0', '--learning-rate-decay-step 0', '--learning-rate-decay-step', '--learning-rate-decay 0',
        '--weight-decay -1', '--adam-beta1 1', '--momentum 2', '--ema-decay 1.5', '--ema-step 0', '--eval-step 0', '--save-eval-step 0', '--amp-float int8', '--arch big',
        '--num-workers -1', '--prefetch-factor 0', '--warmup-epoch -1', '--reset-state', '--loss l3', '--lpips-weights vgg.pth')},
    TRAIN_LINE + '--loss temporal_l1dct': (2, 'single pictures'),
    TRAIN_LINE + '--gpu 0 1': (2, 'unrecognized arguments: 1'),
    TRAIN_LINE + '-i nowhere': (1, 'nowhere'),
    TRAIN_LINE + '-i text.png': (1, 'text.png'),
    TRAIN_LINE + '-i empty': (1, 'empty/train'),
    TRAIN_LINE + '--size 256': (1, 'smaller than the crops of 256'),
    TRAIN_LINE + '--model-dir file': (1, 'file'),
    TRAIN_LINE + '--checkpoint-file nowhere.pth': (1, 'nowhere.pth'),
    TRAIN_LINE + '--checkpoint-file records': (1, 'records'),
    TRAIN_LINE + '--resume': (1, 'nothing to resume'),
    TRAIN_LINE + '--loss l1lpips --lpips-weights nowhere.pth': (1, 'nowhere.pth'),
    TRAIN_LINE + '--loss l1lpips --lpips-weights text.pth': (1, 'text.pth'),
    TRAIN_LINE + '--model-dir run --resume --optimizer lion': (1, '--reset-state'),
    **{TRAIN_LINE + f'--checkpoint-file runs/{name}/{CHECKPOINT}': (1, f'runs/{name}/') for name in ('model', 'code', 'nan', 'lacking', 'shape', 'cut', 'zeros', 'empty', 'text')},
    **{TRAIN_LINE + f'--model-dir runs/{name} --resume': (1, f'runs/{name}/') for name in ('model', 'code', 'nan', 'lacking', 'shape', 'cut', 'zeros', 'empty', 'text', 'bare')},
    **{TRAIN_LINE + f'--model-dir runs/{name} --resume': (1, '--reset-state') for name in ('optimizer', 'networks')},
}


@pytest.mark.parametrize('program, line, status, says', [
    (program, line, *answer) for program, table in (('inpaint_create_training_data', BAD_RECORDS), ('inpaint_stereo', BAD_STEREO), ('inpaint_train', BAD_TRAIN)) for line, answer in table.items()])
@pytest.mark.usefixtures('damaged_runs')
def test_bad_line(monkeypatch, capsys, workshop, program, line, status, says):
    "One line on standard error, and not a file made or changed."
    def stamps(): return {path: (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) for path in workshop.rglob('*')}
    before = stamps()
    given, error = typed(monkeypatch, capsys, workshop, program, line.split())
    assert given == status, error
    assert error.startswith('error: ') and error.count('\n') == 1 and says in error, error
    assert stamps() == before


def test_gpu_that_is_not_there(monkeypatch, capsys, workshop):
    "Refused where there are GPUs; without any the CPU does the work, and says so."
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    status, error = typed(monkeypatch, capsys, workshop, 'inpaint_stereo', [*STEREO_LINE.split(), '--gpu', '2'])
    assert status == 2 and 'from 0 to 1' in error and error.count('\n') == 1
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    for gpu, said in (('2', 'no GPU found: computing on the CPU\n'), ('0', ''), ('-1', '')):
        line = ['photos/eval/3.png', '-o', workshop.parent/f'pair{gpu}.png', '--gpu', gpu]
        status, error = typed(monkeypatch, capsys, workshop, 'inpaint_stereo', [str(part) for part in line])
        assert status == 0 and ''.join(part for part in error.splitlines(keepends=True) if 'GPU' in part) == said


@pytest.mark.parametrize('line, status', [('photos/eval/3.png', 2), (STEREO_LINE + '--quality 0', 2), ('nowhere.png -o out', 1)])
def test_several_processes(monkeypatch, capsys, workshop, line, status):
    "A bad command line is told once; a failure at work by each process that fails, with its number."
    for rank, speaks in (('0', True), ('1', status == 1)):
        monkeypatch.setenv('RANK', rank)
        given, error = typed(monkeypatch, capsys, workshop, 'inpaint_stereo', line.split())
        assert given == status and error.count('\n') == speaks
        assert ('process 1' in error) == (rank == '1' and speaks)


def test_full_disk(monkeypatch, capsys, workshop):
    def fail(*_): raise OSError(errno.ENOSPC, 'No space left on device', 'records')
    monkeypatch.setattr('inpaint_nb.records.write_files', fail)
    status, error = typed(monkeypatch, capsys, workshop, 'inpaint_create_training_data', RECORDS_LINE.replace('-o out', '-o ../full').split())
    assert status == 1 and error.splitlines()[-1] == 'error: records: No space left on device; make room and run the command again'


# --- what a person reads, and an output that nobody reads

class Odd(Exception):
    "Of a kind that nobody has foreseen."


@pytest.mark.parametrize('error, says', [
    (Odd('first\nsecond\n  third'), 'Odd first second third: not foreseen; run again with --debug'), (KeyError('a\nb'), "KeyError 'a\\nb': not foreseen"),
    (RuntimeError('first\nsecond'), 'first second'), (ValueError('a.png: \x1b[31mred\x07'), 'a.png: \\x1b[31mred\\x07'), (Odd(), 'Odd: not foreseen'),
    (RuntimeError('Caught OSError in worker 1.\nTraceback (most recent call last):\n  File "a.py"\n    read()\nOSError: no room\n'), 'Caught OSError in worker 1. OSError: no room'),
    (FileNotFoundError(2, 'No such file', 'a\nb.png'), 'a b.png: No such file'), (MemoryError(), 'MemoryError: not enough memory'), (Incomplete('3 of\n9'), '3 of 9')])
def test_any_error_is_one_line(capsys, error, says):
    def work(): raise error
    assert finish(work, '') == (3 if isinstance(error, Incomplete) else 1)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and said.split(': ', 1)[0] in ('error', 'incomplete')
    assert says in said and all(sign.isprintable() for sign in said.rstrip('\n'))


@pytest.mark.parametrize('encoding', ['ascii', 'cp1252', 'utf-8'])
def test_names_that_a_terminal_cannot_print(monkeypatch, tmp_path, photos, encoding):
    "What can be done is done, with the status that it has elsewhere; names are told by their numbers."
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    monkeypatch.setattr(sys, 'stdout', outputs[0]); monkeypatch.setattr(sys, 'stderr', outputs[1])
    names = ['фото µ', 'ключ\udcff', 'two\nlines', 'tab\tand \x1b[31mred']
    for part in ('train', 'eval'): (tmp_path/'photos'/part).mkdir(parents=True)
    for name in names: (tmp_path/'photos/train'/f'{name}.jpg').write_text(f'no picture {name!a}')
    for place, name in enumerate(names[:2]): shutil.copy(photos/f'train/{place}.png', tmp_path/'photos/eval'/f'{name}.png')
    line = [str(tmp_path/'photos/eval'/f'{names[0]}.png'), '-o', str(tmp_path), '--format', 'mask', '--resolution', '64', '--checkpoint-file', 'repeat']
    assert cli.inpaint_stereo(line) == 0
    line = ['inpaint', '-i', str(tmp_path/'photos'), '-o', str(tmp_path/'out'), '--model-type', 'Pseudo', '--size', '128', '--num-samples', '1']
    assert cli.inpaint_create_training_data(line) == 3 and cli.inpaint_create_training_data([*line, '--eval-only']) == 0
    for name in names: assert cli.inpaint_stereo([str(tmp_path/f'{name}.png'), '-o', str(tmp_path)]) == 1
    assert list((tmp_path/'out/eval').glob('*_C.png'))
    told, errors = (output.buffer.getvalue().decode(encoding) for output in outputs)
    for name in names:
        shown = ''.join(sign if sign.isprintable() else sign.encode('unicode_escape').decode() for sign in name)
        shown = shown.encode(encoding, 'backslashreplace').decode(encoding)
        assert f'failed train/{shown}.jpg: not a readable picture' in told
        if '\n' not in name and '\t' not in name: assert shown in errors and (name != names[0] or f'{shown}_mask.png' in told)
    assert all(line.isprintable() for line in errors.splitlines() if line.startswith('error: '))


TALKER = """
import sys
from inpaint_nb.program import Incomplete, finish
def work():
    for number in range(20000): print(number), print(number, file=sys.stderr)
    open('done', 'w').close()
    if len(sys.argv) > 1: raise {'stopped': KeyboardInterrupt, 'failed': ValueError, 'incomplete': Incomplete}[sys.argv[1]]('x')
sys.exit(finish(work, 'go on'))
"""
READERS = ['| head -n 1', '2>&1 | head -n 1', '2>&1 | true', '2>&-', '>&-', '<&- >&- 2>&-', '2>&- | head -n 1', '2>&1 | tee log | head -n 1']


@pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash')
@pytest.mark.parametrize('end, status, reader', [
    # failed or incomplete ends as stopped does, with another line and number
    pytest.param(end, status, reader, marks=[pytest.mark.long] * (end in ('failed', 'incomplete') and number > 2))
    for end, status in (('', 0), ('failed', 1), ('incomplete', 3), ('stopped', 130)) for number, reader in enumerate(READERS)])
def test_nobody_reads(tmp_path, reader, end, status):
    "The work goes on to its end, and ends with its own status, as soon as it is done."
    line = f'{sys.executable} -c "$1" {end} {reader}; echo status ${{PIPESTATUS[0]}} >&3'
    done = subprocess.run(['bash', '-c', f'exec 3>status; {line}', 'bash', TALKER], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=240)
    assert (tmp_path/'status').read_text() == f'status {status}\n', done
    assert (tmp_path/'done').exists() and 'Traceback' not in done.stderr and 'Exception' not in done.stderr


@pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash')
@pytest.mark.parametrize('program, reader', [
    pytest.param(program, reader, marks=[pytest.mark.long] * (program != PROGRAMS[0] and reader != '2>&1 | true'))  # all programs end in the same way
    for program in PROGRAMS for reader in ('| head -n 1', '2>&1 | true', '>&- 2>&-')])
def test_help_that_nobody_reads(program, reader):
    for option, status in (('-h', 0), ('--nonsense', 2)):
        done = subprocess.run(['bash', '-c', f'"$1" {option} {reader}; exit ${{PIPESTATUS[0]}}', 'bash', str(Path(sys.executable).parent/program)], env=ENV, capture_output=True, text=True, timeout=240)
        assert done.returncode == status and 'Exception' not in done.stderr, done


@pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash')
def test_records_and_pictures_that_nobody_reads_about(tmp_path, photos):
    commands = {'inpaint_create_training_data': (['inpaint', '-i', photos, '-o', 'out', '--model-type', 'Pseudo', '--size', 128], '2>&1 | head -n 1'),
                'inpaint_stereo': ([photos/'eval/3.png', '-o', 'pair.png', '--checkpoint-file', 'repeat'], '2>&-')}
    for program, (arguments, reader) in commands.items():
        line = f'"$@" {reader}; exit ${{PIPESTATUS[0]}}'
        done = subprocess.run(['bash', '-c', line, 'bash', Path(sys.executable).parent/program, *map(str, arguments)], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0 and 'Exception' not in done.stderr, done
    assert list((tmp_path/'out/train').glob('*_C.png')) and Image.open(tmp_path/'pair.png').size == (640, 240)


def test_a_full_disk_under_the_log():
    done = subprocess.run(['bash', '-c', f'{sys.executable} -c "$1" > /dev/full', 'bash', TALKER.replace(', print(number, file=sys.stderr)', '')], env=ENV, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and 'No space left' in done.stderr


@pytest.mark.skipif(not hasattr(signal, 'SIGHUP'), reason='signals of Unix')
def test_a_closed_terminal_is_an_interruption(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert finish(lambda: signal.raise_signal(signal.SIGHUP), 'go on') == 130
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        assert finish(lambda: signal.raise_signal(signal.SIGHUP), 'go on') == 0
    finally: signal.signal(signal.SIGHUP, before)
    assert capsys.readouterr().err == 'interrupted: go on\n'


# --- the guides' way of training

def stop_on_the_way(number, *line):
    "Begin to train, stop after the first step or a little later."
    process = Running(*line, '--num-samples', 100_000)
    folder = line[line.index('--model-dir') + 1]
    while process.poll() is None and not list(folder.glob('tensorboard/*/events*')): time.sleep(0.05)
    os.kill(process.pid, number)
    return process.wait()


def test_sequence_of_the_guides(tmp_path, records, models):
    "Train; stop; resume; twice schedule-free from the weights so far; from a model file, ours and the one before."
    line = ['inpaint_train', 'inpaint', '-i', records, '--model-dir', tmp_path/'models', '--loss', 'l1', *TINY]
    stopped = stop_on_the_way(signal.SIGINT, *line)
    last = stopped.stderr.splitlines()[-1]
    assert stopped.returncode == 130 and last.startswith('interrupted') and '--resume' in last, stopped.stderr
    resumed = run(*line[:6], '--num-samples', 4, '--resume')  # the rest is as it was
    assert resumed.returncode == 0 and 'Resumed in epoch 1 of 2' in resumed.stdout
    assert 'As before, because not given: --loss l1, ' in resumed.stdout and '--size 64' in resumed.stdout
    for again in range(2):
        free = run(*line, '--optimizer', 'adamw_schedulefree', '--resume', '--reset-state')
        assert free.returncode == 0 and 'Kept: the weights after epoch 2.' in free.stdout
    before = torch.load(tmp_path/'models'/CHECKPOINT, weights_only=True)
    assert before['train_kwargs']['optimizer'] == 'adamw_schedulefree' and 'raw_state_dict' in before
    still = ['--max-epoch', 1, '--learning-rate', '1e-30', '--weight-decay', 0, '--optimizer', 'adamw_schedulefree']
    still += ['--model-dir', tmp_path/'from_file', '--checkpoint-file']
    for source in (tmp_path/'models/inpaint.light_inpaint_v1.pth', models/CHECKPOINT):
        assert run(*line, *still, source).returncode == 0
        (old, new) = [torch.load(path, weights_only=True)['state_dict'] for path in (source, tmp_path/'from_file/inpaint.light_inpaint_v1.pth')]
        for name in old: torch.testing.assert_close(new[name], old[name])


# --- stopping

@pytest.mark.parametrize('program', PROGRAMS)
def test_interrupted_at_once(monkeypatch, capsys, tmp_path, program):
    "Ctrl-C while a command line is still being understood."
    def stop(*_): raise KeyboardInterrupt
    monkeypatch.setattr(cli.Parser, 'parse_args', stop)
    status, error = typed(monkeypatch, capsys, tmp_path, program, [])
    assert status == 130 and error.startswith('interrupted: ') and error.count('\n') == 1


# Ctrl-C: in the sequence of the guides, too
@pytest.mark.parametrize('number', [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_interrupted(tmp_path, records, number):
    "Ctrl-C and a request to end: 130, one line that says how to go on, and it does go on."
    line = ['inpaint_train', 'inpaint', '-i', records, '--model-dir', tmp_path/'models', '--loss', 'l1', *TINY, '--max-epoch', 1]
    done = stop_on_the_way(number, *line)
    assert done.returncode == 130, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('interrupted') and '--resume' in last
    assert run(*line, '--resume').returncode == 0


# --- how good is a fill?

BENCHMARKS = ['stereo', 'layers', 'moving', 'records', 'scenes', 'clips', 'roundtrip', 'speed']

@pytest.mark.parametrize('command', BENCHMARKS)
def test_benchmark_help(command):
    done = run('inpaint_benchmark', command, '-h')
    assert done.returncode == 0 and f'inpaint_benchmark {command} ' in done.stdout and '--checkpoint-file' in done.stdout


def test_benchmark_of_records(records, models, root):
    checkpoint = models/'inpaint.light_inpaint_v1.pth'
    line = ['records', str(records), '--number', '1', '--gpu', '-1', '--json', str(root/'b.json'), '-o', str(root/'b.png'), '--checkpoint-file', str(checkpoint)]
    done = run('inpaint_benchmark', *line)
    assert done.returncode == 0, done.stderr
    written = json.loads((root/'b.json').read_text())
    assert written['command'].split() == ['inpaint_benchmark', *line] and done.stdout.rstrip().endswith(written['command'])
    assert list(written['averages']) == ['repeat background', 'repeat plain', 'telea', 'navier-stokes', checkpoint.stem]
    assert Image.open(root/'b.png').size == (7 * 196, 214)


def test_benchmark_of_scenes():
    done = run('inpaint_benchmark', 'scenes', '--number', 2, '--seed', 5, '--gpu', -1)
    assert done.returncode == 0 and 'scene 5 ' in done.stdout and 'scene 6 ' in done.stdout and 'up to 8 px' in done.stdout


@pytest.mark.parametrize('command', ['stereo', 'layers', 'moving', 'records', 'clips', 'roundtrip'])
@pytest.mark.parametrize('folder', ['nowhere', 'empty'])
def test_benchmark_of_a_wrong_folder(tmp_path, command, folder):
    (tmp_path/'empty').mkdir()
    refused(1, 'inpaint_benchmark', command, tmp_path/folder, says=[str(tmp_path/folder)])


def test_benchmark_of_wrong_values(tmp_path):
    refused(2, 'inpaint_benchmark', 'scenes', '--number', 0, says=['1 or more, not 0'])
    refused(2, 'inpaint_benchmark', 'scenes', '-o', 'a.gif', says=['a.gif', '.png'])
    refused(2, 'inpaint_benchmark', 'layers', tmp_path, '--number', 0, says=['1 or more, not 0'])
    refused(2, 'inpaint_benchmark', 'moving', tmp_path, '--size', 8, says=['64 pixels or more, not 8'])
    refused(2, 'inpaint_benchmark', 'speed', '--repeats', 0, says=['repeats', '0'])
    refused(2, 'inpaint_benchmark', 'roundtrip', tmp_path, '--largest', 1, says=['largest', '0.5'])
    refused(2, 'inpaint_benchmark', 'roundtrip', tmp_path, '--model-type', 'Any_X', says=['--model-type', 'Any_X'])
    refused(1, 'inpaint_benchmark', 'scenes', '--checkpoint-file', tmp_path/'none.pth', says=['none.pth'])

def test_benchmark_of_files_that_are_none(tmp_path):
    "What the files are is found out while the command runs: 1, not a wrong command line."
    for name in ('photo.png', 'film.mp4'): (tmp_path/name).write_text('neither picture nor clip')
    refused(1, 'inpaint_benchmark', 'layers', tmp_path, says=['none of its photos can be read'])
    refused(1, 'inpaint_benchmark', 'moving', tmp_path/'film.mp4', says=['film.mp4'])


@pytest.mark.parametrize('divergence', ['nan', 'inf', '-1'])
def test_benchmark_of_scenes_without_a_second_view(divergence):
    refused(2, 'inpaint_benchmark', 'scenes', f'--divergence={divergence}', says=['divergence', divergence])


def test_a_benchmark_that_fails_leaves_its_bar_behind(tmp_path):
    "The error stands on a line of its own, below the progress bar."
    (tmp_path/'frames').mkdir()
    for number, side in enumerate((64, 96)): Image.new('RGB', (side, side)).save(tmp_path/f'frames/{number}.png')
    done = run('inpaint_benchmark', 'roundtrip', tmp_path/'frames', '--gpu', -1)
    *_, bar, line, end = done.stderr.split('\n')
    assert done.returncode == 1 and line.startswith('error: ') and 'judging' in bar and end == '', done.stderr


def test_a_recipe_gives_way_to_what_is_asked_for():
    "Also where that is the usual default."
    from unittest import mock
    from inpaint_nb import run, settings
    with mock.patch.object(run, 'train_from_folder') as called:
        assert cli.inpaint_train('inpaint -i x --model-dir y --recipe shipped --size 256'.split()) == 0
        assert cli.inpaint_train('inpaint -i x --model-dir y --video --loss temporal_l1dct'.split()) == 0
    (ours, plain) = (call.kwargs['config'] for call in called.call_args_list)
    assert (ours.size, ours.loss, ours.thicken, ours.arch) == (256, 'masked_l1rmse', False, 'inpaint_nb.background_v1')
    assert plain == settings.TrainConfig(video=True, loss='temporal_l1dct')

def test_ctrl_c_after_the_end_shows_nothing(tmp_path):
    "A key that is pressed while the process cleans up does not print a traceback."
    code = ('import atexit, os, signal, time; from inpaint_nb.program import finish\n'
            'atexit.register(lambda: (signal.raise_signal(signal.SIGINT), time.sleep(0.2)))\n'
            "raise SystemExit(finish(lambda: print('done'), 'go on'))")
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, 'done\n', '')


def test_a_long_load_is_said(monkeypatch, capsys):
    "Only while PyTorch is loading."
    monkeypatch.setattr(program, 'LONG_LOAD', 0.01)
    monkeypatch.setattr(torch.__spec__, '_initializing', True, raising=False)
    assert finish(lambda: time.sleep(0.5), 'go on', []) == 0
    assert capsys.readouterr().err == 'loading PyTorch ...\n'
    monkeypatch.setattr(torch.__spec__, '_initializing', False, raising=False)
    assert finish(lambda: time.sleep(0.5), 'go on', []) == 0
    assert capsys.readouterr().err == ''


def test_sheet_of_records(tmp_path, records):
    "Records side by side in one PNG file, whole or not at all."
    sheet = tmp_path/'records.png'
    done = run('inpaint_create_training_data', 'sheet', '-i', records, '--sheet', sheet, '-n', 3)
    assert done.returncode == 0 and 'records.png: ' in done.stdout
    with Image.open(sheet) as picture: assert picture.width == 6 * 160 and picture.height % 160 == 0
    refused(2, 'inpaint_create_training_data', 'sheet', '-i', records, '--sheet', sheet, '-n', 0, says=['--number must be 1 or more'])
    refused(1, 'inpaint_create_training_data', 'sheet', '-i', records, '--sheet', tmp_path/'sheet.jpg', says=['--sheet'])
    assert [path.name for path in tmp_path.iterdir()] == ['records.png']
