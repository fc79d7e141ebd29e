"""The page in headless Chromium, where that and its driver are installed."""

import json
import os
import shutil
import tempfile
import threading
import time

import numpy as np
import pytest

import brainstorm as bs
from brainstorm import layers
from brainstorm.viewer.page import render

pytestmark = pytest.mark.slow

ARGUMENTS = ["headless=new", "no-sandbox", "disable-gpu", "disable-quic"]
ARGUMENTS += ["no-first-run", "disable-background-networking", "disable-sync"]
ARGUMENTS += ["disable-component-update", "disable-dev-shm-usage"]
HOSTILE = "</script><img src=x onerror=\"document.title='gone'\"><b>&{{title}}"
WIDTHS = 375, 1280


@pytest.fixture(scope="module")
def driver(short_folder):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip("there is no Chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ARGUMENTS:
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tempfile.mkdtemp(dir=short_folder)}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(chromedriver, env={**os.environ, "TMPDIR": short_folder})
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def silent_console(driver):
    """No test may leave a message in the console of the browser."""
    driver.get_log("browser")
    yield
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert messages == []


@pytest.fixture
def browse(driver, tmp_path):
    """Opens a page at a width, and gives what calls JavaScript there."""

    def open_page(text, width=1280, dark=False):
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        set_up(driver, width, dark)
        driver.get((tmp_path / "page.html").as_uri())
        return lambda code, *arguments: driver.execute_script(code, *arguments)

    return open_page


def set_up(driver, width, dark=False):
    size = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait_for(condition):
    ends = time.monotonic() + 600
    while time.monotonic() < ends:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def lstm_page():
    inp = layers.Input({"default": ("T", "B", 3), "targets": ("T", "B", 1)})
    out = layers.SoftmaxCE("Output")
    lstm = layers.Lstm(6, peepholes=True, name="Lstm")
    inp >> lstm >> layers.FullyConnected(2, "linear", name="Projection") >> out
    inp - "targets" >> "targets" - out - "loss" >> layers.Loss()
    net = bs.Network.from_layer(inp)
    net.initialize(bs.Gaussian(), seed=1)
    rnd = np.random.RandomState(0)
    data = {"default": rnd.randn(20, 2, 3), "targets": rnd.randint(2, size=(20, 2, 1))}
    return net, bs.tools.view(net, data, title="An LSTM")


def image_page():
    inp, out = bs.tools.get_in_out_layers("classification", (12, 12, 3), 4)
    conv = layers.Convolution2D(5, (3, 3), name="Conv")
    full = layers.FullyConnected(7, name="Hidden")
    pool = layers.Pooling2D((2, 2), stride=(2, 2), name="Pool")
    net = bs.Network.from_layer(inp >> conv >> pool >> full >> out)
    net.initialize(bs.Gaussian(), seed=1)
    x = np.random.RandomState(0).rand(1, 3, 12, 12, 3)
    return net, bs.tools.view(net, {"default": x, "targets": np.ones((1, 3, 1))})


PAGES = {"lstm": lstm_page, "images": image_page}


def click(driver, layer):
    node = driver.find_element("css selector", f'.node[data-layer="{layer}"]')
    code = "arguments[0].scrollIntoView({block: 'center'})"
    driver.execute_script(code, node)
    node.find_element("css selector", ".name").click()


