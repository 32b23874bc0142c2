#!/usr/bin/env python3
"""What the page of `hmm map` does in a browser: page.py PAGE FOLDER.

Prints "pass NAME" or "fail NAME: WHY" for each case, and leaves pictures in FOLDER. Exit status 2: there
is no browser that starts.
"""
import base64
import json
import random
import struct
import sys
import traceback
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
from browser import Browser, find  # noqa: E402

WIDTH, HEIGHT = 1280, 800
SLAB, LARGE = 2, 4
MANY_CELLS = 1_000_000
FRAME_MS_MAX = 250  # for machines that have other things to do
FRAMES = 40


class Page:
    """The open page, in its own words."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, path):
        self.browser.open(Path(path).resolve().as_uri())
        self.browser.wait('window.heapMap !== undefined && heapMap.state().width > 0')
        self.browser.settle()

    def state(self):
        return self.browser.run('heapMap.state()')

    def still(self):
        self.browser.wait('!heapMap.state().gliding')
        self.browser.settle()

    def place(self, region, cell):
        """Where a cell's middle is in the window."""
        return self.browser.run(
            f'(() => {{ const box = document.getElementById("map").getBoundingClientRect();'
            f'const at = heapMap.place({region}, {cell}); return [box.left + at.x, box.top + at.y]; }})()')

    def first(self, condition):
        """The first cell of the first region, of which a JavaScript condition on r and i holds."""
        return self.browser.run(
            f'(() => {{ const r = heapMap.regions[0]; for (let i = 0; i < r.count; i++)'
            f'if ({condition}) return i; return -1; }})()')

    def colour(self, x, y):
        """Of a point of the window, on the canvas."""
        return self.browser.run(
            f'(() => {{ const map = document.getElementById("map"); const box = map.getBoundingClientRect();'
            f'return [...map.getContext("2d").getImageData({x} - box.left, {y} - box.top, 1, 1).data]; }})()')

    def tip(self):
        return self.browser.run('document.getElementById("tip").hidden ? "" :'
                                'document.getElementById("tip").innerText')

    def press(self, selector):
        x, y = self.browser.run(
            f'(() => {{ const found = document.querySelector({selector!r}); found.scrollIntoView({{ block: "nearest" }});'
            f'const box = found.getBoundingClientRect();'
            f'return [box.left + box.width / 2, box.top + box.height / 2]; }})()')
        self.click(x, y)

    def click(self, x, y):
        self.browser.mouse('mouseMoved', x, y)
        self.browser.mouse('mousePressed', x, y, button='left', clickCount=1)
        self.browser.mouse('mouseReleased', x, y, button='left', clickCount=1)
        self.browser.settle()

    def hover(self, cell):
        x, y = self.place(0, cell)
        self.browser.mouse('mouseMoved', x, y)
        self.browser.settle()
        return x, y


def it_opens_and_asks_for_nothing(page):
    requests = [event['params']['request']['url'] for event in page.browser.events
                if event.get('method') == 'Network.requestWillBeSent']
    others = [url for url in requests if not url.startswith(('file:', 'about:', 'data:'))]
    assert not others, others
    assert not page.browser.complaints(), page.browser.complaints()
    assert page.browser.run('heapMap.cell_total') > 1000


def the_whole_heap_is_seen_at_first(page):
    state = page.state()
    x, y = page.place(0, page.browser.run('heapMap.regions[0].count - 1'))
    assert 0 < x < WIDTH and 0 < y < HEIGHT, (x, y)
    colours = page.browser.run(
        '(() => { const map = document.getElementById("map"); const seen = new Set();'
        'const data = new Uint32Array(map.getContext("2d").getImageData(0, 0, map.width, map.height).data.buffer);'
        'for (const word of data) seen.add(word); return seen.size; })()')
    assert colours > 8, (colours, state)


def the_wheel_zooms_where_the_pointer_is(page):
    cell = page.first(f'r.kind[i] === {SLAB} && i > 100')
    x, y = page.place(0, cell)
    before = page.state()
    for _ in range(6):
        page.browser.mouse('mouseWheel', x, y, deltaX=0, deltaY=-240)
    page.browser.settle()
    after = page.state()
    assert after['scale'] > 4 * before['scale'], (before, after)
    new_x, new_y = page.place(0, cell)
    assert abs(new_x - x) < after['scale'] / 2 and abs(new_y - y) < after['scale'] / 2, (x, y, new_x, new_y)


def dragging_moves(page):
    before = page.state()
    page.browser.mouse('mousePressed', 600, 400, button='left', clickCount=1)
    for step in range(1, 6):
        page.browser.mouse('mouseMoved', 600 - 10 * step, 400 - 6 * step, button='left', buttons=1)
    page.browser.mouse('mouseReleased', 550, 370, button='left', clickCount=1)
    page.browser.settle()
    after = page.state()
    assert abs(after['x'] - before['x'] + 50) < 1 and abs(after['y'] - before['y'] + 30) < 1, (before, after)
    assert not page.browser.run('document.getElementById("spoken").textContent'), 'a drag is no click'


