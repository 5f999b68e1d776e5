"""The page in headless Chromium. Needs the extra `browser` and a Chromium; skips where there is none."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm_eval.page import contents as module
from heartllm_eval.page.assemble import page as assemble
from heartllm_eval.page.contents import Wanted, collect
from heartllm_eval.page.gather import gather
from heartllm_eval.page.shading import Shade
from heartllm_eval.schema import Request
from heartllm_eval.testing import invented_requests

pytestmark = pytest.mark.slow
playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs a browser client: pip install 'heartllm[browser]'"
)

Make = Callable[..., Path]
Answers = Callable[..., Callable[[int, Request], str]]
Open = Callable[..., Any]
READY = "document.documentElement.dataset.ready !== undefined"  # and how many ms after it was opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no Chromium on the path")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
    with playwright.sync_playwright() as client:
        started = client.chromium.launch(executable_path=found[0], args=sandbox)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file as a new visitor; in the end, nothing was said on the console and nothing else was loaded."""
    said: list[str] = []
    loaded: list[str] = []
    contexts = []

    def opened(path: Path, address: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options}))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: said.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        tab.on("request", lambda request: loaded.append(request.url))
        tab.goto(f"{path.as_uri()}{address}")
        wait(tab, READY)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith("file:") and ".html" in url for url in loaded), loaded


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, write_run: Make, right_but: Answers) -> tuple[Path, Path]:
    folder, requests = tmp_path_factory.mktemp("runs"), invented_requests("test", 24)
    return (
        write_run(folder / "a", requests, right_but(4)),
        write_run(folder / "b", requests, right_but(3, "no idea either"), systems=("model",)),
    )


