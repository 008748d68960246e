// Opens a page, marks it, and goes away without closing anything.
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

const browser = await chromium.connectOverCDP(input.url);
const page = await browser.contexts()[0].newPage();
await page.goto(input.site + '/second');
const mark = await page.evaluate(() => (window.mark = String(Math.random())));
print({ url: page.url(), mark });
await browser.close(); // over CDP: disconnects
