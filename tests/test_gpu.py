"""What would run on a GPU, on pretended tensors: no GPU and no arithmetic, only shapes, types and devices.

A tensor of the CPU that meets one of the GPU is an error here as it is there. What a GPU computes, and how fast, this cannot tell. Left out where PyTorch is built without CUDA.
"""
import contextlib
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from inpaint_nb import losses, stereo
from inpaint_nb.gan import DISCRIMINATORS, create_discriminator
from inpaint_nb.losses import create_loss, plain_losses, rotate
from inpaint_nb.scores import hole_flicker, hole_psnr, hole_ssim
from inpaint_nb.masks import dilate_edge, dilate_inner, dilate_outer, disocclusion_mask, mask_closing
from inpaint_nb.models import create_model
from inpaint_nb.warp import MAPPERS, forward_warp, get_mapper

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason='this PyTorch is built without CUDA')
GPU, FLOATS = torch.device('cuda:0'), [torch.float32, torch.float16, torch.bfloat16]


class Reads(TorchDispatchMode):
    "Counts the values that are read from the GPU, for each of which the host would wait; gives some value, as there is none."
    count, truth = 0, True
    def __torch_dispatch__(self, function, types, given=(), more=None):
        if function.overloadpacket.__name__ != '_local_scalar_dense' or given[0].device != GPU: return function(*given, **more or {})
        self.count += 1
        return self.truth if given[0].dtype == torch.bool else 0.5 if given[0].is_floating_point() else 1


@pytest.fixture(autouse=True)
def reads():
    "As on a machine with one GPU."
    losses.dct_basis.cache_clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=False))
        for name, value in dict(is_available=True, is_bf16_supported=True, device_count=1, current_device=0).items():
            stack.enter_context(mock.patch(f'torch.cuda.{name}', lambda *given, value=value, **more: value))
        for name, instead in {'torch.cuda.amp.common.amp_definitely_not_available': lambda: False, 'torch.cuda._lazy_init': lambda: None,
                              'torch.nn.init.trunc_normal_': lambda tensor, *given, **more: tensor}.items(): stack.enter_context(mock.patch(name, instead))  # it looks at values
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield stack.enter_context(Reads())
    losses.dct_basis.cache_clear()


def short(dtype): return torch.autocast('cuda', dtype, enabled=dtype != torch.float32)

def there(make, *given):
    "Something with weights, made on the GPU."
    with GPU: return make(*given)

def pictures(n=2, size=96): return torch.rand(n, 3, size, size, device=GPU), torch.rand(n, 1, size, size, device=GPU) > 0.5


def test_a_tensor_of_the_cpu_is_an_error():
    with pytest.raises(RuntimeError, match='cpu'): torch.rand(3, device=GPU) + torch.rand(3)


def test_warp_and_masks():
    image, depth = torch.rand(2, 3, 64, 96, device=GPU), torch.rand(2, 1, 32, 48, device=GPU)
    for name in MAPPERS: assert get_mapper(name)(depth).device == GPU
    for fill in (True, False):
        for view in ('both', 'left', 'right'):
            for part in forward_warp(image, depth, 3, 0.5, view, fill=fill): assert part is None or part.device == GPU
    mask = disocclusion_mask(depth, 3, 0.5, 'left')
    for grown in (mask_closing(mask), dilate_inner(mask, 2), dilate_outer(mask, 2, base_width=640), dilate_edge(depth, [1, 3])): assert grown.device == GPU


# what a network for photos does in bfloat16, one for clips does too
@pytest.mark.parametrize('name, dtype', [pytest.param(name, dtype, marks=[pytest.mark.long] * ('video' in name and dtype == torch.bfloat16)) for dtype in FLOATS
                                         for name in ('light_inpaint_v1', 'light_video_inpaint_v1', 'background_v1', 'background_video_v1')])
def test_models(name, dtype, reads):
    model = there(create_model, name)
    reads.count = 0
    image, mask = pictures(model.frames if model.frames > 1 else 2)
    for training in (True, False):
        with short(dtype): out = model.train(training)(*model.preprocess(image, mask, closing=True, inner_dilation=1, outer_dilation=2, base_width=640))
        assert out.device == GPU and out.shape[-1] == 64
    frames, few = {'light_video_inpaint_v1': (14, dict(micro_batch_size=6)), 'background_video_v1': (5, {})}.get(name, (3, {}))
    with short(dtype): assert model.infer(*pictures(frames), **few).device == GPU
    assert not reads.count


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('name', plain_losses())
def test_losses(name, dtype, reads):
    criterion = there(create_loss, name)
    reads.count = 0
    pred, target, mask = torch.rand(3, 3, 96, 96, device=GPU), torch.rand(3, 3, 96, 96, device=GPU), torch.rand(3, 1, 96, 96, device=GPU)
    for training in (True, False):
        with short(dtype): loss = criterion.train(training)(pred, target, mask)
        assert (loss.device, loss.dtype) == (GPU, torch.float32)
    assert not reads.count


def test_scores_and_turning(reads):
    pred, target, mask = torch.rand(3, 3, 96, 96, device=GPU), torch.rand(3, 3, 96, 96, device=GPU), torch.rand(3, 1, 96, 96, device=GPU)
    for score in (hole_psnr, hole_ssim, hole_flicker): assert score(pred, target, mask).device == GPU
    assert rotate(pred, torch.rand(3), 'reflect', expand=False).device == GPU
    assert not reads.count


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.long)])
@pytest.mark.parametrize('name', DISCRIMINATORS)
def test_discriminators(name, dtype):
    network = there(create_discriminator, name).train()
    image, mask = pictures(2, 100)
    with short(dtype): answers, cells = network(image, image, mask.float())
    assert answers.device == cells.device == GPU


@pytest.mark.parametrize('name', [None, 'light_inpaint_v1', 'light_video_inpaint_v1', 'background_v1', 'background_video_v1'])
def test_stereo(name):
    model = there(create_model, name).eval() if name else None
    image, depth = torch.rand(1, 3, 128, 192, device=GPU), torch.rand(1, 1, 64, 96, device=GPU)
    whole = [((slice(0, 64), slice(0, 64)), (slice(0, 128), slice(0, 128)))]
    with mock.patch.object(stereo, 'tiles_to_fill', lambda *given: whole):  # the only place that looks at values
        views = stereo.make_stereo(image, depth, model, inner_dilation=1, outer_dilation=1)
    for packing in stereo.PACKINGS.values(): assert packing.pack(views).device == GPU
    for part in views: assert part.device == GPU and part.dtype == torch.float32


def test_a_tile_that_overflows_is_filled_again(reads):
    "First in half precision, then in full."
    model, short, reads.truth = there(create_model, 'light_inpaint_v1').eval(), [], False  # no value is finite
    infer = model.infer
    model.infer = lambda *part, **wanted: short.append(torch.is_autocast_enabled('cuda')) or infer(*part, **wanted)
    image, mask = pictures(1, 128)
    whole = [((slice(0, 128), slice(0, 128)),) * 2]
    with mock.patch.object(stereo, 'tiles_to_fill', lambda *given: whole): stereo.inpaint_view(image, mask.float(), model)
    assert short == [True, False]
