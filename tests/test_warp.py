"""The forward warp against the reference's numbers, on any device that is here."""
import json

import numpy as np
import pytest
import torch

from inpaint_nb.warp import MAPPERS, forward_warp, get_mapper, warp_eye
from reference import case, golden

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU'))]
CASES = 'smooth step layered random quant depth_up depth_down tall gray1ch batch_layered wide_hole'.split()


def golden_views(case, device):
    "Every stored view and mask of a case with ours beside it."
    stored = np.load(golden(f'forward_warp_{case}.npz'))
    image, depth = (torch.from_numpy(stored[name]).float().to(device) for name in ('c', 'depth'))
    for params in json.loads(str(stored['params_json'])):
        views = forward_warp(image, depth, params['divergence'], params['convergence'], params['synthetic_view'],
                             fill=params['method'] == 'forward_fill', width_base=params['width_base'])
        for name, ours in views._asdict().items():
            key = f"{params['key']}|{name}"
            if key in stored: yield key, ours.cpu(), torch.from_numpy(stored[key]).float()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('case', [case(name, f'forward_warp_{name}.npz') for name in CASES[:-1]])
def test_golden(case, device):
    compared = 0
    for key, ours, theirs in golden_views(case, device):
        assert ((ours - theirs).abs() <= 1e-4).float().mean() >= 0.999, key
        compared += 1
    assert compared >= 100


def test_wide_hole_equals_the_reference_where_it_finished():
    "The reference gives up after 100 passes; pixels its caps did not touch must agree."
    compared = 0
    for key, ours, theirs in golden_views('wide_hole', 'cpu'):
        if key.startswith('both') and 'mask' not in key:
            finished = theirs >= 0
            torch.testing.assert_close(ours[finished], theirs[finished], atol=1e-4, rtol=0)
            assert ours.min() >= 0, key
            compared += 1
    assert compared >= 2


def brute_force(colours, depths, divergence, convergence, eye):
    "One row by sorting and walking, without any cap (float32 geometry as in the warp itself)."
    width, sign = len(colours), -1 if eye == 'right' else 1
    first = int(width * divergence * 0.01 + 2)
    scale = divergence * 0.01 * width * 0.5
    padded = torch.cat([depths[:1].expand(first), depths, depths[-1:].expand(first)])
    target = torch.arange(len(padded), dtype=torch.float32) + sign * (padded * scale - scale * convergence)
    buffers = ({}, {})
    for i in torch.argsort(padded, stable=True).tolist():
        weight = (target[i] - target[i].floor()).clamp(1e-5, 1 - 1e-5).item()
        buffers[0][int(target[i].floor())] = (1 - weight, i)
        buffers[1][int(target[i].ceil())] = (weight, i)
    columns, seen = [], []
    for x in range(first, first + width):
        hits = [buffer[x] for buffer in buffers if x in buffer]
        total = sum(weight for weight, _ in hits)
        columns.append(sum(w * i for w, i in hits) / total if hits else None)
        seen.append(sum(w * colours[min(max(i - first, 0), width - 1)].item() for w, i in hits) / total if hits else None)
    if eye == 'left': columns, seen = columns[::-1], seen[::-1]
    following = lambda values, x: next((v for v in values[x:] if v is not None), 0)
    filled = [following(columns, x) for x in range(width)]
    order = (lambda a, b: a < b - 1e-3) if eye == 'right' else (lambda a, b: a > b + 1e-3)
    extreme = max if eye == 'right' else min
    clean = [None if x and order(filled[x], extreme(filled[:x])) else value for x, value in enumerate(seen)]
    result = torch.tensor([following(clean, x) for x in range(width)])
    hole = torch.tensor([value is None for value in clean])
    return (result, hole) if eye == 'right' else (result.flip(0), hole.flip(0))


@pytest.mark.parametrize('eye', ['left', 'right'])
def test_holes_of_any_width_equal_brute_force(eye):
    "Holes far wider than 100 pixels: what the wide_hole golden case cannot show."
    width, generator = 700, torch.Generator().manual_seed(1)
    colours = torch.rand(width, generator=generator)
    depths = torch.zeros(width)
    depths[150:400], depths[450:460], depths[520:524] = 1, 0.7, 0.4
    for divergence, convergence in ((40, 0), (40, 0.5), (80, 0.3)):
        view, mask = warp_eye(colours[None, None, None], depths[None, None, None], divergence, convergence, eye)
        slow_view, slow_hole = brute_force(colours, depths, divergence, convergence, eye)
        assert (mask[0, 0, 0] > 0).sum() > 120
        assert torch.equal(mask[0, 0, 0] > 0, slow_hole)
        torch.testing.assert_close(view[0, 0, 0], slow_view, atol=1e-4, rtol=0)


def test_mappers():
    stored = np.load(golden('mappers.npz'))
    x = torch.from_numpy(stored['x']).double()
    names = [key[4:] for key in stored.files if key.startswith('map|')]
    assert {name for name in names if not set(name) & set(':+=')} == set(MAPPERS)
    for name in names:
        torch.testing.assert_close(get_mapper(name)(x), torch.from_numpy(stored[f'map|{name}']).double(), atol=1e-5, rtol=0, msg=name)


def test_a_chain_of_two_mixes_uses_both():
    stored = np.load(golden('mappers.npz'))
    x = torch.from_numpy(stored['x']).double()
    expected = torch.from_numpy(stored['two_interp_chain_expected_if_fixed']).double()
    torch.testing.assert_close(get_mapper('none+mul_1=0.3:none+mul_2=0.5')(x), expected, atol=1e-5, rtol=0)
