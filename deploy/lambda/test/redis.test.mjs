// The client of Redis and the listing of sessions, against a server of this test's own. deploy/lambda_test.go runs it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Redis, RedisError } from '../redis.mjs';
import { sessionsOf } from '../sessions.mjs';

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

let server, ended, directory, store;

// A cluster of one: it refuses what names keys of two slots, as Serverless does.
before(async () => {
  const [port, bus] = [await freePort(), await freePort()];
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'lambda-redis-'));
  server = spawn('redis-server', ['--bind', '127.0.0.1', '--port', port, '--cluster-enabled', 'yes', '--cluster-port', bus,
    '--dir', directory, '--save', ''], { stdio: 'ignore' });
  ended = once(server, 'exit');
  store = new Redis({ endpoint: `127.0.0.1:${port}` });
  for (let tries = 0; ; tries++) {
    try {
      await store.command('CLUSTER', 'ADDSLOTSRANGE', 0, 16383);
      break;
    } catch (error) {
      if (error instanceof RedisError || tries === 600) throw error;
      await new Promise((again) => setTimeout(again, 50));
    }
  }
  while (!(await store.command('CLUSTER', 'INFO')).includes('cluster_state:ok')) await new Promise((again) => setTimeout(again, 20));
});

after(async () => {
  store.close();
  server.kill();
  await ended;
  fs.rmSync(directory, { recursive: true });
});

test('pipeline: all commands are sent before the first is answered', async () => {
  const sent = [];
  const quiet = net.createServer((socket) => socket.on('data', (data) => {
    sent.push(data);
    const commands = Buffer.concat(sent).toString().match(/\*2\r\n/g) ?? [];
    if (commands.length === 3) socket.write('$3\r\none\r\n-WRONGTYPE x\r\n$-1\r\n');
  })).listen(0, '127.0.0.1');
  await once(quiet, 'listening');
  const client = new Redis({ endpoint: `127.0.0.1:${quiet.address().port}` });
  const answers = await client.pipeline([['GET', 'a'], ['GET', 'b'], ['GET', 'c']]);
  client.close();
  quiet.close();
  assert.equal(answers[0], 'one');
  assert.ok(answers[1] instanceof RedisError);
  assert.equal(answers[2], null);
});

test('pipeline: of nothing is nothing', async () => assert.deepEqual(await store.pipeline([]), []));

test('list: every session of the user, from all slots of a cluster, and none of others', async () => {
  await assert.rejects(() => store.command('MGET', 'session:ses_1', 'session:ses_2'), /CROSSSLOT/); // it is a cluster
  const documents = Array.from({ length: 1500 }, (_, i) => ({ sessionId: `ses_${i}`, userId: i % 3 ? 'another' : 'alice', status: 'ready' }));
  await store.pipeline(documents.map((d) => ['SETEX', `session:${d.sessionId}`, 60, JSON.stringify(d)]));
  await store.command('HSET', 'session:ses_hash', 'a', 'b'); // of somebody who writes something else there
  await store.command('SET', 'other:key', '{"userId":"alice"}');
  const { sessions, whole } = await sessionsOf('alice', store);
  assert.ok(whole);
  assert.deepEqual(sessions.map((s) => s.id).sort(), documents.filter((d) => d.userId === 'alice').map((d) => d.sessionId).sort());
});

test('list: it ends, and tells that it has not seen all', async () => {
  const asked = [];
  const endless = {
    command: async (...args) => { asked.push(args); return ['7', [`session:ses_${asked.length}`]]; },
    pipeline: async (commands) => commands.map(() => JSON.stringify({ sessionId: 'x', userId: 'alice' })),
  };
  const { sessions, whole } = await sessionsOf('alice', endless, 5);
  assert.equal(whole, false);
  assert.equal(sessions.length, 5);
  assert.equal(asked.length, 5);
});
