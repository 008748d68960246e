// A tour of the site with Playwright: pages, a click, pictures, and 50 MB in two ways.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

const browser = await chromium.connectOverCDP(input.url);
const context = browser.contexts()[0];
const page = await context.newPage();
await page.setViewportSize({ width: 640, height: 360 });
await page.goto(input.site + '/');
const title = await page.title();
await page.click('#go');
const clicked = await page.title();
const label = await page.textContent('#go');
await page.screenshot({ path: join(input.dir, 'page.png') });
await page.pdf({ path: join(input.dir, 'page.pdf') });

const big = await page.evaluate(async () => (await fetch('/big')).text());

const [download] = await Promise.all([
  page.waitForEvent('download'),
  page.evaluate(() => { location.href = '/file'; }),
]);
await download.saveAs(join(input.dir, 'download.bin'));

const second = await context.newPage();
await second.goto(input.site + '/second');
print({
  title, clicked, label, second: await second.title(),
  tabs: context.pages().filter((p) => p.url() !== 'about:blank').length,
  bigLength: big.length, bigSum: createHash('sha256').update(big).digest('hex'),
});
await browser.close();
