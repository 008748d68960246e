// A client of Redis that is as small as a function wants it: one connection, commands in order,
// TLS and a user. It speaks RESP2. A cache of ElastiCache has one endpoint in either form, so
// nothing here follows a cluster's redirections.
import net from 'node:net';
import tls from 'node:tls';

const patience = 3000; // ms for connecting, and for an answer
const most = 64 << 20; // bytes of one answer

/** What Redis answered instead of a value. */
export class RedisError extends Error {}

/** One connection, made at the first command and made anew after a failure. */
export class Redis {
  #options;
  #socket = null;
  #opening = null;
  #received = Buffer.alloc(0);
  #waiting = [];

  /** options: endpoint (host or host:port), tls, username, password. */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Sends one command and gives its answer. A connection that was lost while the function slept
   * is found out here, so what fails without an answer is sent once more: callers' commands may
   * be carried out twice.
   */
  async command(...args) {
    return this.#patiently(() => this.#send(args));
  }

  /**
   * Sends commands all at once and gives their answers in that order, a RedisError where one failed.
   * Unlike one command of many keys, it may name keys of several slots of a cluster.
   */
  async pipeline(commands) {
    return this.#patiently(async () => {
      const socket = this.#socket;
      socket?.cork(); // one write for all
      const answers = commands.map((args) => this.#send(args).catch((error) => {
        if (error instanceof RedisError) return error;
        throw error;
      }));
      socket?.uncork();
      return Promise.all(answers);
    });
  }

  close() {
    this.#fail(new Error('closed'));
  }

  async #patiently(send) {
    const old = this.#socket !== null;
    try {
      return await this.#once(send);
    } catch (error) {
      if (!old || error instanceof RedisError) throw error;
      return this.#once(send);
    }
  }

  async #once(send) {
    this.#opening ??= this.#open().finally(() => { this.#opening = null; });
    await this.#opening;
    return send();
  }

  async #open() {
    if (this.#socket !== null) return;
    const { endpoint, username, password } = this.#options;
    const [, host, port] = /^(.*?)(?::(\d+))?$/.exec(endpoint);
    const address = { host, port: Number(port ?? 6379) };
    if (this.#options.tls && !net.isIP(host)) address.servername = host;
    const socket = this.#options.tls ? tls.connect({ ...address, minVersion: 'TLSv1.2' }) : net.connect(address);
    socket.setNoDelay(true);
    socket.unref(); // an idle connection keeps no process; what is waited for has a timer, which does
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => socket.destroy(new Error(`Redis at ${endpoint} does not answer`)), patience);
      socket.once(this.#options.tls ? 'secureConnect' : 'connect', () => { clearTimeout(timer); resolve(); });
      socket.once('error', (error) => { clearTimeout(timer); reject(error); });
    });
    this.#socket = socket;
    this.#received = Buffer.alloc(0);
    socket.on('data', (data) => { if (this.#socket === socket) this.#take(data); });
    socket.on('error', () => {}); // close follows
    socket.on('close', () => { if (this.#socket === socket) this.#fail(new Error('Redis has closed the connection')); });
    if (password) {
      try {
        await this.#send(username ? ['AUTH', username, password] : ['AUTH', password]);
      } catch (error) {
        this.#fail(error);
        throw new Error(`Redis does not accept user ${username || 'default'}: ${error.message}`);
      }
    }
  }

  #send(args) {
    return new Promise((resolve, reject) => {
      const socket = this.#socket;
      if (socket === null) {
        reject(new Error('Redis has closed the connection'));
        return;
      }
      const timer = setTimeout(() => this.#fail(new Error('Redis does not answer')), patience);
      const settle = (how) => (value) => { clearTimeout(timer); how(value); };
      this.#waiting.push({ resolve: settle(resolve), reject: settle(reject) });
      let text = `*${args.length}\r\n`;
      for (const arg of args) text += `$${Buffer.byteLength(String(arg))}\r\n${arg}\r\n`;
      socket.write(text);
    });
  }

  #take(data) {
    this.#received = this.#received.length === 0 ? data : Buffer.concat([this.#received, data]);
    if (this.#received.length > most) {
      this.#fail(new Error(`an answer of Redis has more than ${most} bytes`));
      return;
    }
    try {
      let at = 0;
      for (let found; this.#waiting.length > 0 && (found = read(this.#received, at)) !== null; at = found.next) {
        const { resolve, reject } = this.#waiting.shift();
        if (found.value instanceof RedisError) reject(found.value);
        else resolve(found.value);
      }
      this.#received = this.#received.subarray(at);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    const waiting = this.#waiting;
    this.#socket?.destroy();
    this.#socket = null;
    this.#waiting = [];
    for (const { reject } of waiting) reject(error);
  }
}

/** Reads one value at an offset; null: it is not all there yet. */
function read(buffer, at) {
  const end = buffer.indexOf('\r\n', at);
  if (end < 0) return null;
  const head = buffer.toString('utf8', at + 1, end);
  let next = end + 2;
  switch (buffer[at]) {
    case 0x2b: // +
      return { value: head, next };
    case 0x2d: // -
      return { value: new RedisError(head), next };
    case 0x3a: // :
      return { value: Number(head), next };
    case 0x24: { // $
      const length = Number(head);
      if (length < 0) return { value: null, next };
      if (buffer.length < next + length + 2) return null;
      return { value: buffer.toString('utf8', next, next + length), next: next + length + 2 };
    }
    case 0x2a: { // *
      const length = Number(head);
      if (length < 0) return { value: null, next };
      const value = [];
      for (let i = 0; i < length; i++) {
        const element = read(buffer, next);
        if (element === null) return null;
        value.push(element.value);
        next = element.next;
      }
      return { value, next };
    }
    default:
      throw new Error('what answers at the endpoint of Redis does not speak its protocol');
  }
}
