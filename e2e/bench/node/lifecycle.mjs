// Lifecycles with Playwright on three targets, interleaved. Told by JSON in $INPUT; says "ready",
// begins at a line on standard input, prints times in milliseconds as JSON, and stays until
// standard input ends, so that the processor time of its children can be read.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const input = JSON.parse(process.env.INPUT);
const { chromium } = createRequire(join(input.clients, 'package.json'))('playwright-core');

async function call(method, path, body) {
  const answer = await fetch(input.api + path, {
    method, body: body && JSON.stringify(body),
    headers: { 'X-BB-API-Key': input.key, 'Content-Type': 'application/json' },
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

// The same on each: connect, new page, go, close.
async function visit(url) {
  const browser = await chromium.connectOverCDP(url);
  const page = await browser.contexts()[0].newPage();
  await page.goto(input.site);
  return { browser, page };
}

const targets = {
  async ours() {
    const session = await call('POST', '/v1/sessions', {});
    const { browser } = await visit(session.connectUrl);
    await browser.close();
    await call('POST', `/v1/sessions/${session.id}`, { status: 'REQUEST_RELEASE' });
  },
  // The page is closed, or the next lifecycle would find a fuller browser than the last.
  async bare() {
    const { browser, page } = await visit(input.bare);
    await page.close();
    await browser.close();
  },
  async spawned() {
    const dir = mkdtempSync(join(input.tmp, 'spawned-'));
    const child = spawn(input.browser, [...input.browserArgs, `--user-data-dir=${dir}`], {
      detached: true, stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env.PATH, HOME: dir, TMPDIR: dir, DBUS_SESSION_BUS_ADDRESS: 'disabled:' },
    });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    const url = await new Promise((resolve, reject) => {
      let text = '';
      child.stderr.on('data', (part) => {
        text += part;
        const found = /DevTools listening on (ws:\S+)/.exec(text);
        if (found) resolve(found[1]);
      });
      gone.then(() => reject(new Error('the browser has ended: ' + text)));
    });
    const { browser } = await visit(url);
    await browser.close();
    process.kill(-child.pid, 'SIGKILL');
    await gone;
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  },
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Everything that the service puts off is done: nothing is held, all warm browsers are there.
// The container itself is asked, since the service notes the number only every few seconds.
async function quiet() {
  for (;; await pause(20)) {
    const [c] = await call('GET', '/v1/containers');
    if (c.used > 0) continue;
    const health = await (await fetch(`http://${c.addr}/health`)).json();
    if (health.sessions === 0 && health.warm >= input.warm) return;
  }
}

async function timed(name) {
  const begin = performance.now();
  await targets[name]();
  return performance.now() - begin;
}

// A block is `lifecycles` of one target, `concurrency` at a time.
async function block(name, lifecycles) {
  const times = [];
  let left = lifecycles;
  const begin = performance.now();
  await Promise.all(Array.from({ length: Math.min(input.concurrency, lifecycles) }, async () => {
    while (left-- > 0) times.push(await timed(name));
  }));
  return { times, wall: performance.now() - begin };
}

const result = Object.fromEntries(Object.keys(targets).map((name) => [name, { times: [], wall: 0 }]));
for (const name of Object.keys(targets)) await timed(name); // first use of everything
await quiet();

const lines = createInterface({ input: process.stdin });
const told = new Promise((resolve) => lines.once('line', resolve));
const ended = new Promise((resolve) => lines.once('close', resolve));
process.stdout.write('"ready"\n');
await told;
for (let round = 0; round < input.rounds; round++) {
  // Another order in each round: no target is always the one after ours.
  const names = Object.keys(targets);
  for (let i = 0; i < names.length; i++) {
    const name = names[(i + round) % names.length];
    const { times, wall } = await block(name, input.block);
    result[name].times.push(...times);
    result[name].wall += wall;
    // What is put off is charged to nobody else's times; its processor time is ours.
    await quiet();
  }
}
process.stdout.write(JSON.stringify(result) + '\n');
await ended;
