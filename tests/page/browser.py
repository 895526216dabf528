"""A real Chromium without a window, driven by selenium: what a test of the page does and sees in it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from cleanctl.report.page import PageData, render

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions")
LOCAL = ("file:", "data:", "blob:", "about:")
CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageDown": 34, "End": 35, "Home": 36}
CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Browser:
    def __init__(self, chromium: str, chromedriver: str, downloads: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(chromedriver))
        self.downloads = downloads
        self.do("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self.resize(1280, 900)

    def quit(self) -> None:
        self.driver.quit()

    def do(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(method, parameters)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def open(self, address: str | Path, *, forget: bool = True) -> None:
        """Opens a file or URL and waits for the table; what the page kept in this browser is forgotten first."""
        url = address.as_uri() if isinstance(address, Path) else address
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)
        if forget and self.js("const held = localStorage.length; localStorage.clear(); return held"):
            self.driver.get("about:blank")
            self.driver.get(url)
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def until(self, code: str, *arguments: Any, seconds: float = 60) -> Any:
        """Waits until JavaScript returns something true, and returns that."""
        return wait(lambda: self.js(code, *arguments), seconds, code)

    def errors(self) -> list[str]:
        """What the console has complained of since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened, but for those inside the file and on this disk."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(LOCAL)]

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))

    def press(self, *keys: str, shift: bool = False) -> None:
        """Presses keys as a person does: names of keys, or single characters."""
        for key in keys:
            event = {"key": key, "modifiers": 8 if shift else 0}
            event |= {"windowsVirtualKeyCode": CODES.get(key, ord(key[0].upper())), "code": key if key in CODES else ""}
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            self.do("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
            self.do("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of an element, on whatever is on top there."""
        place = """const one = document.querySelector(arguments[0]);
            one.scrollIntoView({ block: "nearest" });
            const box = one.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]"""
        x, y = self.js(place, selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, name: str, value: str) -> None:
        """Sets a field of the form above the table."""
        code = """const field = document.querySelector(`#filters [name="${arguments[0]}"]`);
            field.value = arguments[1];
            if (field.value !== arguments[1]) throw new Error(`no such choice: ${arguments[1]}`);
            field.dispatchEvent(new Event("input", { bubbles: true }))"""
        self.js(code, name, value)

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def downloaded(self, action: Callable[[], Any]) -> bytes:
        """The one file that an action saves."""
        for path in self.downloads.iterdir():  # a file of the same name would be written over
            path.unlink()
        action()

        def fresh() -> Path | None:
            found = list(self.downloads.iterdir())
            whole = [path for path in found if path.suffix != ".crdownload" and not path.name.startswith(".")]
            return whole[0] if len(whole) == len(found) == 1 else None

        return wait(fresh, 60, "a file is saved").read_bytes()


def wait(found: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"never true: {what}"
        time.sleep(0.02)
    return value


def written(path: Path, data: PageData) -> Path:
    path.write_bytes(b"".join(render(data)))
    return path
