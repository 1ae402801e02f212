"Numbers and files of the reference, and checkpoints under adverse conditions."
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inpaint_nb.models import create_model, load_model, read_checkpoint, save_model, write_whole

REFERENCE = Path(__file__).parents[2] / 'shared' / 'reference'
GOLDEN = REFERENCE / 'golden' / 'model_light_inpaint_v1.npz'
CHECKPOINT = REFERENCE / 'checkpoints' / 'inpaint.light_inpaint_v1.pth'
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f'no golden numbers at {GOLDEN}')
needs_checkpoint = pytest.mark.skipif(not CHECKPOINT.exists(), reason=f'no reference checkpoint at {CHECKPOINT}')


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as file: return {k: file[k] for k in file.files}


@pytest.fixture(scope='module')
def model():
    "With the recipe's weights."
    sys.path.insert(0, str(GOLDEN.parent))
    try: from recipe import build
    finally: sys.path.pop(0)
    model = create_model('light_inpaint_v1')
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    with np.load(GOLDEN) as file: norms = set(file['norm_weight_names'].tolist())
    model.load_state_dict({k: torch.from_numpy(v) for k, v in build(shapes, norms).items()})
    return model


def tensor(golden, key): return torch.from_numpy(golden[key]).float()


@needs_golden
def test_blur_kernel(golden, model):
    assert (model.mask_kernel - tensor(golden, 'mask_blur_kernel1d')).abs().max() < 1e-7


@needs_golden
@pytest.mark.parametrize('case', ['A', 'B'])
def test_outputs(golden, model, case):
    image, mask = tensor(golden, f'{case}|x'), tensor(golden, f'{case}|mask')
    x, soft = model.preprocess(image, mask)
    assert (soft - tensor(golden, f'{case}|pre_mask')).abs().max() < 1e-6
    model.eval()
    with torch.no_grad():
        full, cut = model(x, soft, skip_i2i_offset=True), model(x, soft)
        assert (full - tensor(golden, f'{case}|eval_out_skip_i2i_offset')).abs().max() < 1e-5
        assert (cut - tensor(golden, f'{case}|eval_out')).abs().max() < 1e-5
        assert torch.equal(model.infer(image, mask), full)
        assert (model.train()(x, soft) - tensor(golden, f'{case}|train_out')).abs().max() < 1e-5


@needs_golden
def test_gradients(golden, model):
    x, soft = model.preprocess(tensor(golden, 'A|x'), tensor(golden, 'A|mask'))
    model.train().zero_grad()
    out = model(x.requires_grad_(), soft)
    weight = np.random.RandomState(777).standard_normal(tuple(out.shape)).astype(np.float32)
    (out * torch.from_numpy(weight)).sum().backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    for name, norm, total in zip(golden['A|grad|names'], golden['A|grad|l2'], golden['A|grad|sum']):
        assert abs(grads[name].norm().item() - norm) < 5e-5 * norm, name
        assert abs(grads[name].sum().item() - total) < 1e-4 * norm * grads[name].numel() ** 0.5, name
    assert abs(x.grad.norm().item() / golden['A|grad|input_l2'] - 1) < 1e-5
    assert (x.grad[..., -24:, -24:] - tensor(golden, 'A|grad|input_crop_bottom_right')).abs().max() < 1e-4
    for name in ('mask_bias', 'to_image.1.bias', 'patch.0.bias'):
        expected = tensor(golden, f'A|grad|full|{name}')
        assert (grads[name] - expected).abs().max() < 1e-5 * expected.abs().max(), name


@needs_golden
def test_preprocess_options(golden, model):
    image, mask = tensor(golden, 'A|x'), tensor(golden, 'pre_opts|mask_in')
    for key in golden['pre_opts|keys']:
        closing, inner, outer, base = key.split('|')
        x, soft = model.preprocess(image, mask, closing=closing == 'closing1', inner_dilation=int(inner[2:]),
                                   outer_dilation=int(outer[3:]), base_width=None if base == 'bwNone' else int(base[2:]))
        assert (soft - tensor(golden, f'pre_opts|{key}|mask')).abs().max() < 1e-6, key
        assert abs(x.sum().item() / golden[f'pre_opts|{key}|x_sum'] - 1) < 1e-6, key


