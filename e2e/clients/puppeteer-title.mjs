// The least that one does with Puppeteer.
import puppeteer from 'puppeteer-core';
import { input, print } from './input.mjs';

const browser = await puppeteer.connect({ browserWSEndpoint: input.browserWSEndpoint });
const page = await browser.newPage();
await page.goto(input.site + '/');
print({ title: await page.title() });
await browser.disconnect();
