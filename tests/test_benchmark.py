"""Judging fills: what is counted, how it is averaged, and the real stereo pairs where they are present."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from inpaint_nb import models
from inpaint_nb.benchmark import (
    BenchmarkOptions, StoppedEarly, average_scores, average_widths, compare_clip_fills, compare_fills, fetch,
    fill_case, follow, judge_clips, judge_fills, judge_stereo, load_fillers, measure_speed, ranked,
    run_benchmark, time_fill, warping_error
)
from inpaint_nb.cases import (
    Case, clip_case, fill_unknown, hidden_in_left, layered_case, layered_cases, layers_sources,
    matched_disparity, moving_sources, pair_case, read_materials, records_sources,
    roundtrip_sources, scene_cases, scenes_sources, stereo_case, stereo_sources
)
from inpaint_nb.depth import write_depth
from inpaint_nb.fills import FILLERS, hole_to_fill, hole_width, opencv_inpaint
from inpaint_nb.layers import LayeredPair, layered_pair
from inpaint_nb.scores import hole_flicker, hole_psnr, hole_ssim
from inpaint_nb.masks import disocclusion_mask
from inpaint_nb.models import create_model
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.stereo import read_picture, save_picture
from inpaint_nb.warp import forward_warp

pytestmark = pytest.mark.usefixtures('one_thread')

STEREO = Path(__file__).parents[2] / 'shared/data/stereo'
needs_stereo = pytest.mark.skipif(not STEREO.is_dir(), reason='the real stereo pairs are not beside the checkout')


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
    assert len(text) == 8 + 1 + 7 and len({len(line) for line in text[1:8]}) == 1
    assert len([line for line in markdown if '|' in line]) == 2 + 4 + 2 + 2 + 5
    assert f'{report.averages["telea"].pooled_psnr:.2f}' in text[7] and 'network' in text[1]
    np.testing.assert_equal(average_scores(report.by_filler['telea']), report.averages['telea'])


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
    with pytest.raises(FileNotFoundError, match='it has no right.png'): judge_stereo(tmp_path)
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
    for model in (photo, video): model.infer = lambda image, mask, model=model, **wanted: (calls.append(len(image)), type(model).infer(model, image, mask, **wanted))[1]
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
    first, widths, second = str(report).split('\n\n')
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

# --- the command -----------------------------------------------------------------------------------------------------------

def test_widths_add_up(cases):
    report = judge_fills(cases, {'telea': FILLERS['telea']})
    for score in report.scores:
        assert sum(pixels for pixels, *_ in score.widths) == score.pixels
        error = sum(pixels * error for pixels, error, _ in score.widths) / score.pixels
        assert abs(-10 * np.log10(error) - score.psnr) < 1e-3
    together = average_widths(report.scores)
    assert sum(pixels for pixels, *_ in together) == sum(score.pixels for score in report.scores)


def test_scores_are_those_of_the_losses(cases):
    score, = judge_fills(cases[:1], {'telea': FILLERS['telea']}).scores
    filled = FILLERS['telea'](cases[0].image, cases[0].hole)
    assert abs(score.psnr - hole_psnr(filled, cases[0].target, cases[0].counted)) < 1e-4
    assert abs(score.ssim - hole_ssim(filled, cases[0].target, cases[0].counted)) < 1e-5


def test_json_and_sheet(tmp_path):
    options = BenchmarkOptions((), str(tmp_path / 'a.json'), str(tmp_path / 'a.png'), -1)
    report = run_benchmark(scenes_sources(3), options, 'inpaint_benchmark scenes --number 3', progress=False)
    written = json.loads((tmp_path / 'a.json').read_text())
    assert written['command'] == report.command and len(written['scores']) == 3 * len(FILLERS)
    assert written['averages']['telea']['mean_psnr'] == report.averages['telea'].mean_psnr
    assert read_picture(tmp_path / 'a.png').shape == (1, 3, 3 * 214, (2 + len(FILLERS)) * 196)
    assert str(report).endswith('made by: inpaint_benchmark scenes --number 3')
    order = ranked(report, 'repeat background')
    psnr = {score.case: score.psnr for score in report.by_filler['repeat background']}
    assert [psnr[name] for name in order] == sorted(psnr.values())


def test_pair_without_disparity(tmp_path):
    write_pair(tmp_path / 'pair')
    measured = stereo_case(tmp_path / 'pair')
    (tmp_path / 'pair/disp_left.png').unlink()
    matched = stereo_case(tmp_path / 'pair')
    assert matched.name == 'pair (SGBM)' and list(stereo_sources(tmp_path)) == ['pair (SGBM)']
    assert matched.counted.any() and (matched.counted & measured.counted).sum() > 0.3 * matched.counted.sum()


def test_matching_finds_a_shift():
    left = F.avg_pool2d(torch.rand(1, 3, 96, 170), 3, 1, 1)
    found = matched_disparity(left[..., :160], left[..., 7:167])
    assert (found > 0).float().mean() > 0.7 and (found[found > 0] - 7).abs().median() < 0.2


def test_records_as_cases(tmp_path, cases):
    (tmp_path / 'eval').mkdir()
    for number, case in enumerate(cases):
        save_picture(case.target, tmp_path / f'eval/{number}_C.png')
        save_picture(case.hole, tmp_path / f'eval/{number}_M.png')
    sources = records_sources(tmp_path, 2)
    assert list(sources) == ['0', '3'] and list(records_sources(tmp_path / 'eval', None)) == ['0', '1', '2', '3']
    case = sources['3']()
    assert torch.equal(case.hole, cases[3].hole) and torch.equal(case.image, case.target * (1 - case.hole))
    assert (case.target - cases[3].target).abs().max() < 0.51 / 255


def test_there_and_back(tmp_path):
    scene = random_scene(3, size=(96, 128))
    for folder in ('a', 'depth'): (tmp_path / folder).mkdir()
    for number in range(3):
        save_picture(scene.image, tmp_path / f'a/{number:03}.png')
        write_depth(scene.depth, tmp_path / f'depth/{number:03}.png')
    case = roundtrip_sources(str(tmp_path / 'a'), 2, str(tmp_path / 'depth'))['a']()
    expected = hole_to_fill(disocclusion_mask(scene.depth, 12, 0.0))
    assert len(case.hole) == 2 and (case.hole != expected).float().mean() < 0.005
    assert hole_width(case.hole[:, :, :, 8:-8]).max() <= 0.06 * 128 + 2
    report = run_benchmark({'a': lambda: case}, BenchmarkOptions(gpu=-1), whole=True, progress=False)
    score = report.scores[0]
    filled = fill_case(case, FILLERS['repeat background'])
    frames = [-10 * (filled[n] - case.target[n]).square().mean().log10().item() for n in range(2)]
    assert abs(score.frame_psnr - np.mean(frames)) < 1e-3 and 'whole frames' in str(report)


def test_weights_that_ship_beside_a_file(tmp_path):
    models.save_model(create_model('light_inpaint_v1'), tmp_path / 'one.pth')
    asked = ['pretrained', 'pretrained:background_v1', str(tmp_path / 'one.pth')]
    fillers = load_fillers(asked)
    assert list(fillers) == [*FILLERS, *asked[:2], 'one'] and not any(fillers[name].training for name in asked[:2])
    assert [fillers[name].name for name in asked[:2]] == ['inpaint_nb.background_v1'] * 2
    there = any(models.MODELS[row.model].frames > 1 for row in models.PRETRAINED.values())
    assert (load_fillers(['pretrained'], video=True)['pretrained'].frames > 1) == there
    with pytest.raises(FileNotFoundError, match='no weights of thin_air'): load_fillers(['pretrained:thin_air'])


def test_two_models_of_one_name(tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        models.save_model(create_model('light_inpaint_v1'), tmp_path / folder / 'one.pth')
    names = list(load_fillers([str(tmp_path / 'a/one.pth'), str(tmp_path / 'b/one.pth')]))
    assert names == [*FILLERS, 'one', str(tmp_path / 'b/one.pth')]


def test_speed(tmp_path):
    rows = measure_speed(64, 96, 2, gpu=-1)
    assert [row[0] for row in rows[1:-1]] == list(FILLERS) and all(float(row[2]) <= float(row[1]) <= float(row[3]) for row in rows[1:-1])
    times = time_fill(FILLERS['telea'], next(scene_cases([1], (64, 96))), 3)
    assert len(times) == 3 and times == sorted(times) and times[0] > 0


# --- layers ----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def photos():
    return [(random_scene(seed, size=(120, 160)).image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for seed in (7, 15, 26)]


def write_photos(folder, photos):
    folder.mkdir(parents=True)
    for number, photo in enumerate(photos): Image.fromarray(photo).save(folder / f'{number}.png')


def write_pan(folder, seed, frames=6):
    "A picture through a window that moves by two pixels a frame, as a folder of frames."
    folder.mkdir(parents=True)
    picture = random_scene(seed, size=(120, 180)).image
    for number in range(frames): save_picture(picture[..., 2 * number:2 * number + 160], folder / f'{number:04}.png')


def test_case_of_a_pair_by_hand():
    "A square 6 pixels before a striped wall: its hole is as wide, and behind it are the stripes."
    wall = np.tile((np.arange(64) % 2)[None, :, None], (64, 1, 3)).astype(np.float32)
    left, right, depth = wall.copy(), wall.copy(), np.zeros((64, 64), np.float32)
    left[20:40, 30:50], right[20:40, 24:44], depth[20:40, 30:50] = 0.5, 0.5, 1
    case = pair_case('a', [LayeredPair(left, right, depth, 100 * 6 / 64, 0.0)] * 2)
    assert case.name == 'a' and case.image.shape == (2, 3, 64, 64) and torch.equal(case.image[0], case.image[1])
    assert case.counted[0, 0].nonzero().tolist() == [[y, x] for y in range(20, 40) for x in range(44, 50)]
    assert torch.equal(case.counted, case.hole > 0) and torch.equal(case.seen, ~case.counted)
    assert torch.equal(case.target[0], torch.from_numpy(right).permute(2, 0, 1))
    assert (case.image - case.target * ~case.counted).abs().max() < 1e-5


def test_layered_views_are_what_their_numbers_say(photos):
    views = list(layered_cases(photos, 5, 3, 96, widths=(6, 24)))
    assert [view.name for view in views] == [f'view {n}' for n in range(5)] and all(view.counted.any() for view in views)
    pair = layered_pair(photos, 3 + 4, 96, 6)
    again = layered_case(photos, 4, 3, 96, (6, 24))
    assert all(torch.equal(mine, other) for mine, other in zip(again[1:6], views[4][1:6]))
    assert torch.equal(again.target[0], torch.from_numpy(pair.right).permute(2, 0, 1))
    off = [(view.image - view.target).abs()[view.seen.expand_as(view.image)].median() for view in views]
    assert max(off) < 4 / 255
    assert not torch.equal(layered_case(photos, 0, 4, 96).image, layered_case(photos, 0, 3, 96).image)


def test_views_without_a_hole_are_replaced(photos, monkeypatch):
    tried = []
    def empty_at_first(photos, seed, size, widest):
        tried.append(seed)
        flat = layered_pair(photos, seed, size, widest)
        return flat if len(tried) == 3 else flat._replace(depth=0 * flat.depth)
    monkeypatch.setattr('inpaint_nb.cases.layered_pair', empty_at_first)
    assert layered_case(photos, 2, 5, 96, (16,)).counted.any() and tried == [7, 1_000_007, 2_000_007]
    with pytest.raises(ValueError, match='20 layered views of 96 x 96'):
        monkeypatch.setattr('inpaint_nb.cases.layered_pair', lambda *args: layered_pair(*args)._replace(depth=np.zeros((96, 96), np.float32)))
        layered_case(photos, 0, 0, 96)


def test_layers_of_a_folder(photos, tmp_path, capsys):
    write_photos(tmp_path / 'eval', photos)
    (tmp_path / 'eval/bad.jpg').write_bytes(b'no photo')
    sources = layers_sources(tmp_path, 4, 2, 96)
    assert list(sources) == ['view 0', 'view 1', 'view 2', 'view 3'] and 'bad.jpg is left out' in capsys.readouterr().err
    assert torch.equal(sources['view 3']().image, layered_case(photos, 3, 2, 96).image)
    report = judge_fills((make() for make in sources.values()), {'telea': FILLERS['telea']})
    assert len(report.scores) == 4 and 'up to 8 px' in str(report)
    assert layers_sources(tmp_path / 'eval', 4, 2, 96)['view 1']().name == 'view 1'


def test_photos_are_not_larger_than_needed(photos, tmp_path):
    write_photos(tmp_path / 'a', photos)
    assert [photo.shape for photo in read_materials(tmp_path / 'a', 2, 60)] == [(60, 80, 3)] * 2
    for photo in (tmp_path / 'a').iterdir(): photo.write_bytes(b'')
    with pytest.raises(ValueError, match='none of its photos can be read'): read_materials(tmp_path / 'a', 9, 60)
    with pytest.raises(FileNotFoundError, match='no photos in .*b: known endings are'): (tmp_path / 'b').mkdir(); read_materials(tmp_path / 'b', 9, 60)
    with pytest.raises(FileNotFoundError, match='no folder .*c: give one'): read_materials(tmp_path / 'c', 9, 60)


def test_layers_before_a_clip(tmp_path):
    for name, seed in (('a', 6), ('b', 105)): write_pan(tmp_path / name, seed)
    sources = moving_sources(tmp_path, 2, 4, 1, 96)
    assert list(sources) == ['a 0', 'a 1', 'b 0', 'b 1']
    case = sources['b 0']()
    assert case.target.shape == (4, 3, 96, 96) and torch.equal(case.image, moving_sources(tmp_path, 2, 4, 1, 96)['b 0']().image)
    assert (case.image - case.target).abs()[case.seen.expand_as(case.image)].median() < 4 / 255 and (case.counted <= (case.hole > 0)).all()
    report = judge_fills([case], {'telea': FILLERS['telea']})
    assert report.temporal and report.scores[0].followed > 0
    alone, = moving_sources(tmp_path / 'a', 1, 99, 1, 96).values()
    assert len(alone().target) == 6


def test_a_cut_ends_a_moving_case(tmp_path):
    write_pan(tmp_path / 'a', 6, 3)
    for number in range(3, 8): save_picture(random_scene(33, size=(120, 160)).image, tmp_path / f'a/{number:04}.png')
    case = moving_sources(tmp_path / 'a', 1, 8, 1, 96)['a 0']()
    assert len(case.target) == 5


def test_wrong_layers(tmp_path):
    with pytest.raises(ValueError, match='number of cases must be 1 or more, not 0'): moving_sources(tmp_path, 0)
    with pytest.raises(ValueError, match='size must be 64 pixels or more, not 63'): layers_sources(tmp_path, size=63)
    with pytest.raises(ValueError, match='frames must be at least 2, not 1'): moving_sources(tmp_path, frames=1)
    with pytest.raises(FileNotFoundError, match='no clips in'): moving_sources(tmp_path)


def test_what_is_said_of_a_photo_names_its_file(tmp_path, capsys):
    "A colour profile that cannot be used."
    from inpaint_nb import photos
    photos._complaints.clear(), photos._say_once.cache_clear()
    picture = Image.fromarray(np.full((96, 96, 3), 120, np.uint8))
    picture.save(tmp_path / 'odd profile.png', icc_profile=b'no profile at all')
    assert len(read_materials(tmp_path, 1, 96)) == 1
    said = capsys.readouterr().err
    assert 'odd profile.png' in said and 'profile' in said


def test_ctrl_c_keeps_what_is_judged(tmp_path):
    "The finished cases are in the table and in the JSON file; before the first there is nothing to keep."
    def pressed(): raise KeyboardInterrupt
    first, = scene_cases([3], (64, 96))
    options = BenchmarkOptions(gpu=-1, json=str(tmp_path/'scores.json'))
    with pytest.raises(StoppedEarly, match='stopped after 1 of 3 cases; .*scores.json holds it; the same command') as stop:
        run_benchmark({'a': lambda: first, 'b': pressed, 'c': pressed}, options, progress=False)
    kept = json.loads((tmp_path/'scores.json').read_text())
    assert len(kept['scores']) == len(stop.value.report.scores) == len(FILLERS) and 'stopped after 1 of 3 cases' in str(stop.value.report)
    with pytest.raises(KeyboardInterrupt) as nothing: run_benchmark({'b': pressed}, BenchmarkOptions(gpu=-1), progress=False)
    assert not isinstance(nothing.value, StoppedEarly)
