"""Debian's Chromium, without a window, through its debugging pipe: no driver is needed.

    with Browser(width=1200, height=900, dark=True) as browser:
        browser.open("http://127.0.0.1:8080/")
        browser.run("document.title")
        browser.key("Tab")
        browser.screenshot("page.png")
        browser.complaints        # errors of scripts, of the console, of the policy
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

from broker import die_with_parent

PROGRAM = shutil.which("chromium")


class Browser:
    def __init__(self, width=1200, height=900, dark=False, script=True):
        self.complaints = []
        self._size = (width, height)
        self._dark = dark
        self._script = script
        self._last = 0
        self._rest = b""
        self._loaded = False
        self.session = None
        self.profile = tempfile.mkdtemp(prefix="sidenote-browser.")
        # it reads commands from 3 and writes answers to 4
        self._read_commands, self._commands = os.pipe()
        self._answers, self._write_answers = os.pipe()

    def __enter__(self):
        def pipes():
            die_with_parent()
            os.dup2(read, 3)
            os.dup2(write, 4)
        # not 3 or 4 already: one would overwrite the other
        read, write = os.dup(self._read_commands), os.dup(self._write_answers)
        while min(read, write) < 5:
            read, write = os.dup(read), os.dup(write)
        with open(os.path.join(self.profile, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-extensions",
                 "--disable-background-networking", "--remote-debugging-pipe",
                 f"--user-data-dir={self.profile}", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=False,
                preexec_fn=pipes)
        os.close(read)
        os.close(write)
        self._attach()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for fd in (self._read_commands, self._commands, self._answers, self._write_answers):
            os.close(fd)
        for _ in range(20):  # what it started writes there for a moment longer
            shutil.rmtree(self.profile, ignore_errors=True)
            if not os.path.exists(self.profile):
                break
            time.sleep(0.1)

    def _attach(self):
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.resize(*self._size)
        self.color(self._dark)
        self.call("Emulation.setScriptExecutionDisabled", value=not self._script)

    # ------------------------------------------------------------ the protocol

    def call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._event(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _event(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", params))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(params["args"])

    # ------------------------------------------------------------ what a person does

    def open(self, url):
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._event(self._next())

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def color(self, dark):
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def run(self, expression):
        """The value of an expression of JavaScript in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, expression, timeout=20):
        deadline = time.monotonic() + timeout
        while not (value := self.run(f"document.body && ({expression})")):  # none on its way
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} does not come true\n"
                                   + str(self.run("document.body.innerText"))[:3000])
            time.sleep(0.1)
        return value

    def key(self, name):
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(name, "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode=codes[name], text=text if kind == "keyDown" else "")

    def screenshot(self, path, whole=False):
        """A PNG of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as f:
            f.write(base64.b64decode(data["data"]))
