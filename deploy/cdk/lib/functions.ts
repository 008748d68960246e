import * as path from 'node:path';
import { Duration, RemovalPolicy } from 'aws-cdk-lib';
import * as api from 'aws-cdk-lib/aws-apigatewayv2';
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as events from 'aws-cdk-lib/aws-events';
import * as targets from 'aws-cdk-lib/aws-events-targets';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';
import { checkout } from './images';
import { Network } from './network';
import { Redis } from './redis';
import { Secrets } from './secrets';
import { Settings } from './settings';

/** What the functions have in common. Their code is deploy/lambda, as it is. */
class Maker {
  private readonly code = lambda.Code.fromAsset(path.join(checkout, 'deploy', 'lambda'), {
    exclude: ['node_modules', 'package*.json', 'test', '*.md'],
  });

  constructor(
    private readonly settings: Settings,
    private readonly network: Network,
    private readonly redis: Redis,
    private readonly retention: logs.RetentionDays,
  ) {}

  make(
    scope: Construct, name: string, handler: string, user: string, password: secretsmanager.Secret,
    others: Record<string, secretsmanager.Secret>, environment: Record<string, string>,
  ): lambda.Function {
    const secrets = { REDIS_PASSWORD_ARN: password, ...others };
    const fn = new lambda.Function(scope, name, {
      description: `WallCrawler ${this.settings.deployment}: ${name}`,
      code: this.code,
      handler,
      runtime: lambda.Runtime.NODEJS_22_X,
      architecture: lambda.Architecture.ARM_64,
      memorySize: 256,
      timeout: Duration.seconds(10),
      vpc: this.network.vpc,
      vpcSubnets: { subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS },
      securityGroups: [this.network.functions],
      logGroup: new logs.LogGroup(scope, `${name}Log`, { retention: this.retention, removalPolicy: RemovalPolicy.DESTROY }),
      environment: {
        REDIS_ENDPOINT: this.redis.endpoint,
        REDIS_TLS_ENABLED: 'true',
        REDIS_USERNAME: user,
        ...Object.fromEntries(Object.entries(secrets).map(([variable, secret]) => [variable, secret.secretArn])),
        ...environment,
      },
    });
    fn.addToRolePolicy(new iam.PolicyStatement({
      sid: 'Secrets', actions: ['secretsmanager:GetSecretValue'],
      resources: Object.values(secrets).map((s) => s.secretArn),
    }));
    return fn;
  }
}

/** The functions that speak to Redis for others than the service. */
export class Functions extends Construct {
  readonly all: lambda.Function[] = [];
  readonly apiUrl?: string;
  api?: api.HttpApi; // set by sessions, once

  constructor(
    scope: Construct, id: string, settings: Settings,
    parts: { network: Network; secrets: Secrets; redis: Redis; cluster: ecs.Cluster; connectUrl: string },
    retention: logs.RetentionDays,
  ) {
    super(scope, id);
    const maker = new Maker(settings, parts.network, parts.redis, retention);
    this.wake(maker, settings, parts.secrets, parts.cluster);
    if (settings.sessionFunctions) {
      this.apiUrl = this.sessions(maker, settings, parts.secrets, parts.connectUrl);
    }
  }

  /** Changes of tasks become hints: the controller looks at once instead of at its next listing. */
  private wake(maker: Maker, settings: Settings, secrets: Secrets, cluster: ecs.Cluster): void {
    const wake = maker.make(this, 'Wake', 'wake.handler', 'wake', secrets.redisWake, {}, { DEPLOYMENT: settings.deployment });
    this.all.push(wake);
    new events.Rule(this, 'TaskChanges', {
      description: 'WallCrawler: tasks of browsers that have changed',
      eventPattern: {
        source: ['aws.ecs'],
        detailType: ['ECS Task State Change'],
        detail: {
          clusterArn: [cluster.clusterArn],
          startedBy: [settings.deployment],
          lastStatus: ['RUNNING', 'DEACTIVATING', 'STOPPING', 'DEPROVISIONING', 'STOPPED'],
        },
      },
      // An old hint is worth nothing: the next listing has seen it all.
      targets: [new targets.LambdaFunction(wake, { retryAttempts: 2, maxEventAge: Duration.minutes(1) })],
    });
  }

  /** Sessions as the original's programs create them. */
  private sessions(maker: Maker, settings: Settings, secrets: Secrets, connectUrl: string): string {
    const http = this.api = new api.HttpApi(this, 'Api', { apiName: `${settings.deployment}-sessions` });
    const keys = { API_KEYS_SECRET_ARN: secrets.apiKeys };
    const routes: [string, string, api.HttpMethod, string][] = [
      ['Create', 'sessions.create', api.HttpMethod.POST, '/sessions'],
      ['List', 'sessions.list', api.HttpMethod.GET, '/sessions'],
      ['Get', 'sessions.get', api.HttpMethod.GET, '/sessions/{id}'],
      ['Delete', 'sessions.end', api.HttpMethod.DELETE, '/sessions/{id}'],
    ];
    for (const [name, handler, method, route] of routes) {
      const creates = name === 'Create';
      const fn = maker.make(this, name, handler, 'sessions', secrets.redisSessions,
        creates ? { ...keys, JWE_SECRET_ARN: secrets.jwe } : keys,
        creates ? { CONNECT_URL: connectUrl } : {});
      this.all.push(fn);
      http.addRoutes({ path: route, methods: [method], integration: new HttpLambdaIntegration(`${name}Route`, fn) });
    }
    return http.apiEndpoint;
  }
}
