"""report.html: what is in it, and how it behaves in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import CHROMIUM, ask
from made_runs import MadeRun, compared

from runner.contract.vocabulary import Verdict
from runner.report.report_files import write_report

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

pytestmark = pytest.mark.slow


def fill(run: MadeRun) -> MadeRun:
    """Enough instances for pages, a contradiction, and names that are no HTML."""
    for number in range(10, 90):
        run.add("baseline", number, Verdict.UNSAT, number / 10, (1000 * number,))
        run.add("fsdp", number, Verdict.UNSAT, number / 20, (600 * number, 500 * number))
    run.add("lirpa", 2, Verdict.UNSAT, 1.0, (10,), message="<script>alert(1)</script>")
    run.add("lirpa", 3, Verdict.ERROR, 1.0, message="<script>alert(1)</script>")
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fill(compared(tmp_path_factory.mktemp("results")))
    read = run.read()
    log = read.path / "logs" / "fsdp" / "digits" / "net_p4.rank1.log"
    log.parent.mkdir(parents=True)
    log.write_text("killed")
    log.with_name("net_p1.progress.csv").write_text("seconds,domains,open,bound\n1.0,9,9,-1.0\n")
    found = read.path / "baseline" / "digits" / "net_p2.counterexample.gz"
    found.parent.mkdir(parents=True)
    found.write_bytes(b"")
    return write_report(run.evidence(), read.path / "report")


def test_the_page_needs_no_other_file_and_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    markup = re.sub(
        r"<script type=\"module\">.*?</script>|<style>.*?</style>", "", text, flags=re.S
    )

    assert re.findall(r"(?:src|href)=\"(?!#|data:|\.\./)([^\"]*)", markup) == []
    assert "@import" not in text
    assert not re.search(r"url\((?![\"']?data:)", text)


def test_links_lead_to_the_files_of_the_run(page: Path) -> None:
    links = re.findall(r"href=\"(\.\./[^\"]+)\"", page.read_text(encoding="utf-8"))

    assert sorted(links) == [
        "../baseline/digits/net_p2.counterexample.gz",
        "../logs/fsdp/digits/net_p1.progress.csv",
        "../logs/fsdp/digits/net_p4.rank1.log",
    ]
    assert all((page.parent / link).is_file() for link in links)


def test_a_log_is_called_after_its_rank(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert re.findall(r"<a href=\"[^\"]*\.log\">([^<]*)</a>", text) == ["log 1"]


def test_messages_of_tools_are_text_and_no_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_what_each_strategy_bought_and_cost_is_said_in_a_sentence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert len(re.findall(r"<li>(?:fsdp|lirpa): [^<]+\.</li>", text)) == 2


def test_every_table_and_plot_is_a_file_too(page: Path) -> None:
    names = {path.name for path in page.parent.iterdir()}
    tables = {f"{name}.{kind}" for name in ("strategies", "instances", "ranks", "causes")
              for kind in ("md", "csv", "tex")}  # fmt: skip
    plots = {
        f"{name}.{kind}"
        for name in ("cactus", "time", "memory", "memory_by_kind", "phases", "speed_up")
        for kind in ("png", "svg")
    }

    assert tables | plots <= names


@needs_chromium
def test_the_page_loads_without_an_error(page: Path) -> None:
    told = ask(page, "return document.images.length")

    assert told == {"ready": True, "problems": [], "answer": 6}


# The times of a column as they stand on the page, after a click on its head.
SORT = """
const table = document.querySelector("#instances table");
const head = [...table.tHead.rows[0].cells].find((cell) => cell.innerText.trim() === "fsdp");
const times = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[5].dataset.order));
const result = [];
for (let click = 0; click < 2; click++) {
  head.click();
  await new Promise((resume) => setTimeout(resume, 100));
  result.push(times().filter((time) => time > 0));
}
return result;
"""


@needs_chromium
def test_a_click_on_a_head_sorts_by_number_and_another_turns_it_round(page: Path) -> None:
    up, down = ask(page, SORT)["answer"]

    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert min(up) < 1.0 < 8.0 <= max(down), "and not by the text: 10.0 comes after 9.0"


FILTER = """
const section = document.querySelector("#instances");
const input = section.querySelector(".dt-search input");
input.value = "p77";
input.dispatchEvent(new Event("input", { bubbles: true }));
input.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
await new Promise((resume) => setTimeout(resume, 600));
return [...section.querySelectorAll("tbody tr")].map((row) => row.cells[2].innerText.trim());
"""


@needs_chromium
def test_a_word_filters_the_instances(page: Path) -> None:
    assert ask(page, FILTER)["answer"] == ["p77"]


# The rows left by a word in the filter of one column.
FILTER_COLUMN = """
const heads = [...document.querySelectorAll("#instances thead th")];
heads.find((head) => head.innerText.trim() === "fsdp").querySelector(".dtcc-button").click();
const input = document.querySelector(".dtcc-dropdown input");
input.value = "error";
input.dispatchEvent(new Event("input", { bubbles: true }));
input.dispatchEvent(new Event("change", { bubbles: true }));
await new Promise((resume) => setTimeout(resume, 600));
return [...document.querySelectorAll("#instances tbody tr")].map((row) => row.cells[2].innerText);
"""


@needs_chromium
def test_a_verdict_filters_the_instances_by_one_strategy(page: Path) -> None:
    assert ask(page, FILTER_COLUMN)["answer"] == ["p4"]


@needs_chromium
def test_what_contradicts_is_red_and_at_the_top(page: Path) -> None:
    row = 'document.querySelector("#instances tbody tr")'
    told = ask(page, f"return [{row}.cells[2].innerText, getComputedStyle({row}.cells[0]).color]")

    assert told["answer"] == ["p2", "rgb(179, 38, 30)"]


LAYOUT = """
const root = document.documentElement;
const sizes = [...document.querySelectorAll("main p, main td, main th, main h2, nav a")]
  .map((element) => parseFloat(getComputedStyle(element).fontSize));
const outside = [...document.querySelectorAll("h1, h2, h3, p, nav a, .cards dd, figcaption")]
  .filter((element) => element.getBoundingClientRect().right > root.clientWidth + 1);
const broken = [...document.querySelectorAll("th")].filter((element) => {
  const words = document.createRange();
  words.selectNodeContents(element);
  return !/[\\s-]/.test(element.innerText.trim()) && words.getBoundingClientRect().height > 30;
});
return { width: root.clientWidth, scroll: root.scrollWidth, smallest: Math.min(...sizes),
  broken: broken.map((element) => element.innerText),
  outside: outside.map((element) => element.innerText) };
"""


@needs_chromium
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_readable_and_only_tables_scroll_sideways(page: Path, width: int) -> None:
    layout = ask(page, LAYOUT, width)["answer"]

    assert layout["scroll"] <= layout["width"] <= width
    assert layout["outside"] == []
    assert layout["broken"] == [], "a word over several lines"
    assert layout["smallest"] >= 12
