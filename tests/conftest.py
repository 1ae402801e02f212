"""What holds for all tests: long trials are left out unless asked for (`pytest --long`), and Ctrl-C can be tried.

A shell that starts a command in the background lets it ignore Ctrl-C, and so what that command starts in turn.
"""
import gc, os, shutil, signal

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption('--long', action='store_true', help='also run the trials marked long')


def pytest_configure(config):
    if config.getoption('--long'): os.environ['INPAINT_LONG'] = '1'  # for modules that decide by themselves
    config.addinivalue_line('markers', 'long: a longer form of a test that runs without it too')


def pytest_collection_modifyitems(config, items):
    if config.getoption('--long'): return
    skip = pytest.mark.skip(reason='a longer form of another test: pytest --long')
    for item in items:
        if 'long' in item.keywords: item.add_marker(skip)


def pytest_collection_finish():
    "Whoever reads a clip collects garbage afterwards: not among the modules and tests that are there already, a quarter of a second each time."
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread():
    "Torch begins with the same random numbers and sums in the same order; for a whole file: `pytestmark`."
    import torch
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pale(monkeypatch):
    """`loss.png` is an empty picture: each epoch of a tiny network would spend more time on drawing it than on everything else.

    The figure is made all the same. Real ones: `test_eval_pictures_and_loss_picture`, `test_files_and_columns`, and whatever runs as a process of its own.
    """
    from inpaint_nb import watch
    monkeypatch.setattr(watch, 'png', lambda figure: b'')


@pytest.fixture
def tmp_path(tmp_path, request):
    "Is removed once its test has passed: what all tests leave behind would be gigabytes."
    failed = request.session.testsfailed
    yield tmp_path
    if request.session.testsfailed == failed: shutil.rmtree(tmp_path, ignore_errors=True)
