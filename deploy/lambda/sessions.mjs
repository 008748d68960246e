// The original's way to sessions: documents in Redis, which the service serves like its own.
// Each function answers API Gateway. docs/migrating.md tells what differs on purpose.
import crypto from 'node:crypto';
import { redis, secret } from './world.mjs';

const defaultMinutes = 60;
const mostMinutes = 24 * 60;
const afterwards = 300; // s for which a terminated document is kept
const page = 500; // keys of one SCAN, and documents that are read at once
const mostPages = 400; // of one listing: what a function has time for

/** POST /sessions {timeout (minutes), browserSettings} */
export const create = answer(async (event, user) => {
  const wish = parse(event);
  const minutes = wish.timeout ?? defaultMinutes;
  if (!Number.isInteger(minutes) || minutes < 1 || minutes > mostMinutes) {
    throw new Refusal(400, `timeout must be whole minutes, 1 to ${mostMinutes}`);
  }
  const browserSettings = wish.browserSettings ?? {};
  if (!isObject(browserSettings)) throw new Refusal(400, 'browserSettings must be an object');

  const now = Date.now();
  const id = `ses_${now}_${crypto.randomBytes(8).toString('hex')}`;
  const seconds = minutes * 60;
  const document = {
    sessionId: id, userId: user, status: 'pending', createdAt: new Date(now).toISOString(),
    timeout: seconds * 1000, browserSettings,
  };
  await (await redis()).command('SETEX', `session:${id}`, seconds, JSON.stringify(document));
  const issued = Math.floor(now / 1000);
  const token = seal(
    { sessionId: id, userId: user, browserOptions: browserSettings, sub: user, iat: issued, exp: issued + seconds },
    await secret('JWE_SECRET_ARN'),
  );
  return { ...view(document), connectUrl: `${process.env.CONNECT_URL}/sessions/${id}/ws`, token };
});

/** GET /sessions/{id} */
export const get = answer(async (event, user) => {
  const document = await own(event, user);
  // No two sessions are known to share a task: the service does not tell of tasks.
  return { ...view(document), userId: document.userId, siblingSessions: [] };
});

/** GET /sessions. There is no index of users: all documents are looked at, up to a limit, which is told. */
export const list = answer(async (_, user) => {
  const found = await sessionsOf(user, await redis());
  found.sessions.sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  return { sessions: found.sessions, count: found.sessions.length, ...(found.whole ? {} : { truncated: true }) };
});

/** The user's sessions, and whether these are all. A page costs two round trips, however many keys it has. */
export async function sessionsOf(user, store, limit = mostPages) {
  const seen = new Set(); // SCAN may name a key twice
  const sessions = [];
  let cursor = '0';
  for (let pages = 0; pages < limit; pages++) {
    const [next, keys] = await store.command('SCAN', cursor, 'MATCH', 'session:*', 'COUNT', page);
    const fresh = keys.filter((key) => !seen.has(key));
    for (const key of fresh) seen.add(key);
    for (const text of await store.pipeline(fresh.map((key) => ['GET', key]))) {
      const document = read(text);
      if (document?.userId === user) sessions.push(view(document));
    }
    cursor = next;
    if (cursor === '0') return { sessions, whole: true };
  }
  return { sessions, whole: false };
}

/** DELETE /sessions/{id} */
export const end = answer(async (event, user) => {
  const document = await own(event, user);
  const terminatedAt = new Date().toISOString();
  // Nothing else is to be done: the service ends the session, and containers that stay empty.
  await (await redis()).command('SETEX', `session:${document.sessionId}`, afterwards,
    JSON.stringify({ ...document, status: 'terminated', terminatedAt }));
  return { id: document.sessionId, status: 'terminated', terminatedAt, message: 'Session terminated successfully' };
});

/** What the caller is told instead. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Makes a handler of what serves a user who has been let in. */
function answer(serve) {
  return async (event) => {
    try {
      return reply(200, await serve(event, await userOf(event)));
    } catch (error) {
      if (error instanceof Refusal) return reply(error.status, { error: error.message });
      console.error(JSON.stringify({ level: 'ERROR', msg: 'request failed', error: error.message }));
      return reply(500, { error: 'Internal error', details: 'see the log of this function' });
    }
  };
}

function reply(statusCode, body) {
  return { statusCode, headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }, body: JSON.stringify(body) };
}

/** Finds the user of the request's API key: the same that the service's own API knows. */
async function userOf(event) {
  const headers = Object.fromEntries(Object.entries(event.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
  const key = headers['x-api-key'];
  if (!key) throw new Refusal(401, 'API key required');
  const given = digest(key);
  let user;
  for (const known of parseKeys(await secret('API_KEYS_SECRET_ARN'))) {
    if (crypto.timingSafeEqual(given, digest(known.key))) user = known.name ?? `key_${given.toString('hex').slice(0, 12)}`;
  }
  if (user === undefined) throw new Refusal(401, 'Invalid API key');
  return user;
}

/** Reads {"API_KEYS":[…]}, with the list as a text too, or "key,name:key". */
function parseKeys(text) {
  const trimmed = text.trim();
  if (!/^[{[]/.test(trimmed)) {
    return trimmed.split(',').map((part) => {
      const [, name, key] = /^(?:([^:]*):)?(.*)$/s.exec(part.trim());
      return name ? { name, key } : { key };
    });
  }
  let list = JSON.parse(trimmed);
  if (!Array.isArray(list)) list = list.API_KEYS;
  if (typeof list === 'string') list = JSON.parse(list);
  return list.map((key) => ({ key: key.trim() }));
}

function digest(text) {
  return crypto.createHash('sha256').update(text).digest();
}

function parse(event) {
  const text = event.isBase64Encoded ? Buffer.from(event.body ?? '', 'base64').toString() : event.body;
  if (!text) return {};
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refusal(400, 'the body is not JSON');
  }
  if (!isObject(value)) throw new Refusal(400, 'the body is not a JSON object');
  return value;
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The document of the session that the path names, if it is the user's. */
async function own(event, user) {
  const id = event.pathParameters?.id ?? '';
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(id)) throw new Refusal(404, 'Session not found');
  const document = read(await (await redis()).command('GET', `session:${id}`));
  if (document === null || document.userId !== user) throw new Refusal(404, 'Session not found');
  return document;
}

/** A document; null: none, or none that can be read. */
function read(text) {
  try {
    const value = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

/** A session as callers see it. */
function view(document) {
  const shown = {
    id: document.sessionId, status: document.status, createdAt: document.createdAt, timeout: document.timeout,
    browserSettings: document.browserSettings,
  };
  if (document.lastActivity) shown.lastActivity = document.lastActivity;
  if (document.terminatedAt) shown.terminatedAt = document.terminatedAt;
  return shown;
}

/** A token as the service reads it: JWE compact, dir, A256GCM, the key made of the whole secret as stored. */
function seal(claims, stored) {
  const header = Buffer.from(JSON.stringify({ alg: 'dir', enc: 'A256GCM' })).toString('base64url');
  const iv = crypto.randomBytes(12);
  const cipher = crypto.createCipheriv('aes-256-gcm', digest(stored), iv);
  cipher.setAAD(Buffer.from(header));
  const sealed = Buffer.concat([cipher.update(JSON.stringify(claims)), cipher.final()]);
  return [header, '', iv.toString('base64url'), sealed.toString('base64url'), cipher.getAuthTag().toString('base64url')].join('.');
}
