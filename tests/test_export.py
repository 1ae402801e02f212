"Models that leave the house: weights to the bit, ONNX as PyTorch, iw3's files as iw3 writes them."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from inpaint_nb import export
from inpaint_nb.export import (EXPORTS, TOLERANCE, checked_onnx, export_model, iw3_entry,
                               onnx_bytes, onnx_difference, read_source)
from inpaint_nb.models import PRETRAINED, create_model, load_model, read_checkpoint, save_model

REFERENCE = Path(__file__).parents[2] / 'shared' / 'reference'
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f'no reference at {REFERENCE}')
SMALL = dict(channels=(4, 8, 8, 8), blocks=(1, 1, 1, 2))
CASES = {'photo': ('background_v1', SMALL), 'clip': ('background_video_v1', SMALL),
         'gated': ('background_v1', SMALL | dict(gated=True, rows=True, blocks=(2, 1, 1, 3))),
         'light clip': ('light_video_inpaint_v1', dict(base_dim=16, lv2_mlp_ratio=2))}


@pytest.fixture
def small(tmp_path):
    def make(name, **options):
        torch.manual_seed(1)
        model = create_model(name, **options)
        for value in model.parameters(): value.data += 0.02 * torch.randn_like(value)  # no part is silent
        save_model(model, tmp_path / f'{name}.pth', card={'title': 'a', 'licences': 'CC0-1.0'})
        return tmp_path / f'{name}.pth'
    return make


def pair(frames, height, width):
    torch.manual_seed(frames + height)
    mask = (torch.rand(frames, 1, height, width) > 0.9).float()
    mask[..., 3:5, :] = 1  # rows without any background
    mask[..., 6:9, -9:], mask[..., 9:12, :9], mask[..., 20:40, 11:31] = 1, 1, 1
    return torch.rand(frames, 3, height, width), mask


@pytest.mark.parametrize('case', CASES)
def test_onnx_is_pytorch(small, case):
    "Any size, any number of frames."
    name, options = CASES[case]
    source = read_source(small(name, **options))
    sizes = [(1, 48, 64), (2, 51, 77), (3, 64, 40)]
    if source.model.frames > 1: sizes = [(12, 48, 64), (1, 41, 50), (11, 44, 36), (13, 48, 64), (23, 41, 32)]
    for half in (False, True):
        data = onnx_bytes(source, half)
        for size in sizes: assert onnx_difference(data, source.model, *pair(*size), half) < TOLERANCE[half], (size, half)


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('name', ['background_v1', 'light_inpaint_v1'])
def test_half_in_true_halves(name):
    "onnxruntime on a CPU rounds rarely; ONNX's own interpreter rounds after each node."
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator
    source, (image, mask) = read_source(f'pretrained:{name}'), pair(1, 32, 48)
    graph = ReferenceEvaluator(load_from_string(onnx_bytes(source, half=True)))
    filled, = graph.run(None, {'image': image.numpy(), 'mask': mask.numpy()})
    far = np.abs(filled - source.model.infer(image, mask).numpy()).max()
    assert 1e-5 < far < TOLERANCE[True]


def test_onnx_changes_nothing_outside(small):
    import onnxruntime
    source = read_source(small('background_v1', **SMALL))
    image, mask = pair(1, 48, 64)
    session = onnxruntime.InferenceSession(onnx_bytes(source))
    filled, = session.run(None, {'image': image.numpy(), 'mask': mask.numpy()})
    seen = source.model.preprocess(image, mask)[1].expand_as(image) == 0
    assert np.array_equal(filled[seen.numpy()], image[seen].numpy())


@pytest.mark.parametrize('name', PRETRAINED)
def test_shipped_weights(tmp_path, name):
    "Small enough, as good as PyTorch, and they say where they come from."
    import onnx
    files = {one.path.name.partition('.')[2]: one.path for one in export_model(f'pretrained:{name}', tmp_path, name='a')}
    assert set(files) == {'safetensors', 'onnx', 'half.onnx'}
    assert files['onnx'].stat().st_size < 12e6 and files['half.onnx'].stat().st_size < 6e6
    again, told = load_model(files['safetensors'])
    model, entries = load_model(f'pretrained:{name}')
    assert again.name == model.name and told['card'] == entries['card'] and 'Apache-2.0' in told['licence']
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    said = {one.key: one.value for one in onnx.load(files['half.onnx']).metadata_props}
    assert said['name'] == model.name and json.loads(said['card']) == entries['card'] and said['architecture']
    assert said['licence'] == told['licence']


