"""The pages as people meet them: JupyterLab in Chromium runs the cells down to the widget, sliders are moved, and one picture answers.

Needs Chromium (`apt-get install chromium`) and playwright. Pages are tried in a copy, since JupyterLab saves what it runs.
"""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

NBS = Path(__file__).parents[1]/'nbs'
PAGES = ['00_warp', '01_masks', '04_train', *(pytest.param(name, marks=pytest.mark.long) for name in ('03_models', '05_gan', '06_stereo'))]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='Chromium is not installed')

OPTIONS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
           '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage')
LAB = ('--no-browser', '--allow-root', '--LabApp.expose_app_in_browser=True', '--IdentityProvider.token=',
       '--ServerApp.disable_check_xsrf=True', '--ServerApp.port_retries=0')
ERRORS = """() => jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, number) => {
    const outputs = cell.model.outputs
    if (!outputs) return []
    const all = Array.from({length: outputs.length}, (_, i) => outputs.get(i).toJSON())
    return all.filter(o => o.output_type == 'error').map(o => `cell ${number}: ${o.ename}: ${o.evalue}`)
})"""
RUN = """async () => {
    const page = jupyterapp.shell.currentWidget.content
    page.activeCellIndex = page.widgets.findLastIndex(cell => /^explore\\(|^browser$/m.test(cell.model.sharedModel.source))
    await jupyterapp.commands.execute('notebook:run-all-above')
    await jupyterapp.commands.execute('notebook:run-cell')
}"""
SECONDS = 240  # that one thing on a page may take on a busy computer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(folder: Path, home: Path):
    "JupyterLab over `folder`, with no settings but its own; gives its address."
    settings = home/'settings/@jupyterlab/notebook-extension'
    settings.mkdir(parents=True)
    (settings/'tracker.jupyterlab-settings').write_text(json.dumps(dict(windowingMode='none', autoStartDefaultKernel=True)))
    port = free_port()
    env = os.environ | dict(JUPYTER_CONFIG_DIR=str(home/'config'), JUPYTER_RUNTIME_DIR=str(home/'runtime'), IPYTHONDIR=str(home/'ipython'),
                            JUPYTERLAB_SETTINGS_DIR=str(home/'settings'), JUPYTERLAB_WORKSPACES_DIR=str(home/'workspaces'), OMP_NUM_THREADS='1')
    log = (home/'lab.log').open('w')
    process = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *LAB, f'--port={port}', f'--ServerApp.root_dir={folder}'],
                               stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        address, late = f'http://127.0.0.1:{port}', time.monotonic() + 120
        while True:
            try:
                urlopen(f'{address}/api', timeout=5)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < late, (home/'lab.log').read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try: process.wait(20)
        except subprocess.TimeoutExpired: os.killpg(process.pid, signal.SIGKILL)
        log.close()


@pytest.fixture(scope='module')
def pages():
    "The address of JupyterLab over a copy of the notebooks, that copy, and a window of 1300 pixels."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        root = Path(root)
        shutil.copytree(NBS, root/'nbs')
        with jupyterlab(root/'nbs', root) as address, playwright.sync_playwright() as play:
            window = play.chromium.launch_persistent_context(
                root/'browser', executable_path=CHROMIUM, headless=False, args=OPTIONS, viewport=dict(width=1300, height=900))
            yield address, root/'nbs', window
            window.close()


@contextmanager
def opened(pages, name: str):
    "A page whose cells have been run, down to its last widget; those below it `nbdev_test` runs."
    address, _, window = pages
    page = window.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.goto(f'{address}/lab/tree/{name}.ipynb?reset')
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 1")
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
    page.evaluate(RUN)
    page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'")
    yield page
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


def panels_of(page) -> list:
    "The panels of sliders and a picture, once they all stand there: one for each cell that asks for one."
    wanted = page.evaluate("""() => jupyterapp.shell.currentWidget.content.widgets.filter(
        cell => cell.model.type == 'code' && /^explore\\(/m.test(cell.model.sharedModel.source)).length""")
    panels = page.locator('.jp-OutputArea-output .widget-vbox:has(> .widget-image)')
    if not wanted: return []
    panels.nth(wanted - 1).wait_for()
    assert panels.count() == wanted
    return panels.all()


def try_sliders(page) -> int:
    "Move every slider of every panel: one picture, which answers, and no word of an error. Returns how many were moved."
    moved = 0
    for panel in panels_of(page):
        panel.scroll_into_view_if_needed()
        pictures = panel.locator('img')
        area = panel.locator('xpath=ancestor::div[contains(@class, "jp-OutputArea ")][1]')
        assert area.locator('img').count() == pictures.count() == 1, 'a picture is drawn twice'
        for label in panel.locator('.widget-label').all():
            assert label.evaluate('label => label.scrollWidth <= label.clientWidth'), f'cut short: {label.inner_text()}'
        for slider in panel.locator('.noUi-handle').all():
            before = pictures.get_attribute('src')
            slider.focus()
            for _ in range(3): slider.press('ArrowRight')
            if slider.get_attribute('aria-valuenow') == slider.get_attribute('aria-valuemax'): slider.press('ArrowLeft')
            page.wait_for_function('([picture, before]) => picture.src != before', arg=[pictures.element_handle(), before])
            moved += 1
        page.wait_for_function("panel => [...panel.querySelectorAll(':scope > .widget-label')].every(word => !word.innerText.startsWith('drawing'))",
                               arg=panel.element_handle())
        said = panel.locator(':scope > .widget-label').all_inner_texts()
        assert not any('Error' in word for word in said), said
    return moved


@pytest.mark.parametrize('name', PAGES)
def test_page(pages, name):
    with opened(pages, name) as page:
        assert page.evaluate(ERRORS) == []
        assert try_sliders(page) > 0


def test_page_of_records(pages):
    "Records are turned over with buttons."
    with opened(pages, '02_datasets') as page:
        assert page.evaluate(ERRORS) == []
        picture = page.locator('.widget-vbox > img.widget-image')
        before = picture.get_attribute('src')
        page.get_by_role('button', name='Next', exact=True).click()
        page.wait_for_function('([picture, before]) => picture.src != before', arg=[picture.element_handle(), before])
        assert picture.count() == 1


def test_a_broken_widget_is_seen(pages):
    "What the tests above would not let pass: a function that raises, once its slider is moved, and a picture drawn twice."
    address, folder, _ = pages
    broken = dict(json.loads((folder/'11_show.ipynb').read_text()), cells=[dict(
        cell_type='code', id='broken', metadata={}, outputs=[], execution_count=None, source=source) for source in (
            'import torch\nfrom ipywidgets import IntSlider, interact\nfrom inpaint_nb.show import explore, show_images',
            'def draw(number=0):\n    if number: raise ValueError("no such number")\n    return show_images([torch.zeros(3, 8, 8)])',
            'explore(draw, number=IntSlider(max=9))')])
    (folder/'broken.ipynb').write_text(json.dumps(broken))
    with opened(pages, 'broken') as page:
        page.set_default_timeout(5000)
        with pytest.raises((AssertionError, playwright.TimeoutError)): try_sliders(page)
        assert 'ValueError: no such number' in page.locator('.widget-vbox > .widget-label').inner_text()
