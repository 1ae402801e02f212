"""What other frames show of a hole, on bad clips and with impatient users: nothing but holes changes, nothing hangs, nothing grows, and what is trusted is true."""
import itertools, threading, warnings, weakref

import cv2
import numpy as np
import pytest
import torch

from commands import run
from inpaint_nb import borrow as page, clip as clips, common, writing
from inpaint_nb.borrow import borrow_clip, borrowing, holed_frame, is_plausible, view_motion
from inpaint_nb.clip import fill_stream, stereo_clip
from inpaint_nb.clips import open_clip
from inpaint_nb.face import fill, make_views
from inpaint_nb.fills import repeat_background
from inpaint_nb.stereo import save_picture
from inpaint_nb.stereo import StereoOptions, load_inpainter, open_with
from test_resume import OPTIONS, kill_at, pictures

pytestmark = pytest.mark.usefixtures('one_thread')
NETWORKS = ['repeat', 'pretrained', 'pretrained:light_video_inpaint_v1']


def texture(seed, size, blur=2.0):
    "Smooth noise h w 3, 0..255."
    noise = np.random.default_rng(seed).random((*size, 3), np.float32)
    if blur: noise = cv2.GaussianBlur(noise, (0, 0), blur)
    return (255 * (noise - noise.min()) / np.ptp(noise)).round()


def panned(frames, background, pan, walk, size=(96, 160), wide=9):
    "A textured card walks before a background that goes by: right views, their holes, and what is behind the card. Whole pixels."
    height, width = size
    card, images, holes, truths = texture(9, (40, 30)), [], [], []
    for t in range(frames):
        truth = background[:height, 60 + pan * t:60 + pan * t + width]
        image, hole, left = truth.copy(), np.zeros((1, height, width), np.float32), 40 + walk * t
        image[30:70, left:left + 30] = card
        hole[:, 30:70, left + 30:left + 30 + wide] = 1
        images.append(image * (1 - hole[0, ..., None])); holes.append(hole); truths.append(truth)
    def batch(pixels): return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    return batch(images), torch.from_numpy(np.stack(holes)), batch(truths)