@needs_golden
@needs_checkpoint
def test_reference_checkpoint_loads_and_fills(golden):
    model, meta = load_model(CHECKPOINT, name='light_inpaint_v1')
    assert meta['nunif_model'] == 1 and meta['kwargs'] == {}
    out = model.infer(tensor(golden, 'A|x'), tensor(golden, 'A|mask'))
    assert (out - tensor(golden, 'A|eval_out_skip_i2i_offset')).abs().max() < 1e-5


@needs_checkpoint
def test_saved_file_is_like_the_reference(tmp_path):
    model, _ = load_model(CHECKPOINT)
    save_model(model.to(memory_format=torch.channels_last), tmp_path / 'ours.pth')
    ours, theirs = [torch.load(p, weights_only=True) for p in (tmp_path / 'ours.pth', CHECKPOINT)]
    assert list(ours) == list(theirs)
    assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in theirs.items()}
    assert all(ours[k] == theirs[k] for k in ('nunif_model', 'name', 'kwargs', 'train_kwargs'))
    assert list(ours['state_dict']) == list(theirs['state_dict'])
    for key, value in theirs['state_dict'].items():
        mine = ours['state_dict'][key]
        assert (mine.dtype, mine.shape, mine.stride()) == (value.dtype, value.shape, value.stride()), key
        assert torch.equal(mine, value), key


def test_other_reference_model_is_named():
    video = CHECKPOINT.with_name('inpaint.light_video_inpaint_v1.pth')
    if not video.exists(): pytest.skip(f'no reference checkpoint at {video}')
    with pytest.raises(ValueError, match='holds the model inpaint.light_video_inpaint_v1') as error:
        load_model(video, name='light_inpaint_v1')
    assert 'inpaint.light_inpaint_v1' in str(error.value) and '\n' not in str(error.value)


def test_training_checkpoint_round_trip(tmp_path):
    model = create_model('light_inpaint_v1')
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for p in model.parameters(): p.grad = torch.ones_like(p)
    optimizer.step()
    path = tmp_path / 'a.checkpoint.pth'
    save_model(model, path, train_kwargs={'lr': 1e-3, 'loss': None}, last_epoch=3, best_loss=0.5,
               optimizer_state_dict=[optimizer.state_dict()])
    again, meta = load_model(path)
    assert meta['last_epoch'] == 3 and meta['train_kwargs'] == {'lr': 1e-3, 'loss': None}
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    other = torch.optim.AdamW(again.parameters())
    other.load_state_dict(meta['optimizer_state_dict'][0])
    assert other.param_groups[0]['lr'] == 1e-3


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    write_whole(path, b'old')
    def full(descriptor): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='could not write .*a.pth: No space left on device; the old file is as it was'):
        write_whole(path, b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_really_full_disk(tmp_path):
    (tmp_path / '.a.pth.tmp').symlink_to('/dev/full')
    with pytest.raises(OSError, match='No space left on device; nothing was written'): write_whole(tmp_path / 'a.pth', b'x' * 100)
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_that_would_not_load(tmp_path):
    model = create_model('light_inpaint_v1')
    with pytest.raises(ValueError, match='best_loss'): save_model(model, tmp_path / 'a.pth', best_loss=lambda: 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('size', [(64, 64), (63, 65), (128, 100), (97, 193), (40, 256)])
def test_part_equals_whole(size):
    torch.manual_seed(0)
    model = create_model('light_inpaint_v1').train()
    torch.nn.init.normal_(model.to_image[1].weight, std=0.02)
    inputs = torch.rand(1, 3, *size), torch.rand(1, 1, *size)
    with torch.no_grad():
        part, whole = model(*inputs), model(*inputs, skip_i2i_offset=True)
    assert part.shape[2:] == (size[0] - 32, size[1] - 32)
    assert (part - whole[..., 16:-16, 16:-16]).abs().max() < 1e-5


@pytest.mark.parametrize('content', [b'', b'text, not weights', b'PK\x03\x04 broken archive', b'\x80\x02}q\x00.'])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError) as error: read_checkpoint(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_code_in_a_file_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path / 'boom'),)
    torch.save({'nunif_model': 1, 'name': 'inpaint.light_inpaint_v1', 'kwargs': {}, 'state_dict': Bomb()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='could run code'): load_model(tmp_path / 'a.pth')
    assert not (tmp_path / 'boom').exists()
