// What the functions reach: secrets and Redis, as their environment names them. It is kept
// while a function's process lives.
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'; // Lambda has it
import { Redis } from './redis.mjs';

const fresh = 5 * 60 * 1000; // ms for which a secret is not read again

const secrets = new Map();
let manager;

/** The text of the secret that a variable names by ARN. */
export async function secret(variable) {
  const id = process.env[variable];
  if (!id) throw new Error(`${variable} is not set`);
  const known = secrets.get(id);
  if (known && Date.now() - known.at < fresh) return known.text;
  manager ??= new SecretsManagerClient({ maxAttempts: 2 });
  const { SecretString: text } = await manager.send(new GetSecretValueCommand({ SecretId: id }));
  if (!text) throw new Error(`the secret of ${variable} holds no text`);
  secrets.set(id, { text, at: Date.now() });
  return text;
}

let client;

/** Redis, by the user of this function. */
export async function redis() {
  const password = await secret('REDIS_PASSWORD_ARN');
  if (client?.password !== password) {
    client?.redis.close(); // its password was changed
    client = {
      password,
      redis: new Redis({
        endpoint: process.env.REDIS_ENDPOINT,
        tls: process.env.REDIS_TLS_ENABLED === 'true',
        username: process.env.REDIS_USERNAME,
        password,
      }),
    };
  }
  return client.redis;
}
