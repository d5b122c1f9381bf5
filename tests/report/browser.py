"""A page in a real headless Chromium, asked questions by a script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Before anything else of the page: what goes wrong is kept.
_LISTEN = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
for (const level of ["error", "warn"])
  console[level] = (...words) => problems.push(words.join(" "));
</script>"""
# Waits until the page is ready, asks, and tells the page around it.
_ASK = """<script type="module">
const deadline = Date.now() + 20000;
while (!document.documentElement.dataset.ready && Date.now() < deadline)
  await new Promise((resume) => setTimeout(resume, 20));
const ready = document.documentElement.dataset.ready === "true";
const answer = await (async () => { %s })();
parent.postMessage(JSON.stringify({ ready, problems, answer }), "*");
</script>"""
# Windows of Chromium are at least 500 pixels wide: the page lies in a frame of any width.
_FRAME = """<!DOCTYPE html><body style="margin: 0">
<iframe src="%s" style="border: 0; width: %dpx; height: 900px"></iframe><pre></pre><script>
addEventListener("message", (event) => document.querySelector("pre").textContent = event.data);
</script></body>"""


def ask(page: Path, script: str, width: int = 1280) -> dict[str, Any]:
    """What `script`, the body of an async function, returns in the page at `width` pixels.

    `ready`: whether the page's own script came to its end; `problems`: errors and warnings.
    """
    text = page.read_text(encoding="utf-8").replace("<head>", "<head>" + _LISTEN, 1)
    copy = page.with_name("asked.html")
    copy.write_text(text.replace("</body>", _ASK % script + "</body>"), encoding="utf-8")
    frame = page.with_name("frame.html")
    frame.write_text(_FRAME % (copy.name, width), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={page.parent / 'profile'}", "--window-size=1400,1000",
        "--virtual-time-budget=30000", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (told,) = re.findall(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(told))
    return found
