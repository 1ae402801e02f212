"""Judging fills: what is counted, how it is averaged, and the real stereo pairs where they are present."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from inpaint_nb.benchmark import (FILLERS, Case, average_scores, compare_fills, fill_unknown, hidden_in_left, judge_fills,
                                  judge_stereo, opencv_inpaint, scene_cases, stereo_case)
from inpaint_nb.models import create_model
from inpaint_nb.scenes import random_scene
from inpaint_nb.stereo import save_picture
from inpaint_nb.warp import forward_warp

STEREO = Path(__file__).parents[2] / 'shared/data/stereo'
needs_stereo = pytest.mark.skipif(not STEREO.is_dir(), reason='the real stereo pairs are not beside the checkout')


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def cases():
    return list(scene_cases(range(40, 44), size=(96, 128)))


def write_pair(folder, seed=41, divergence=6.0, unknown=None, both=False):
    "A procedural scene as a measured stereo pair; returns what the left eye never saw, and a rim of a pixel around it."
    folder.mkdir(parents=True)
    scene = random_scene(seed, size=(96, 128))
    right, hidden = scene.view(divergence, 0.0)
    save_picture(scene.image, folder / 'left.png')
    save_picture(right, folder / 'right.png')
    scale = divergence * 0.01 * 128
    disparity = (scene.depth[0, 0] * scale).clamp(min=1)
    if unknown is not None: disparity[unknown] = 0
    Image.fromarray((disparity * 256).round().numpy().astype(np.uint16)).save(folder / 'disp_left.png')
    if both:
        other = forward_warp(scene.depth, scene.depth, divergence, 0.0, view='right').right[0, 0] * scale
        Image.fromarray((other.clamp(min=1) * 256).round().numpy().astype(np.uint16)).save(folder / 'disp_right.png')
    return F.max_pool2d(hidden, 3, 1, 1) > 0


# --- fillers ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', FILLERS)
def test_fillers_change_only_the_hole(cases, name):
    for case in cases:
        before = case.image.clone()
        filled = FILLERS[name](case.image, case.hole)
        outside = (case.hole == 0).expand_as(filled)
        assert torch.equal(filled[outside], case.image[outside]) and torch.equal(case.image, before)
        assert filled.shape == case.image.shape and 0 <= filled.min() and filled.max() <= 1


@pytest.mark.parametrize('name', FILLERS)
def test_fillers_do_not_peek(cases, name):
    "What is in the hole before filling makes no difference."
    case = cases[0]
    spoilt = torch.where(case.hole > 0, torch.rand_like(case.image), case.image)
    assert torch.equal(FILLERS[name](spoilt, case.hole), FILLERS[name](case.image, case.hole))


def test_opencv_is_really_opencv(cases):
    case = cases[1]
    pixels = case.image[0].permute(1, 2, 0).mul(255).round().byte().numpy().copy()
    direct = cv2.inpaint(pixels, case.hole[0, 0].byte().numpy(), 5, cv2.INPAINT_TELEA)
    ours = opencv_inpaint(case.image, case.hole, cv2.INPAINT_TELEA, 5)
    hole = case.hole[0, 0] > 0
    assert np.array_equal(ours[0].permute(1, 2, 0)[hole].mul(255).round().byte().numpy(), direct[hole.numpy()])


# --- scores ----------------------------------------------------------------------------------------------------------------

def test_pooled_score_is_the_score_of_the_heap(cases):
    report = judge_fills(cases, {'repeat': FILLERS['repeat background']})
    errors = [((FILLERS['repeat background'](case.image, case.hole) - case.target) ** 2)[case.counted.expand_as(case.target)] for case in cases]
    pooled, mean = -10 * torch.cat(errors).mean().log10(), torch.stack([-10 * error.mean().log10() for error in errors]).mean()
    average = report.averages['repeat']
    assert abs(average.pooled_psnr - pooled) < 1e-3 and abs(average.mean_psnr - mean) < 1e-3


def test_a_better_fill_scores_better(cases):
    truths = {id(case.image): case.target for case in cases}
    mix = lambda share: lambda image, mask: torch.lerp(FILLERS['telea'](image, mask), truths[id(image)], share * mask)
    report = judge_fills(cases, {str(share): mix(share) for share in (0.0, 0.5, 0.9)})
    psnr = [average.pooled_psnr for average in report.averages.values()]
    ssim = [average.mean_ssim for average in report.averages.values()]
    assert psnr == sorted(psnr) and ssim == sorted(ssim)
    assert abs(psnr[1] - psnr[0] - 20 * np.log10(2)) < 0.01


def test_only_counted_pixels_matter(cases):
    case = cases[0]
    spoilt = lambda image, mask: torch.where(case.counted, FILLERS['repeat background'](image, mask), 1 - case.target)
    report = judge_fills([case], {'clean': FILLERS['repeat background'], 'spoilt': spoilt})
    assert report.scores[0].psnr == report.scores[1].psnr


def test_empty_cases_are_left_out(cases):
    nothing = cases[0]._replace(name='nothing', counted=torch.zeros_like(cases[0].counted))
    assert [score.case for score in judge_fills([nothing, cases[1]], {'x': FILLERS['telea']}).scores] == [cases[1].name]
    with pytest.raises(ValueError, match='nothing to judge'): judge_fills([nothing])


def test_tables(cases):
    report = judge_fills(cases, {**FILLERS, 'network': create_model('light_inpaint_v1')})
    text, markdown = str(report).splitlines(), report._repr_markdown_().splitlines()
    assert len(text) == 1 + 1 + 4 + 2 and len({len(line) for line in text[1:]}) == 1
    assert len(markdown) == 2 + 4 + 2 and len({line.count('|') for line in markdown}) == 1
    assert f'{report.averages["telea"].pooled_psnr:.2f}' in text[-1] and 'network' in text[1]
    assert average_scores([score for score in report.scores if score.filler == 'telea']) == report.averages['telea']


# --- stereo pairs ----------------------------------------------------------------------------------------------------------

def test_pair_is_judged_like_the_scene(tmp_path):
    hidden = write_pair(tmp_path / 'pair')
    case = stereo_case(tmp_path / 'pair')
    assert case.counted.sum() > 100
    assert (case.counted & hidden).sum() > 0.98 * case.counted.sum()
    counted = F.max_pool2d(case.counted.float(), 3, 1, 1) > 0
    core = -F.max_pool2d(-hidden.float(), 3, 1, 1) > 0  # without the rim
    assert (counted & core).sum() > 0.9 * core.sum()
    assert judge_stereo(tmp_path / 'pair').seen['pair'] > 25


def test_unknown_disparity_opens_no_counted_hole(tmp_path):
    "Wherever the measurement fails, pixels may stop to count, but no false ones begin to."
    unknown = torch.zeros(96, 128, dtype=torch.bool)
    unknown[30:60, 40:70] = unknown[5:15, :] = True
    unknown |= torch.rand(96, 128) < 0.02
    hidden = write_pair(tmp_path / 'known')
    write_pair(tmp_path / 'unknown', unknown=unknown)
    known, holey = stereo_case(tmp_path / 'known'), stereo_case(tmp_path / 'unknown')
    assert holey.counted.sum() < known.counted.sum()
    assert not holey.counted[..., 5:15, :].any()
    assert (holey.counted & hidden).sum() > 0.97 * holey.counted.sum()


def test_right_disparity_is_used(tmp_path):
    hidden = write_pair(tmp_path / 'both', both=True)
    write_pair(tmp_path / 'left only')
    both, left_only = stereo_case(tmp_path / 'both').counted, stereo_case(tmp_path / 'left only').counted
    assert (both <= left_only).all() and (both & hidden).sum() > 0.98 * both.sum()


def test_hidden_in_left_needs_an_occluder():
    flat = torch.full((1, 1, 1, 12), 2.0)
    assert not hidden_in_left(flat, flat).any()
    assert not hidden_in_left(torch.zeros_like(flat), flat + 5).any()
    assert hidden_in_left(flat, flat + 5).flatten().tolist() == [True] * 10 + [False] * 2


def test_fill_unknown_takes_the_background():
    disparity = torch.tensor([[9.0, 0, 0, 3, 0, 7], [0, 0, 0, 0, 0, 0]]).view(1, 1, 2, 6)
    assert fill_unknown(disparity).tolist() == [[[[9, 3, 3, 3, 3, 7], [0, 0, 0, 0, 0, 0]]]]


def test_comparison_picture(cases):
    truth, black = (compare_fills(cases[0], {'': lambda image, mask: fill}) for fill in (cases[0].target, torch.zeros_like(cases[0].target)))
    assert compare_fills(cases[0]).shape == (1, 3, 192, 4 * 128)
    assert not truth[..., 96:, 128:].any() and black.max() == 1
    error = black[..., 96:, 128:]
    assert torch.equal(error > 0, (cases[0].target > 0) & cases[0].counted)
    assert torch.equal(error, (4 * cases[0].target * cases[0].counted).clamp(max=1))


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='no stereo scenes'): judge_stereo(tmp_path)
    (tmp_path / 'scene').mkdir()
    save_picture(torch.rand(1, 3, 8, 9), tmp_path / 'scene/left.png')
    with pytest.raises(FileNotFoundError, match='it has no right.png, disp_left.png'): judge_stereo(tmp_path)
    save_picture(torch.rand(1, 3, 8, 9), tmp_path / 'scene/right.png')
    save_picture(torch.rand(1, 3, 8, 9), tmp_path / 'scene/disp_left.png')
    with pytest.raises(ValueError, match='not a 16-bit grey picture'): judge_stereo(tmp_path)
    Image.fromarray(np.ones((8, 10), np.uint16)).save(tmp_path / 'scene/disp_left.png')
    with pytest.raises(ValueError, match='differ in size'): judge_stereo(tmp_path)


@needs_stereo
def test_real_pairs():
    report = judge_stereo(STEREO, {'repeat background': FILLERS['repeat background'], 'black': lambda image, mask: image})
    assert len(report.seen) == 7 and min(report.seen.values()) > 28
    assert all(score.pixels > 1000 for score in report.scores)
    repeated, black = report.averages.values()
    assert black.pooled_psnr + 3 < repeated.pooled_psnr < 25


@needs_stereo
def test_real_truth_agrees_with_the_given_visibility():
    "`visible_left.png` was made by other people: what it calls visible lands, almost never in a counted hole."
    for folder in sorted(STEREO.iterdir()):
        case = stereo_case(folder)
        disparity = np.asarray(Image.open(folder / 'disp_left.png')).astype(np.float32) / 256
        visible = np.asarray(Image.open(folder / 'visible_left.png')) == 255
        rows, columns = np.nonzero(visible)
        target = np.round(columns - disparity[rows, columns]).astype(int)
        ok = target >= 0
        inside = case.counted[0, 0].numpy()[rows[ok], target[ok]].mean()
        assert inside < 0.01, f'{folder.name}: {inside:.3f} of the visible pixels land in counted holes'
