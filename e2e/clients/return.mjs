// Comes back and looks for the marked page.
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

const browser = await chromium.connectOverCDP(input.url);
for (const page of browser.contexts()[0].pages()) {
  const mark = await page.evaluate(() => window.mark);
  if (mark) print({ url: page.url(), mark });
}
await browser.close();
