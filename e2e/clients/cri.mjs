// A tour of the site with chrome-remote-interface: bare protocol, with events.
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import CDP from 'chrome-remote-interface';
import { input, print } from './input.mjs';

const browser = await CDP({ target: input.url, local: true });

async function open(url) {
  const { targetId } = await browser.Target.createTarget({ url: 'about:blank' });
  const { sessionId } = await browser.Target.attachToTarget({ targetId, flatten: true });
  const send = (method, params = {}) => browser.send(method, params, sessionId);
  await send('Page.enable');
  const loaded = new Promise((resolve) => browser.once(`Page.loadEventFired.${sessionId}`, resolve));
  await send('Page.navigate', { url });
  await loaded;
  const evaluate = async (expression) =>
    (await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })).result.value;
  return { send, evaluate };
}

const page = await open(input.site + '/');
const title = await page.evaluate('document.title');
await page.evaluate("document.querySelector('#go').click()");
const clicked = await page.evaluate('document.title');
const label = await page.evaluate("document.querySelector('#go').textContent");
await page.send('Emulation.setDeviceMetricsOverride', { width: 640, height: 360, deviceScaleFactor: 1, mobile: false });
const { data } = await page.send('Page.captureScreenshot');
writeFileSync(join(input.dir, 'page.png'), Buffer.from(data, 'base64'));
const big = await page.evaluate("fetch('/big').then((answer) => answer.text())");

const second = await open(input.site + '/second');
const { targetInfos } = await browser.Target.getTargets();
print({
  title, clicked, label, second: await second.evaluate('document.title'),
  tabs: targetInfos.filter((t) => t.type === 'page' && t.url !== 'about:blank').length,
  bigLength: big.length, bigSum: createHash('sha256').update(big).digest('hex'),
});
await browser.close();
