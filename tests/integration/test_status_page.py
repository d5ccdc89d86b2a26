"""The status page in a real browser: it follows what happens, in light and dark, on narrow screens,
with a keyboard alone and without script. `test_status_page.py PICTURES` makes those of docs/."""

import json
import os
import random
import sys
import threading
import time
import unittest

import browser
from browser import Browser
from broker import ROOT, free_port
from rig import RigTest, shared_kafka, stop_shared_kafka
from redis_server import RedisServer
from sidecar import Sidecar

# What would be run, or swallow what is behind it, if it were put into the page as it is.
EVIL = '</pre><script>window.evil=1</script><img src=x onerror="window.evil=1">{{\u202e'

# The lowest contrast of a text to what is behind it, as WCAG 2 counts it, with that text.
CONTRAST = """(() => {
    const rgb = c => { const n = c.match(/[\\d.]+/g).map(Number);
                       return n.length > 3 && n[3] < 1 ? null : n.slice(0, 3); };
    const light = c => c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
                        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = e => { for (; e; e = e.parentElement) {
                              const c = rgb(getComputedStyle(e).backgroundColor);
                              if (c) return c;
                          } return [255, 255, 255]; };
    let worst = [100, ""];
    const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (all.nextNode()) {
        const e = all.currentNode.parentElement, text = all.currentNode.data.trim();
        if (!text || e.closest("script, style, svg") || !e.getClientRects().length) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        if (ratio < worst[0]) worst = [ratio, text];
    }
    return worst; })()"""


@unittest.skipUnless(browser.PROGRAM, "needs chromium")
class StatusPage(RigTest):
    def setUp(self):
        super().setUp()
        self.source = self.topic(2)
        self.producer = self.kafka.producer()
        self.put("user-1", '{"status":"open","id":1}')
        self.port = free_port()
        self.running = self.sidecar(self.source, {"http.listen": f"127.0.0.1:{self.port}"}).start()
        self.running.wait_ready()

    def put(self, key, value):
        self.producer.produce(self.source, value, key)
        self.producer.flush(10)

    def page(self, query="", **options):
        one = self.enterContext(Browser(**options))
        one.open(f"http://127.0.0.1:{self.port}/{query}")
        return one

    def text(self, one):
        return one.run("document.body.innerText")

    def test_it_follows_what_happens_and_runs_nothing_of_it(self):
        one = self.page()
        self.assertEqual(one.run("document.readyState"), "complete")
        self.put("user-1", '{"status":"shipped","id":1}')
        one.wait('[...document.querySelectorAll("ins")].some(e => e.textContent == "shipped")')
        self.assertTrue(one.run('[...document.querySelectorAll("del")].some(e => '
                                'e.textContent == "open")'))
        self.put(EVIL, json.dumps({"x": EVIL}))
        self.put(EVIL, EVIL)
        self.put(EVIL, None)
        one.wait('document.body.innerText.split("<script>window.evil=1</script>").length > 3')
        self.assertIsNone(one.run("window.evil"))
        self.assertEqual(one.run('document.querySelectorAll("img").length'), 0)
        keys = self.running.stat()["keys"]
        one.wait(f'/keys\\s+{keys}\\b/.test(document.body.innerText)')
        self.assertEqual(one.complaints, [])

        # paused, it stays as it is; and it says when the sidecar is gone
        one.run('document.querySelector("#clock button").click()')
        self.put("user-1", '{"status":"returned","id":1}')
        self.running.wait_published()
        time.sleep(2.5)
        self.assertNotIn("returned", self.text(one))
        one.run('document.querySelector("#clock button").click()')
        one.wait('document.body.innerText.includes("returned")')
        self.running.term()
        one.wait('document.body.innerText.includes("cannot be reached")')
        self.assertIn("returned", self.text(one))

    def test_light_dark_and_narrow(self):
        self.put("user-1", '{"status":"shipped","text":"' + "x" * 300 + '","id":1}')
        self.put("k" * 400, '{"a":1}')
        self.put("k" * 400, None)
        self.running.wait_published()
        one = self.page(width=1200)
        one.wait('document.querySelectorAll("ins").length > 0')
        backgrounds = set()
        for dark in (False, True):
            one.color(dark)
            backgrounds.add(one.run("getComputedStyle(document.body).backgroundColor"))
            ratio, text = one.run(CONTRAST)
            self.assertGreaterEqual(ratio, 4.5, f"{text!r}, dark: {dark}")
        self.assertEqual(len(backgrounds), 2)
        for width in (1200, 768, 390, 320):
            one.resize(width, 800)
            self.assertLessEqual(one.run("document.documentElement.scrollWidth"), width)
        self.assertEqual(one.complaints, [])

    def test_a_keyboard_reaches_everything_and_shows_where_it_is(self):
        one = self.page()
        wanted = one.run('[...document.querySelectorAll("a[href], button, input, summary, '
                         '[tabindex=\\"0\\"]")].filter(e => e.getClientRects().length).length')
        self.assertGreater(wanted, 2)
        reached = set()
        for i in range(wanted + 1):
            one.key("Tab")
            seen = one.run('(() => { const e = document.activeElement, s = getComputedStyle(e); '
                           'if (e == document.body) return null; e.dataset.n ??= String(Math.random()); '
                           'return [e.dataset.n, s.outlineStyle, parseFloat(s.outlineWidth), e.outerHTML]'
                           '; })()')
            if seen is None:
                break
            self.assertTrue(seen[1] != "none" and seen[2] > 0, f"no outline: {seen[3]}")
            reached.add(seen[0])
        self.assertEqual(len(reached), wanted)
        one.run('document.querySelector("input").focus()')
        one.call("Input.insertText", text="user-1")
        one.key("Enter")
        one.wait('location.search == "?key=user-1" && document.body.innerText.includes("\\"open\\"")')

    def test_without_script_it_is_a_page_all_the_same(self):
        self.put("user-1", '{"status":"shipped","id":1}')
        self.running.wait_published()
        time.sleep(1)
        one = self.page("?key=user-1", script=False)
        text = self.text(one)
        for word in ("ready", "leader", "partition", "shipped", "open"):
            self.assertIn(word, text)
        self.assertGreater(one.run('document.querySelectorAll("table tr").length'), 2)
        self.assertEqual(one.run('document.querySelectorAll("#clock button").length'), 0)