def paths(run):
    return run(
        "return [...document.querySelectorAll('[data-path]')]"
        ".map((card) => card.querySelector('h4').textContent)"
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_click_on_a_layer_shows_its_buffers(driver, browse, name):
    net, page = PAGES[name]()
    run = browse(page.html)
    drawn = run(
        "return [...document.querySelectorAll('.node .name')].map((n) => n.textContent)"
    )
    assert drawn == list(net.layers)
    assert run("return document.querySelectorAll('.edge').length") == len(
        page.snapshot["graph"]["edges"]
    )
    for layer in page.snapshot["layers"]:
        click(driver, layer["name"])
        assert run("return document.querySelector('h2').textContent") == layer["name"]
        assert sorted(paths(run)) == sorted(b["path"] for b in layer["buffers"])
        selected = run(
            "return [...document.querySelectorAll('[aria-pressed=true]"
            ".node')].map((n) => n.dataset.layer)"
        )
        assert selected == [layer["name"]]


COLOURS = """
const card = [...document.querySelectorAll('[data-path]')].find(
  (c) => c.dataset.path === arguments[0]);
const canvas = card.querySelector('canvas');
const { width, height } = canvas;
const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
return [width, height, [...pixels], canvas.getAttribute('aria-label')];
"""


def test_matrices_are_heat_maps_with_two_colours_for_two_signs(driver, browse):
    net, page = lstm_page()
    run = browse(page.html)
    click(driver, "Lstm")
    width, height, data, label = run(COLOURS, "Lstm.parameters.Rf")
    assert (width, height) == (6, 6)
    assert "Lstm.parameters.Rf" in label
    pixels = np.array(data).reshape(6, 6, 4)
    weights = net.get("Lstm.parameters.Rf")
    assert ((pixels[..., 0] > pixels[..., 2]) == (weights > 0)).all()
    largest = np.unravel_index(np.abs(weights).argmax(), weights.shape)
    full = [178, 24, 43] if weights[largest] > 0 else [33, 102, 172]
    assert pixels[largest].tolist() == [*full, 255]
    width, height, _, _ = run(COLOURS, "Lstm.internals.Fb")
    assert (width, height) == (20, 6)  # time from left to right


def test_filters_are_a_grid_of_pictures(driver, browse):
    net, page = image_page()
    run = browse(page.html)
    click(driver, "Conv")
    width, height, data, _ = run(COLOURS, "Conv.parameters.W")
    columns, rows = (width + 1) / 4, (height + 1) / 4
    assert columns * rows >= 5
    assert columns == int(columns)
    pixels = np.array(data).reshape(height, width, 4)
    first = net.get("Conv.parameters.W")[0]
    most = np.abs(net.get("Conv.parameters.W")).max()
    np.testing.assert_allclose(
        pixels[:3, :3, :3], 255 * (first + most) / (2 * most), atol=1.5
    )
    assert (pixels[:, 3, 3] == 0).all()  # between the pictures


def test_histograms_have_a_bar_for_each_bin(driver, browse):
    _, page = lstm_page()
    run = browse(page.html)
    click(driver, "Projection")
    (buffer,) = [
        b
        for layer in page.snapshot["layers"]
        for b in layer["buffers"]
        if b["path"] == "Projection.parameters.W"
    ]
    titles = run(
        "return [...document.querySelectorAll('[data-path=\"Projection."
        "parameters.W\"] .bar title')].map((t) => t.textContent)"
    )
    counts = buffer["contents"]["histogram"]["counts"]
    assert [int(title.rpartition(": ")[2]) for title in titles] == counts


def test_gates_of_a_unit_over_time(driver, browse):
    _, page = lstm_page()
    run = browse(page.html)
    click(driver, "Lstm")
    names = (
        "return [...document.querySelectorAll('#courses .courses code')].map("
        "(c) => c.textContent)"
    )
    shown = ["outputs.default", *(f"internals.{n}b" for n in "ZIFO")]
    assert run(names) == [*shown, "internals.Ca", "internals.Cb"]
    before = run("return document.querySelector('#courses path').getAttribute('d')")
    unit = driver.find_element("css selector", "#courses input")
    unit.clear()
    unit.send_keys("3")
    after = run("return document.querySelector('#courses path').getAttribute('d')")
    assert before != after
    driver.find_element(
        "xpath", "//div[@id='courses']//button[.='internals.dFb']"
    ).click()
    assert "internals.dFb" in run(names)


def test_the_search_finds_buffers(driver, browse):
    from selenium.webdriver.common.keys import Keys

    _, page = lstm_page()
    run = browse(page.html)
    driver.find_element("css selector", "body").send_keys("/")
    box = driver.switch_to.active_element
    assert box.get_attribute("id") == "search"
    box.send_keys("internals.fb")
    found = driver.find_elements("css selector", "#found button")
    assert [button.text for button in found] == ["Lstm.internals.Fb"]
    box.send_keys(Keys.ENTER)
    assert run("return document.querySelector('h2').textContent") == "Lstm"
    marked = "return document.querySelector('.card.found').dataset.path"
    assert run(marked) == "Lstm.internals.Fb"
    top = "return document.querySelector('.found').getBoundingClientRect().top"
    assert -200 < run(top) < 900
    box.clear()
    box.send_keys("nothing like it")
    assert driver.find_element("css selector", "#found").text == "Nothing of that name"
    box.send_keys(Keys.ESCAPE)
    assert not driver.find_element("css selector", "#found").is_displayed()


def test_the_keyboard_is_enough(driver, browse):
    from selenium.webdriver.common.keys import Keys

    net, page = lstm_page()
    run = browse(page.html)
    run("document.querySelector('.node').focus()")
    driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    title = "return document.querySelector('h2').textContent"
    assert run(title) == list(net.layers)[1]
    driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert run(title) == list(net.layers)[2]
    unnamed = run(
        "return [...document.querySelectorAll('button, input, .node, canvas')]"
        ".filter((e) => !e.textContent && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways(driver, browse, name, width):
    net, page = PAGES[name]()
    run = browse(page.html, width)
    for layer in [None, *net.layers]:
        run("select(arguments[0])", layer)
        assert run("return document.documentElement.scrollWidth") <= width, layer


def test_dark_mode(driver, browse):
    _, page = image_page()
    brightness = {}
    for dark in (False, True):
        run = browse(page.html, dark=dark)
        colours = run(
            "return ['backgroundColor', 'color'].map("
            "(name) => getComputedStyle(document.body)[name])"
        )
        brightness[dark] = [int(c.split("(")[1].split(",")[0]) for c in colours]
    assert brightness[False][0] > 200 > 60 > brightness[False][1]
    assert brightness[True][0] < 60 < 200 < brightness[True][1]


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_names_are_texts(driver, browse, width):
    _, page = image_page()
    snapshot = json.loads(
        json.dumps(page.snapshot).replace("Hidden", json.dumps(HOSTILE)[1:-1])
    )
    run = browse(render({**snapshot, "title": HOSTILE}), width)
    assert run("return document.title") == HOSTILE
    assert run("return document.querySelector('h1').textContent") == HOSTILE
    run("select(arguments[0])", HOSTILE)
    assert run("return document.querySelector('h2').textContent") == HOSTILE
    assert f"{HOSTILE}.parameters.W" in paths(run)
    driver.find_element("css selector", "#search").send_keys("img src")
    assert driver.find_element("css selector", "#found button").text == HOSTILE
    assert run("return document.querySelectorAll('img, b b, h1 *').length") == 0
    assert run("return document.documentElement.scrollWidth") <= width


def test_the_frame_of_notebooks(driver, browse):
    _, page = lstm_page()
    browse(f"<!DOCTYPE html><title>A notebook</title>{page._repr_html_()}")
    driver.switch_to.frame(driver.find_element("css selector", "iframe"))
    wait_for(lambda: driver.find_elements("css selector", ".node"))
    wait_for(lambda: driver.execute_script("return innerWidth * innerHeight > 0"))
    click(driver, "Lstm")
    assert driver.find_element("css selector", "h2").text == "Lstm"
    driver.switch_to.default_content()
    assert driver.title == "A notebook"


class Gate(bs.hooks.Hook):
    """Holds a training until it may go on."""

    def __init__(self):
        super().__init__(timescale="update")
        self.ahead = threading.Semaphore(0)

    def __call__(self, epoch_nr, update_nr, net, stepper, logs):
        assert self.ahead.acquire(timeout=300)


def test_the_page_follows_a_training(driver, net, data):
    inspector = bs.hooks.Inspector(timescale="update", verbose=False)
    inspector.SECONDS_BETWEEN_SNAPSHOTS = 0.0
    gate = Gate()
    trainer = bs.Trainer(bs.training.SgdStepper(0.05), verbose=False)
    for hook in (inspector, gate, bs.hooks.StopAfterEpoch(3)):
        trainer.add_hook(hook)
    batches = bs.Minibatches(5, **data)
    thread = threading.Thread(target=trainer.train, args=(net, batches))
    thread.start()
    try:
        url = wait_for(lambda: inspector.url)
        set_up(driver, 1280)
        driver.get(url)
        badge = driver.find_element("css selector", "#live")
        wait_for(lambda: "live, before training" in badge.text)
        click(driver, "Fc")
        for update in (1, 2):
            gate.ahead.release()
            wait_for(lambda n=update: f"live, update {n}" in badge.text)
            assert driver.find_element("css selector", "h2").text == "Fc"
        assert driver.find_elements("css selector", "#history svg.chart path")
    finally:
        for _ in range(20):
            gate.ahead.release()
        thread.join()
    wait_for(lambda: badge.text.startswith("ended"))
    # The browser tells that nobody answers any more.
    lost = [entry["message"] for entry in driver.get_log("browser")]
    assert all("data.json" in message for message in lost)
