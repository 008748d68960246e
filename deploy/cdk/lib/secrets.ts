import { RemovalPolicy } from 'aws-cdk-lib';
import * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';

/** The secrets, all drawn by Secrets Manager at the first deployment. */
export class Secrets extends Construct {
  readonly jwe: secretsmanager.Secret; // of sessions' tokens
  readonly container: secretsmanager.Secret; // of containers' tokens
  readonly apiKeys: secretsmanager.Secret;
  readonly redisService: secretsmanager.Secret;
  readonly redisSessions: secretsmanager.Secret;
  readonly redisWake: secretsmanager.Secret;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    const draw = (name: string, description: string, shape: Partial<secretsmanager.SecretStringGenerator> = {}) =>
      new secretsmanager.Secret(this, name, {
        description,
        generateSecretString: { excludePunctuation: true, passwordLength: 48, ...shape },
        removalPolicy: RemovalPolicy.DESTROY, // a deleted stack can be deployed again
      });
    // The original's shape. The key is the digest of the whole text.
    this.jwe = draw('Jwe', 'WallCrawler: encrypts session tokens', {
      secretStringTemplate: '{}',
      generateStringKey: 'JWE_SECRET',
    });
    this.container = draw('Container', "WallCrawler: makes containers' tokens");
    // One key to begin with, as plain text. Replace it with {"API_KEYS":["…","…"]} for more.
    this.apiKeys = draw('ApiKeys', 'WallCrawler: API keys');
    this.redisService = draw('RedisService', 'WallCrawler: password of Redis user service');
    this.redisSessions = draw('RedisSessions', 'WallCrawler: password of Redis user sessions');
    this.redisWake = draw('RedisWake', 'WallCrawler: password of Redis user wake');
  }
}
