// Opens a page, marks it, goes away without closing anything, and comes back to look for it.
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

const first = await chromium.connectOverCDP(input.url);
const page = await first.contexts()[0].newPage();
await page.goto(input.site + '/second');
const mark = await page.evaluate(() => (window.mark = String(Math.random())));
const left = { url: page.url(), mark };
await first.close(); // over CDP: disconnects

const second = await chromium.connectOverCDP(input.url);
const found = [];
for (const page of second.contexts()[0].pages()) {
  const mark = await page.evaluate(() => window.mark);
  if (mark) found.push({ url: page.url(), mark });
}
print({ left, found });
await second.close();
