import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';
import { Match, Template } from 'aws-cdk-lib/assertions';
import { goldenFile, images, kept, synthesise } from '../lib/golden';
import { checkout, image } from '../lib/images';
import { drain } from '../lib/service';
import { Settings } from '../lib/settings';
import { makeApp } from '../lib/stack';

function template(settings: Record<string, string> = {}): Template {
  return Template.fromStack(makeApp({ ...images, ...settings }).stack);
}

const usual = template();
const full = template(kept.full);

type Properties = Record<string, any>;

/** The properties of the only resource of that type whose logical id begins so. */
function only(of: Template, type: string, prefix = ''): Properties {
  const found = Object.entries(of.findResources(type)).filter(([id]) => id.startsWith(prefix));
  assert.equal(found.length, 1, `${type} ${prefix}: ${found.map(([id]) => id)}`);
  return found[0]![1].Properties;
}

function container(of: Template, prefix: string): Properties {
  const task = only(of, 'AWS::ECS::TaskDefinition', prefix);
  assert.equal(task.ContainerDefinitions.length, 1);
  return task.ContainerDefinitions[0];
}

function environment(of: Template, prefix: string): Record<string, any> {
  return Object.fromEntries(container(of, prefix).Environment.map((e: Properties) => [e.Name, e.Value]));
}

const seconds = (text: string): number => Number(/^(\d+)s$/.exec(text)![1]);

for (const name of Object.keys(kept)) {
  test(`golden: ${name} is what is kept; remake it with make golden`, () => {
    assert.equal(synthesise(kept[name]!), fs.readFileSync(goldenFile(name), 'utf8'));
  });
}

test('nothing is looked up in an account', () => {
  for (const settings of Object.values(kept)) {
    const { app } = makeApp({ ...images, ...settings });
    assert.deepEqual(app.synth().manifest.missing, undefined);
  }
});

test('balancer: the longest idle timeout, and health that does not hang on Redis', () => {
  const balancer = only(usual, 'AWS::ElasticLoadBalancingV2::LoadBalancer');
  const attributes = Object.fromEntries(balancer.LoadBalancerAttributes.map((a: Properties) => [a.Key, a.Value]));
  assert.equal(attributes['idle_timeout.timeout_seconds'], '4000');
  assert.equal(attributes['routing.http.drop_invalid_header_fields.enabled'], 'true');
  assert.equal(balancer.Scheme, 'internet-facing');
  const targets = only(usual, 'AWS::ElasticLoadBalancingV2::TargetGroup');
  assert.equal(targets.HealthCheckPath, '/started');
  assert.equal(targets.TargetType, 'ip');
});

test('drain: a replica has ended before the balancer or ECS lose patience', () => {
  const env = environment(usual, 'ServiceTask');
  const ends = seconds(env.DRAIN_UNREADY) + seconds(env.DRAIN_TIMEOUT);
  const targets = only(usual, 'AWS::ElasticLoadBalancingV2::TargetGroup');
  const delay = Number(targets.TargetGroupAttributes
    .find((a: Properties) => a.Key === 'deregistration_delay.timeout_seconds').Value);
  assert.equal(container(usual, 'ServiceTask').StopTimeout, 120);
  assert.ok(ends <= 110, `the service refuses more than 110 s, it would drain for ${ends}`);
  assert.ok(ends < delay && delay < 120, `drain ${ends}, deregistration ${delay}`);
  assert.equal(delay, drain.deregistration);
  // A replica that never reached Redis must not pass for one that works, nor one that lost it be replaced.
  assert.equal(targets.HealthCheckPath, '/started');
});

test('listener: plain HTTP without a certificate, with a warning', () => {
  usual.resourceCountIs('AWS::ElasticLoadBalancingV2::Listener', 1);
  assert.equal(only(usual, 'AWS::ElasticLoadBalancingV2::Listener').Port, 80);
  const { app } = makeApp(images);
  const messages = app.synth().stacks[0]!.messages.map((m) => String(m.entry.data));
  assert.ok(messages.some((m) => m.includes('in the clear')), messages.join('\n'));
});

