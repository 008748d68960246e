import { Aws, Duration, Fn, RemovalPolicy, Stack } from 'aws-cdk-lib';
import * as acm from 'aws-cdk-lib/aws-certificatemanager';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import * as elb from 'aws-cdk-lib/aws-elasticloadbalancingv2';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as cloudmap from 'aws-cdk-lib/aws-servicediscovery';
import * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';
import { Browsers, longestStop } from './browsers';
import { image, runtimePlatform } from './images';
import { Network, registerPort, servicePort } from './network';
import { Redis } from './redis';
import { Secrets } from './secrets';
import { Settings } from './settings';

/** The drain, in seconds. A replica has ended by itself before the balancer or ECS lose patience. */
export const drain = { unready: 10, clients: 95, deregistration: 115 };

/** Share of a task's memory that the Go runtime is told it has. */
const heapShare = 0.8;

interface Parts {
  network: Network;
  secrets: Secrets;
  redis: Redis;
  browsers: Browsers;
  cluster: ecs.Cluster;
}

/** The replicas of the service, the load balancer before them, and how containers find them. */
export class Service extends Construct {
  readonly service: ecs.FargateService;
  readonly balancer: elb.ApplicationLoadBalancer;
  readonly targets: elb.ApplicationTargetGroup;
  readonly publicUrl: string; // http(s)://…
  readonly connectUrl: string; // ws(s)://…

  constructor(scope: Construct, id: string, settings: Settings, parts: Parts, retention: logs.RetentionDays) {
    super(scope, id);
    const { network, cluster } = parts;

    this.balancer = new elb.ApplicationLoadBalancer(this, 'Balancer', {
      vpc: network.vpc,
      internetFacing: true,
      securityGroup: network.balancer,
      idleTimeout: Duration.seconds(4000), // the longest there is; the service pings every 20 s besides
      dropInvalidHeaderFields: true,
      desyncMitigationMode: elb.DesyncMitigationMode.STRICTEST,
    });
    const { certificateArn, domainName } = settings;
    const host = domainName ?? this.balancer.loadBalancerDnsName;
    const secure = domainName === undefined ? '' : 's';
    this.publicUrl = Fn.join('', [`http${secure}://`, host]);
    this.connectUrl = Fn.join('', [`ws${secure}://`, host]);

    const namespace = new cloudmap.PrivateDnsNamespace(this, 'Namespace', {
      name: `${settings.deployment}.internal`,
      vpc: network.vpc,
      description: 'WallCrawler: where containers register',
    });
    const registerUrl = Fn.join('', ['http://replicas.', namespace.namespaceName, `:${registerPort}`]);

    this.service = new ecs.FargateService(this, 'Replicas', {
      cluster,
      taskDefinition: this.task(settings, parts, registerUrl, retention),
      desiredCount: settings.minReplicas,
      minHealthyPercent: 100,
      maxHealthyPercent: 200,
      circuitBreaker: { rollback: true },
      capacityProviderStrategies: [{ capacityProvider: 'FARGATE', weight: 1 }],
      securityGroups: [network.service],
      vpcSubnets: { subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS },
      assignPublicIp: false,
      healthCheckGracePeriod: Duration.seconds(60),
      propagateTags: ecs.PropagatedTagSource.SERVICE,
      cloudMapOptions: {
        cloudMapNamespace: namespace,
        name: 'replicas',
        dnsRecordType: cloudmap.DnsRecordType.A,
        dnsTtl: Duration.seconds(10),
      },
    });

    // /started, not /ready: ECS replaces what fails this check, and a replica that has lost
    // Redis is not ready but still joins clients to their browsers. Not /health either: a new
    // version that cannot reach Redis at all lives, and must not take the old one's place.
    this.targets = new elb.ApplicationTargetGroup(this, 'Targets', {
      vpc: network.vpc,
      port: servicePort,
      protocol: elb.ApplicationProtocol.HTTP,
      targetType: elb.TargetType.IP,
      deregistrationDelay: Duration.seconds(drain.deregistration),
      healthCheck: {
        path: '/started',
        healthyHttpCodes: '200',
        interval: Duration.seconds(10),
        timeout: Duration.seconds(5),
        healthyThresholdCount: 2,
        unhealthyThresholdCount: 3,
      },
    });
    this.targets.addTarget(this.service);
    this.listen(certificateArn);
  }