@pytest.fixture(scope="module")
def both(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs with one ECG: sinus waves of 1 mV at 1 Hz, and a gap in V1."""
    from heartllm.ecg.recording import Recording

    signal = np.tile(np.sin(2 * np.pi * np.arange(2500) / 250), (12, 1)).astype(np.float32)
    signal[6, 1000:1200] = np.nan
    read = {("ptbxl", "test0v0"): Recording(signal, 250.0)}
    maps = {("invented_qa", "test0v0-0"): Shade(np.repeat([0.0, 2.0, 1.0], 8), np.full(24, 0.01))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.ecgs, "read", lambda *args, **options: read)
        patch.setattr(module.shading, "shades", lambda *args, **options: maps)
        found = collect(gather([str(path) for path in runs]), Wanted(ecgs=1, shade=Path("checkpoint")))
    path = tmp_path_factory.mktemp("pages") / "both.html"
    path.write_bytes(assemble(found))
    return path


def wait(tab: Any, expression: str, seconds: float = 20) -> None:
    """Until an expression is true; the client's own way needs eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, f"still not: {expression}"
        tab.wait_for_timeout(10)


def shows(tab: Any, count: str) -> None:
    """Until the filters leave so many samples."""
    wait(tab, f"document.querySelector('.count')?.innerText.split('\\n')[0] === '{count}'")


def test_tables_are_there_at_once(both: Path, open_page: Open) -> None:
    tab = open_page(both)
    assert tab.locator("table").first.locator("tbody tr").first.inner_text().split("\t")[:2] == [
        "model",
        "50.0 [40.0, 60.0]",
    ]
    assert "Invented <b>questions</b>" in tab.locator("h2").first.inner_text()
    assert tab.get_by_text("difference", exact=True).count() >= 1


def test_filters(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=samples")
    shows(tab, "144 of 144 samples")
    tab.select_option("#filter-show", "wrong")
    shows(tab, "36 of 144 samples")
    tab.select_option("#filter-type", "single-query")
    shows(tab, "12 of 144 samples")
    tab.get_by_role("button", name="Clear").click()
    tab.select_option("#filter-b", "b:model")
    tab.select_option("#filter-show", "better")
    shows(tab, "36 of 144 samples")  # A is right where 4 does not divide the number, B wrong where 3 does
    tab.select_option("#filter-show", "all")
    tab.fill("#filter-patient", "2")
    tab.press("#filter-patient", "Enter")
    shows(tab, "6 of 144 samples")
    tab.get_by_role("button", name="Clear").click()
    tab.fill("#filter-q", "IDEA EITHER")
    wait(tab, "document.querySelector('.count').innerText.startsWith('48 of')")
    assert tab.evaluate("document.activeElement.id") == "filter-q"


def test_a_sample_opens_by_click_key_and_link(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=samples")
    tab.locator(".row").nth(2).click()
    tab.wait_for_selector("#sample-title")
    assert tab.locator("#sample-title").inner_text() == "Sample 3"
    tab.keyboard.press("j")
    wait(tab, "document.querySelector('#sample-title').innerText === 'Sample 4'")
    tab.keyboard.press("k")
    tab.keyboard.press("ArrowUp")
    wait(tab, "document.querySelector('#sample-title').innerText === 'Sample 2'")
    answers = tab.locator(".answer .said").all_inner_texts()
    assert len(answers) == 3
    link = tab.get_by_role("link", name="link to this sample").get_attribute("href")
    other = open_page(both, link)
    other.wait_for_selector("#sample-title")
    assert other.locator("#sample-title").inner_text() == "Sample 2"
    assert other.locator(".answer .said").all_inner_texts() == answers
    other.keyboard.press("?")
    assert other.locator("dialog h2").inner_text() == "Keyboard"


def test_a_cell_of_the_confusion_opens_its_samples(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=confusion")
    cells = tab.locator(".confusion td button")
    assert sum(int(text) for text in cells.all_inner_texts()) == 144
    wanted = int(cells.first.inner_text())
    cells.first.click()
    tab.wait_for_selector(".count")
    shows(tab, f"{wanted} of 144 samples")


def test_the_ecg_is_drawn_measured_and_moved(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=samples&n=1")
    tab.wait_for_selector("svg.ecg")
    drawing = tab.locator("svg.ecg")
    assert sorted(
        set(drawing.locator("path[data-lead]").evaluate_all("nodes => nodes.map((n) => n.dataset.lead)"))
    ) == sorted(("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"))
    assert drawing.get_attribute("viewBox") == "0.000 0.000 270.000 115.000"
    path = drawing.locator("path[data-lead=II]").last.get_attribute("d")
    points = np.array([part.split() for part in path[1:].split("L")], dtype=float)
    assert np.ptp(points[:, 1]) == pytest.approx(20, abs=0.11)  # 2 mV at 10 mm/mV
    assert np.ptp(points[:, 0]) == pytest.approx(250, abs=0.11)  # 10 s at 25 mm/s
    tab.get_by_role("button", name="12 × 1").click()
    assert drawing.locator("path[data-lead=V1]").get_attribute("d").count("M") == 2
    tab.keyboard.press("+")
    wide = float(drawing.get_attribute("viewBox").split()[2])
    assert wide == pytest.approx(180)
    tab.keyboard.press("0")
    tab.keyboard.press("c")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    tab.mouse.move(box["x"] + 200, box["y"] + 60)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 200 + 25 * box["width"] / 270, box["y"] + 60, steps=4)
    tab.mouse.up()
    milliseconds = int(tab.locator(".reading").inner_text().split()[0])
    assert milliseconds == pytest.approx(1000, abs=12)


def test_the_ecg_is_shaded_by_what_the_answer_rests_on(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=samples&n=1")
    tab.wait_for_selector("svg.ecg")
    bars = tab.locator("svg.ecg .shade rect")
    assert bars.count() == 0
    tab.get_by_role("button", name="Shade by occlusion").click()
    shown = bars.evaluate_all(
        "nodes => nodes.map((n) => ['x', 'width', 'fill-opacity'].map((a) => +n.getAttribute(a)))"
    )
    assert shown == [[98.33, 83.33, 0.75], [181.67, 83.33, 0.38]]  # 25 mm/s from 15 mm on, in thirds of ten seconds
    assert "2.00 nats" in tab.locator(".shade-note").inner_text()
    tab.get_by_role("button", name="Shade by attention").click()
    assert bars.count() == 1
    assert "1.00 %" in tab.locator(".shade-note").inner_text()
    tab.get_by_role("button", name="Shade by attention").click()
    assert bars.count() == 0


def test_nothing_that_a_model_says_runs(
    tmp_path: Path, write_run: Make, attacks: tuple[str, ...], open_page: Open, runs: tuple[Path, Path]
) -> None:
    requests = [
        dataclasses.replace(part, question=attacks[at % 6], background=attacks[0], references=(attacks[(at + 1) % 6],))
        for at, part in enumerate(invented_requests("test", 4))
    ]
    folder = write_run(tmp_path / "a", requests, lambda at, _: attacks[at % 6])
    path = tmp_path / "attacks.html"
    path.write_bytes(assemble(collect(gather([str(folder)]), Wanted(title=attacks[0]))))
    tab = open_page(path)
    assert tab.title() == attacks[0]
    for view in ("results", "confusion", "about"):
        tab.evaluate(f"location.hash = 'view={view}'")
        tab.wait_for_timeout(100)
    for number in range(1, 7):
        tab.evaluate(f"location.hash = 'view=samples&n={number}'")
        wait(tab, f"document.querySelector('#sample-title')?.innerText === 'Sample {number}'")
        if number < 6:
            assert tab.locator(".answer .said").first.inner_text() == attacks[number - 1]
    shown = tab.locator(".answer .said").first.inner_text()
    assert "\\u202e" in shown
    assert "\\u0000" in shown
    assert tab.evaluate("window.ran") is None
    assert tab.locator("iframe, img, main script, svg[onload]").count() == 0


def test_the_policy_stops_what_the_scripts_would_let_through(both: Path, browser: Any) -> None:
    """Were a text ever taken for markup: the browser refuses to make it, to run it, and to load anything."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(both.as_uri())
    wait(tab, READY)
    blocked = tab.evaluate(
        """() => { try { document.body.innerHTML = "<img src=x onerror='window.ran=1'>"; return false; }
                   catch (error) { return error instanceof TypeError; } }"""
    )
    assert blocked
    tab.evaluate("""() => { const script = document.createElement("script");
        try { script.textContent = "window.ran = 2"; } catch { script.append("window.ran = 2"); }
        document.body.append(script); }""")
    assert tab.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert tab.evaluate("window.ran") is None
    context.close()


def test_dark_and_print(both: Path, open_page: Open) -> None:
    tab = open_page(both, "#view=samples&n=1", color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(colour)
    tab.keyboard.press("d")
    light = tab.evaluate(colour)
    assert (dark, light) == ("rgb(23, 24, 26)", "rgb(253, 252, 250)")
    tab.emulate_media(media="print")
    assert tab.evaluate(colour) == "rgb(255, 255, 255)"
    assert not tab.locator(".filters").is_visible()
    assert tab.locator("svg.ecg").is_visible()
    assert tab.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("view", ["results", "confusion", "samples", "samples&n=1&b=b:model", "about"])
def test_accessible(view: str, width: int, scheme: str, both: Path, open_page: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: 'heartllm[browser]'").Axe()
    tab = open_page(both, f"#view={view}", viewport={"width": width, "height": 800}, color_scheme=scheme)
    if "n=1" in view:
        tab.wait_for_selector("svg.ecg")
    found = axe.run(tab).response["violations"]
    told = [f"{part['impact']}: {part['id']}: {part['nodes'][0]['html'][:150]}" for part in found]
    assert [line for line in told if line.startswith(("serious", "critical"))] == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def test_forty_thousand_samples_are_fluent(
    tmp_path: Path, write_run: Make, right_but: Answers, open_page: Open
) -> None:
    requests = [
        dataclasses.replace(part, id=f"{part.id}-{copy}", question=f"{part.question} Number {copy}.")
        for part in invented_requests("test", 200)
        for copy in range(34)
    ][:40_000]
    folder = write_run(tmp_path / "a", requests, right_but(4))
    path = tmp_path / "large.html"
    path.write_bytes(assemble(collect(gather([str(folder)]), Wanted())))
    times = []
    for _ in range(3):
        tab = open_page(path, "#view=samples")
        times.append(tab.evaluate("Number(document.documentElement.dataset.ready)") / 1000)
    print(f"40,000 samples, {path.stat().st_size / 1e6:.1f} MB: ready in {min(times):.2f} s")
    assert min(times) < 2
    assert tab.locator(".row").count() < 40
    tab.evaluate("document.querySelector('.list').scrollTop = 1e9")
    wait(tab, "document.querySelector('#row-39999 .line')?.innerText.includes('Number')")
    assert tab.locator(".row").count() < 40
    began = time.monotonic()
    tab.select_option("#filter-show", "wrong")
    shows(tab, "10,000 of 40,000 samples")
    filtered = time.monotonic() - began
    tab.fill("#filter-q", "number 33.")
    wait(tab, "!document.querySelector('.count').innerText.startsWith('10,000')")
    left = sum(at % 4 == 0 and "Number 33." in part.question for at, part in enumerate(requests))
    shows(tab, f"{left:,} of 40,000 samples")
    print(f"filtered in {filtered:.2f} s, searched in {time.monotonic() - began - filtered:.2f} s")
