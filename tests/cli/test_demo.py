"""rpcnn demo: the page with a model behind it, over HTTP and in a browser."""

import base64
import http.client
import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from rpcnn import Predictor
from rpcnn.demo import main, make_server
from rpcnn.page import serve

RUN = pathlib.Path(__file__).parent / "run_of_version_0_1"
SCENE = (RUN / "scene.png").read_bytes()


@pytest.fixture
def server(tmp_path):
    with make_server(Predictor(RUN, "cpu"), tmp_path, "Try <it>", max_megabytes=2) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, body=None, token=None, method=None, **headers):
    """(status, text, headers) of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    path = f"/{server.token if token is None else token}/{path}"
    connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, text, answer.headers


def test_a_picture_is_parsed_and_appears_on_the_page(server):
    assert ask(server, "data.js")[1].startswith('const RPCNN = {"title": "Try <it>"')
    status, text, _ = ask(server, "parse?name=my%20sc%C3%A8ne.png", SCENE)
    entry = json.loads(text)
    with Image.open(io.BytesIO(SCENE)) as scene:
        assert (entry["width"], entry["height"]) == scene.size
    assert status == 200 and entry["id"] == "my scène.png" and len(entry["predictions"]) == 1
    data = json.loads(ask(server, "data.js")[1].split("\n")[0].removeprefix("const RPCNN = ").rstrip(";"))
    assert data["items"] == [entry]
    assert ask(server, "items/00000.js")[1].startswith("rpcnnItem(0, {")
    assert ask(server, "thumbnails/00000.jpg")[0] == 200
    assert not (server.writer.folder / "upload").exists()


def test_the_result_is_the_predictors(server):
    entry = json.loads(ask(server, "parse?name=a.png", SCENE)[1])
    predictor = Predictor(RUN, "cpu")
    shown = predictor(RUN / "scene.png").above(predictor.config.inference.min_parsing_score)
    assert entry["predictions"][0]["people"] == shown.record()["people"]


def test_the_page_holds_the_viewer_and_the_drop_zone(server):
    status, text, headers = ask(server, "")
    assert status == 200 and text.index("page.js") < text.index("demo.js") and headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in ("page.js", "demo.js", "style.css"):
        assert ask(server, name)[0] == 200


@pytest.mark.parametrize("token", ["", "wrong", "%C3%A9", "x" * 24])
@pytest.mark.parametrize("path", ["", "data.js", "items/00000.js"])
def test_nothing_is_shown_without_the_token(token, path, server):
    status, text, _ = ask(server, path, token=token)
    assert status == 403 and server.token not in text


def test_no_picture_is_parsed_without_the_token(server):
    assert ask(server, "parse?name=a.png", SCENE, token="wrong")[0] == 403 and not server.writer.index


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1"])
def test_other_names_of_the_machine_are_refused(host, server):
    assert ask(server, "", Host=host)[0] == 403  # a page elsewhere whose name leads here


@pytest.mark.parametrize(
    "path", ["nothing", "upload", "items/00001.js", "items/../data.js", "../../etc/passwd", "items"]
)
def test_other_files_do_not_exist(path, server):
    ask(server, "parse?name=a.png", SCENE)
    assert ask(server, path)[0] == 404


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 24
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", r"^cannot be read: it is none of AVIF"),
        (b"no picture", r"^cannot be read: it is none of AVIF"),
        (SCENE[:1000], r"^cannot be read"),
    ],
)
def test_what_is_no_picture_is_named_without_the_servers_paths(body, message, server):
    status, text, headers = ask(server, "parse?name=a%20%3Cb%3E.jpg", body)
    assert status == 422 and re.search(message, json.loads(text)["error"]) and str(server.writer.folder) not in text
    assert headers["Content-Type"].startswith("application/json") and not server.writer.index
    assert ask(server, "parse?name=b.png", SCENE)[0] == 200


def test_large_files_are_refused_before_they_are_read(server):
    status, text, _ = ask(server, "parse?name=a.png", b"", **{"Content-Length": "999999999999"})
    assert status == 413 and json.loads(text)["error"] == "has 1000000.0 MB, more than --max-megabytes 2"


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000, "٣"])
def test_lengths_that_are_none_are_refused(length, server):
    status, _, _ = ask(server, "parse?name=a.png", b"", **{"Content-Length": length.encode().decode("latin1")})
    assert status == 411


def test_pictures_at_once_are_parsed_one_after_another(server):
    running, most, parse = 0, [], server.parse

    def counted(path, name):
        nonlocal running
        running += 1
        most.append(running)
        item = parse(path, name)
        running -= 1
        return item

    server.parse = counted
    threads = [threading.Thread(target=ask, args=(server, f"parse?name={n}.png", SCENE)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and sorted(entry["id"] for entry in server.writer.index) == [f"{n}.png" for n in range(4)]


def test_the_command_prints_its_address_and_leaves_nothing(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "PYTHONPATH": str(RUN.parents[2])}
    command = [sys.executable, "-m", "rpcnn.demo", str(RUN), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{24}/", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    assert address and "the demo ended" in rest and process.returncode == 0
    assert not list(tmp_path.glob("rpcnn-demo-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([str(RUN), "--port", "70000"], r"--port must be in 0\.\.65535, got 70000"),
        ([str(RUN), "--max-megabytes", "0"], r"--max-megabytes must be in 0\.\.4096, got 0"),
        (["nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(SystemExit, match=message) as ended:
        main(arguments)
    assert ended.value.code == 2 and "\n" not in str(ended.value)


SCRIPT = """
const faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => faults.push(event.violatedDirective + " " + event.blockedURI));
const until = async (ready) => { while (!ready()) await new Promise((go) => setTimeout(go, 20)); };
addEventListener("load", async () => {
  const seen = { start: document.querySelectorAll(".card").length, controls: $("controls").hidden };
  const drop = (...files) => {
    const data = new DataTransfer();
    files.forEach((file) => data.items.add(file));
    dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
  };
  drop(new File([Uint8Array.from(atob(scene64), (c) => c.charCodeAt(0))], "scene.png"));
  await until(() => $("viewer").open && document.querySelectorAll("#viewer canvas").length);
  seen.panels = document.querySelectorAll("#viewer canvas").length;
  seen.name = $("name").textContent;
  $("close").click();
  drop(new File(["no picture"], "<i>notes</i>.txt"), new File([new Uint8Array(3e6)], "large.png"));
  await until(() => document.querySelectorAll("#progress .error").length === 2);
  seen.errors = [...document.querySelectorAll("#progress .error")].map((line) => line.innerText);
  seen.busy = document.querySelectorAll("#progress .busy").length;
  seen.cards = document.querySelectorAll(".card").length;
  document.querySelector("#progress .error button").click();
  seen.left = document.querySelectorAll("#progress .error").length;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  seen.faults = faults;
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
});
"""


@pytest.mark.parametrize("width", [1300, 390])
def test_pictures_are_dropped_in_a_browser(server, width, tmp_path, monkeypatch):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs chromium or google-chrome")
    script = f'const scene64 = "{base64.b64encode(SCENE).decode()}";\n{SCRIPT}'
    asset = serve.asset
    monkeypatch.setattr(serve, "asset", lambda name: asset(name) + (script if name == "demo.js" else ""))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--virtual-time-budget=60000", "--dump-dom", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    seen = json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    errors = seen.pop("errors")
    assert "<i>notes</i>.txt" in errors[0] and "cannot be read: it is none of" in errors[0]
    assert "large.png" in errors[1] and "has 3.0 MB, more than 2" in errors[1]
    assert seen == {
        **{"start": 0, "controls": True, "panels": 2, "name": "scene.png", "busy": 0, "cards": 1, "left": 1},
        **{"overflow": False, "faults": []},
    }