  /** Listeners forward what is for the public, and answer the rest themselves. */
  private listen(certificateArn: string | undefined): void {
    let listener: elb.ApplicationListener;
    if (certificateArn === undefined) {
      listener = this.balancer.addListener('Http', {
        port: 80, protocol: elb.ApplicationProtocol.HTTP, open: false, defaultTargetGroups: [this.targets],
      });
    } else {
      this.balancer.addListener('Http', {
        port: 80, protocol: elb.ApplicationProtocol.HTTP, open: false,
        defaultAction: elb.ListenerAction.redirect({ protocol: 'HTTPS', port: '443', permanent: true }),
      });
      listener = this.balancer.addListener('Https', {
        port: 443, protocol: elb.ApplicationProtocol.HTTPS, open: false,
        certificates: [acm.Certificate.fromCertificateArn(this, 'Certificate', certificateArn)],
        sslPolicy: elb.SslPolicy.TLS13_RES,
        defaultTargetGroups: [this.targets],
      });
    }
    listener.addAction('Inside', {
      priority: 1,
      conditions: [elb.ListenerCondition.pathPatterns(['/internal/*', '/internal', '/metrics'])],
      action: elb.ListenerAction.fixedResponse(404, { contentType: 'text/plain', messageBody: 'not here' }),
    });
  }

  private task(settings: Settings, parts: Parts, registerUrl: string, retention: logs.RetentionDays): ecs.FargateTaskDefinition {
    const { network, secrets, redis, browsers, cluster } = parts;
    const task = new ecs.FargateTaskDefinition(this, 'Task', {
      family: `${settings.deployment}-service`,
      cpu: settings.serviceCpu,
      memoryLimitMiB: settings.serviceMemory,
      runtimePlatform: runtimePlatform(settings),
    });
    const log = new logs.LogGroup(this, 'Log', { retention, removalPolicy: RemovalPolicy.DESTROY });
    const environment: Record<string, string> = {
      AWS_REGION: Aws.REGION,
      API_KEYS_SECRET_ARN: secrets.apiKeys.secretArn,
      CAPACITY_PROVIDERS: settings.capacityProviders.join(','),
      CONTAINER_CIDRS: settings.vpc?.vpcCidrBlock ?? network.vpc.vpcCidrBlock,
      CONTAINER_SECRET_ARN: secrets.container.secretArn,
      CONTAINER_SECURITY_GROUP_ID: network.browsers.securityGroupId,
      CONTAINER_SUBNETS: Fn.join(',', network.vpc.selectSubnets({ subnetType: ec2.SubnetType.PRIVATE_WITH_EGRESS }).subnetIds),
      CONTAINER_TASK_DEF: browsers.definition.ref,
      DEPLOYMENT: settings.deployment,
      DRAIN_TIMEOUT: `${drain.clients}s`,
      DRAIN_UNREADY: `${drain.unready}s`,
      ECS_CLUSTER_NAME: cluster.clusterName,
      EMF: 'true',
      GOMEMLIMIT: `${Math.floor(settings.serviceMemory * heapShare)}MiB`,
      JWE_SECRET_ARN: secrets.jwe.secretArn,
      MAX_CONTAINERS: String(settings.maxContainers),
      MAX_SESSIONS_PER_CONTAINER: String(settings.sessionsPerContainer),
      MIN_CONTAINERS: String(settings.minContainers),
      POOL_PROTOCOL: 'v2',
      PUBLIC_URL: this.publicUrl,
      REDIS_ENDPOINT: redis.endpoint,
      REDIS_TLS_ENABLED: 'true',
      REDIS_USERNAME: 'service',
      REGISTER_PORT: String(registerPort),
      REGISTER_URL: registerUrl,
    };
    if (redis.cluster) {
      environment.REDIS_CLUSTER = 'true';
    }
    const more: Record<string, ecs.Secret> = {};
    if (settings.tracesEndpoint !== undefined) {
      environment.OTEL_EXPORTER_OTLP_ENDPOINT = settings.tracesEndpoint.href.replace(/\/$/, '');
      environment.TRACES_PERCENT = String(settings.tracesPercent);
      if (settings.tracesHeadersSecretArn !== undefined) {
        more.OTEL_EXPORTER_OTLP_HEADERS = ecs.Secret.fromSecretsManager(
          secretsmanager.Secret.fromSecretCompleteArn(this, 'TracesHeaders', settings.tracesHeadersSecretArn));
      }
    }
    const linux = new ecs.LinuxParameters(this, 'Linux', {});
    linux.dropCapabilities(ecs.Capability.ALL);
    task.addContainer('Service', {
      image: image('image', 'Dockerfile', settings),
      command: ['serve'],
      user: '65532:65532',
      readonlyRootFilesystem: true,
      environment,
      secrets: { REDIS_PASSWORD: ecs.Secret.fromSecretsManager(secrets.redisService), ...more },
      portMappings: [{ containerPort: servicePort }, { containerPort: registerPort }],
      stopTimeout: Duration.seconds(longestStop),
      ulimits: [{ name: ecs.UlimitName.NOFILE, softLimit: 65535, hardLimit: 65535 }],
      linuxParameters: linux,
      logging: ecs.LogDrivers.awsLogs({ logGroup: log, streamPrefix: 'service', mode: ecs.AwsLogDriverMode.NON_BLOCKING }),
    });
    for (const statement of permissions(Stack.of(this), parts)) {
      task.addToTaskRolePolicy(statement);
    }
    return task;
  }
}