def keys_and_buttons_zoom(page):
    page.browser.key('0')
    page.still()
    whole = page.state()
    page.browser.key('+')
    page.still()
    nearer = page.state()
    assert nearer['scale'] > 1.5 * whole['scale'], (whole, nearer)
    page.press('#zoom_in')
    page.still()
    assert page.state()['scale'] > 1.5 * nearer['scale']
    page.press('#zoom_out')
    page.still()
    assert abs(page.state()['scale'] - nearer['scale']) < 0.01
    page.browser.key('ArrowRight')
    page.still()
    assert page.state()['x'] < nearer['x']
    page.press('#zoom_all')
    page.still()
    assert abs(page.state()['scale'] - whole['scale']) < 0.001


def a_note_tells_about_a_slab(page):
    cell = page.first(f'r.kind[i] === {SLAB} && r.used[i] > 0 && r.free[i] > 0')
    assert cell >= 0
    page.hover(cell)
    address, slot, used, free, capacity = page.browser.run(
        f'(() => {{ const r = heapMap.regions[0], i = {cell}; const slot = heapMap.heap.classes[r.size_class[i]];'
        f'return ["0x" + (r.start + i * r.cell_bytes).toString(16), slot, r.used[i], r.free[i],'
        f'Math.floor(65536 / slot)]; }})()')
    tip = page.tip().replace('\u202f', '')
    assert address in tip, (address, tip)
    assert f'Slab of {slot}-byte slots' in tip, (slot, tip)
    assert f'{used} used, {free} free of {capacity}' in tip, (used, free, tip)
    for word in ('State', 'Owner', 'Pages'):
        assert word in tip, (word, tip)


def a_note_tells_about_a_large_block(page):
    cell = page.first(f'r.kind[i] === {LARGE} && r.kind[i + 1] === {LARGE + 1}')
    assert cell >= 0
    page.hover(cell + 1)
    first = page.browser.run(f'"0x" + (heapMap.regions[0].start + {cell} * 65536).toString(16)')
    assert first in page.tip() and 'Large block of' in page.tip(), (first, page.tip())


def a_click_keeps_the_note(page):
    cell = page.first(f'r.kind[i] === {SLAB}')
    x, y = page.hover(cell)
    page.click(x, y)
    kept = page.tip()
    page.browser.mouse('mouseMoved', x + 200, y + 100)
    page.browser.settle()
    assert page.tip() == kept and kept
    assert page.browser.run('document.getElementById("spoken").textContent'), 'it is said as well'
    page.browser.key('Escape')
    page.browser.mouse('mouseMoved', 5, 5)
    page.browser.settle()
    assert page.tip() == '', page.tip()


def a_class_can_be_picked_out(page):
    page.browser.key('0')
    page.still()
    page.browser.mouse('mouseMoved', 5, 5)
    chosen = page.first(f'r.kind[i] === {SLAB} && r.live[i] > 20000')
    other = page.first(f'r.kind[i] === {SLAB} && r.live[i] > 20000 && r.size_class[i] !== r.size_class[{chosen}]')
    assert chosen >= 0 and other >= 0, (chosen, other)
    places = [page.place(0, cell) for cell in (chosen, other)]
    before = [page.colour(*place) for place in places]
    value = page.browser.run(f'heapMap.regions[0].size_class[{chosen}]')
    page.press(f'#classes [data-value="{value}"]')
    page.browser.mouse('mouseMoved', 5, 5)
    page.browser.settle()
    after = [page.colour(*place) for place in places]
    assert before[0] == after[0], 'the chosen ones stay as they are'
    assert before[1] != after[1], 'the others are dimmed'
    page.press('#clear')
    page.browser.mouse('mouseMoved', 5, 5)
    page.browser.settle()
    assert [page.colour(*place) for place in places] == before


def colours_can_mean_other_things(page):
    seen = [page.state()['mode']]
    for _ in range(4):
        page.browser.key('c')
        page.browser.settle()
        seen.append(page.state()['mode'])
    page.browser.key('c')
    assert seen == ['Kind', 'Fill', 'Class', 'Owner', 'Pages'], seen
    assert not page.browser.complaints(), page.browser.complaints()


def it_is_light_or_dark_as_wished(page):
    def paper():
        return sum(page.browser.run('themed("paper")'))
    page.browser.prefer('dark')
    dark = paper()
    page.browser.prefer('light')
    light = paper()
    assert dark < 150 and light > 700, (dark, light)
    page.press('#themes [data-theme="dark"]')
    assert paper() == dark
    page.press('#themes [data-theme="auto"]')
    assert paper() == light


