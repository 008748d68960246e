// A tour of the site with Puppeteer: pages, a click, pictures and 50 MB.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import { input, print } from './input.mjs';

const browser = await puppeteer.connect({ browserWSEndpoint: input.browserWSEndpoint });
const page = await browser.newPage();
await page.setViewport({ width: 640, height: 360 });
await page.goto(input.site + '/');
const title = await page.title();
await page.click('#go');
const clicked = await page.title();
const label = await page.$eval('#go', (button) => button.textContent);
await page.screenshot({ path: join(input.dir, 'page.png') });
await page.pdf({ path: join(input.dir, 'page.pdf') });
const big = await page.evaluate(async () => (await fetch('/big')).text());

const second = await browser.newPage();
await second.goto(input.site + '/second');
const pages = await browser.pages();
print({
  title, clicked, label, second: await second.title(),
  tabs: pages.filter((p) => p.url() !== 'about:blank').length,
  bigLength: big.length, bigSum: createHash('sha256').update(big).digest('hex'),
});
await browser.disconnect();