/** What the code of the service calls, and no more. deploy/agree_test.go holds the two together. */
function permissions(stack: Stack, parts: Parts): iam.PolicyStatement[] {
  const { secrets, browsers, cluster } = parts;
  const inCluster = { ArnEquals: { 'ecs:cluster': cluster.clusterArn } };
  const tasks = stack.formatArn({ service: 'ecs', resource: 'task', resourceName: `${cluster.clusterName}/*` });
  const definition = stack.formatArn({
    service: 'ecs', resource: 'task-definition', resourceName: `${browsers.definition.family}:*`,
  });
  return [
    new iam.PolicyStatement({ sid: 'Launch', actions: ['ecs:RunTask'], resources: [definition], conditions: inCluster }),
    new iam.PolicyStatement({
      sid: 'TagLaunches', actions: ['ecs:TagResource'], resources: [tasks],
      conditions: { StringEquals: { 'ecs:CreateAction': 'RunTask' } },
    }),
    new iam.PolicyStatement({
      sid: 'Tasks', actions: ['ecs:StopTask', 'ecs:DescribeTasks'], resources: [tasks], conditions: inCluster,
    }),
    // It has no tasks to name; the condition is what holds it to the cluster.
    new iam.PolicyStatement({ sid: 'List', actions: ['ecs:ListTasks'], resources: ['*'], conditions: inCluster }),
    new iam.PolicyStatement({
      sid: 'PassRole', actions: ['iam:PassRole'], resources: [browsers.executionRole.roleArn],
      conditions: { StringEquals: { 'iam:PassedToService': 'ecs-tasks.amazonaws.com' } },
    }),
    new iam.PolicyStatement({
      sid: 'Secrets', actions: ['secretsmanager:GetSecretValue'],
      resources: [secrets.jwe.secretArn, secrets.container.secretArn, secrets.apiKeys.secretArn],
    }),
  ];
}
