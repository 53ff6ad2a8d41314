"""The page in a real browser: headless Chromium, driven by Selenium. Skipped where there is no Chromium."""

import csv
import json
import shutil
import threading
from pathlib import Path

import pytest
from random_model import TEXTS, build_pipeline

from sgm_hf.analysis.attention import attention_page

app = pytest.importorskip("sgm_hf.programs.app.page")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium: install the packages chromium and chromium-driver"
)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,1400"
)
PATIENCE = 120  # seconds; a busy machine is slow
# Each would set window.ran if the page took it for markup or for a template.
HOSTILE = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>${window.ran=1}{{ran}}<b>bold</b>'
NAMES = (HOSTILE, "coffee", "oil", "gold")


@pytest.fixture(scope="module")
def predictor():
    return app.Predictor(build_pipeline(NAMES))


@pytest.fixture(scope="module")
def address(predictor, tmp_path_factory):
    """The page, served by this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page = app.build_page(predictor, [*TEXTS[:2], HOSTILE], title=HOSTILE)
        _, local_url, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
        yield local_url
        page.close()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, address):
    """The page as a user finds it."""
    driver.get(address)
    element(driver, "#text textarea")
    return driver


def wait_for(driver, condition):
    return WebDriverWait(driver, PATIENCE, poll_frequency=0.1).until(lambda _: condition())


def element(driver, selector):
    return wait_for(driver, lambda: driver.find_elements(By.CSS_SELECTOR, selector))[0]


def write(driver, selector, text):
    field = element(driver, selector)
    field.clear()
    field.send_keys(text)


def click(driver, selector):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element(driver, selector))
    element(driver, selector).click()


def open_tab(driver, name):
    tabs = driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")
    next(tab for tab in tabs if tab.text == name).click()


def upload(driver, file):
    open_tab(driver, "Several texts or a file")
    element(driver, "#file input[type=file]").send_keys(str(file))
    # The page sets the ending apart from the name.
    wait_for(driver, lambda: file.name in element(driver, "#file").text.replace("\n", ""))


def shown_labels(driver):
    return [tuple(row.text.split("\n")) for row in driver.find_elements(By.CSS_SELECTOR, "#labels li")]


def expected_labels(predictor, text, **settings):
    return [(entry["label"], f"{entry['score']:.2f}") for entry in predictor.classifier(text, **settings)]


def download(driver, downloads, name, selector):
    """Click and wait until the file is there."""
    file = downloads / name
    file.unlink(missing_ok=True)
    click(driver, selector)
    wait_for(driver, file.exists)
    return file


def nothing_ran(driver):
    return driver.execute_script("return window.ran === undefined && !document.querySelector('img[src=x]')")


def test_a_user_types_a_text_and_reads_its_labels_and_maps(page, predictor):
    for text in TEXTS[:2]:
        write(page, "#text textarea", text)
        click(page, "#predict")
        expected = expected_labels(predictor, text)
        wait_for(page, lambda expected=expected: shown_labels(page) == expected)
        maps = [block.text for block in page.find_elements(By.CSS_SELECTOR, "#maps details p")]
        assert maps == [text] * len(expected)
        assert page.find_element(By.CSS_SELECTOR, "#maps span[style*=background]").is_displayed()


def test_the_list_of_all_labels_unfolds_below_them(page, predictor):
    write(page, "#text textarea", TEXTS[1])
    click(page, "#predict")
    items = wait_for(page, lambda: page.find_elements(By.CSS_SELECTOR, "#ranks li"))
    assert not items[0].is_displayed()
    click(page, "#ranks summary")
    wait_for(page, lambda: items[0].is_displayed())
    expected = [entry for entry in predictor.classifier(TEXTS[1], top_k=None) if entry["score"] > 0]
    assert [item.text.split("\n")[0] for item in items] == [entry["label"] for entry in expected]
    assert nothing_ran(page)


def test_the_controls_change_the_labels(page, predictor):
    text = TEXTS[1]
    write(page, "#text textarea", text)
    page.find_elements(By.CSS_SELECTOR, "#decoding input")[1].click()
    threshold = wait_for(
        page, lambda: page.find_elements(By.CSS_SELECTOR, "#threshold input[type=number]:not([disabled])")
    )[0]
    threshold.clear()
    threshold.send_keys("0.05\t")
    write(page, "#beams input[type=number]", "2\t")
    click(page, "#predict")
    expected = expected_labels(predictor, text, num_beams=2, set_decoding="threshold", label_threshold=0.05)
    assert expected != expected_labels(predictor, text)
    wait_for(page, lambda: shown_labels(page) == expected)


def test_a_click_on_an_example_predicts_it(page, predictor):
    examples = page.find_elements(By.CSS_SELECTOR, "button.gallery-item")
    assert len(examples) == 3
    examples[1].click()
    wait_for(page, lambda: page.find_element(By.CSS_SELECTOR, "#text textarea").get_attribute("value") == TEXTS[1])
    expected = expected_labels(predictor, TEXTS[1])
    wait_for(page, lambda: shown_labels(page) == expected)


def test_a_user_uploads_a_file_and_downloads_its_predictions(page, predictor, downloads, tmp_path):
    file = tmp_path / "mine.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in [*TEXTS, HOSTILE])])
    upload(page, file)
    click(page, "#predict-all")
    wait_for(page, lambda: page.find_elements(By.CSS_SELECTOR, "#predictions a[download]"))
    jsonl = download(page, downloads, "predictions.jsonl", "#predictions a[download='predictions.jsonl']")
    records = [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records] == [*TEXTS, HOSTILE]
    for record in records:
        assert record["labels"] == [label for label, _ in expected_labels(predictor, record["text"])]
    assert HOSTILE in element(page, "#table").text
    assert nothing_ran(page)


def test_a_user_types_several_texts(page, downloads):
    open_tab(page, "Several texts or a file")
    write(page, "#lines textarea", "\n".join(TEXTS))
    click(page, "#predict-all")
    wait_for(page, lambda: page.find_elements(By.CSS_SELECTOR, "#predictions a[download]"))
    table = download(page, downloads, "predictions.csv", "#predictions a[download='predictions.csv']")
    with table.open(encoding="utf-8", newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == TEXTS


def test_the_downloaded_maps_are_a_page_of_their_own(page, downloads):
    write(page, "#text textarea", HOSTILE)
    click(page, "#predict")
    wait_for(page, lambda: shown_labels(page))
    file = download(page, downloads, "attention.html", "#download-maps")
    page.get(file.as_uri())
    assert page.find_element(By.CSS_SELECTOR, "details p").text == HOSTILE
    assert nothing_ran(page)


def test_script_in_a_text_a_label_or_a_title_is_shown_and_does_not_run(page):
    write(page, "#text textarea", HOSTILE)
    click(page, "#predict")
    wait_for(page, lambda: shown_labels(page))
    assert shown_labels(page)[0][0] == HOSTILE
    assert page.find_element(By.CSS_SELECTOR, "#maps summary").text.startswith(HOSTILE)
    assert page.find_element(By.CSS_SELECTOR, "#maps p").text == HOSTILE
    assert page.find_element(By.CSS_SELECTOR, "h1").text == HOSTILE
    assert nothing_ran(page)


def test_script_in_an_error_is_shown_and_does_not_run(page, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f'"{HOSTILE.replace(chr(34), chr(34) * 2)}"\nx\n', encoding="utf-8")
    upload(page, file)
    click(page, "#predict-all")
    message = wait_for(page, lambda: element(page, "[data-testid=toast-body]").text)
    assert "mine.csv" in message
    assert HOSTILE[:20] in message  # a long name is shown in part
    assert nothing_ran(page)


def test_the_check_for_running_scripts_can_fail(page):
    page.execute_script("document.querySelector('#maps').innerHTML = arguments[0]", HOSTILE)
    wait_for(page, lambda: not nothing_ran(page))


def test_a_page_of_maps_runs_no_script_even_with_markup_in_it(driver, tmp_path):
    file = tmp_path / "map.html"
    broken = attention_page("a", []).replace("</body>", f"{HOSTILE}</body>")
    file.write_text(broken, encoding="utf-8")
    driver.get(file.as_uri())
    assert driver.find_element(By.TAG_NAME, "b").text == "bold"
    assert driver.execute_script("return window.ran === undefined")


def test_an_empty_text_is_reported(page):
    click(page, "#predict")
    wait_for(page, lambda: "There is no text" in element(page, "[data-testid=toast-body]").text)


def test_a_text_of_5_mb_gets_labels(page):
    page.execute_script(
        "const box = document.querySelector('#text textarea');"
        "box.value = 'oil price , '.repeat(420000); box.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    click(page, "#predict")
    wait_for(page, lambda: shown_labels(page))
    assert "characters not read: 5,0" in page.find_element(By.CSS_SELECTOR, "#maps").text


def test_visitors_at_the_same_time_get_their_own_answers(address, predictor):
    client = pytest.importorskip("gradio_client").Client(address, verbose=False, download_files=False)
    texts = TEXTS * 4
    answers: dict[int, str] = {}

    def ask(index):
        answers[index] = client.predict(texts[index], 3, "best_sequence", 0.5, api_name="/predict")[0]

    visitors = [threading.Thread(target=ask, args=(index,)) for index in range(len(texts))]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(timeout=PATIENCE)
    for index, text in enumerate(texts):
        assert answers[index] == app.show_text(predictor, text, 3, "best_sequence", 0.5)[0]


def test_the_page_needs_no_other_host(page, address):
    names = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(names) > 10
    assert [name for name in names if not name.startswith((address, "blob:", "data:"))] == []
    failed = [entry["message"] for entry in page.get_log("browser") if "ERR_" in entry["message"]]
    assert failed == []