# ---------------------------------------------------------------- pictures


def write(kafka, topic, stop):
    producer = kafka.producer()
    rng = random.Random(3)
    n = 0
    while not stop.wait(0.02):
        n += 1
        key = rng.randrange(5000)
        value = json.dumps({"id": key, "status": rng.choice(["open", "paid", "shipped"]),
                            "total": rng.randrange(90000) / 100})
        producer.produce(topic, None if n % 17 == 0 else value, b"order-%d" % key)
        producer.poll(0)
    producer.flush(10)


def pictures():
    """docs/status-*.png: four minutes of a small pipeline."""
    kafka = shared_kafka()
    topic = kafka.create_topic("orders", 4, {"cleanup.policy": "compact"})
    producer = kafka.producer()
    for i in range(5000):
        producer.produce(topic, '{"id":%d,"status":"open","total":%d.5}' % (i, i), b"order-%d" % i)
    producer.flush(30)
    port, stop = free_port(), threading.Event()
    with RedisServer() as redis, Sidecar(kafka, "orders", topic, {
            "http.listen": f"127.0.0.1:{port}", "redis.uri": redis.uri}) as sidecar:
        sidecar.start().wait_ready()
        writer = threading.Thread(target=write, args=(kafka, topic, stop))
        writer.start()
        time.sleep(240)
        for name, width, height, dark, at in (("light", 1100, 820, False, None),
                                              ("dark", 1100, 820, True, "#notes"),
                                              ("narrow", 390, 800, False, None)):
            with Browser(width, height, dark) as one:
                one.open(f"http://127.0.0.1:{port}/")
                time.sleep(3)
                if at:
                    one.run(f'document.querySelector("{at}").scrollIntoView()')
                one.screenshot(os.path.join(ROOT, "docs", f"status-{name}.png"))
        stop.set()
        writer.join()
        sidecar.term()
    stop_shared_kafka()


if __name__ == "__main__":
    if sys.argv[1:] == ["PICTURES"]:
        pictures()
