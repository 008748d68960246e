// The least that one does with Playwright.
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

const browser = await chromium.connectOverCDP(input.url);
const page = await browser.contexts()[0].newPage();
await page.goto(input.site + '/');
print({ title: await page.title() });
await browser.close();
