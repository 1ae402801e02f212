"""Judging fills: what is counted, how it is averaged, and the real stereo pairs where they are present."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from inpaint_nb.benchmark import (Case, average_scores, clip_case, compare_clip_fills, compare_fills, fetch, fill_case,
                                  fill_unknown, follow, hidden_in_left, judge_clips, judge_fills, judge_stereo,
                                  scene_cases, stereo_case, warping_error)
from inpaint_nb.fills import FILLERS, opencv_inpaint
from inpaint_nb.losses import hole_flicker
from inpaint_nb.models import create_model
from inpaint_nb.scenes import random_clip, random_scene
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
    torch.manual_seed(0)
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
    assert compare_fills(cases[0]).shape == (1, 3, 192, (1 + len(FILLERS)) * 128)
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


# --- clips -----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def clip():
    "What the right eye sees of a moving scene, and what the left one does not."
    views = [scene.view(5.0, 0.5) for scene in random_clip(105, 16, (96, 128))[::3]]
    return [torch.cat(part) for part in zip(*views)]


@pytest.fixture(scope='module')
def records(clip, tmp_path_factory):
    root = tmp_path_factory.mktemp('records')
    for name, part in (('b', slice(None)), ('a', slice(3))):
        (root / name).mkdir()
        for number, (frame, hole) in enumerate(zip(clip[0][part].split(1), clip[1][part].split(1))):
            save_picture(frame, root / name / f'{number:04}_C.png')
            save_picture(hole, root / name / f'{number:04}_M.png')
    return root


def test_paths_of_a_known_motion():
    "A big picture through a window that moves by (3, -2) pixels a frame."
    big = F.avg_pool2d(random_scene(3, size=(160, 200)).image, 3, 1, 1)
    window = torch.cat([big[..., 20 - 2 * t:116 - 2 * t, 20 + 3 * t:148 + 3 * t] for t in range(4)])
    paths = follow(window)
    step = paths.place - torch.stack(torch.meshgrid(torch.arange(128), torch.arange(96), indexing='xy'), -1)
    off = (step - torch.tensor([-3.0, 2.0])).norm(dim=-1)[paths.sure[:, 0]]
    assert paths.sure.float().mean() > 0.5 and off.median() < 0.1 and not paths.sure[..., :3].any() and not paths.sure[..., -2:, :].any()
    error = (fetch(window[1:], paths.place) - window[:-1]).abs().mean(1, keepdim=True)[paths.sure]
    assert error.quantile(0.999) < 10 / 255 and error.max() < 20 / 255  # optical flow is not the same on every processor


def test_fetch_by_hand():
    values = torch.rand(1, 2, 4, 5)
    place = torch.tensor([[[[2.0, 1.0], [0.5, 3.0], [4.0, 0.25]]]])
    by_hand = torch.stack([values[0, :, 1, 2], values[0, :, 3, :2].mean(1), 0.75 * values[0, :, 0, 4] + 0.25 * values[0, :, 1, 4]], -1)
    assert (fetch(values, place)[0, :, 0] - by_hand).abs().max() < 1e-6


def test_warping_error_follows_and_flicker_does_not(clip):
    clip, hole = clip
    fill = lambda values: torch.where(hole > 0, values, clip)
    moving, standing = fill(1 - clip), fill(clip[:1].expand_as(clip))
    assert warping_error(clip, clip, hole) == 0 and warping_error(clip, clip, 0 * hole).isnan() and warping_error(clip[:1], clip[:1], hole[:1]).isnan()
    assert warping_error(moving, clip, hole) < warping_error(standing, clip, hole)
    assert hole_flicker(moving, clip, hole) > hole_flicker(standing, clip, hole)


def test_without_motion_both_are_the_same(clip):
    still, hole = clip[0][:1].expand(4, -1, -1, -1), clip[1][:1].expand(4, -1, -1, -1)
    torch.manual_seed(0)
    noisy = (still + 0.1 * torch.randn(still.shape)).clamp(0, 1)
    assert abs(warping_error(noisy, still, hole) / hole_flicker(noisy, still, hole) - 1) < 0.02


def test_clip_is_read_as_it_was_written(records, clip):
    case = clip_case(records / 'b')
    assert case.name == 'b' and (case.target - clip[0]).abs().max() < 0.51 / 255 and torch.equal(case.hole, clip[1])
    assert torch.equal(case.counted, clip[1] > 0) and torch.equal(case.image, case.target * (clip[1] == 0))
    assert torch.equal(clip_case(records / 'b', 3).target, case.target[1:4])  # 6 frames: 1 before, 2 after
    assert len(clip_case(records / 'b', 99).target) == 6


def test_frame_by_frame_or_all_at_once(records):
    case = clip_case(records / 'b', 2)
    photo, video = (create_model(name).eval() for name in ('light_inpaint_v1', 'light_video_inpaint_v1'))
    calls = []
    for model in (photo, video): model.infer = lambda image, mask, model=model: (calls.append(len(image)), type(model).infer(model, image, mask))[1]
    filled = [fill_case(case, model) for model in (photo, video)]
    assert calls == [1, 1, 2]
    assert (filled[1] - torch.where(video.soften(case.hole) > 0, type(video).infer(video, case.image, case.hole), case.image)).abs().max() < 1e-5
    single = [fill_case(Case('', *(part[t:t + 1] for part in case[1:])), photo) for t in range(2)]
    assert torch.equal(filled[0], torch.cat(single))


def test_judge_clips(records, capsys):
    truth = {tuple(case.image.shape[2:]) + (case.image[t].sum().item(),): case.target[t:t + 1] for case in (clip_case(records / 'a'), clip_case(records / 'b')) for t in range(len(case.image))}
    perfect = lambda image, mask: truth[tuple(image.shape[2:]) + (image.sum().item(),)]
    report = judge_clips(records, {**FILLERS, 'truth': perfect}, progress=False)
    assert list(report.seen) == ['a', 'b'] and report.temporal and not capsys.readouterr().err
    best, score = report.averages["truth"], next(score for score in report.scores[5:] if score.filler == "repeat background")
    assert (best.mean_psnr, best.mean_flicker, best.pooled_warping) == (np.inf, 0, 0)
    case = clip_case(records / 'b')
    filled = fill_case(case, FILLERS['repeat background'])
    assert score.flicker == hole_flicker(filled, case.target, case.hole).item() and score.warping == warping_error(filled, case.target, case.hole).item()
    first, second = str(report).split('\n\n')
    assert 'seen' not in first and f'{255 * score.flicker:.2f} / {255 * score.warping:.2f}' in second and len(second.splitlines()) == 1 + 1 + 2 + 2
    assert report._repr_markdown_().count('| mean of the clips |') == 2


def test_clips_and_pictures_that_cannot_be_judged(records, tmp_path):
    with pytest.raises(FileNotFoundError, match='no video records'): judge_clips(tmp_path)
    with pytest.raises(FileNotFoundError, match='no folder'): judge_clips(tmp_path / 'nothing')
    with pytest.raises(ValueError, match='at least 1, not 0'): judge_clips(records, frames=0)
    one = judge_clips(records, {'telea': FILLERS['telea']}, frames=1, progress=False)
    assert not one.temporal and np.isnan(one.averages['telea'].mean_flicker) and 'warping' not in str(one)
    (tmp_path / 'clip').mkdir()
    for number, width in enumerate((20, 24)):
        save_picture(torch.rand(1, 3, 16, width), tmp_path / f'clip/000{number}_C.png')
        save_picture(torch.ones(1, 1, 16, width), tmp_path / f'clip/000{number}_M.png')
    with pytest.raises(ValueError, match='frames of several sizes'): judge_clips(tmp_path, progress=False)


def test_contact_sheet(records):
    case = clip_case(records / 'b')
    sheet = compare_clip_fills(case, {'black': lambda image, mask: image}, columns=3, side=64)
    assert sheet.shape[:3] == (1, 3, 3 * 66) and sheet.shape[-1] > 3 * 66 + 74 and 0 <= sheet.min() and sheet.max() <= 1
    hole, black, truth = (part[..., -3 * 66 - 74:] for part in sheet.split(66, -2))
    assert torch.equal(hole, black) and not torch.equal(hole, truth)
    crop = truth[..., :64, :64]
    assert any(torch.equal(case.target[:1, :, y:y + 64, x:x + 64], crop) for y in range(33) for x in range(65))
    assert compare_clip_fills(case, {}, columns=99, side=999).shape[-2] == 2 * 98
