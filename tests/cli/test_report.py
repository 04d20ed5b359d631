"""The page: what it holds, and what its controls do in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers.commands import TINY
from PIL import Image

from rpcnn.labels import CIHP
from rpcnn.page.items import TAGS, Item, Maps, compare, instances_of
from rpcnn.page.write import SHOWN, PageWriter
from rpcnn.predict import main as predict
from rpcnn.report import main as report
from rpcnn.train import main as train

ARM, OTHER_ARM, CLOTHES = 14, 15, 5


def person(shape, top, left, size=20, label=CLOTHES):
    maps = np.zeros(shape, np.uint8)
    maps[top : top + size, left : left + size] = label
    return maps


def maps_of(*people):
    labels = np.maximum.reduce(people)
    return Maps(labels, instances_of(people, labels.shape), [{"score": 0.5} for _ in people])


def test_instances_are_numbered_with_the_last_person_in_front():
    people = [person((40, 40), 0, 0), person((40, 40), 10, 10)]
    instances = instances_of(people, (40, 40))
    assert instances[5, 5] == 1 and instances[15, 15] == 2 and instances[35, 5] == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "tags"),
    [
        ([(0, 0)], [(0, 0)], []),
        ([(0, 0), (40, 40)], [(0, 0)], ["missed person"]),
        ([(0, 0)], [(0, 0), (40, 40)], ["false person"]),
    ],
)
def test_failures_are_named(truth, predicted, tags):
    true, got = (maps_of(*(person((80, 80), *at) for at in places)) for places in (truth, predicted))
    score = compare(true, got, CIHP)
    assert score["tags"] == tags and len(score["people"]) == len(predicted)
    assert score["people"][0] == 1.0


def test_one_person_over_two_is_merged():
    true = maps_of(person((60, 60), 0, 0), person((60, 60), 0, 20))
    wide = np.maximum(person((60, 60), 0, 0), person((60, 60), 0, 20))
    assert compare(true, maps_of(wide), CIHP)["tags"] == ["merged people"]


def test_exchanged_sides_are_named():
    true, got = maps_of(person((40, 40), 0, 0, label=ARM)), maps_of(person((40, 40), 0, 0, label=OTHER_ARM))
    assert compare(true, got, CIHP)["tags"] == ["left and right swapped"]
    assert compare(true, true, CIHP)["tags"] == [] and compare(true, true, CIHP)["iou"] == 1.0
    assert set(compare(true, got, CIHP)["tags"]) <= set(TAGS)


def test_unknown_pixels_do_not_count():
    true, got = maps_of(person((40, 40), 0, 0)), maps_of(person((40, 40), 0, 0))
    true.labels[0:5, 0:5] = 255
    got.labels[0:5, 0:5] = 0
    assert compare(true, got, CIHP)["iou"] == 1.0


def test_large_pictures_are_reduced(tmp_path):
    photo = np.zeros((10, 2 * SHOWN, 3), np.uint8)
    maps = maps_of(person((10, 2 * SHOWN), 0, 0, size=10))
    writer = PageWriter(tmp_path, "wide", ["one"], CIHP)
    writer.add(Item("wide", photo, [maps]))
    page = writer.finish()
    assert (page.parent / "thumbnails" / "00000.jpg").exists()
    assert (page.parent / "items" / "00000.js").stat().st_size < 20_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    data = ["--data-root", str(folder / "data")]
    return train(["painted", *TINY, *data, "--iterations", "2", "--run.no-evaluate", "--output", str(folder / "run")])


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    options = [
        "--output",
        str(tmp_path_factory.mktemp("page")),
        "--data.workers",
        "0",
        "--inference.min-box-score",
        "0",
    ]
    return report([str(run), *options, "--inference.min-parsing-score", "0"])


def data_of(page):
    text = (page.parent / "data.js").read_text()
    return json.loads(re.fullmatch(r"const RPCNN = (.*);\n", text, re.S).group(1))


def test_the_page_of_a_run_holds_its_numbers_and_every_image(page):
    data = data_of(page)
    assert len(data["items"]) == 3 and len(list((page.parent / "items").iterdir())) == 3
    assert list(data["tables"]) == ["run"] and "mIoU" in data["tables"]["run"]
    assert np.sum(data["confusions"]) == sum(item["height"] * item["width"] for item in data["items"])
    assert data["labels"] == list(CIHP.names) and any("loss" in record for record in data["curves"])


def test_two_runs_beside_each_other(run, tmp_path):
    page = report([str(run), str(run), "--output", str(tmp_path), "--data.workers", "0", "--limit", "1"])
    data = data_of(page)
    assert data["models"] == [str(run)] * 2 and [len(item["predictions"]) for item in data["items"]] == [2]


def test_the_page_of_predictions_on_their_pictures(run, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((90, 120, 3), 90, np.uint8)).save(tmp_path / "photos" / "a.png")
    output = tmp_path / "predictions"
    predict([str(tmp_path / "photos" / "a.png"), "--weights", str(run), "--output", str(output), "--device", "cpu"])
    for extra in ([], ["--pictures", str(tmp_path / "photos")]):
        page = report([str(output), "--output", str(tmp_path / "page"), *extra])
        (item,) = data_of(page)["items"]
        assert (item["id"], item["height"], item["width"]) == ("a", 90, 120)
        assert item["predictions"][0]["score"] is None
    with pytest.raises(SystemExit, match=r"has no picture a\.\* of 120 x 90 pixels"):
        report([str(output), "--output", str(tmp_path / "page"), "--pictures", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "takes a run"), (["RUN", "--limit", "0"], "--limit must be"), (["RUN"] * 3, "at most two runs")],
)
def test_mistakes_are_one_line(arguments, message, run):
    with pytest.raises(SystemExit, match=message):
        report([str(run) if word == "RUN" else word for word in arguments])


ODD_RECORDS = {
    "no object": (lambda record: [], "must be an object with people and labels"),
    "deep": (lambda record: "[" * 100_000, "is not JSON"),
    "people null": (lambda record: record | {"people": None}, "people must be a list of objects, got None"),
    "a person of 3": (lambda record: record | {"people": [3]}, r"people\[0\] must be an object, got 3"),
    "a score of text": (
        lambda record: record | {"people": [{"score": "1"}]},
        "people.0..score must be a finite",
    ),
    "labels of numbers": (lambda record: record | {"labels": [1]}, "labels must be a list of texts"),
    "too few labels": (
        lambda record: record | {"labels": ["Background"]},
        "labels must be below 1, the names",
    ),
}


@pytest.mark.parametrize("name", ODD_RECORDS)
def test_odd_records_of_predictions_are_named(name, tmp_path):
    change, message = ODD_RECORDS[name]
    labels = Image.fromarray(np.full((6, 8), 3, np.uint8))
    for kind in ("labels", "instances", "overlay"):
        labels.save(tmp_path / f"a_{kind}.png")
    record = {"height": 6, "width": 8, "labels": list(CIHP.names), "label_set": "CIHP", "people": [{"score": 0.5}]}
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert report([str(tmp_path), "--output", str(tmp_path / "page")]).is_file()
    changed = change(record)
    (tmp_path / "a.json").write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(SystemExit, match=message) as ended:
        report([str(tmp_path), "--output", str(tmp_path / "page")])
    assert str(tmp_path / "a") in str(ended.value) and "\n" not in str(ended.value)


SCRIPT = """
<script>
const faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
const look = (until, then) => until() ? then() : setTimeout(look, 20, until, then);
const wait = (until) => new Promise((resolve) => look(until, resolve));
addEventListener("load", async () => {
  const seen = {};
  seen.cards = document.querySelectorAll(".card").length;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  seen.charts = document.querySelectorAll("svg").length;
  $("search").value = RPCNN.items[1].id; $("search").dispatchEvent(new Event("input"));
  seen.found = document.querySelectorAll(".card").length;
  $("search").value = ""; $("search").dispatchEvent(new Event("input"));
  document.querySelector(".card").click();
  await wait(() => document.querySelectorAll("canvas").length);
  seen.panels = document.querySelectorAll("canvas").length;
  const canvas = document.querySelectorAll("canvas")[1], pixels = () => canvas.toDataURL();
  const box = canvas.getBoundingClientRect(), before = pixels();
  const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  canvas.dispatchEvent(new PointerEvent("pointermove", at));
  seen.hover = $("hover").textContent;
  $("opacity").value = 0; $("opacity").dispatchEvent(new Event("input"));
  seen.opacity = pixels() !== before;
  $("opacity").value = 60; $("opacity").dispatchEvent(new Event("input"));
  seen.back = pixels() === before;
  $("outline").click(); seen.outline = pixels() !== before; $("outline").click();
  const part = document.querySelector("#legend button");
  part.click(); seen.part = part.getAttribute("aria-pressed"); part.click();
  const name = $("name").textContent;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  await wait(() => $("name").textContent !== name);
  seen.next = true;
  $("close").click(); seen.closed = !$("viewer").open;
  seen.faults = faults;
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
});
</script>
"""


@pytest.mark.parametrize("width", [1300, 390])
def test_the_controls_work_in_a_browser(page, width, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs chromium or google-chrome")
    folder = shutil.copytree(page.parent, tmp_path / "page")
    text = (folder / "index.html").read_text().replace("</body>", f"{SCRIPT}</body>")
    (folder / "index.html").write_text(text)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        f"--window-size={width},900",
        "--virtual-time-budget=30000",
        "--dump-dom",
        f"file://{folder}/index.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    seen = json.loads(found.group(1).replace("&amp;", "&"))
    assert seen.pop("hover") and seen.pop("charts") >= 3
    assert seen == {
        **{"cards": 3, "overflow": False, "found": 1, "panels": 4, "opacity": True, "back": True, "outline": True},
        **{"part": "false", "next": True, "closed": True, "faults": []},
    }