def views(frames, size=(48, 80), eyes='both', seen=None):
    "Both eyes' views of a walking card, made one by one, noted in `seen` by weak references."
    height, width = size
    background, card = texture(1, (height, width + 4 * frames)), texture(2, (height // 2, width // 4))
    for t in range(frames):
        left, image, depth = width // 8 + 3 * t % (width // 2), background[:, 2 * t:2 * t + width].copy(), torch.zeros(1, 1, height, width)
        image[height // 4:height // 4 + height // 2, left:left + width // 4] = card
        depth[..., height // 4:height // 4 + height // 2, left:left + width // 4] = 1
        picture = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        opened = open_with(StereoOptions('repeat', view=eyes, divergence=6.0), picture, depth)
        if seen is not None: seen.append([weakref.ref(part) for part in opened if part is not None])
        yield opened


def looking(before=()):
    "The threads that look up frames, but for those that other tests may have left."
    return {thread for thread in threading.enumerate() if thread.name.startswith('ThreadPoolExecutor')} - set(before)


# --- what is borrowed is true, and harmless

@pytest.mark.parametrize('pan, walk', [(2, 5), (-2, 3), (4, -2)])
def test_trusted_pixels_are_the_truth(pan, walk):
    image, hole, truth = panned(12, texture(3, (96, 280), 3), pan, walk)
    fill = repeat_background(image, hole)
    borrowed, wrong, far = [*borrowing(zip(image.split(1), hole.split(1)))], [], (hole > 0).expand_as(image)
    for frame, found in zip(truth, borrowed):
        steps = 255 * np.abs(found.colours - frame[:, found.row, found.column].numpy().T).max(1)
        wrong.extend(steps[found.trust > 0.9])
    assert len(wrong) > 150 and np.mean(np.array(wrong) > 2) < 0.05, (len(wrong), np.mean(np.array(wrong) > 2), max(wrong))
    mixed = torch.cat([*map(page.mix_borrowed, fill.split(1), borrowed)])
    assert (mixed - truth)[far].abs().mean() < 0.7 * (fill - truth)[far].abs().mean()


@pytest.mark.parametrize('kind', ['flat', 'columns', 'rows', 'hardly any noise'])
def test_featureless_backgrounds_take_no_harm(kind):
    rows, columns = np.mgrid[:96, :280].astype(np.float32)
    grey = {'flat': 0 * rows + 120, 'columns': columns * 0.9, 'rows': rows * 2.0, 'hardly any noise': 118 + texture(4, (96, 280), 0)[..., 0] // 60}[kind].round()
    for pan, walk in ((0, 4), (2, 4), (4, -2)):
        image, hole, truth = panned(10, np.stack([grey] * 3, -1), pan, walk)
        fill, inside = repeat_background(image, hole), (hole > 0).expand_as(image)
        mixed = borrow_clip(image, hole, fill)
        assert (mixed - truth)[inside].abs().mean() <= (fill - truth)[inside].abs().mean() + 0.5 / 255


# --- bad frames

@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 1), (3, 5), (40, 1), (1, 70), (2, 900), (33, 65)])
@pytest.mark.parametrize('holes', ['stripe', 'everywhere', 'nowhere', 'left', 'right', 'random'])
def test_any_size_and_any_hole(size, holes):
    random, (height, width) = torch.Generator().manual_seed(height_and_width(size)), size
    image, column = torch.rand(4, 3, *size, generator=random), torch.arange(width)
    rows = dict(stripe=(column >= width // 3) & (column < width // 2), everywhere=column >= 0, nowhere=column < 0, left=column < width // 4, right=column >= width - width // 4)
    hole = (torch.rand(4, 1, *size, generator=random) < 0.4) if holes == 'random' else rows[holes].expand(4, 1, *size)
    fill, kept = torch.rand(4, 3, *size, generator=random), ~hole.expand(4, 3, *size)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mixed = borrow_clip(image, hole.float(), fill, 2)
    assert torch.equal(mixed[kept], fill[kept]) and mixed.isfinite().all() and mixed.min() >= 0 and mixed.max() <= 1
    if holes in ('everywhere', 'nowhere', 'right'): assert torch.equal(mixed, fill)


def height_and_width(size): return 1000 * size[0] + size[1]


@pytest.mark.parametrize('spoil', [lambda x: x * float('nan'), lambda x: x * float('inf'), lambda x: 10 * x - 5, lambda x: 0 * x, lambda x: torch.rand(x.shape)])
def test_frames_that_are_no_pictures(spoil):
    image, hole, truth = panned(6, texture(3, (96, 280)), 2, 4)
    fill, kept = repeat_background(image, hole), (hole == 0).expand_as(image)
    image[3] = spoil(image[3])
    mixed = borrow_clip(image, hole, fill, 4)
    assert torch.equal(mixed[kept], fill[kept]) and mixed.isfinite().all() and mixed.min() >= 0 and mixed.max() <= 1
    assert not torch.equal(mixed, fill)  # the other frames still see each other


def test_motions_that_are_no_motions():
    "Corners that fall into one point, are mirrored, or come from nowhere: the view stands still, and can be turned round."
    def frame(pixels): return holed_frame(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, torch.zeros(1, 1, *pixels.shape[:2]))
    scene, believed = texture(5, (64, 96)), 0
    wild = np.random.default_rng(0).normal(0, 1, (40, 3, 3)) * [[0.4, 0.4, 9], [0.4, 0.4, 9], [5e-3, 5e-3, 0]] + np.eye(3)
    others = [cv2.warpPerspective(scene, motion, (96, 64)) for motion in wild]
    others += [cv2.warpAffine(scene, np.float32([[scale, 0, 40], [0, scale, 30]]), (96, 64)) for scale in (0.01, 0.05, 0.2, 9)]
    others += [scene[:, ::-1].copy(), scene[::-1].copy(), 0 * scene, texture(6, (64, 96), 0), np.roll(scene, 2, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for other in others:
            motion = view_motion(frame(scene), frame(other))
            believed += not np.array_equal(motion, np.eye(3))
            assert is_plausible(motion, (64, 96)) and np.isfinite(np.linalg.inv(motion)).all()
    assert believed > 0
    np.testing.assert_allclose(view_motion(frame(scene), frame(np.roll(scene, 2, 1)))[:2], [[1, 0, 2], [0, 1, 0]], atol=0.1)
    assert not any(is_plausible(np.float64(motion), (64, 96)) for motion in (np.zeros((3, 3)), np.diag([-1, 1, 1]), [[1, 0, 0], [1, 0, 0], [0, 0, 1]], [[np.nan] * 3] * 3))


# --- streams

@pytest.mark.parametrize('network, eyes', [*((network, 'both') for network in NETWORKS), ('repeat', 'left'), ('repeat', 'right')])
def test_a_stream_is_the_clip_as_a_whole(network, eyes):
    model, opened = load_inpainter(network, video=True), [*views(13, eyes=eyes)]
    filled, mixed = [*fill_stream(opened, model)], [*fill_stream(opened, model, borrow_frames=3)]
    assert len(mixed) == 13
    for eye in ('left', 'right'):
        def whole(frames, name):
            parts = torch.cat([getattr(frame, name) for frame in frames])
            return parts.flip(-1) if eye == 'left' else parts
        if getattr(opened[0], f'{eye}_mask') is None:
            assert torch.equal(whole(mixed, eye), whole(filled, eye))
            continue
        once = borrow_clip(whole(opened, eye), whole(opened, f'{eye}_mask'), whole(filled, eye), 3)
        assert torch.equal(whole(mixed, eye), once) and not torch.equal(once, whole(filled, eye))
        assert torch.equal(whole(mixed, f'{eye}_mask'), whole(filled, f'{eye}_mask'))


@pytest.mark.parametrize('frames, reach', [(0, 3), (1, 1), (1, 8), (2, 1), (2, 8), (5, 10 ** 15)])
def test_clips_shorter_than_the_reach(frames, reach):
    opened = [*views(frames)]
    mixed = [*fill_stream(opened, borrow_frames=reach)]
    assert len(mixed) == frames
    if frames == 1: assert all(torch.equal(*pair) for pair in zip(mixed[0], next(fill_stream(opened))))
    if frames > 2: assert torch.equal(mixed[0].right, next(fill_stream(opened, borrow_frames=frames - 1)).right)


def test_nothing_grows_with_the_length():
    seen, alive = [], []
    for _ in fill_stream(views(120, (12, 24), seen=seen), borrow_frames=3):
        alive.append(sum(any(part() is not None for part in frame) for frame in seen[-60:]) + sum(any(part() is not None for part in frame) for frame in seen[:-60]))
    assert len(alive) == 120 and max(alive[70:]) <= max(alive[30:70]) < 40


def test_one_and_two_threads():
    opened, before, made = [*views(10)], cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 2):
            cv2.setNumThreads(threads), torch.set_num_threads(threads)
            made.append(torch.cat([frame.right for frame in fill_stream(opened, borrow_frames=4)]))
    finally: cv2.setNumThreads(before)
    assert torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])


ENDS = 'close', 'forget', 'source fails', 'Ctrl-C'

@pytest.mark.parametrize('network, end', [*(('repeat', end) for end in ENDS), *(('pretrained', end) for end in ENDS[::2]),
                                          *(pytest.param('pretrained', end, marks=pytest.mark.long) for end in ENDS[1::2])])
def test_no_thread_stays(network, end):
    def broken(error):
        yield from views(12)
        raise error
    model = load_inpainter(network, video=True)
    before = looking()
    if end in ('source fails', 'Ctrl-C'):
        error = OSError if end == 'source fails' else KeyboardInterrupt
        with pytest.raises(error) as caught: list(fill_stream(broken(error), model, borrow_frames=3))
        assert caught.tb and not looking(before)  # though the error still holds on to all that was under way
        return
    stream = fill_stream(views(30), model, borrow_frames=3)
    next(stream)
    assert looking(before)
    if end == 'close': stream.close()
    del stream
    assert not looking(before)


def test_looking_up_stops_in_the_middle(monkeypatch):
    "When nothing more is wanted no job looks into more than the frame that it is looking into."
    begun, wanted, calls, real = threading.Event(), threading.Event(), [], page.follow_edges
    def follow(*given):
        calls.append(threading.get_ident())
        begun.set()
        wanted.wait(60)
        return real(*given)
    class Pool(common.ThreadPoolExecutor):
        def shutdown(self, **given):
            wanted.set()
            super().shutdown(**given)
    monkeypatch.setattr(page, 'follow_edges', follow)
    monkeypatch.setattr(common, 'ThreadPoolExecutor', Pool)
    image, hole, _ = panned(6, texture(3, (96, 280)), 2, 4)  # two jobs, which the queue takes at once
    def ends_early():
        yield from zip(image.split(1), hole.split(1))
        assert begun.wait(60)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): list(borrowing(ends_early(), 4))
    assert 1 <= len(calls) == len(set(calls))


# --- whole clips

@pytest.fixture(scope='module')
def film(tmp_path_factory):
    "A folder of frames, shots of 14 and 11 and one of a single frame, with their depth beside it."
    folder = tmp_path_factory.mktemp('film')/'frames'
    folder.mkdir(), (folder.parent/'depth').mkdir()
    backgrounds, card = (texture(11, (48, 140)), 255 - texture(12, (48, 140)) // 2, 0 * texture(13, (48, 140)) + 30), texture(14, (24, 20))
    for number, (shot, t) in enumerate((shot, t) for shot, frames in enumerate((14, 11, 1)) for t in range(frames)):
        pixels = backgrounds[shot][:, 2 * t:2 * t + 80].copy()
        pixels[16:40, 10 + 3 * t:30 + 3 * t] = card
        save_picture(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, folder/f'{number:03}.png')
        depth = np.zeros((48, 80), np.float32)
        depth[16:40, 10 + 3 * t:30 + 3 * t] = 1
        np.save(folder.parent/f'depth/{number:03}.npy', depth)
    return folder


WHOLE = OPTIONS | dict(checkpoint_file='repeat', format='full_sbs', divergence=8.0)


def test_nothing_crosses_a_cut(film, tmp_path, monkeypatch):
    lengths, real = [], clips.borrow_views
    def noted(*given):
        lengths.append(0)
        for frame in real(*given):
            lengths[-1] += 1
            yield frame
    monkeypatch.setattr(clips, 'borrow_views', noted)
    depth = film.parent/'depth'
    together, = stereo_clip(film, tmp_path/'together.mkv', depth_file=depth, **WHOLE)
    assert lengths == [14, 11, 1]
    alone, files = [], sorted(film.iterdir())
    for name, part in dict(a=files[:14], b=files[14:25], c=files[25:]).items():
        (tmp_path/name).mkdir()
        (tmp_path/f'depth {name}').mkdir()
        for file in part:
            (tmp_path/name/file.name).symlink_to(file)
            (tmp_path/f'depth {name}/{file.stem}.npy').symlink_to(depth/f'{file.stem}.npy')
        made, = stereo_clip(tmp_path/name, tmp_path/f'{name}.mkv', depth_file=tmp_path/f'depth {name}', **WHOLE)
        alone += pictures(made)
    assert pictures(together) == alone
    plain, = stereo_clip(film, tmp_path/'plain.mkv', depth_file=depth, **WHOLE | dict(borrow_frames=0))
    same = [*map(bytes.__eq__, pictures(plain), alone)]
    assert same[25] and not any(same[3:12]) and not any(same[16:23])


@pytest.mark.parametrize('network, reach', [('repeat', 3), *[pytest.param(network, reach, marks=pytest.mark.long) for network in NETWORKS for reach in (1, 8)]])
def test_goes_on_with_what_it_would_have_borrowed(film, tmp_path, monkeypatch, network, reach):
    monkeypatch.setattr(writing, 'PART_FRAMES', 8)
    options = WHOLE | dict(checkpoint_file=network, borrow_frames=reach, depth_file=str(film.parent/'depth'))
    whole, = stereo_clip(film, tmp_path/'whole.mkv', **options)
    assert kill_at(12, film, tmp_path/'out.mkv', options) < 0 and kill_at(13, film, tmp_path/'out.mkv', options) < 0
    assert pictures(stereo_clip(film, tmp_path/'out.mkv', **options)[0]) == pictures(whole)


def test_depth_formats_look_at_no_other_frame(film, tmp_path, monkeypatch):
    monkeypatch.delattr(clips, 'borrow_views')
    made, = stereo_clip(film, tmp_path/'depth.mkv', depth_file=film.parent/'depth', **WHOLE | dict(format='rgbd'))
    assert len(open_clip(made)) == 26


# --- silly numbers

def test_numbers_that_make_no_sense(film, tmp_path):
    for program, line in (('inpaint_stereo', (film, '-o', tmp_path/'out.mkv')), ('inpaint_benchmark', ('moving', film))):
        for number in ('-1', '2.5', 'eight', ''):
            done = run(program, *line, '--borrow-frames', number)
            assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and 'borrow' in done.stderr, done
    pixels, hole = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)
    for wrong in (lambda: StereoOptions(borrow_frames=-1), lambda: fill(pixels, hole, 'repeat', borrow_frames=-1), lambda: next(borrowing([], -1)),
                  lambda: make_views(pixels, hole, model='repeat', borrow_frames=-1), lambda: [*fill_stream(views(2), borrow_frames=-1)]):
        with pytest.raises(ValueError, match='0 or more'): wrong()
    assert not [*tmp_path.iterdir()]
