// The functions in the environments that deploy/cdk gives them, against a real Redis and a
// running service. e2e/cdk_test.go starts both, and says in WORLD where they are.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Redis } from '../redis.mjs';

const world = JSON.parse(process.env.WORLD);
const patience = 60_000; // ms for what the service does by itself
const operator = new Redis(world.redis);
after(() => operator.close());

/** Calls a function as Lambda does, with its environment. */
async function invoke(name, event) {
  const { handler, env } = world.functions[name];
  const [file, exported] = handler.split('.');
  const module = await import(`../${file}.mjs`);
  Object.assign(process.env, env);
  return module[exported](event);
}

/** Calls a function as API Gateway does, and reads its answer. */
async function call(name, { key = world.key, body, id, raw } = {}) {
  const { statusCode, headers, body: text } = await invoke(name, {
    headers: key === null ? {} : { 'X-Api-Key': key },
    body: raw ?? (body === undefined ? undefined : JSON.stringify(body)),
    pathParameters: id === undefined ? undefined : { id },
  });
  assert.equal(headers['Content-Type'], 'application/json');
  return { status: statusCode, body: JSON.parse(text) };
}

/** Asks until there is an answer. */
async function eventually(what, ask) {
  const limit = Date.now() + patience;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > limit) assert.fail(`not within ${patience} ms: ${what}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

/** What the service's own API says of a session. */
async function seen(id) {
  const answer = await fetch(`${world.service}/v1/sessions/${id}`, { headers: { 'X-API-Key': world.key } });
  return answer.ok ? answer.json() : null;
}

/** Creates a session and waits until its browser runs. */
async function created(body = {}) {
  const { status, body: session } = await call('Create', { body });
  assert.equal(status, 200);
  await eventually('the session is ready', async () => (await seen(session.id))?.phase === 'ready');
  return session;
}

test('create: a container gets the session, and its token opens the browser', async () => {
  const session = await created({ timeout: 5, browserSettings: { viewport: { width: 800, height: 600 } } });
  assert.match(session.id, /^ses_/);
  assert.equal(session.status, 'pending');
  assert.equal(session.timeout, 300_000);
  assert.deepEqual(session.browserSettings, { viewport: { width: 800, height: 600 } });
  assert.equal(session.connectUrl, `${world.service.replace('http', 'ws')}/sessions/${session.id}/ws`);

  const left = Number(await operator.command('TTL', `session:${session.id}`));
  assert.ok(left > 0 && left <= 300, `it is kept for ${left} s`);
  assert.ok((await seen(session.id)).containerId);
  const version = await fetch(`${world.service}/sessions/${session.id}/json/version`, { headers: { Authorization: `Bearer ${session.token}` } });
  assert.equal(version.status, 200);
  assert.match((await version.json()).Browser, /Chrome/);
});

test('create: the token opens no other session', async () => {
  const [one, other] = [await created(), await created()];
  const answer = await fetch(`${world.service}/sessions/${other.id}/json/version`, { headers: { Authorization: `Bearer ${one.token}` } });
  assert.equal(answer.status, 403);
});

test('create: what it cannot do it says', async () => {
  for (const timeout of [0, -1, 1.5, '10', 24 * 60 + 1]) {
    const { status, body } = await call('Create', { body: { timeout } });
    assert.equal(status, 400, `timeout ${timeout}`);
    assert.match(body.error, /timeout/);
  }
  assert.equal((await call('Create', { body: { browserSettings: [] } })).status, 400);
  assert.equal((await call('Create', { raw: '{' })).status, 400);
  assert.equal((await call('Create', { raw: '[]' })).status, 400);
});

test('every function wants an API key that is known', async () => {
  for (const name of ['Create', 'Get', 'List', 'Delete']) {
    assert.equal((await call(name, { key: null, id: 'ses_x' })).status, 401, name);
    assert.equal((await call(name, { key: 'wrong', id: 'ses_x' })).status, 401, name);
  }
});

test('get: the session, and how it stands', async () => {
  const session = await created();
  const got = await eventually('its document tells that it is ready', async () => {
    const { status, body } = await call('Get', { id: session.id });
    assert.equal(status, 200);
    return body.status !== 'pending' && body;
  });
  assert.equal(got.id, session.id);
  assert.equal(got.createdAt, session.createdAt);
  assert.equal(got.userId, (await seen(session.id)).userId, 'the functions and the service know the key by one name');
});

test('list: the sessions of the key, whatever else there is', async () => {
  const session = await created();
  await operator.command('SETEX', 'session:ses_of_another', '60', JSON.stringify({ sessionId: 'ses_of_another', userId: 'another', status: 'terminated' }));
  await operator.command('SETEX', 'session:ses_broken', '60', '{');
  const { status, body } = await call('List');
  assert.equal(status, 200);
  const ids = body.sessions.map((s) => s.id);
  assert.equal(body.count, ids.length);
  assert.equal(new Set(ids).size, ids.length);
  assert.ok(ids.includes(session.id));
  assert.ok(!ids.includes('ses_of_another'));
  for (const name of ['Get', 'Delete']) {
    for (const id of ['ses_of_another', 'ses_broken', 'ses_nowhere', '../x', '']) {
      assert.equal((await call(name, { id })).status, 404, `${name} ${id}`);
    }
  }
});

test('delete: the service ends the session', async () => {
  const session = await created();
  const { status, body } = await call('Delete', { id: session.id });
  assert.equal(status, 200);
  assert.equal(body.status, 'terminated');
  const ended = await eventually('the session has ended', async () => {
    const now = await seen(session.id);
    return now?.phase === 'ended' && now;
  });
  assert.equal(ended.endReason, 'released');
  assert.equal((await call('Get', { id: session.id })).body.status, 'terminated');
  const left = Number(await operator.command('TTL', `session:${session.id}`));
  assert.ok(left > 0 && left <= 300, `it is kept for ${left} s`);
});

test('wake: a change of a task becomes a hint, in the words of the service', async () => {
  const arn = 'arn:aws:ecs:us-east-1:000000000000:task/e2e/0123456789abcdef';
  await invoke('Wake', { detail: { taskArn: arn } });
  const stream = `wallcrawler:{${world.functions.Wake.env.DEPLOYMENT}}:wake`;
  const entries = await operator.command('XREVRANGE', stream, '+', '-');
  assert.ok(entries.length > 1, 'the service writes to another stream');
  assert.deepEqual(entries.map(([, fields]) => fields).find(([, text]) => text.includes(arn)), ['h', `fleet 0 ${arn}`]);
  for (const event of [{}, { detail: {} }, { detail: { taskArn: 'x\ny' } }]) {
    await assert.rejects(() => invoke('Wake', event), /names no task/);
  }
});

test('each user of Redis reaches its own keys only', async () => {
  const { redis, secret } = await import('../world.mjs');
  Object.assign(process.env, world.functions.Get.env);
  const sessions = new Redis({ ...world.redis, username: process.env.REDIS_USERNAME, password: await secret('REDIS_PASSWORD_ARN') });
  await assert.rejects(() => sessions.command('GET', 'wallcrawler:deployment'), /NOPERM/);
  await assert.rejects(() => sessions.command('KEYS', 'session:*'), /NOPERM/);
  sessions.close();
  Object.assign(process.env, world.functions.Wake.env);
  await assert.rejects(async () => (await redis()).command('GET', 'session:ses_x'), /NOPERM/);
  await assert.rejects(async () => (await redis()).command('DEL', `wallcrawler:{${process.env.DEPLOYMENT}}:wake`), /NOPERM/);
});

test('a connection that was lost while the function slept is made anew', async () => {
  assert.equal((await call('List')).status, 200);
  assert.ok(Number(await operator.command('CLIENT', 'KILL', 'USER', 'sessions')) > 0);
  assert.equal((await call('List')).status, 200);
});

test('a wrong password is told by the user\'s name, without the password', async () => {
  const wrong = new Redis({ ...world.redis, username: 'sessions', password: 'canary-wrong' });
  await assert.rejects(() => wrong.command('PING'), (error) => {
    assert.match(error.message, /does not accept user sessions/);
    assert.doesNotMatch(error.message, /canary/);
    return true;
  });
  wrong.close();
});
