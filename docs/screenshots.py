"""Pictures of the real screens for the documentation, made with headless Chromium (Debian's ``chromium``).

    python docs/screenshots.py [--run RUN_DIR] [--only NAME ...]

Trains two small runs (or takes one), starts TensorBoard on them, opens every one of ``pages`` in Chromium at
1280 pixels and writes docs/images/NAME.png. To add a page, add a line to ``pages``: a name, an address or a
file's, its height and what to do in it. Chromium is driven over its DevTools protocol, so that a page has the
real seconds that it needs to draw.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from dtp_dist import load_config, train
from dtp_dist.report import read_run
from dtp_dist.report.write import write_report

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH, PATIENCE = 1280, 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
WIDE = "model.layers=[{kind: dense, units: 512, repeat: 7}, {kind: dense, units: 10, activation: linear}]"
DEEP = "model.layers=[{kind: dense, units: 240, repeat: 15}, {kind: dense, units: 10, activation: linear}]"
"""Layers of equal work, many enough for stages to get equal shares: what is to be seen is a busy pipeline."""

SCROLL = """
[...document.querySelectorAll('h2, h3')].find(each => each.innerText.startsWith('%s')).scrollIntoView();
"""
CLOSE_SETTINGS = """
[...document.querySelectorAll('button')].find(each => each.innerText.trim() == 'Settings').click();
"""


@dataclass(frozen=True)
class Page:
    """One picture: ``docs/images/NAME.png``.

    Attributes:
        where: an address, or a file's.
        wait: seconds that the page has to load and draw.
        script: JavaScript to run when it is there.
    """

    name: str
    where: str
    height: int = 900
    wait: float = 6.0
    script: str = ""


def pages(board: str, folder: Path) -> list[Page]:
    """Return all pictures; ``board`` is TensorBoard's address, ``folder`` has report.html and plan.html."""
    report, plan = (f"file://{folder / name}" for name in ("report.html", "plan.html"))
    pipeline = f"{board}/?smoothing=0&tagFilter=pipeline%2F(timeline|idle|busy)#timeseries"
    return [
        Page("tensorboard_time_series", f"{board}/?smoothing=0#timeseries", 1000, script=CLOSE_SETTINGS),
        Page("tensorboard_pipeline", pipeline, 900, script=CLOSE_SETTINGS),
        Page("tensorboard_custom_scalars", f"{board}/?smoothing=0#custom_scalars", 1400),
        Page("tensorboard_images", f"{board}/?#images", 1000),
        Page("tensorboard_hparams", f"{board}/?#hparams", 500),
        Page("report", report, 1000, wait=1.0),
        Page("report_timeline", report, 900, wait=1.0, script=SCROLL % "Stages"),
        Page("plan", plan, 1100, wait=1.0),
    ]


def small_runs(folder: Path) -> Path:
    """Train the digits on two busy stages, with everything to be seen in it, and a second run to compare.

    Wide layers, of which each stage has four, and 48 minibatches between two drains.
    """
    own = [WIDE, "data.batch_size=25", "train.epochs=20", "train.evaluate_every=1"]
    own += ["train.checkpoint_every=null", "parallel.stages=2", "parallel.in_flight=2"]
    monitor = ["monitor.every=48", "monitor.alignment_every=48"]
    for name, rate in {"digits_dtp": 1e-3, "digits_low_rate": 3e-4}.items():
        where = [f"run_dir={folder / name}", f"optimizer.forward.lr={rate}"]
        train(load_config(ROOT / "configs" / "digits_dtp.yaml", [*own, *monitor, *where]))
    return folder


def write_pages(folder: Path, runs: Sequence[Path]) -> None:
    """Write report.html of the runs and plan.html of a network of 16 layers on four stages."""
    write_report([read_run(path) for path in runs], folder / "report.html")
    plan = [sys.executable, "-m", "dtp_dist", "plan", str(ROOT / "configs" / "mnist_dtp_adam.yaml")]
    cut = [DEEP, "parallel.in_flight=4", "--stages", "1,2,4", "--out", str(folder / "plan.html")]
    subprocess.run([*plan, *cut], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)


@contextmanager
def started(command: Sequence[str], log: Path, says: str) -> Iterator[str]:
    """Start a program in a group of its own, yield what ``says`` finds in its output, and end it."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(says, log.read_text())):
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"{command[0]} does not start: {log.read_text()[-500:]}")
            time.sleep(0.1)
        yield found.group()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


class Browser:
    """One tab, spoken to in DevTools' words."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to one request."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=PATIENCE)
            if answer.get("id") == self._number:
                return dict(answer.get("result", {}))

    async def picture(self, page: Page) -> bytes:
        """Return a page as PNG."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH,
            height=page.height,
            deviceScaleFactor=1,
            mobile=False,
        )
        await self.ask("Page.navigate", url="about:blank")
        await self.ask("Storage.clearDataForOrigin", origin=page.where.split("/?")[0], storageTypes="all")
        await self.ask("Page.navigate", url=page.where)
        await asyncio.sleep(page.wait)
        if page.script:
            await self.ask("Runtime.evaluate", expression=page.script)
            await asyncio.sleep(page.wait / 2)
        answer = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


async def take(socket: str, wanted: Sequence[Page]) -> None:
    """Write all pictures."""
    async with aiohttp.ClientSession() as session:
        address = re.sub(r"^ws://([^/]+)/.*", r"http://\1/json/list", socket)
        async with session.get(address) as answer:
            tabs = [each for each in await answer.json() if each["type"] == "page"]
        async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as connection:
            browser = Browser(connection)
            for page in wanted:
                path = IMAGES / f"{page.name}.png"
                with Image.open(io.BytesIO(await browser.picture(page))) as image:
                    image.convert("RGB").quantize(256).save(path, optimize=True)
                print(path.relative_to(ROOT), flush=True)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="an existing run directory")
    parser.add_argument("--only", nargs="*", help="names of the pictures to take")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed; on Debian: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        logs = folder / "logs"
        logs.mkdir()
        if options.run:
            (logs / options.run.name).symlink_to(options.run.resolve())  # so that the run has a name
        else:
            small_runs(logs)
        write_pages(folder, sorted(logs.iterdir()))
        server = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", "0"]
        browser = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        with (
            started([*server, "--host", "127.0.0.1"], folder / "board.log", r"http://127[.\d]+:\d+") as board,
            started(browser, folder / "chromium.log", r"ws://\S+") as socket,
        ):
            time.sleep(3)  # for the server to read the files
            wanted = [page for page in pages(board, folder) if not options.only or page.name in options.only]
            asyncio.run(take(socket, wanted))


if __name__ == "__main__":
    main()