@needs_reference
@pytest.mark.parametrize('name', ['light_inpaint_v1', 'light_video_inpaint_v1'])
def test_golden(tmp_path, name):
    "iw3's own files come out as they went in, and the ONNX file gives iw3's own numbers."
    import onnxruntime
    checkpoint = REFERENCE / 'checkpoints' / f'inpaint.{name}.pth'
    with np.load(REFERENCE / 'golden' / f'model_{name}.npz') as golden:
        image, mask, want = (golden[f'A|{key}'] for key in ('x', 'mask', 'eval_out_skip_i2i_offset'))
    [file, entry] = export_model(checkpoint, tmp_path, 'iw3', name='mine')
    ours, theirs = read_checkpoint(file.path), read_checkpoint(checkpoint)
    for key in ('nunif_model', 'name', 'kwargs'): assert ours[key] == theirs[key]
    assert list(ours['state_dict']) == list(theirs['state_dict'])
    for key, value in theirs['state_dict'].items():
        assert value.dtype == ours['state_dict'][key].dtype and torch.equal(value, ours['state_dict'][key])
    kind = 'video' if 'video' in name else 'image'
    assert yaml.safe_load(entry.path.read_text()) == {'mine': {kind: 'models/mine.pth'}}
    for half in (False, True):
        session = onnxruntime.InferenceSession(checked_onnx(read_source(checkpoint), half))
        filled, = session.run(None, {'image': image.astype(np.float32), 'mask': mask.astype(np.float32)})
        assert np.abs(filled - want).max() < TOLERANCE[half]


def test_from_safetensors(small, tmp_path):
    "What was exported once can be exported again."
    [first, *_] = export_model(small('light_video_inpaint_v1', base_dim=16), tmp_path / 'a', 'safetensors')
    files = export_model(first.path, tmp_path / 'b', 'iw3', name='later', licence='MIT')
    model, entries = load_model(files[0].path)
    assert model.kwargs == dict(base_dim=16, lv2_mlp_ratio=1) and entries['card']['licences'] == 'CC0-1.0'


def test_kept_and_whole(small, tmp_path, monkeypatch):
    path, out = small('background_v1', **SMALL), tmp_path / 'out'
    [one] = export_model(path, out, 'safetensors')
    one.path.write_bytes(b'mine')
    assert export_model(path, out, 'safetensors')[0].kept and one.path.read_bytes() == b'mine'
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr('os.replace', stop)
        with pytest.raises(KeyboardInterrupt): export_model(path, out, 'safetensors', yes=True)
    assert [one.name for one in out.iterdir()] == ['background_v1.safetensors'] and one.path.read_bytes() == b'mine'
    assert not export_model(path, out, 'safetensors', yes=True)[0].kept
    assert load_model(one.path)[0].name == 'inpaint_nb.background_v1'


def test_refused(small, tmp_path, monkeypatch):
    path, out = small('background_v1', **SMALL), tmp_path / 'out'
    for settings, said in (
            (dict(format='tflite'), 'unknown format tflite'), (dict(format='onnx,'), 'unknown format without'),
            (dict(format='safetensors,iw3'), 'iw3 has no network'), (dict(name='a/b'), 'a name is made of'),
            (dict(name='.a'), 'a name is made of')):
        with pytest.raises(ValueError, match=said): export_model(path, out, **settings)
    with pytest.raises(ValueError, match='give another `name`'):
        iw3_entry(read_source('pretrained:light_inpaint_v1'), 'light_inpaint_v1')
    monkeypatch.delitem(EXPORTS, 'inpaint_nb.background_v1')
    with pytest.raises(ValueError, match='add a row'): onnx_bytes(read_source(path))
    monkeypatch.setattr(export, 'import_module', lambda name: exec('raise ImportError(name)'))
    with pytest.raises(ImportError, match='pip install onnx onnxruntime'): export_model(path, out)
    assert not out.exists()


def test_wrong_pixels_are_not_written(small, tmp_path, monkeypatch):
    path = small('background_v1', **SMALL)
    monkeypatch.setattr(export, 'LOOKS', 2)  # holes wider than 3 pixels stay open
    with pytest.raises(ArithmeticError, match='other pixels than PyTorch'): export_model(path, tmp_path / 'a', 'onnx')
    assert not [*(tmp_path / 'a').iterdir()]