test('listener: HTTPS with a certificate, and HTTP only to say so', () => {
  full.hasResourceProperties('AWS::ElasticLoadBalancingV2::Listener', {
    Port: 443, Certificates: [{ CertificateArn: kept.full!.certificateArn }], SslPolicy: 'ELBSecurityPolicy-TLS13-1-2-Res-2021-06',
  });
  full.hasResourceProperties('AWS::ElasticLoadBalancingV2::Listener', {
    Port: 80, DefaultActions: [{ Type: 'redirect', RedirectConfig: Match.objectLike({ Protocol: 'HTTPS', Port: '443' }) }],
  });
  assert.equal(environment(full, 'ServiceTask').PUBLIC_URL, 'https://browsers.example.com');
});

test('listener: registration and metrics are not for the public', () => {
  for (const of of [usual, full]) {
    const rule = only(of, 'AWS::ElasticLoadBalancingV2::ListenerRule');
    assert.deepEqual(rule.Conditions[0].PathPatternConfig.Values, ['/internal/*', '/internal', '/metrics']);
    assert.equal(rule.Actions[0].FixedResponseConfig.StatusCode, '404');
  }
});

test('registration: by a name inside the VPC that leads to the replicas themselves', () => {
  const namespace = only(usual, 'AWS::ServiceDiscovery::PrivateDnsNamespace');
  const name = only(usual, 'AWS::ServiceDiscovery::Service');
  assert.equal(environment(usual, 'ServiceTask').REGISTER_URL, `http://${name.Name}.${namespace.Name}:8081`);
  assert.equal(environment(usual, 'ServiceTask').REGISTER_PORT, '8081');
  assert.equal(name.DnsConfig.DnsRecords[0].Type, 'A');
  assert.equal(only(usual, 'AWS::ECS::Service').ServiceRegistries.length, 1);
});

test('service: rolls over without a gap, and back if that fails', () => {
  const service = only(usual, 'AWS::ECS::Service');
  assert.deepEqual(service.DeploymentConfiguration.DeploymentCircuitBreaker, { Enable: true, Rollback: true });
  assert.equal(service.DeploymentConfiguration.MinimumHealthyPercent, 100);
  assert.equal(service.NetworkConfiguration.AwsvpcConfiguration.AssignPublicIp, 'DISABLED');
  assert.equal(service.LoadBalancers[0].ContainerPort, 8080);
});

test('service: no secret is in its environment', () => {
  const { Environment: env, Secrets: secrets } = container(usual, 'ServiceTask');
  for (const { Name: name } of env) {
    assert.ok(!/(SECRET|PASSWORD|TOKEN|API_KEYS)$/.test(name), name);
  }
  assert.deepEqual(secrets.map((s: Properties) => s.Name), ['REDIS_PASSWORD']);
  assert.ok(!JSON.stringify(usual.toJSON()).includes('"SecretString"'));
});

test('service: the runtime knows its memory', () => {
  const task = only(usual, 'AWS::ECS::TaskDefinition', 'ServiceTask');
  assert.equal(environment(usual, 'ServiceTask').GOMEMLIMIT, `${Math.floor(Number(task.Memory) * 0.8)}MiB`);
});

test('containers: not root, nothing to write to but /tmp, no capability, no way to be more', () => {
  for (const prefix of ['ServiceTask', 'BrowsersTask']) {
    const c = container(usual, prefix);
    assert.match(c.User, /^[1-9]\d*:[1-9]\d*$/);
    assert.equal(c.ReadonlyRootFilesystem, true);
    assert.deepEqual(c.LinuxParameters.Capabilities, { Drop: ['ALL'] });
    assert.ok(!c.Privileged);
    assert.deepEqual(c.Ulimits, [{ Name: 'nofile', SoftLimit: 65535, HardLimit: 65535 }]);
  }
});

test('browsers: no role to be stolen, time to drain, a name that the service knows', () => {
  for (const of of [usual, full]) {
    const task = only(of, 'AWS::ECS::TaskDefinition', 'BrowsersTask');
    assert.equal(task.TaskRoleArn, undefined);
    const c = container(of, 'BrowsersTask');
    assert.equal(c.Name, 'BrowserContainer');
    assert.equal(c.StopTimeout, 120);
    assert.ok(seconds(environment(of, 'BrowsersTask').AGENT_DRAIN_TIMEOUT) < 120);
    assert.equal(c.LinuxParameters.InitProcessEnabled, true);
    assert.deepEqual(c.MountPoints, [{ ContainerPath: '/tmp', ReadOnly: false, SourceVolume: 'tmp' }]);
    assert.equal(c.Secrets, undefined);
    // Fargate refuses these.
    for (const name of ['SharedMemorySize', 'Tmpfs', 'MaxSwap', 'Devices']) {
      assert.equal(c.LinuxParameters[name], undefined, name);
    }
    assert.equal(only(of, 'AWS::IAM::Role', 'BrowsersTask').Description, undefined);
    assert.ok(Object.keys(of.findResources('AWS::IAM::Role')).every((id) => !id.startsWith('BrowsersTaskTaskRole')));
  }
});

