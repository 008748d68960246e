// Two sessions at once: what one does must not show in the other.
import { chromium } from 'playwright-core';
import { input, print } from './input.mjs';

async function open(url) {
  const browser = await chromium.connectOverCDP(url);
  const context = browser.contexts()[0];
  return { browser, context, page: await context.newPage() };
}

const one = await open(input.one);
const other = await open(input.other);
await one.page.goto(input.site + '/login?who=one');
await one.page.evaluate(() => localStorage.setItem('secret', 'of one'));
await one.page.goto(input.site + '/who');
await other.page.goto(input.site + '/who');
const cookies = await other.context.cookies();
const stored = await other.page.evaluate(() => localStorage.length);
print({
  oneWho: await one.page.textContent('#who'),
  otherWho: await other.page.textContent('#who'),
  oneURLs: one.context.pages().map((p) => p.url()),
  otherURLs: other.context.pages().map((p) => p.url()),
  otherCookies: cookies.length + stored,
});
await one.browser.close();
await other.browser.close();
