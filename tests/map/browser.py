"""A headless Chromium, spoken to over its DevTools pipe: JSON, each message ended by a zero byte.

Nothing but the standard library is needed, and no port is opened: the browser reads commands from its
descriptor 3 and answers on 4.
"""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

ANSWER_SECONDS = 60
ARGUMENTS = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-extensions',
    '--hide-scrollbars', '--remote-debugging-pipe',
]


def find():
    """The browser's path; None: there is none."""
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Browser:
    """One page of one browser."""

    def __init__(self, width, height):
        self.folder = tempfile.mkdtemp(prefix='hmm-browser-')
        from_us, self.to_browser = os.pipe()
        self.from_browser, to_us = os.pipe()
        command = [find(), *ARGUMENTS, f'--user-data-dir={self.folder}',
                   f'--window-size={width},{height}', 'about:blank']
        # The shell puts the pipes where the browser looks for them.
        self.process = subprocess.Popen(
            ['sh', '-c', f'exec "$@" 3<&{from_us} 4>&{to_us}', 'sh', *command],
            pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, 'HOME': self.folder})
        os.close(from_us)
        os.close(to_us)
        self.unread = b''
        self.events = []
        self.last_id = 0
        self.session = None
        target = self.call('Target.createTarget', url='about:blank')
        attached = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)
        self.session = attached['sessionId']
        self.call('Page.enable')
        self.call('Runtime.enable')
        self.call('Log.enable')
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.session = None
            self.call('Browser.close')
        except (OSError, RuntimeError):
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def receive(self):
        """The next message."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while b'\0' not in self.unread:
            ready, _, _ = select.select([self.from_browser], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(self.from_browser, 1 << 20) if ready else b''
            if not piece:
                raise RuntimeError('the browser does not answer')
            self.unread += piece
        message, _, self.unread = self.unread.partition(b'\0')
        return json.loads(message)

    def call(self, method, **parameters):
        """A command of the protocol, and its result."""
        self.last_id += 1
        message = {'id': self.last_id, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self.to_browser, data):]
        while True:
            answer = self.receive()
            if answer.get('id') == self.last_id:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]["message"]}')
                return answer['result']
            self.events.append(answer)

    def open(self, url):
        """Loads a page, and waits until it is there."""
        self.call('Page.navigate', url=url)
        self.wait('document.readyState === "complete"')

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(f'{script}: {answer["exceptionDetails"]}')
        return answer['result'].get('value')

    def wait(self, condition):
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise RuntimeError(f'never: {condition}')
            time.sleep(0.02)

    def settle(self):
        """Until what was asked for is drawn."""
        self.run('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))')

    def mouse(self, kind, x, y, **more):
        """kind: mouseMoved, mousePressed, mouseReleased, mouseWheel."""
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)

    def key(self, key):
        """A key, down and up."""
        text = {'text': key} if len(key) == 1 else {}
        self.call('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key)

    def prefer(self, scheme):
        """'light' or 'dark', as if the system's setting were."""
        self.call('Emulation.setEmulatedMedia',
                  features=[{'name': 'prefers-color-scheme', 'value': scheme}])
        self.settle()

    def picture(self, path):
        """Writes what is to be seen as a PNG file, and returns it."""
        data = base64.b64decode(self.call('Page.captureScreenshot', format='png')['data'])
        with open(path, 'wb') as file:
            file.write(data)
        return data

    def complaints(self):
        """What the page has thrown or logged as an error, or asked of the network."""
        return [event for event in self.events
                if event.get('method') == 'Runtime.exceptionThrown' or
                (event.get('method') == 'Log.entryAdded' and event['params']['entry']['level'] == 'error')]