test('cluster: Fargate and Fargate Spot', () => {
  usual.hasResourceProperties('AWS::ECS::ClusterCapacityProviderAssociations', { CapacityProviders: ['FARGATE', 'FARGATE_SPOT'] });
  assert.equal(environment(full, 'ServiceTask').CAPACITY_PROVIDERS, 'FARGATE_SPOT,FARGATE');
  assert.deepEqual(only(full, 'AWS::ECS::TaskDefinition', 'BrowsersTask').RuntimePlatform.CpuArchitecture, 'ARM64');
});

test('redis: TLS, encrypted, users instead of one password, events, no eviction', () => {
  const nodes = only(usual, 'AWS::ElastiCache::ReplicationGroup');
  assert.equal(nodes.TransitEncryptionEnabled, true);
  assert.equal(nodes.TransitEncryptionMode, 'required');
  assert.equal(nodes.AtRestEncryptionEnabled, true);
  assert.equal(nodes.AutomaticFailoverEnabled, true);
  assert.equal(nodes.AuthToken, undefined);
  assert.equal(nodes.UserGroupIds.length, 1);
  assert.deepEqual(only(usual, 'AWS::ElastiCache::ParameterGroup').Properties, {
    'notify-keyspace-events': 'K$gxe', 'maxmemory-policy': 'noeviction',
  });
  assert.equal(environment(usual, 'ServiceTask').REDIS_TLS_ENABLED, 'true');
  assert.equal(environment(usual, 'ServiceTask').REDIS_CLUSTER, undefined);
  const single = only(template({ redisReplicas: '0' }), 'AWS::ElastiCache::ReplicationGroup');
  assert.equal(single.AutomaticFailoverEnabled, false); // ElastiCache refuses it without a replica
  assert.equal(single.MultiAZEnabled, false);
});

test('redis: serverless is a cluster behind one endpoint', () => {
  assert.equal(only(full, 'AWS::ElastiCache::ServerlessCache').UserGroupId.Ref.startsWith('RedisUsers'), true);
  full.resourceCountIs('AWS::ElastiCache::ReplicationGroup', 0);
  assert.equal(environment(full, 'ServiceTask').REDIS_CLUSTER, 'true');
});