def a_narrow_window_cuts_nothing_off(page):
    page.browser.run(
        '(() => { const screen = CanvasRenderingContext2D.prototype; const draw = screen.fillText; window.cut = [];'
        'window.drawn = 0; screen.fillText = function (text, x, y) { window.drawn++;'
        'if (this.textAlign === "left" && x + this.measureText(text).width > this.canvas.getBoundingClientRect().width)'
        'window.cut.push(text); return draw.call(this, text, x, y); }; })()')
    for width in (700, 500, 360):
        page.browser.call('Emulation.setDeviceMetricsOverride', width=width, height=HEIGHT, deviceScaleFactor=1,
                          mobile=False)
        page.browser.settle()
        page.browser.key('0')
        page.still()
        assert page.browser.run('document.documentElement.scrollWidth <= innerWidth'), width
        assert page.browser.run('window.drawn') > 0
        assert page.browser.run('window.cut') == [], (width, page.browser.run('window.cut'))
        page.browser.run('window.drawn = 0')
    page.browser.call('Emulation.clearDeviceMetricsOverride')
    page.browser.settle()


def pictures_are_taken(page, folder):
    for scheme in ('light', 'dark'):
        page.browser.prefer(scheme)
        page.browser.key('0')
        page.still()
        page.browser.mouse('mouseMoved', 5, 5)
        page.browser.settle()
        assert page.browser.picture(folder / f'whole-{scheme}.png').startswith(b'\x89PNG')
        for _ in range(5):
            page.browser.key('+')
        page.still()
        page.browser.mouse('mouseMoved', 500, 420)
        page.browser.settle()
        assert page.browser.picture(folder / f'near-{scheme}.png').startswith(b'\x89PNG')
    page.browser.prefer('light')


def many_records():
    """A million granules, hardly two neighbours alike."""
    dice = random.Random(7)
    records = bytearray()
    for cell in range(MANY_CELLS):
        used = dice.randrange(1024)
        records += struct.pack('<BBBBHHHHHH', SLAB if cell % 9 else 1, 3, 2, 16, 0xffff, used, 1024 - used, 0,
                               used * 64, 1)
    return base64.b64encode(records).decode()


def a_million_granules_stay_fluid(page, source, folder):
    text = Path(source).read_text(encoding='utf-8')
    start = text.index('id="heap">') + len('id="heap">')
    end = text.index('</script>', start)
    heap = json.loads(text[start:end])
    heap['regions'] = [{**heap['regions'][0], 'cells': MANY_CELLS, 'data': many_records()}]
    path = folder / 'million.html'
    path.write_text(text[:start] + json.dumps(heap).replace('<', '\\u003c') + text[end:], encoding='utf-8')
    page.open(path)
    assert page.browser.run('heapMap.cell_total') == MANY_CELLS
    frames = page.browser.run(
        f'''new Promise((done) => {{
            const map = document.getElementById('map');
            const times = [];
            let before = performance.now();
            const step = (now) => {{
                times.push(now - before);
                before = now;
                const deltaY = times.length < {FRAMES} / 2 ? -160 : 160;
                map.dispatchEvent(new WheelEvent('wheel', {{ deltaY, clientX: 500, clientY: 400, cancelable: true }}));
                if (times.length < {FRAMES}) requestAnimationFrame(step); else done(times);
            }};
            requestAnimationFrame(step);
        }})''')
    path.unlink()
    print(f'# a frame of a million granules: {median(frames):.1f} ms in the middle, {max(frames):.1f} ms at most',
          file=sys.stderr)
    assert median(frames) < FRAME_MS_MAX, frames


def main():
    source, folder = sys.argv[1], Path(sys.argv[2])
    if find() is None:
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    try:
        browser = Browser(WIDTH, HEIGHT)
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    with browser:
        page = Page(browser)
        browser.call('Network.enable')
        browser.prefer('light')
        page.open(source)
        cases = [
            (it_opens_and_asks_for_nothing, ()), (the_whole_heap_is_seen_at_first, ()),
            (the_wheel_zooms_where_the_pointer_is, ()), (dragging_moves, ()), (keys_and_buttons_zoom, ()),
            (a_note_tells_about_a_slab, ()), (a_note_tells_about_a_large_block, ()),
            (a_click_keeps_the_note, ()), (a_class_can_be_picked_out, ()), (colours_can_mean_other_things, ()),
            (it_is_light_or_dark_as_wished, ()), (a_narrow_window_cuts_nothing_off, ()),
            (pictures_are_taken, (folder,)), (a_million_granules_stay_fluid, (source, folder)),
        ]
        for case, arguments in cases:
            try:
                case(page, *arguments)
                print(f'pass {case.__name__}', flush=True)
            except Exception as error:  # noqa: BLE001 - any of them is a failed case
                traceback.print_exc()
                print(f'fail {case.__name__}: {error}'.replace('\n', ' '), flush=True)
    return 0


sys.exit(main())
