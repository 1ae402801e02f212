"""A look at a clip before the long run."""
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inpaint_nb import cli
from inpaint_nb.common import HOLE_COLOUR
from inpaint_nb.preview import middle_frames, preview_clip
from inpaint_nb.writing import part_of
from inpaint_nb.clips import open_clip
from inpaint_nb.encoding import EncodingOptions
from inpaint_nb.scenes import random_clip, random_scene
from inpaint_nb.stereo import StereoModels, StereoOptions, save_picture
from test_stereo import write_film
from making import to_pixels

LINE = '--checkpoint-file', 'repeat', '--gpu', '-1'


@pytest.fixture(scope='module')
def films(tmp_path_factory) -> Path:
    "Two films, the first grows brighter; and a photo."
    root = tmp_path_factory.mktemp('films')
    for name, seed in (('a', 5), ('b', 6)):
        frames = [to_pixels(scene.image) for scene in random_clip(seed, 24, (96, 128))]
        for number, frame in enumerate(frames): frame[:32] = 10 * number
        write_film(root/f'{name}.mp4', frames)
    save_picture(random_scene(1, size=(48, 64)).image, root/'photo.png')
    return root


def test_sheet(films, tmp_path):
    "Each row is the frame it says, and what is pink is a hole that the other columns have filled."
    found = preview_clip(films/'a.mp4', tmp_path, 3, StereoModels(StereoOptions('repeat', divergence=6, gpu=-1, quality=100)))
    sheet = np.asarray(Image.open(found.path)).astype(int)
    assert found.path == tmp_path/'a_preview.jpg' and found.frames == 24 and found.took > 0 and sheet.shape == (3 * 320, 1600, 3)
    for row, number in enumerate((4, 12, 20)):
        pixels = sheet[row * 320 + 20:(row + 1) * 320]
        assert abs(pixels[:80, :300].mean() - 10 * number) < 6
        pink = (np.abs(pixels - np.array(HOLE_COLOUR) * 255).max(-1) < 60)
        assert pink[:, 1200:].sum() > 50 and pink[:, :800].sum() < pink[:, 1200:].sum() / 20


def test_part_and_turned(films, tmp_path):
    part = part_of(open_clip(films/'a.mp4'), EncodingOptions(start_time='0.5'))
    assert [part.numbers[number] for number in middle_frames(part, 2)] == [15, 21]
    assert cli.inpaint_stereo([str(films/'a.mp4'), '-o', str(tmp_path/'x.png'), '--preview', '1', '--rotate-left', '--start-time', '0.5', *LINE]) == 0
    assert Image.open(tmp_path/'x.png').size == (1600, 20 + round(400 * 128 / 96))


def test_all_clips_of_a_folder(films, tmp_path, capsys):
    assert cli.inpaint_stereo([str(films), '-o', str(tmp_path/'out'), '--preview', '2', *LINE]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in (tmp_path/'out').iterdir()) == ['a_preview.jpg', 'b_preview.jpg']
    assert len(said) == 2 and all('24 frames at' in line and 'are about 0:00:' in line for line in said)


@pytest.mark.parametrize('line, status, says', [('a.mp4 -o out --preview 0', 2, 'not 0'), ('a.mp4 -o out.mp4 --preview 2', 2, 'a preview is written as'), ('photo.png b.mp4 -o out --preview x', 2, 'invalid int'),
                                                ('photo.png photo.png -o out --preview 2', 1, 'no clips in'), ('photo.png -o out --preview 2', 1, 'no clips in photo.png'), ('nowhere.mp4 -o out --preview 2', 1, 'nowhere.mp4')])
def test_bad_lines(films, monkeypatch, capsys, line, status, says):
    monkeypatch.chdir(films)
    try: given = cli.inpaint_stereo([*line.split(), *LINE])
    except SystemExit as end: given = end.code
    assert given == status and says in capsys.readouterr().err and not (films/'out').exists()