test('redis: each user may do its work only, by a password that is in no template', () => {
  const users = Object.values(usual.findResources('AWS::ElastiCache::User')).map((r) => r.Properties as Properties);
  assert.deepEqual(users.map((u) => u.UserName).sort(), ['service', 'sessions', 'wake']);
  for (const user of users) {
    assert.match(JSON.stringify(user.Passwords), /\{\{resolve:secretsmanager:/);
    assert.match(user.AccessString, /^on /);
    assert.ok(!/nopass|allcommands/.test(user.AccessString));
    if (user.UserName === 'service') {
      assert.match(user.AccessString, /-@admin -@dangerous/);
    } else {
      assert.match(user.AccessString, /-@all/);
      assert.ok(!/~\* /.test(user.AccessString));
    }
  }
});

/** Who reaches whom: every rule of the security groups, as "group port from/to". */
function reach(of: Template): string[] {
  const name = (v: any): string => {
    const id: string = v?.['Fn::GetAtt']?.[0] ?? '';
    return /^Network([A-Z][a-z]+)Group/.exec(id)?.[1] ?? JSON.stringify(v);
  };
  const rules: string[] = [];
  const add = (group: string, direction: string, peer: string, r: Properties) =>
    rules.push(`${group} ${direction} ${peer} ${r.IpProtocol} ${r.FromPort}${r.ToPort === r.FromPort ? '' : '-' + r.ToPort}`);
  for (const [id, { Properties: p }] of Object.entries(of.findResources('AWS::EC2::SecurityGroup'))) {
    const group = /^Network([A-Z][a-z]+)Group/.exec(id)![1]!;
    for (const r of p.SecurityGroupIngress ?? []) add(group, '<-', r.CidrIp, r);
    for (const r of p.SecurityGroupEgress ?? []) add(group, '->', r.CidrIp, r);
  }
  for (const { Properties: r } of Object.values(of.findResources('AWS::EC2::SecurityGroupIngress'))) {
    add(name(r.GroupId), '<-', name(r.SourceSecurityGroupId), r);
  }
  for (const { Properties: r } of Object.values(of.findResources('AWS::EC2::SecurityGroupEgress'))) {
    add(name(r.GroupId), '->', name(r.DestinationSecurityGroupId), r);
  }
  return rules.sort();
}

test('network: who reaches whom, all of it', () => {
  assert.deepEqual(reach(usual), [
    'Balancer -> Service tcp 8080',
    'Balancer <- 0.0.0.0/0 tcp 80',
    'Browsers -> 0.0.0.0/0 tcp 443',
    'Browsers -> 0.0.0.0/0 tcp 80',
    'Browsers -> Service tcp 8081',
    'Browsers <- Service tcp 8080',
    'Functions -> 0.0.0.0/0 tcp 443',
    'Functions -> Redis tcp 6379',
    // Not "everywhere" but nowhere: a group without rules would be open outwards.
    'Redis -> 255.255.255.255/32 icmp 252-86',
    'Redis <- Functions tcp 6379',
    'Redis <- Service tcp 6379',
    'Service -> 0.0.0.0/0 tcp 443',
    'Service -> Browsers tcp 8080',
    'Service -> Redis tcp 6379',
    'Service -> Service tcp 8080',
    'Service <- Balancer tcp 8080',
    'Service <- Browsers tcp 8081',
    'Service <- Service tcp 8080',
  ]);
  const narrow = reach(template({ allowFrom: '203.0.113.0/24', egressPorts: '8443' }));
  assert.ok(narrow.includes('Balancer <- 203.0.113.0/24 tcp 80'));
  assert.ok(!narrow.some((r) => r.startsWith('Balancer <- 0.0.0.0/0')));
  assert.deepEqual(narrow.filter((r) => r.startsWith('Browsers -> 0')), ['Browsers -> 0.0.0.0/0 tcp 443', 'Browsers -> 0.0.0.0/0 tcp 8443']);
});

test('network: browsers reach the service where they register, and nowhere else', () => {
  for (const of of [usual, full]) {
    const register = environment(of, 'ServiceTask').REGISTER_PORT;
    const { PortMappings: ports } = container(of, 'ServiceTask');
    assert.deepEqual(ports.map((p: Properties) => String(p.ContainerPort)), ['8080', register]);
    assert.deepEqual(reach(of).filter((r) => r.startsWith('Service <- Browsers')), [`Service <- Browsers tcp ${register}`]);
    assert.ok(!reach(of).some((r) => r.startsWith('Balancer -> ') && r.endsWith(` ${register}`)), 'the balancer reaches it');
  }
});

test('network: an existing VPC is used as it is', () => {
  full.resourceCountIs('AWS::EC2::VPC', 0);
  full.resourceCountIs('AWS::EC2::NatGateway', 0);
  const env = environment(full, 'ServiceTask');
  assert.equal(env.CONTAINER_SUBNETS, 'subnet-00000000000000003,subnet-00000000000000004');
  assert.equal(env.CONTAINER_CIDRS, '10.20.0.0/16');
  assert.deepEqual(only(full, 'AWS::ElasticLoadBalancingV2::LoadBalancer').Subnets, ['subnet-00000000000000001', 'subnet-00000000000000002']);
});

test('scaling: on what replicas carry, and inwards slowly', () => {
  const policies = Object.values(usual.findResources('AWS::ApplicationAutoScaling::ScalingPolicy'))
    .map((r) => r.Properties.TargetTrackingScalingPolicyConfiguration as Properties);
  const own = policies.filter((p) => p.CustomizedMetricSpecification).map((p) => p.CustomizedMetricSpecification);
  assert.deepEqual(own.map((m) => m.MetricName).sort(), ['Handshakes', 'RelayConnections']);
  for (const m of own) {
    assert.equal(m.Namespace, 'WallCrawler');
    assert.equal(m.Statistic, 'Average');
    assert.deepEqual(m.Dimensions, [{ Name: 'Deployment', Value: environment(usual, 'ServiceTask').DEPLOYMENT }]);
  }
  for (const p of policies) {
    assert.ok(p.ScaleInCooldown >= 900);
  }
  assert.equal(environment(usual, 'ServiceTask').EMF, 'true');
  usual.hasResourceProperties('AWS::ApplicationAutoScaling::ScalableTarget', { MinCapacity: 2, MaxCapacity: 10 });
});

test('alarms: each tells somebody, when it comes and when it goes', () => {
  const alarms = Object.values(usual.findResources('AWS::CloudWatch::Alarm')).map((r) => r.Properties as Properties);
  assert.equal(alarms.length, 18);
  for (const a of alarms) {
    assert.equal(a.AlarmActions.length, 1);
    assert.equal(a.OKActions.length, 1);
  }
  const leader = alarms.find((a) => a.MetricName === 'Leader')!;
  assert.equal(leader.TreatMissingData, 'breaching');
  assert.equal(leader.ComparisonOperator, 'LessThanThreshold');
  full.hasResourceProperties('AWS::SNS::Subscription', { Protocol: 'email', Endpoint: 'operators@example.com' });
});

test('alarms: each leads to a heading of the runbook that is there, and says what to do', () => {
  const page = fs.readFileSync(path.join(checkout, 'docs', 'runbook.md'), 'utf8');
  const sections = new Map(page.split('\n## ').slice(1).map((s) => [s.slice(0, s.indexOf('\n')).toLowerCase(), s]));
  for (const of of [usual, full]) {
    for (const [id, { Properties: a }] of Object.entries(of.findResources('AWS::CloudWatch::Alarm'))) {
      const [, what, anchor] = /^(.{10,})\. https:\/\/github\.com\/wallcrawler\/wallcrawler\/blob\/main\/docs\/runbook\.md#(\w+)$/.exec(a.AlarmDescription) ?? [];
      assert.ok(what !== undefined, `${id}: ${a.AlarmDescription}`);
      const section = sections.get(anchor!);
      assert.ok(section !== undefined, `${id}: docs/runbook.md has no heading ${anchor}`);
      for (const part of ['**Means.**', '**Look at**', '**Do**']) assert.ok(section.includes(part), `${anchor} lacks ${part}`);
    }
  }
});

test('logs: all of them end', () => {
  const groups = Object.values(template({ logDays: '14' }).findResources('AWS::Logs::LogGroup'));
  assert.equal(groups.length, 7);
  for (const g of groups) assert.equal(g.Properties.RetentionInDays, 14);
});

test('wake: changes of our tasks only, and old ones not at all', () => {
  const rule = only(usual, 'AWS::Events::Rule');
  assert.deepEqual(rule.EventPattern['detail-type'], ['ECS Task State Change']);
  assert.deepEqual(rule.EventPattern.detail.startedBy, [environment(usual, 'ServiceTask').DEPLOYMENT]);
  assert.equal(rule.EventPattern.detail.clusterArn.length, 1);
  assert.equal(rule.Targets[0].RetryPolicy.MaximumEventAgeInSeconds, 60);
  const wake = only(usual, 'AWS::Lambda::Function', 'FunctionsWake');
  assert.equal(wake.Environment.Variables.DEPLOYMENT, environment(usual, 'ServiceTask').DEPLOYMENT);
});

test('functions: clients are sent to the balancer, by the scheme that it speaks', () => {
  const url = (of: Template) => only(of, 'AWS::Lambda::Function', 'FunctionsCreate').Environment.Variables.CONNECT_URL;
  assert.match(JSON.stringify(url(usual)), /"ws:\/\/",\{"Fn::GetAtt":\["ServiceBalancer/);
  const { certificateArn, domainName } = kept.full!;
  assert.equal(url(template({ certificateArn: certificateArn!, domainName: domainName! })), `wss://${domainName}`);
});

test('functions: the original\'s routes, or none', () => {
  const routes = Object.values(usual.findResources('AWS::ApiGatewayV2::Route')).map((r) => r.Properties.RouteKey);
  assert.deepEqual(routes.sort(), ['DELETE /sessions/{id}', 'GET /sessions', 'GET /sessions/{id}', 'POST /sessions']);
  full.resourceCountIs('AWS::ApiGatewayV2::Api', 0);
  full.resourceCountIs('AWS::Lambda::Function', 1);
});

test('policies: no action is a pattern, and none is on everything but what cannot be named', () => {
  for (const of of [usual, full]) {
    for (const [id, { Properties: p }] of Object.entries(of.findResources('AWS::IAM::Policy'))) {
      for (const s of p.PolicyDocument.Statement) {
        const actions = [s.Action].flat();
        assert.ok(actions.every((a: string) => !a.includes('*')), `${id}: ${actions}`);
        if ([s.Resource].flat().includes('*')) {
          // ListTasks is held to the cluster by its condition; a registry's token names no image.
          assert.ok(['ecs:ListTasks', 'ecr:GetAuthorizationToken'].includes(actions.join()), `${id}: ${actions}`);
        }
      }
    }
  }
});

test('images: what is neither given nor there to be built is told', () => {
  const settings = { image: undefined, architecture: 'X86_64' } as Settings;
  assert.throws(() => image('image', 'Dockerfile.nowhere', settings), /image is not set.*Dockerfile\.nowhere.*-c image=/);
  assert.ok(image('image', 'Dockerfile', settings)); // it is built at the deployment, not now
});

test('README.md tells of every setting, and of none that is not there', () => {
  const root = path.join(checkout, 'deploy', 'cdk');
  const code = fs.readFileSync(path.join(root, 'lib', 'settings.ts'), 'utf8');
  const page = fs.readFileSync(path.join(root, 'README.md'), 'utf8');
  const read = [...code.matchAll(/\b(?:text|list|whole|choice|endpoint)\('(\w+)'/g)].map((m) => m[1]).sort();
  const told = [...page.matchAll(/^\| `(\w+)` \|/gm)].map((m) => m[1]).sort();
  assert.deepEqual(told, read);
});

test('traces: the collector can be reached, and its credentials are in no environment', () => {
  const env = environment(full, 'ServiceTask');
  assert.equal(env.OTEL_EXPORTER_OTLP_ENDPOINT, 'http://collector.example.com:4318');
  assert.equal(env.TRACES_PERCENT, '10');
  assert.equal(env.OTEL_EXPORTER_OTLP_HEADERS, undefined);
  const secrets = only(full, 'AWS::ECS::TaskDefinition', 'ServiceTask').ContainerDefinitions[0].Secrets as Properties[];
  assert.deepEqual(secrets.filter((s) => s.Name === 'OTEL_EXPORTER_OTLP_HEADERS').map((s) => s.ValueFrom), [kept.full!.tracesHeadersSecretArn]);
  assert.ok(reach(full).includes('Service -> 0.0.0.0/0 tcp 4318'));
  assert.deepEqual(Object.keys(environment(usual, 'ServiceTask')).filter((name) => /OTEL|TRACES/.test(name)), []);
  assert.throws(() => makeApp({ ...images, tracesEndpoint: 'collector:4318' }), /tracesEndpoint must be a URL/);
  assert.throws(() => makeApp({ ...images, tracesHeadersSecretArn: 'arn' }), /no use without tracesEndpoint/);
});

test('settings: all that is wrong is told at once', () => {
  const wrong = {
    deployment: 'Blue_', natGateways: 'two', redis: 'mongo', domainName: 'x.example.com', capacityProviders: 'EC2',
    allowFrom: 'anywhere', egressPorts: '0', minReplicas: '5', maxReplicas: '4', minContainers: '3', maxContainers: '2',
    logDays: '29', vpcId: 'vpc-1', availabilityZones: 'a', sessionsPerContainer: '1001',
  };
  assert.throws(() => makeApp({ ...images, ...wrong }), (error: Error) => {
    for (const name of ['deployment', 'natGateways', 'redis', 'certificateArn', 'capacityProviders', 'allowFrom', 'egressPorts',
      'maxReplicas', 'maxContainers', 'logDays', 'vpcCidr', 'availabilityZones', 'publicSubnetIds', 'sessionsPerContainer']) {
      assert.ok(error.message.includes(name), `${name} is not told: ${error.message}`);
    }
    return true;
  });
});
